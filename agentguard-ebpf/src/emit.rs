//! Records on the rings, and counters: the only writer of both.
//!
//! A full ring never changes a verdict: the record is dropped, and counted both
//! for the host and for its run, with the time of the first and last loss.

use core::ptr;

use agentguard_common::counter::Counter;
use agentguard_common::event::{
    Header, Kind, LONG_TAIL, LongRecord, NamedRecord, NamedTail, NetRecord, NetTail, Record, SHORT_TAIL, ShortRecord, flag,
};
use agentguard_common::identity::{PolicyRecord, RunRecord, Tag};
use agentguard_common::limits::{NAME_BYTES, PATH_BYTES, PATH_DEPTH};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Decision, Mode};
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_get_current_uid_gid, bpf_ktime_get_boot_ns, bpf_probe_read_kernel,
    bpf_ringbuf_reserve, bpf_ringbuf_submit,
};

use crate::address::Destination;
use crate::enforce::Settled;
use crate::kernel::{AbstractName, Dentry, Task};
use crate::maps::{AUDIT, COUNTERS, DENIALS, LINKED};
use crate::{atomic, fold, verifier};

/// Who a record is about.
#[derive(Clone, Copy)]
pub struct Subjected<'a> {
    /// Tag.
    pub tag: &'a Tag,
    /// Policy in force.
    pub policy: &'a PolicyRecord,
    /// Run, with its counters.
    pub run: *mut RunRecord,
}

/// `CLOCK_BOOTTIME` in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        atomic::add(value, 1);
    }
}

/// Tells of a decision about a path.
#[inline(never)]
pub fn path(subject: &Subjected<'_>, settled: Settled, dentry: Dentry) {
    let Some(fold) = fold::told_before(subject, settled, &fold::Object::path(dentry)) else {
        return;
    };
    if is_short(dentry) {
        path_record::<ShortRecord, SHORT_TAIL>(subject, settled, Kind::Path, dentry, fold);
    } else {
        path_record::<LongRecord, LONG_TAIL>(subject, settled, Kind::Path, dentry, fold);
    }
}

/// Tells of a new process image.
#[inline(never)]
pub fn exec(subject: &Subjected<'_>, dentry: Dentry) {
    let settled = Settled::new(Decision::builtin(), Verb::Exec);
    if is_short(dentry) {
        path_record::<ShortRecord, SHORT_TAIL>(subject, settled, Kind::Exec, dentry, 0);
    } else {
        path_record::<LongRecord, LONG_TAIL>(subject, settled, Kind::Exec, dentry, 0);
    }
}

/// Tells the daemon of one of the two names of a file that is being linked, whoever does it.
#[inline(never)]
pub fn linked(file: Dentry, name: Dentry) {
    if is_short(name) {
        link_record::<ShortRecord, SHORT_TAIL>(file, name);
    } else {
        link_record::<LongRecord, LONG_TAIL>(file, name);
    }
}

/// Whether a path fits into a short record.
#[inline(always)]
fn is_short(dentry: Dentry) -> bool {
    verifier::forget(path_length(dentry)) <= (SHORT_TAIL - 1) as u32 / 2
}

/// Bytes of a path inside its file system.
#[inline(always)]
fn path_length(dentry: Dentry) -> u32 {
    let mut measure = Measure { at: dentry, length: verifier::forget(0) };
    verifier::repeat(PATH_DEPTH, measure_name, &mut measure);
    measure.length
}

struct Measure {
    at: Dentry,
    length: u32,
}

unsafe extern "C" fn measure_name(_: u64, measure: *mut Measure) -> u64 {
    // SAFETY: the state that `path_length` gave.
    let measure = unsafe { &mut *measure };
    let parent = measure.at.parent();
    if parent == measure.at {
        return 1;
    }
    measure.length = verifier::forget(measure.length + measure.at.name_len() + 1);
    measure.at = parent;
    0
}

/// Tells of a decision about a path. `R` is `Record<TAIL>`; the tail is a power of two plus
/// room for one name.
#[inline(always)]
fn path_record<R, const TAIL: usize>(
    subject: &Subjected<'_>,
    settled: Settled,
    kind: Kind,
    dentry: Dentry,
    fold: u64,
) {
    let Some(record) = reserve::<R>(subject, settled) else {
        return;
    };
    let record: *mut Record<TAIL> = record.cast();
    // SAFETY: freshly reserved for a Record<TAIL>.
    let header = unsafe { &raw mut (*record).header };
    fill(header, subject, settled, kind);
    // SAFETY: as above.
    unsafe { (*header).fold = fold };
    write_path(record, dentry, dentry);
    submit(record.cast());
}

/// Tells of a name of a file that is being linked.
#[inline(always)]
fn link_record<R, const TAIL: usize>(file: Dentry, name: Dentry) {
    // SAFETY: helper call on a ring map with a constant size.
    let record = unsafe {
        let ring = ptr::from_ref(&LINKED).cast_mut().cast();
        bpf_ringbuf_reserve(ring, size_of::<R>() as u64, 0)
    };
    if record.is_null() {
        count(Counter::LinkUntold);
        return;
    }
    let record: *mut Record<TAIL> = record.cast();
    for word in 0..size_of::<Header>() / 8 {
        // SAFETY: freshly reserved for a header and more, in whole words.
        unsafe { record.cast::<u64>().add(word).write_volatile(0) };
    }
    // SAFETY: as above.
    unsafe {
        (*record).header.boot_ns = now();
        (*record).header.kind = Kind::Linked as u8;
    }
    write_path(record, name, file);
    submit(record.cast());
}

/// Writes a name's path from its end, so that one walk up is enough, and what file it is.
#[inline(always)]
fn write_path<const TAIL: usize>(record: *mut Record<TAIL>, name: Dentry, file: Dentry) {
    // SAFETY: callers reserved it.
    let tail: *mut u8 = unsafe { (&raw mut (*record).tail).cast() };
    let room = room::<TAIL>();
    let mut write = Write { at: name, tail, start: verifier::forget(room), cut: 1 };
    verifier::repeat(PATH_DEPTH + 1, write_name::<TAIL>, &mut write);
    let (start, cut) = (write.start, write.cut != 0);
    // SAFETY: as above.
    let header = unsafe { &raw mut (*record).header };
    // SAFETY: as above.
    unsafe {
        (*header).device = file.super_block().device();
        (*header).inode = file.inode_number();
        (*header).tail_start = start as u16;
        (*header).tail_len = (room - start) as u16;
        if cut {
            (*header).flags |= flag::PATH_CUT;
        }
    }
}

/// A path that is being written.
struct Write {
    at: Dentry,
    tail: *mut u8,
    start: u32,
    cut: u32,
}

/// Bytes in front of which names start. With the slash before it, a name that
/// starts below is inside the tail.
#[inline(always)]
const fn room<const TAIL: usize>() -> u32 {
    if TAIL == SHORT_TAIL { SHORT_TAIL as u32 / 2 } else { PATH_BYTES as u32 }
}

unsafe extern "C" fn write_name<const TAIL: usize>(_: u64, write: *mut Write) -> u64 {
    // SAFETY: the state that `write_path` gave.
    let write = unsafe { &mut *write };
    let parent = write.at.parent();
    if parent == write.at {
        write.cut = 0;
        return 1;
    }
    let len = write.at.name_len();
    if len == 0 || len > NAME_BYTES as u32 || len + 1 > write.start {
        return 1;
    }
    let start = verifier::forget(write.start - (len + 1));
    write.start = start;
    // The masks change nothing (a name that fits in the short room is short); they
    // are what the verifier can follow.
    let (offset, len) = if TAIL == SHORT_TAIL {
        (verifier::bounded::<127>(u64::from(start)), verifier::bounded::<127>(u64::from(len)))
    } else {
        (verifier::bounded::<4095>(u64::from(start)), verifier::bounded::<255>(u64::from(len)))
    };
    // SAFETY: offset is below the room, and a slash and a name fit behind the room.
    unsafe {
        *write.tail.add(offset as usize) = b'/';
        let name = write.at.name() as *const core::ffi::c_void;
        bpf_probe_read_kernel(write.tail.add(offset as usize + 1).cast(), len as u32, name);
    }
    write.at = parent;
    0
}

/// Tells of a decision about an address. `OF_TASK`: the running task's; else a socket's.
#[inline(always)]
pub fn net<const OF_TASK: bool>(subject: &Subjected<'_>, settled: Settled, to: &Destination) {
    // One after the other: each has the stack for itself.
    if let Some(fold) = fold::address_told_before::<OF_TASK>(subject, settled, to) {
        net_record::<OF_TASK>(subject, settled, to, fold);
    }
}

#[inline(never)]
fn net_record<const OF_TASK: bool>(subject: &Subjected<'_>, settled: Settled, to: &Destination, fold: u64) {
    let Some(record) = reserve::<NetRecord>(subject, settled) else {
        return;
    };
    let record: *mut NetRecord = record.cast();
    // SAFETY: freshly reserved for a NetRecord.
    let header = unsafe { &raw mut (*record).header };
    fill_for::<OF_TASK>(header, subject, settled, Kind::Net);
    // SAFETY: as above; the tail is exactly a NetTail and starts 8-byte aligned.
    unsafe {
        (*header).fold = fold;
        (*header).tail_len = size_of::<NetTail>() as u16;
        let tail: *mut NetTail = (&raw mut (*record).tail).cast();
        *tail = net_tail(to);
    }
    submit(record.cast());
}

/// Tells of a decision about an abstract name of a unix socket.
#[inline(always)]
pub fn abstract_name(subject: &Subjected<'_>, settled: Settled, name: AbstractName) {
    // One after the other: each has the stack for itself.
    if let Some(fold) = fold::abstract_told_before(subject, settled, name) {
        abstract_record(subject, settled, name, fold);
    }
}

#[inline(never)]
fn abstract_record(subject: &Subjected<'_>, settled: Settled, name: AbstractName, fold: u64) {
    let Some(record) = reserve::<ShortRecord>(subject, settled) else {
        return;
    };
    let record: *mut ShortRecord = record.cast();
    // SAFETY: freshly reserved for a ShortRecord.
    let header = unsafe { &raw mut (*record).header };
    fill(header, subject, settled, Kind::Abstract);
    // The mask changes nothing: `sun_path` has 108 bytes.
    let len = verifier::bounded::<127>(u64::from(name.len));
    // SAFETY: as above; fewer bytes than the tail has.
    unsafe {
        let from = name.address as *const core::ffi::c_void;
        bpf_probe_read_kernel((&raw mut (*record).tail).cast(), len as u32, from);
        (*header).tail_len = len as u16;
        (*header).fold = fold;
    }
    submit(record.cast());
}

/// Tells that a connection was cut for the server that it is for. `name` points to at least
/// 256 bytes, of which the first `len` are the name.
#[inline(never)]
pub fn server_name(subject: &Subjected<'_>, settled: Settled, connection: &Connection, name: *const u8, len: u32) {
    let Some(record) = reserve::<NamedRecord>(subject, settled) else {
        return;
    };
    let record: *mut NamedRecord = record.cast();
    // SAFETY: freshly reserved for a NamedRecord.
    let header = unsafe { &raw mut (*record).header };
    fill_for::<false>(header, subject, settled, Kind::ServerName);
    let to = &connection.to;
    // SAFETY: as above; the tail is exactly a NamedTail and starts 8-byte aligned.
    unsafe {
        (*header).tail_len = size_of::<NamedTail>() as u16;
        let tail: *mut NamedTail = (&raw mut (*record).tail).cast();
        (*tail).to = net_tail(to);
        (*tail).from = connection.from;
        (*tail).cookie = connection.cookie;
        (*tail).from_port = connection.from_port;
        (*tail).name_len = len as u16;
        (*tail).reserved = 0;
        bpf_probe_read_kernel((&raw mut (*tail).name).cast(), 256, name.cast());
    }
    submit(record.cast());
}

/// A connection, from end to end.
pub struct Connection {
    /// Where it goes.
    pub to: Destination,
    /// The address that it comes from, big-endian words; IPv4 in the first.
    pub from: [u32; 4],
    /// The kernel's number of the socket.
    pub cookie: u64,
    /// The port that it comes from.
    pub from_port: u16,
}

/// A place as records have it.
#[inline(always)]
pub fn net_tail(to: &Destination) -> NetTail {
    NetTail {
        address: to.address.words,
        port: to.port,
        family: to.family,
        transport: to.transport as u8,
        is_v4: to.address.is_v4 as u8,
        protocol: to.protocol,
    }
}

/// Tells that a process or a run ended.
#[inline(always)]
pub fn ended(subject: &Subjected<'_>, kind: Kind, code: i32) {
    let settled = Settled::new(Decision::builtin(), Verb::Exec);
    let Some(record) = reserve::<Header>(subject, settled) else {
        return;
    };
    let header: *mut Header = record.cast();
    fill(header, subject, settled, kind);
    // SAFETY: freshly reserved for a Header.
    unsafe { (*header).code = code };
    submit(record);
}

/// Takes room for `R` on the ring that the decision belongs to.
#[inline(always)]
fn reserve<R>(subject: &Subjected<'_>, settled: Settled) -> Option<*mut core::ffi::c_void> {
    let denied = !settled.allows();
    let size = size_of::<R>() as u64;
    // Two calls, not one with a chosen map: the verifier wants a known map each.
    // SAFETY: helper calls on ring maps with a constant size.
    let record = unsafe {
        if denied {
            bpf_ringbuf_reserve(ptr::from_ref(&DENIALS).cast_mut().cast(), size, 0)
        } else {
            bpf_ringbuf_reserve(ptr::from_ref(&AUDIT).cast_mut().cast(), size, 0)
        }
    };
    if record.is_null() {
        lost(subject, denied);
        return None;
    }
    Some(record)
}

/// Counts a record that found no room.
#[inline(always)]
fn lost(subject: &Subjected<'_>, denied: bool) {
    let why = if denied { Counter::DenialDropped } else { Counter::AuditDropped };
    untold(subject.run, why);
}

/// Counts something that a run did and that cannot be told.
#[inline(always)]
pub fn untold(run: *mut RunRecord, why: Counter) {
    count(why);
    let time = now();
    // SAFETY: map memory, shared by atomics only.
    unsafe {
        atomic::add(&raw mut (*run).events, 1);
        atomic::add(&raw mut (*run).lost, 1);
        if (*run).first_lost == 0 {
            (*run).first_lost = time;
        }
        (*run).last_lost = time;
    }
}

/// Fills a header in; every field is set, so no old ring bytes get out.
#[inline(always)]
fn fill(header: *mut Header, subject: &Subjected<'_>, settled: Settled, kind: Kind) {
    fill_for::<true>(header, subject, settled, kind);
}

/// The same; of no task where a socket does it, whoever runs.
#[inline(always)]
fn fill_for<const OF_TASK: bool>(
    header: *mut Header,
    subject: &Subjected<'_>,
    settled: Settled,
    kind: Kind,
) {
    let (mut ids, mut owner, mut cgroup, mut parent) = (0, 0, 0, 0);
    if OF_TASK {
        parent = Task::current().real_parent().tgid();
        // SAFETY: helpers without arguments.
        (ids, owner, cgroup) = unsafe {
            (bpf_get_current_pid_tgid(), bpf_get_current_uid_gid(), bpf_get_current_cgroup_id())
        };
    }
    // SAFETY: map memory, shared by atomics only.
    let before = atomic::add(unsafe { &raw mut (*subject.run).events }, 1);
    // SAFETY: the caller reserved at least a header; the command name helper gets its 16 bytes.
    unsafe {
        (*header).boot_ns = now();
        (*header).run_seq = before + 1;
        (*header).cgroup = cgroup;
        (*header).inode = 0;
        (*header).fold = 0;
        (*header).tag.agent = subject.tag.agent;
        (*header).tag.run = subject.tag.run;
        (*header).tag.run_serial = subject.tag.run_serial;
        (*header).generation = subject.policy.generation;
        (*header).pid = (ids >> 32) as u32;
        (*header).tid = ids as u32;
        (*header).ppid = parent;
        (*header).uid = owner as u32;
        (*header).device = 0;
        (*header).code = 0;
        (*header).count = 1;
        (*header).rule = settled.rule();
        (*header).tail_len = 0;
        (*header).tail_start = 0;
        (*header).kind = kind as u8;
        (*header).verb = settled.verb();
        (*header).verdict = settled.verdict();
        (*header).reason = settled.reason();
        (*header).mode = subject.policy.mode;
        (*header).flags = flags(subject, settled);
        if OF_TASK {
            // It clears the buffer itself when it fails.
            bpf_get_current_comm((&raw mut (*header).comm).cast(), 16);
        } else {
            (*header).comm = [0; 16];
        }
    }
}

/// What [`Header::flags`] says of a decision.
#[inline(always)]
pub fn flags(subject: &Subjected<'_>, settled: Settled) -> u8 {
    let observed = subject.policy.mode == Mode::Observe as u8
        && !settled.allows()
        && !settled.about_the_run();
    if observed { flag::NOT_BLOCKED } else { 0 }
}

#[inline(always)]
fn submit(record: *mut core::ffi::c_void) {
    // SAFETY: a record that `reserve` returned, given back once.
    unsafe { bpf_ringbuf_submit(record, 0) };
}

const _: () = assert!(PATH_BYTES.is_power_of_two() && SHORT_TAIL.is_power_of_two());

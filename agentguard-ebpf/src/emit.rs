//! Records on the rings, and counters: the only writer of both.
//!
//! A full ring never changes a verdict: the record is dropped, and counted both
//! for the host and for its run, with the time of the first and last loss.

use core::ptr;

use agentguard_common::counter::Counter;
use agentguard_common::event::{
    Header, Kind, LongRecord, NetRecord, NetTail, Record, SHORT_TAIL, ShortRecord, flag,
};
use agentguard_common::identity::{PolicyRecord, RunRecord, Tag};
use agentguard_common::limits::{NAME_BYTES, PATH_BYTES, PATH_DEPTH};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Decision, Mode, Reason, Verdict};
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_get_current_uid_gid, bpf_ktime_get_boot_ns, bpf_probe_read_kernel,
    bpf_ringbuf_reserve, bpf_ringbuf_submit,
};

use crate::address::Destination;
use crate::atomic;
use crate::kernel::{Dentry, Task};
use crate::maps::{AUDIT, COUNTERS, DENIALS};

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
pub fn path(subject: &Subjected<'_>, decision: Decision, verb: Verb, dentry: Dentry) {
    path_record(subject, decision, verb, Kind::Path, dentry);
}

/// Tells of a new process image.
#[inline(never)]
pub fn exec(subject: &Subjected<'_>, dentry: Dentry) {
    path_record(subject, Decision::builtin(), Verb::Exec, Kind::Exec, dentry);
}

#[inline(always)]
fn path_record(
    subject: &Subjected<'_>,
    decision: Decision,
    verb: Verb,
    kind: Kind,
    dentry: Dentry,
) {
    // One name more than fits leaves the writer room to prove its bounds.
    if path_length(dentry) <= (SHORT_TAIL - 1) as u32 / 2 {
        write_path::<ShortRecord, SHORT_TAIL>(subject, decision, verb, kind, dentry);
    } else {
        write_path::<LongRecord, { agentguard_common::event::LONG_TAIL }>(
            subject, decision, verb, kind, dentry,
        );
    }
}

/// Bytes of a path inside its file system.
#[inline(always)]
fn path_length(dentry: Dentry) -> u32 {
    let mut at = dentry;
    let mut length = 0;
    for _ in 0..PATH_DEPTH {
        let parent = at.parent();
        if parent == at {
            break;
        }
        length += (at.name_len() & 0xff) + 1;
        at = parent;
    }
    length
}

/// Writes a path from its end, so that one walk up is enough. `R` is
/// `Record<TAIL>`; the tail is a power of two plus room for one name.
#[inline(always)]
fn write_path<R, const TAIL: usize>(
    subject: &Subjected<'_>,
    decision: Decision,
    verb: Verb,
    kind: Kind,
    dentry: Dentry,
) {
    let Some(record) = reserve::<R>(subject, decision) else {
        return;
    };
    let record: *mut Record<TAIL> = record.cast();
    // SAFETY: freshly reserved for a Record<TAIL>.
    let header = unsafe { &raw mut (*record).header };
    fill(header, subject, decision, verb, kind);
    // SAFETY: as above.
    let tail: *mut u8 = unsafe { (&raw mut (*record).tail).cast() };
    let super_block = dentry.super_block();
    let room = (TAIL - if TAIL == SHORT_TAIL { SHORT_TAIL / 2 } else { 256 }) as u32;
    let mut start = room;
    let mut cut = true;
    let mut at = dentry;
    for _ in 0..=PATH_DEPTH {
        let parent = at.parent();
        if parent == at {
            cut = false;
            break;
        }
        let len = at.name_len();
        if len == 0 || len > NAME_BYTES as u32 || len + 1 > start {
            break;
        }
        start -= len + 1;
        // The mask changes nothing (start < room); it is what the verifier can follow.
        let offset = start & (room.next_power_of_two() - 1);
        // SAFETY: offset is below the room, and a name and a slash fit behind the room.
        unsafe {
            *tail.add(offset as usize) = b'/';
            let name = at.name() as *const core::ffi::c_void;
            bpf_probe_read_kernel(tail.add(offset as usize + 1).cast(), len, name);
        }
        at = parent;
    }
    let inode = dentry.inode();
    // SAFETY: the header of our record.
    unsafe {
        (*header).device = super_block.device();
        (*header).inode = if inode.0.is_null() { 0 } else { inode.number() };
        (*header).tail_start = start as u16;
        (*header).tail_len = (room - start) as u16;
        if cut {
            (*header).flags |= flag::PATH_CUT;
        }
    }
    submit(record.cast());
}

/// Tells of a decision about an address.
#[inline(never)]
pub fn net(subject: &Subjected<'_>, decision: Decision, verb: Verb, to: &Destination) {
    let Some(record) = reserve::<NetRecord>(subject, decision) else {
        return;
    };
    let record: *mut NetRecord = record.cast();
    // SAFETY: freshly reserved for a NetRecord.
    let header = unsafe { &raw mut (*record).header };
    fill(header, subject, decision, verb, Kind::Net);
    // SAFETY: as above; the tail is exactly a NetTail and starts 8-byte aligned.
    unsafe {
        (*header).tail_len = size_of::<NetTail>() as u16;
        let tail: *mut NetTail = (&raw mut (*record).tail).cast();
        (*tail).address = to.address.words;
        (*tail).port = to.port;
        (*tail).family = to.family;
        (*tail).transport = to.transport as u8;
        (*tail).is_v4 = to.address.is_v4 as u8;
        (*tail).protocol = to.protocol;
    }
    submit(record.cast());
}

/// Tells that a process or a run ended.
#[inline(always)]
pub fn ended(subject: &Subjected<'_>, kind: Kind, code: i32) {
    let Some(record) = reserve::<Header>(subject, Decision::builtin()) else {
        return;
    };
    let header: *mut Header = record.cast();
    fill(header, subject, Decision::builtin(), Verb::Exec, kind);
    // SAFETY: freshly reserved for a Header.
    unsafe { (*header).code = code };
    submit(record);
}

/// Takes room for `R` on the ring that the decision belongs to.
#[inline(always)]
fn reserve<R>(subject: &Subjected<'_>, decision: Decision) -> Option<*mut core::ffi::c_void> {
    let denied = decision.verdict as u8 != Verdict::Allow as u8;
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
    count(if denied { Counter::DenialDropped } else { Counter::AuditDropped });
    let time = now();
    // SAFETY: map memory, shared by atomics only.
    unsafe {
        atomic::add(&raw mut (*subject.run).events, 1);
        atomic::add(&raw mut (*subject.run).lost, 1);
        if (*subject.run).first_lost == 0 {
            (*subject.run).first_lost = time;
        }
        (*subject.run).last_lost = time;
    }
}

/// Fills a header in; every field is set, so no old ring bytes get out.
#[inline(always)]
fn fill(
    header: *mut Header,
    subject: &Subjected<'_>,
    decision: Decision,
    verb: Verb,
    kind: Kind,
) {
    let task = Task::current();
    // SAFETY: helpers without arguments.
    let (ids, owner) = unsafe { (bpf_get_current_pid_tgid(), bpf_get_current_uid_gid()) };
    // SAFETY: map memory, shared by atomics only.
    let before = atomic::add(unsafe { &raw mut (*subject.run).events }, 1);
    let observed = subject.policy.mode == Mode::Observe as u8
        && decision.verdict as u8 != Verdict::Allow as u8
        && !matches!(
            decision.reason,
            Reason::Revoked | Reason::Paused | Reason::LeaseExpired | Reason::Unknown
        );
    // SAFETY: the caller reserved at least a header; the command name helper gets its 16 bytes.
    unsafe {
        (*header).boot_ns = now();
        (*header).run_seq = before + 1;
        (*header).cgroup = bpf_get_current_cgroup_id();
        (*header).inode = 0;
        (*header).tag = *subject.tag;
        (*header).generation = subject.policy.generation;
        (*header).pid = (ids >> 32) as u32;
        (*header).tid = ids as u32;
        (*header).ppid = task.real_parent().tgid();
        (*header).uid = owner as u32;
        (*header).device = 0;
        (*header).code = 0;
        (*header).count = 1;
        (*header).rule = decision.rule;
        (*header).tail_len = 0;
        (*header).tail_start = 0;
        (*header).kind = kind as u8;
        (*header).verb = verb as u8;
        (*header).verdict = decision.verdict as u8;
        (*header).reason = decision.reason as u8;
        (*header).mode = subject.policy.mode;
        (*header).flags = if observed { flag::NOT_BLOCKED } else { 0 };
        let comm = (&raw mut (*header).comm).cast();
        if bpf_get_current_comm(comm, 16) != 0 {
            (*header).comm = [0; 16];
        }
    }
}

#[inline(always)]
fn submit(record: *mut core::ffi::c_void) {
    // SAFETY: a record that `reserve` returned, given back once.
    unsafe { bpf_ringbuf_submit(record, 0) };
}

const _: () = assert!(PATH_BYTES.is_power_of_two() && SHORT_TAIL.is_power_of_two());

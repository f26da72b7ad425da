//! Repeats: the same process, decided the same way about the same name or address, is told
//! once and then counted, until the daemon collects the counts (every second). Nothing is
//! lost by that: what cannot be counted is told.

use agentguard_common::event::{Fold, FoldKey, Kind};
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_probe_read_kernel,
};

use crate::address::Destination;
use crate::emit::{self, Subjected};
use crate::enforce::Settled;
use crate::kernel::{AbstractName, Dentry};
use crate::maps::FOLDS;
use crate::{atomic, hash, verifier};

/// What a decision is about, as far as repeats are concerned.
#[derive(Clone, Copy)]
pub struct Object {
    /// A hash of its name or address.
    what: u64,
    kind: Kind,
    device: u32,
    inode: u64,
}

impl Object {
    /// A name in a directory, whatever has it.
    #[inline(always)]
    pub fn path(dentry: Dentry) -> Self {
        let directory = dentry.parent();
        let mut what = hash::with(hash::START, verifier::number(directory.0 as u64));
        what = hash::with(what, directory.inode_number());
        what = hash::with(what, dentry.name_hash());
        Self {
            what,
            kind: Kind::Path,
            device: dentry.super_block().device(),
            inode: dentry.inode_number(),
        }
    }

    /// An address and a port.
    #[inline(always)]
    pub fn address(to: &Destination) -> Self {
        let [a, b, c, d] = to.address.words;
        let kind = u64::from(to.port)
            | u64::from(to.family) << 16
            | u64::from(to.protocol) << 32
            | u64::from(to.transport as u8) << 48;
        let mut what = hash::with(hash::START, u64::from(a) << 32 | u64::from(b));
        what = hash::with(what, u64::from(c) << 32 | u64::from(d));
        what = hash::with(what, kind);
        Self { what, kind: Kind::Net, device: 0, inode: 0 }
    }
}

/// Counts a decision if it is a repeat: `None`. Else it is to be told, with the number under
/// which its repeats will be counted; 0: there is no room to count them.
#[inline(never)]
pub fn told_before(subject: &Subjected<'_>, settled: Settled, object: &Object) -> Option<u64> {
    match count::<true>(subject, settled, object) {
        REPEAT => None,
        what => Some(what),
    }
}

/// The same for an address. `OF_TASK`: the running task does it; else a socket does, whoever
/// runs, and programs of that kind may not ask who that is.
#[inline(never)]
pub fn address_told_before<const OF_TASK: bool>(
    subject: &Subjected<'_>,
    settled: Settled,
    to: &Destination,
) -> Option<u64> {
    match count::<OF_TASK>(subject, settled, &Object::address(to)) {
        REPEAT => None,
        what => Some(what),
    }
}

/// The same for an abstract name of a unix socket.
#[inline(never)]
pub fn abstract_told_before(
    subject: &Subjected<'_>,
    settled: Settled,
    name: AbstractName,
) -> Option<u64> {
    let what = agentguard_hash_name(name.address, name.len);
    let object = Object { what, kind: Kind::Abstract, device: 0, inode: 0 };
    match count::<true>(subject, settled, &object) {
        REPEAT => None,
        what => Some(what),
    }
}

/// A hash of up to 127 bytes of kernel memory: `sun_path` has 108. Bytes that cannot be read
/// count as zeros. A global function of plain numbers: verified once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_hash_name(address: u64, len: u32) -> u64 {
    let mut words = [0u64; 16];
    let bytes = verifier::bounded::<127>(u64::from(len)) as u32;
    let from = address as *const core::ffi::c_void;
    // SAFETY: fewer bytes than the array has; the helper does not fault.
    unsafe { bpf_probe_read_kernel((&raw mut words).cast(), bytes, from) };
    let mut sum = hash::with(hash::START, u64::from(len));
    for word in words {
        sum = hash::with(sum, word);
    }
    sum
}

/// What [`count`] returns for a repeat.
const REPEAT: u64 = u64::MAX;

#[inline(always)]
fn count<const OF_TASK: bool>(
    subject: &Subjected<'_>,
    settled: Settled,
    object: &Object,
) -> u64 {
    // SAFETY: helper without arguments.
    let pid = if OF_TASK { (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32 } else { 0 };
    let mut what = hash::with(object.what, settled.word() | u64::from(pid) << 32);
    what = hash::with(what, u64::from(subject.policy.generation)) >> 1 | 1;
    let key = FoldKey { run_serial: subject.tag.run_serial, what };
    if let Some(known) = FOLDS.get_ptr_mut(&key) {
        // SAFETY: map memory, shared by atomics only.
        unsafe {
            atomic::add(&raw mut (*known).count, 1);
            atomic::add(&raw mut (*subject.run).folded, 1);
        }
        return REPEAT;
    }
    // SAFETY: helper without arguments.
    let owner = if OF_TASK { unsafe { bpf_get_current_uid_gid() } } else { 0 };
    let first = Fold {
        count: 0,
        first_ns: emit::now(),
        inode: object.inode,
        device: object.device,
        pid,
        agent: subject.tag.agent,
        run: subject.tag.run,
        generation: subject.policy.generation,
        uid: owner as u32,
        rule: settled.rule(),
        kind: object.kind as u8,
        verb: settled.verb(),
        verdict: settled.verdict(),
        reason: settled.reason(),
        mode: subject.policy.mode,
        flags: emit::flags(subject, settled),
    };
    // Full, or another processor was first: told by itself.
    match FOLDS.insert(&key, &first, u64::from(BPF_NOEXIST)) {
        Ok(()) => what,
        Err(_) => 0,
    }
}

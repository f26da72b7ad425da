//! The decision function behind programs that `BPF_PROG_TEST_RUN` repeats, so that
//! its cost can be measured in nanoseconds on hosts that refuse LSM programs. They
//! use the maps of a running daemon and judge the task that runs them. Not part of
//! the product: `cargo xtask bench` builds and loads it.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "atomic addition, see atomic.rs")]
#![expect(dead_code, reason = "the modules are the product's, whole")]

#[path = "../address.rs"]
mod address;
#[path = "../atomic.rs"]
mod atomic;
#[path = "../emit.rs"]
mod emit;
#[path = "../enforce.rs"]
mod enforce;
#[path = "../kernel.rs"]
mod kernel;
#[path = "../maps.rs"]
mod maps;
#[path = "../path.rs"]
mod path;
#[path = "../task.rs"]
mod task;
#[path = "../verifier.rs"]
mod verifier;

use agentguard_common::decision::{self, Subject};
use agentguard_common::identity::Tag;
use agentguard_common::net::{Address, Transport};
use agentguard_common::verb::{Verb, Verbs};
use agentguard_common::verdict::Decision;
use aya_ebpf::Global;
use aya_ebpf::macros::socket_filter;
use aya_ebpf::programs::SkBuffContext;

use crate::address::Destination;
use crate::kernel::{Dentry, Task};
use crate::maps::{HEADS, POLICIES, RUNS};

/// `task_struct.fs`
#[unsafe(no_mangle)]
pub static TASK_FS: Global<u64> = Global::new(0);
/// `fs_struct.pwd.dentry`
#[unsafe(no_mangle)]
pub static FS_PWD: Global<u64> = Global::new(0);
/// IPv4 address, first byte highest.
#[unsafe(no_mangle)]
pub static TO_ADDRESS: Global<u32> = Global::new(0);
/// UDP port.
#[unsafe(no_mangle)]
pub static TO_PORT: Global<u32> = Global::new(0);

/// What the test run returns: a verdict as a number, or this.
const UNTAGGED: i64 = 9;

/// Returns at once.
#[socket_filter]
pub fn floor(_: SkBuffContext) -> i64 {
    UNTAGGED
}

/// Finds the tag, as every hook does first.
#[socket_filter]
pub fn tagged(_: SkBuffContext) -> i64 {
    match enforce::tagged(0) {
        Some(tag) => i64::from(tag.agent != 0),
        None => UNTAGGED,
    }
}

/// Decides `write` on the working directory: tag, records, names, rules.
#[socket_filter]
pub fn decide_path(_: SkBuffContext) -> i64 {
    judge(|subject| {
        let dentry = working_directory();
        match path::row(subject.policy, dentry) {
            // SAFETY: checked for null; rows of a policy in force are not rewritten.
            Ok(path::Found::Row(row)) => match unsafe { row.as_ref() } {
                Some(row) => decision::decide_path(subject, Verbs::of(Verb::Write), row).0,
                None => Decision::builtin(),
            },
            Ok(path::Found::Builtin) => Decision::builtin(),
            Err(reason) => Decision::deny(reason),
        }
    })
}

/// Decides `connect` to the constant address: tag, records, address, rules.
#[socket_filter]
pub fn decide_net(_: SkBuffContext) -> i64 {
    judge(|subject| {
        let to = destination();
        match address::lookup(subject.policy.connect.v4, &to.address, to.transport, to.port) {
            Some(matched) => decision::decide_net(subject, Verb::Connect, matched),
            None => Decision::builtin(),
        }
    })
}

/// The same as a hook does it: counted, recorded where it is to be, turned into an errno.
#[socket_filter]
pub fn whole_path(_: SkBuffContext) -> i64 {
    match enforce::tagged(0) {
        Some(tag) => {
            i64::from(enforce::path(&tag, working_directory(), Verbs::of(Verb::Read)) == 0)
        }
        None => UNTAGGED,
    }
}

/// The same as a hook does it.
#[socket_filter]
pub fn whole_net(_: SkBuffContext) -> i64 {
    match enforce::tagged(0) {
        Some(tag) => i64::from(enforce::net(&tag, Verb::Connect, &destination()) == 0),
        None => UNTAGGED,
    }
}

#[inline(always)]
fn judge(decide: impl FnOnce(&Subject<'_>) -> Decision) -> i64 {
    let Some(tag) = enforce::tagged(0) else {
        return UNTAGGED;
    };
    match with_subject(tag, decide) {
        Some(decision) => decision.verdict as i64,
        None => 0,
    }
}

#[inline(always)]
fn with_subject(tag: Tag, decide: impl FnOnce(&Subject<'_>) -> Decision) -> Option<Decision> {
    let policy = POLICIES.get(*HEADS.get(tag.agent)?)?;
    let run = RUNS.get_ptr_mut(tag.run)?;
    // SAFETY: map memory that outlives the program.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    Some(match decision::standing(&subject, emit::now) {
        Some(decision) => decision,
        None => decide(&subject),
    })
}

#[inline(always)]
fn working_directory() -> Dentry {
    let task = Task::current();
    // SAFETY: BTF-typed loads, which the verifier checks against the kernel's types.
    unsafe {
        let fs = task.0.add(TASK_FS.load() as usize).cast::<*const u8>().read_volatile();
        Dentry(fs.add(FS_PWD.load() as usize).cast::<*const u8>().read_volatile())
    }
}

#[inline(always)]
fn destination() -> Destination {
    Destination {
        address: Address::v4(TO_ADDRESS.load()),
        port: TO_PORT.load() as u16,
        family: address::INET,
        transport: Transport::Udp,
        protocol: 17,
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

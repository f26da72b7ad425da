//! The decision function behind programs that `BPF_PROG_TEST_RUN` repeats, so that
//! its cost can be measured in nanoseconds on hosts that refuse LSM programs. They
//! use the maps of a running daemon and judge the task that runs them. Not part of
//! the product: `cargo xtask bench` builds and loads it.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "atomic addition, see atomic.rs")]
#![expect(dead_code, unused_imports, reason = "the modules are the product's, whole")]

#[path = "../address.rs"]
mod address;
#[path = "../atomic.rs"]
mod atomic;
#[path = "../emit.rs"]
mod emit;
#[path = "../enforce.rs"]
mod enforce;
#[path = "../flow.rs"]
mod flow;
#[path = "../fold.rs"]
mod fold;
#[path = "../hash.rs"]
mod hash;
#[path = "../kernel/mod.rs"]
mod kernel;
#[path = "../maps.rs"]
mod maps;
#[path = "../path.rs"]
mod path;
#[path = "../place.rs"]
mod place;
#[path = "../kept.rs"]
mod kept;
#[path = "../resolver.rs"]
mod resolver;
#[path = "../server_name.rs"]
mod server_name;
#[path = "../settled.rs"]
mod settled;
#[path = "../socket.rs"]
mod socket;
#[path = "../task.rs"]
mod task;
#[path = "../verifier.rs"]
mod verifier;

use agentguard_common::decision::{self, Subject};
use agentguard_common::field::{FS_PWD, TASK_FS};
use agentguard_common::identity::Tag;
use agentguard_common::net::{Address, Transport};
use agentguard_common::verb::{Verb, Verbs};
use agentguard_common::verdict::{Decision, Verdict};
use aya_ebpf::Global;
use aya_ebpf::macros::socket_filter;
use aya_ebpf::programs::SkBuffContext;

use crate::kernel::{Dentry, Task};
use crate::maps::{HEADS, POLICIES, RUNS};

/// IPv4 address, first byte highest.
#[unsafe(no_mangle)]
pub static TO_ADDRESS: Global<u32> = Global::new(0);
/// UDP port.
#[unsafe(no_mangle)]
pub static TO_PORT: Global<u32> = Global::new(0);

/// What a program returns for a task without a tag; for others 1 is allowed, 0 denied.
const UNTAGGED: i64 = 9;

/// Returns at once.
#[socket_filter]
fn floor(_: SkBuffContext) -> i64 {
    UNTAGGED
}

/// Finds the tag, as every hook does first.
#[socket_filter]
fn tag(_: SkBuffContext) -> i64 {
    match enforce::tagged(0) {
        Some(tag) => i64::from(tag.run_serial != 0),
        None => UNTAGGED,
    }
}

/// Decides `read` of the working directory as a hook does: tag, records, names, rules,
/// counters. What is allowed here makes no event.
#[socket_filter]
fn decide_path(_: SkBuffContext) -> i64 {
    match enforce::tagged(0) {
        Some(tag) => {
            i64::from(enforce::path(&tag, working_directory(), Verbs::of(Verb::Read)) == 0)
        }
        None => UNTAGGED,
    }
}

/// Decides `connect` to the constant address: tag, records, address, rules. Not as a
/// hook does, which tells each connection: a full ring would be what is measured.
#[socket_filter]
fn decide_connect(_: SkBuffContext) -> i64 {
    match enforce::tagged(0) {
        Some(tag) => match connect(tag) {
            Some(decision) => i64::from(matches!(decision.verdict, Verdict::Allow)),
            None => 0,
        },
        None => UNTAGGED,
    }
}

#[inline(always)]
fn connect(tag: &Tag) -> Option<Decision> {
    let policy = POLICIES.get(*HEADS.get(tag.agent)?)?;
    let run = RUNS.get_ptr_mut(tag.run)?;
    // SAFETY: map memory that outlives the program.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    if let Some(decision) = decision::standing(&subject, emit::now) {
        return Some(decision);
    }
    let to = Address::v4(TO_ADDRESS.load());
    let matched = address::lookup(policy.connect.v4, &to, Transport::Udp, TO_PORT.load() as u16)?;
    Some(decision::decide_net(&subject, Verb::Connect, matched))
}

#[inline(always)]
fn working_directory() -> Dentry {
    let task = Task::current();
    Dentry(kernel::load::<FS_PWD, _>(kernel::load::<TASK_FS, _>(task.0)))
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

//! Signals to processes outside the run.

use agentguard_common::identity::privilege;
use agentguard_common::verb::Verb;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use super::process::is_of_run;
use crate::kernel::{Argument, File, S_IFCHR, Task};
use crate::{enforce, verifier};

const F_SETFL: u32 = 4;
const F_SETOWN: u32 = 8;
const F_SETOWN_EX: u32 = 15;
const O_ASYNC: u64 = 0o20000;
const FIOASYNC: u32 = 0x5452;
const FIOSETOWN: u32 = 0x8901;
const SIOCSPGRP: u32 = 0x8902;

/// `int task_kill(struct task_struct *p, struct kernel_siginfo *info, int sig,
/// const struct cred *cred)`: what a process sends, by whatever call. The kernel does not ask
/// about its own signals: those of a child's end, of a terminal, of timers.
#[lsm(hook = "task_kill")]
pub fn task_kill(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(4);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let (other, signal): (_, i32) = (Task::from_argument(ctx.arg(0)), ctx.arg(2));
    // With credentials, a device has finished somebody's request: the running task has no
    // part in it. As a number: newer verifiers believe that no argument is ever null.
    let for_another: *const core::ffi::c_void = ctx.arg(3);
    let is_for_another = verifier::number(for_another as u64) != 0;
    // Signal 0 is not sent; that a process is there, /proc says as well.
    if signal == 0 || is_for_another || is_of_run(tag, other) {
        return 0;
    }
    enforce::host::outside(tag, other, privilege::SIGNAL_OUTSIDE, Verb::Write, false)
}

/// `int file_fcntl(struct file *file, unsigned int cmd, unsigned long arg)`: whom the kernel
/// sends a signal when the descriptor is ready. When it does, nobody knows any more who asked
/// for it, so it is decided as it is asked for: an agent's process may name itself.
#[lsm(hook = "file_fcntl")]
pub fn file_fcntl(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(3);
    let command: u32 = ctx.arg(1);
    if !matches!(command, F_SETFL | F_SETOWN | F_SETOWN_EX) {
        return prior;
    }
    let Some((tag, task)) = enforce::tagged_task(prior) else {
        return prior;
    };
    let (file, argument): (_, u64) = (File::from_argument(ctx.arg(0)), ctx.arg(2));
    let is_harmless = match command {
        F_SETFL => argument & O_ASYNC == 0 || !is_terminal(file),
        F_SETOWN => argument as u32 == 0 || task.own_number() == Some(argument as u32),
        // It is in memory that another thread can change.
        _ => false,
    };
    if is_harmless {
        return 0;
    }
    let needed = privilege::SIGNAL_OUTSIDE;
    enforce::host::privileged(tag, file.dentry(), needed, Verb::Write, false)
}

/// Whether a command of `ioctl` does what `file_fcntl` decides about.
#[inline(always)]
pub fn is_asked_for(command: u32, file: File) -> bool {
    match command {
        FIOSETOWN | SIOCSPGRP => true,
        FIOASYNC => is_terminal(file),
        _ => false,
    }
}

/// A terminal signals those in its foreground, whoever that is then. Other devices signal who
/// asked.
#[inline(always)]
fn is_terminal(file: File) -> bool {
    file.dentry().inode().kind() == S_IFCHR
}

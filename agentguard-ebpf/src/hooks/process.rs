//! Other processes: their memory, environment, descriptors and working directory,
//! through `/proc`, `ptrace`, `process_vm_readv` and their like; their limits and priorities.

use agentguard_common::identity::{Tag, privilege};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::Reason;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::enforce;
use crate::kernel::{Argument, Task};
use crate::task;

const PTRACE_MODE_ATTACH: u32 = 2;
const PTRACE_MODE_NOAUDIT: u32 = 4;

/// Whether a task is of the same run as a tag, or of one that this began.
#[inline(always)]
pub fn is_of_run(tag: &Tag, other: Task) -> bool {
    let Some(theirs) = task::tag_in_place(other) else {
        return false;
    };
    theirs.run_serial == tag.run_serial || task::is_below(theirs, tag.run_serial)
}

/// `int ptrace_access_check(struct task_struct *child, unsigned int mode)`
#[lsm(hook = "ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let other = Task::from_argument(ctx.arg(0));
    let mode: u32 = ctx.arg(1);
    if is_of_run(tag, other) {
        return 0;
    }
    let verb = if mode & PTRACE_MODE_ATTACH != 0 { Verb::Write } else { Verb::Read };
    let quiet = mode & PTRACE_MODE_NOAUDIT != 0;
    enforce::host::outside(tag, other, privilege::PTRACE_OUTSIDE, verb, quiet)
}

/// `int ptrace_traceme(struct task_struct *parent)`: a parent outside the run would be told
/// of stops that it does not expect, and takes them for a child's end or hangs.
#[lsm(hook = "ptrace_traceme")]
pub fn ptrace_traceme(ctx: LsmContext) -> i32 {
    changes(&ctx, 1)
}

/// `int task_setrlimit(struct task_struct *p, unsigned int resource,
/// struct rlimit *new_rlim)`: `prlimit`. (`task_prlimit` is not told whose limits they are.)
#[lsm(hook = "task_setrlimit")]
pub fn task_setrlimit(ctx: LsmContext) -> i32 {
    changes(&ctx, 3)
}

/// `int task_setscheduler(struct task_struct *p)`: also the processors that it may run on
#[lsm(hook = "task_setscheduler")]
pub fn task_setscheduler(ctx: LsmContext) -> i32 {
    changes(&ctx, 1)
}

/// `int task_setnice(struct task_struct *p, int nice)`
#[lsm(hook = "task_setnice")]
pub fn task_setnice(ctx: LsmContext) -> i32 {
    changes(&ctx, 2)
}

/// `int task_setioprio(struct task_struct *p, int ioprio)`
#[lsm(hook = "task_setioprio")]
pub fn task_setioprio(ctx: LsmContext) -> i32 {
    changes(&ctx, 2)
}

/// `int task_movememory(struct task_struct *p)`: to which node its pages move
#[lsm(hook = "task_movememory")]
pub fn task_movememory(ctx: LsmContext) -> i32 {
    changes(&ctx, 1)
}

/// Decides a change of a process, the hook's first argument.
#[inline(always)]
fn changes(ctx: &LsmContext, arguments: usize) -> i32 {
    let prior: i32 = ctx.arg(arguments);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let other = Task::from_argument(ctx.arg(0));
    if is_of_run(tag, other) {
        return 0;
    }
    enforce::host::outside(tag, other, privilege::PTRACE_OUTSIDE, Verb::Write, false)
}

/// `int uring_override_creds(const struct cred *new)`: a request that runs with
/// registered credentials would look like the kernel's own work on a layer (see
/// [`Task::is_lent`]).
#[lsm(hook = "uring_override_creds")]
pub fn uring_override_creds(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(1);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    enforce::refused(tag, Task::current().program().dentry(), Reason::Forbidden)
}

//! Other processes: their memory, environment, descriptors and working directory,
//! through `/proc`, `ptrace`, `process_vm_readv` and their like.

use agentguard_common::verb::Verb;
use agentguard_common::verdict::Reason;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::enforce;
use crate::kernel::{Argument, Task};
use crate::task;

const PTRACE_MODE_ATTACH: u32 = 2;
const PTRACE_MODE_NOAUDIT: u32 = 4;

/// `int ptrace_access_check(struct task_struct *child, unsigned int mode)`
#[lsm(hook = "ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let other = Task::from_argument(ctx.arg(0));
    let mode: u32 = ctx.arg(1);
    if let Some(theirs) = task::tag(other)
        && theirs.run_serial == tag.run_serial
    {
        return 0;
    }
    let verb = if mode & PTRACE_MODE_ATTACH != 0 { Verb::Write } else { Verb::Read };
    enforce::outside(tag, other, verb, mode & PTRACE_MODE_NOAUDIT != 0)
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

//! Capabilities: the one hook that sees some ways to change mounts, and to read other
//! processes' memory.

use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::kernel::{Argument, Task, UserNamespace};
use crate::{enforce, task};

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const FSCONFIG: u32 = 431;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const MOUNT_SETATTR: u32 = 442;
const OPEN_TREE_ATTR: u32 = 467;

/// `int capable(const struct cred *cred, struct user_namespace *ns, int cap,
/// unsigned int opts)`
#[lsm(hook = "capable")]
pub fn capable(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(4);
    let capability: u32 = ctx.arg(2);
    if !matches!(capability, CAP_SYS_ADMIN | CAP_PERFMON) {
        return prior;
    }
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    if capability == CAP_PERFMON {
        // Since 6.15 it opens the memory of every process, after `ptrace_access_check`
        // has refused it.
        let refused = enforce::measuring(tag);
        task::set_asked_to_measure(refused != 0);
        return refused;
    }
    // The kernel asks for this one as well (`perfmon_capable`), at once.
    if task::was_refused_to_measure() {
        return enforce::measuring(tag);
    }
    let call = Task::current().system_call();
    match call.number() {
        MOUNT_SETATTR | OPEN_TREE_ATTR => {
            enforce::mount_unnamed(tag, Task::current().has_mounts_of_its_own())
        }
        // It changes a file system, so for everybody who sees it.
        FSCONFIG if call.second_is(FSCONFIG_CMD_RECONFIGURE) => {
            let owner = UserNamespace::from_argument(ctx.arg(1));
            enforce::mount_unnamed(tag, !owner.is_initial())
        }
        _ => 0,
    }
}

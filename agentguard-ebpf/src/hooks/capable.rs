//! Capabilities: the one hook that sees some ways to change mounts, to read other
//! processes' memory, and to change the host's network.

use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::kernel::{Argument, Task, UserNamespace};
use crate::{enforce, task};

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
/// The kernel only asks whether it could.
const CAP_OPT_NOAUDIT: u32 = 2;
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
    if !matches!(capability, CAP_NET_ADMIN | CAP_NET_RAW | CAP_SYS_ADMIN | CAP_PERFMON) {
        return prior;
    }
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    if matches!(capability, CAP_NET_ADMIN | CAP_NET_RAW) {
        // Over a network namespace of its own the agent may have it.
        if !UserNamespace::from_argument(ctx.arg(1)).is_initial() {
            return 0;
        }
        let quiet: u32 = ctx.arg(3);
        return enforce::net::administers(tag, quiet & CAP_OPT_NOAUDIT != 0);
    }
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

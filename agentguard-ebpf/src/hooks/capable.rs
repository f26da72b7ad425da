//! Capabilities: the one hook that sees some ways to change mounts, to read other
//! processes' memory, and to change the host, its network and its clock.

use agentguard_common::identity::{Tag, privilege};
use agentguard_common::verb::Verb;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::kernel::{Argument, Task, UserNamespace};
use crate::{enforce, task};

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_MODULE: u32 = 16;
const CAP_SYS_RAWIO: u32 = 17;
const CAP_SYS_PACCT: u32 = 20;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_BOOT: u32 = 22;
const CAP_SYS_TIME: u32 = 25;
const CAP_AUDIT_CONTROL: u32 = 30;
const CAP_MAC_OVERRIDE: u32 = 32;
const CAP_MAC_ADMIN: u32 = 33;
const CAP_SYSLOG: u32 = 34;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
/// The kernel only asks whether it could.
const CAP_OPT_NOAUDIT: u32 = 2;

const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

/// Numbers of system calls. The older ones have another number in 32-bit programs; where
/// that is another call in 64-bit ones, that call does not ask for CAP_SYS_ADMIN.
mod call {
    pub const FSCONFIG: u32 = 431;
    pub const MOUNT_SETATTR: u32 = 442;
    pub const OPEN_TREE_ATTR: u32 = 467;
    pub const CLONE: u32 = 56;
    pub const CLONE_32: u32 = 120;
    pub const CLONE3: u32 = 435;
    pub const UNSHARE: u32 = 272;
    pub const UNSHARE_32: u32 = 310;
    pub const SETNS: u32 = 308;
    pub const SETNS_32: u32 = 346;
    pub const KEYCTL: u32 = 250;
    pub const KEYCTL_32: u32 = 288;
    pub const SETHOSTNAME: u32 = 170;
    pub const SETHOSTNAME_32: u32 = 74;
    pub const SETDOMAINNAME: u32 = 171;
    pub const SETDOMAINNAME_32: u32 = 121;
    pub const SWAPON: u32 = 167;
    pub const SWAPON_32: u32 = 87;
    pub const SWAPOFF: u32 = 168;
    pub const SWAPOFF_32: u32 = 115;
    pub const QUOTACTL: u32 = 179;
    pub const QUOTACTL_32: u32 = 131;
    pub const QUOTACTL_FD: u32 = 443;
    pub const FANOTIFY_INIT: u32 = 300;
    pub const FANOTIFY_INIT_32: u32 = 338;
}

/// `int capable(const struct cred *cred, struct user_namespace *ns, int cap,
/// unsigned int opts)`
#[lsm(hook = "capable")]
pub fn capable(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(4);
    let capability: u32 = ctx.arg(2);
    let needed = needed(capability);
    if needed == 0 {
        return prior;
    }
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let owner = UserNamespace::from_argument(ctx.arg(1));
    let options: u32 = ctx.arg(3);
    let quiet = options & CAP_OPT_NOAUDIT != 0;
    match capability {
        // Over a network namespace of its own the agent may have it.
        CAP_NET_ADMIN | CAP_NET_RAW if !owner.is_initial() => 0,
        CAP_NET_ADMIN | CAP_NET_RAW => enforce::net::administers(tag, quiet),
        CAP_PERFMON => {
            // Since 6.15 it opens the memory of every process, after `ptrace_access_check`
            // has refused it.
            let refused = enforce::host::measuring(tag);
            task::set_asked_to_measure(refused != 0);
            refused
        }
        // The kernel asks for this one as well (`perfmon_capable`), at once.
        CAP_SYS_ADMIN if task::was_refused_to_measure() => enforce::host::measuring(tag),
        CAP_SYS_ADMIN => administers(tag, owner, quiet),
        // A stacked file system asks for itself.
        _ if !owner.is_initial() || Task::current().is_lent() => 0,
        // The kernel asks for it to decide how to load the filter of a socket.
        CAP_BPF => enforce::host::of_kernel(tag, needed, Verb::Write, true),
        _ => enforce::host::of_kernel(tag, needed, Verb::Write, quiet),
    }
}

/// The privilege that a capability needs; 0: none, and nobody looks further. Of those that
/// are decided otherwise, any.
#[inline(always)]
fn needed(capability: u32) -> u32 {
    match capability {
        CAP_SYS_MODULE | CAP_SYS_BOOT => privilege::MODULES,
        CAP_SYS_RAWIO => privilege::DEVICES,
        CAP_SYS_PACCT | CAP_SYS_TIME | CAP_AUDIT_CONTROL | CAP_MAC_OVERRIDE | CAP_MAC_ADMIN
        | CAP_SYSLOG => privilege::KERNEL_SETTINGS,
        CAP_BPF => privilege::BPF,
        CAP_NET_ADMIN | CAP_NET_RAW => privilege::RAW_SOCKETS,
        CAP_PERFMON => privilege::PTRACE_OUTSIDE,
        CAP_SYS_ADMIN => privilege::MOUNT,
        _ => 0,
    }
}

/// Decides about CAP_SYS_ADMIN by what it is asked for: much of it is harmless.
#[inline(always)]
fn administers(tag: &Tag, owner: UserNamespace, quiet: bool) -> i32 {
    let task = Task::current();
    let call = task.system_call();
    let needed = match call.number() {
        call::MOUNT_SETATTR | call::OPEN_TREE_ATTR => {
            return enforce::mount_unnamed(tag, task.has_mounts_of_its_own());
        }
        // It changes a file system, so for everybody who sees it.
        call::FSCONFIG if call.second_is(FSCONFIG_CMD_RECONFIGURE) => {
            return enforce::mount_unnamed(tag, !owner.is_initial());
        }
        // Also over a user namespace of its own, which it may have got from elsewhere.
        call::CLONE | call::CLONE_32 | call::CLONE3 | call::UNSHARE | call::UNSHARE_32
        | call::SETNS | call::SETNS_32 => privilege::NAMESPACES,
        _ if !owner.is_initial() => 0,
        call::KEYCTL | call::KEYCTL_32 => privilege::PTRACE_OUTSIDE,
        call::SETHOSTNAME | call::SETHOSTNAME_32 | call::SETDOMAINNAME
        | call::SETDOMAINNAME_32 | call::SWAPON | call::SWAPON_32 | call::SWAPOFF
        | call::SWAPOFF_32 | call::QUOTACTL | call::QUOTACTL_32 | call::QUOTACTL_FD
        | call::FANOTIFY_INIT | call::FANOTIFY_INIT_32 => privilege::KERNEL_SETTINGS,
        _ => 0,
    };
    if needed == 0 || task.is_lent() {
        return 0;
    }
    enforce::host::of_kernel(tag, needed, Verb::Write, quiet)
}

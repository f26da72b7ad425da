//! Mounts. Names are judged inside their file system, so a mount gives an agent no
//! right; but it changes what others find under a name. That is `write` on the name,
//! unless the agent has the privilege `mount`.

use agentguard_common::verdict::Reason;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::enforce;
use crate::kernel::{Argument, Mount, Path, SuperBlock, Task, UserNamespace};

const OVERLAYFS: u64 = 0x794c_7630;
const ECRYPTFS: u64 = 0xf15f;

/// `MS_UNBINDABLE`, `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`: how mounts propagate.
const PROPAGATION: u64 = 0xf << 17;
const MS_MOVE: u64 = 1 << 13;
const MS_BIND: u64 = 1 << 12;
const MS_REMOUNT: u64 = 1 << 5;

/// `int sb_mount(const char *dev_name, const struct path *path, const char *type,
/// unsigned long flags, void *data)`
#[lsm(hook = "sb_mount")]
pub fn sb_mount(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(5);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let (at, flags): (_, u64) = (Path::from_argument(ctx.arg(1)), ctx.arg(3));
    let own = Task::current().has_mounts_of_its_own();
    if flags & MS_MOVE != 0 && !own {
        // From where it is moved is not told.
        return enforce::refused(tag, at.dentry(), Reason::Forbidden);
    }
    // In the kernel's order (`path_mount`): remounting, which is the file system's and so
    // everybody's unless it is of a bind mount; binding; how mounts propagate; the rest.
    let everybodys = flags & (MS_REMOUNT | MS_BIND) == MS_REMOUNT;
    let propagation = flags & (MS_REMOUNT | MS_BIND) == 0 && flags & PROPAGATION != 0;
    let unseen = own && !everybodys && (propagation || at.mount().is_private());
    enforce::mount(tag, at.dentry(), unseen)
}

/// `int move_mount(const struct path *from_path, const struct path *to_path)`
#[lsm(hook = "move_mount")]
pub fn move_mount(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let (from, to) = (Path::from_argument(ctx.arg(0)), Path::from_argument(ctx.arg(1)));
    let unseen = Task::current().has_mounts_of_its_own() && to.mount().is_private();
    let refused = enforce::mount(tag, to.dentry(), unseen);
    // From where it is mounted it goes away; a detached tree is nowhere.
    if refused != 0 || unseen || !Task::current().has_mounted(from.mount()) {
        return refused;
    }
    enforce::mount(tag, from.dentry(), false)
}

/// `int sb_umount(struct vfsmount *mnt, int flags)`
#[lsm(hook = "sb_umount")]
pub fn sb_umount(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let mount = Mount::from_argument(ctx.arg(0));
    let unseen = Task::current().has_mounts_of_its_own() && mount.is_in_private();
    enforce::mount(tag, mount.root(), unseen)
}

/// `int sb_pivotroot(const struct path *old_path, const struct path *new_path)`
#[lsm(hook = "sb_pivotroot")]
pub fn sb_pivotroot(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let unseen = Task::current().has_mounts_of_its_own();
    enforce::mount(tag, Path::from_argument(ctx.arg(0)).dentry(), unseen)
}

/// `int capable(const struct cred *cred, struct user_namespace *ns, int cap,
/// unsigned int opts)`: the one hook that sees `mount_setattr`, `open_tree_attr` and
/// `fsconfig` with its command to reconfigure. Where they do it, it does not say.
#[lsm(hook = "capable")]
pub fn capable(ctx: LsmContext) -> i32 {
    const CAP_SYS_ADMIN: u32 = 21;
    const FSCONFIG: u32 = 431;
    const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
    const MOUNT_SETATTR: u32 = 442;
    const OPEN_TREE_ATTR: u32 = 467;
    let prior: i32 = ctx.arg(4);
    let capability: u32 = ctx.arg(2);
    if capability != CAP_SYS_ADMIN {
        return prior;
    }
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
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

/// `int sb_kern_mount(struct super_block *sb)`: a file system is about to be mounted.
///
/// File systems that show files of others under names of their own are refused to
/// agents, whatever their privileges: what lies below is opened by the kernel, and its
/// own names are not asked for.
#[lsm(hook = "sb_kern_mount")]
pub fn sb_kern_mount(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(1);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let file_system = SuperBlock::from_argument(ctx.arg(0));
    if matches!(file_system.magic(), OVERLAYFS | ECRYPTFS) {
        return enforce::refused(tag, file_system.root(), Reason::Forbidden);
    }
    0
}

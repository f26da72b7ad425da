//! Mounts. Names are judged inside their file system, so a mount gives an agent no
//! right; but it changes what others find under a name. That is `write` on the name,
//! unless the agent has the privilege `mount`.

use agentguard_common::verdict::Reason;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::enforce;
use crate::kernel::{Argument, FsContext, Mount, Path, SuperBlock, Task, probe};

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
    if flags & (MS_REMOUNT | MS_BIND | MS_MOVE | PROPAGATION) == 0 && is_stacked(ctx.arg(2)) {
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

/// `int sb_kern_mount(struct super_block *sb)`: a file system is about to be mounted.
///
/// File systems that show files of others under names of their own are refused to
/// agents, whatever their privileges: what lies below is opened by the kernel, and its
/// own names are not asked for. By now overlayfs has written to its upper directory, so
/// `sb_mount` and `fs_parameter` refuse before; this stays for what they do not see.
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

/// `int fs_context_parse_param(struct fs_context *fc, struct fs_parameter *param)`: a setting
/// of a file system that is to be mounted; a stacked one needs some.
#[lsm(hook = "fs_context_parse_param")]
pub fn fs_parameter(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    if is_stacked(FsContext::from_argument(ctx.arg(0)).type_name()) {
        return enforce::refused(tag, Task::current().program().dentry(), Reason::Forbidden);
    }
    0
}

/// Whether a type of file system, by the address of its name, shows files of others. One
/// that cannot be read is none: without a type nothing new is mounted.
#[inline(always)]
fn is_stacked(name: u64) -> bool {
    const OVERLAY: u64 = u64::from_le_bytes(*b"overlay\0");
    const ECRYPTFS: u64 = u64::from_le_bytes(*b"ecryptfs");
    matches!(probe::<u64>(name), Some(OVERLAY | ECRYPTFS))
}

//! Mounts. Names are judged inside their file system, so a mount gives an agent no
//! right; but it changes what others find under a name. That is `write` on the name,
//! unless the agent has the privilege `mount`.

use agentguard_common::verdict::Reason;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::enforce;
use crate::kernel::{Dentry, Mount, Path, SuperBlock};

const OVERLAYFS: u64 = 0x794c_7630;
const ECRYPTFS: u64 = 0xf15f;

/// `int sb_mount(const char *dev_name, const struct path *path, const char *type,
/// unsigned long flags, void *data)`
#[lsm(hook = "sb_mount")]
pub fn sb_mount(ctx: LsmContext) -> i32 {
    on_path(Path::from_argument(ctx.arg(1)), ctx.arg(5))
}

/// `int move_mount(const struct path *from_path, const struct path *to_path)`
#[lsm(hook = "move_mount")]
pub fn move_mount(ctx: LsmContext) -> i32 {
    on_path(Path::from_argument(ctx.arg(1)), ctx.arg(2))
}

/// `int sb_umount(struct vfsmount *mnt, int flags)`
#[lsm(hook = "sb_umount")]
pub fn sb_umount(ctx: LsmContext) -> i32 {
    on_dentry(Mount::from_argument(ctx.arg(0)).root(), ctx.arg(2))
}

/// `int sb_pivotroot(const struct path *old_path, const struct path *new_path)`
#[lsm(hook = "sb_pivotroot")]
pub fn sb_pivotroot(ctx: LsmContext) -> i32 {
    on_path(Path::from_argument(ctx.arg(0)), ctx.arg(2))
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

#[inline(always)]
fn on_path(path: Path, prior: i32) -> i32 {
    on_dentry(path.dentry(), prior)
}

#[inline(always)]
fn on_dentry(dentry: Dentry, prior: i32) -> i32 {
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    enforce::mount(tag, dentry)
}

//! Mode, owner, times, extended attributes and access control lists, by path and
//! by descriptor alike.

use agentguard_common::verb::{Verb, Verbs};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::enforce;
use crate::kernel::{Argument, Attributes, Dentry, Task};

/// `include/linux/fs.h`; unchanged since 2.6.
const ATTR_MODE: u32 = 1 << 0;
const ATTR_UID: u32 = 1 << 1;
const ATTR_GID: u32 = 1 << 2;
const ATTR_SIZE: u32 = 1 << 3;
const ATTR_FORCE: u32 = 1 << 9;

/// `int inode_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)`
#[lsm(hook = "inode_setattr")]
pub fn inode_setattr(ctx: LsmContext) -> i32 {
    changed(ctx.arg(1), Attributes::from_argument(ctx.arg(2)), ctx.arg(3))
}

/// The same before 6.4, without the mount's id map.
#[lsm(hook = "inode_setattr")]
pub fn inode_setattr_plain(ctx: LsmContext) -> i32 {
    changed(ctx.arg(0), Attributes::from_argument(ctx.arg(1)), ctx.arg(2))
}

#[inline(always)]
fn changed(dentry: *const core::ffi::c_void, changes: Attributes, prior: i32) -> i32 {
    // Mode and owner are decided by `path_chmod` and `path_chown`, a new size as `write`.
    // With FORCE the kernel tidies up after a write (setuid bits). What is left are times.
    const ELSEWHERE: u32 = ATTR_MODE | ATTR_UID | ATTR_GID | ATTR_SIZE | ATTR_FORCE;
    if changes.valid() & ELSEWHERE != 0 {
        return prior;
    }
    on_dentry(dentry, prior)
}

/// `int inode_setxattr(struct mnt_idmap *idmap, struct dentry *dentry, const char *name,
/// const void *value, size_t size, int flags)`
#[lsm(hook = "inode_setxattr")]
pub fn inode_setxattr(ctx: LsmContext) -> i32 {
    on_dentry(ctx.arg(1), ctx.arg(6))
}

/// `int inode_removexattr(struct mnt_idmap *idmap, struct dentry *dentry, const char *name)`
#[lsm(hook = "inode_removexattr")]
pub fn inode_removexattr(ctx: LsmContext) -> i32 {
    on_dentry(ctx.arg(1), ctx.arg(3))
}

/// `int inode_set_acl(struct mnt_idmap *idmap, struct dentry *dentry, const char *acl_name,
/// struct posix_acl *kacl)`, since 6.2
#[lsm(hook = "inode_set_acl")]
pub fn inode_set_acl(ctx: LsmContext) -> i32 {
    on_dentry(ctx.arg(1), ctx.arg(4))
}

/// `int inode_remove_acl(struct mnt_idmap *idmap, struct dentry *dentry, const char *acl_name)`,
/// since 6.2
#[lsm(hook = "inode_remove_acl")]
pub fn inode_remove_acl(ctx: LsmContext) -> i32 {
    on_dentry(ctx.arg(1), ctx.arg(3))
}

/// `int inode_file_setattr(struct dentry *dentry, struct file_kattr *fa)`, since 6.17:
/// inode flags and project ids by path
#[lsm(hook = "inode_file_setattr")]
pub fn inode_file_setattr(ctx: LsmContext) -> i32 {
    on_dentry(ctx.arg(0), ctx.arg(2))
}

#[inline(always)]
fn on_dentry(dentry: *const core::ffi::c_void, prior: i32) -> i32 {
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    // A stacked file system passes its own change on to a layer.
    if Task::current().is_lent() {
        return 0;
    }
    enforce::path(tag, Dentry::from_argument(dentry), Verbs::of(Verb::Attributes))
}

//! Mounting over a path, and taking mounts away, where everybody sees it.

use std::path::Path;

use nix::libc::{self, AT_FDCWD, MNT_DETACH, MS_BIND, MS_MOVE, MS_RDONLY, MS_REMOUNT};

use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::mounts;
use crate::sys::{self, Try, call};

const WHY: &str = "the host's mounts are changed with CAP_SYS_ADMIN";
const OPEN_TREE_CLONE: i32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: i32 = 4;
const FSCONFIG_CMD_CREATE: i32 = 6;
const MOUNT_ATTR_RDONLY: u64 = 1;

pub const ATTEMPTS: &[Attempt] = &[
    write("mount-over", |field| {
        let kind = c"tmpfs";
        call!(SYS_mount, kind, &field.dir, kind, 0, 0)?;
        sys::done()
    })
    .root_only(WHY),
    write("mount-bind-over", |field| {
        mounts::own_bind(&field.work, &field.dir)
    })
    .root_only(WHY),
    write("mount-bind-over-file", |field| {
        std::fs::write(field.scratch("g"), sys::MARK)?;
        mounts::own_bind(&field.scratch("g"), &field.file())
    })
    .root_only(WHY),
    write("mount-clone-over", |field| {
        let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC;
        let tree = sys::owned(call!(SYS_open_tree, AT_FDCWD, &field.work, flags)?);
        attached(&tree, field)
    })
    .root_only(WHY),
    write("mount-new-over", |field| {
        let context = sys::owned(call!(SYS_fsopen, c"tmpfs", 0)?);
        call!(SYS_fsconfig, &context, FSCONFIG_CMD_CREATE, 0, 0, 0)?;
        let tree = sys::owned(call!(SYS_fsmount, &context, 0, 0)?);
        attached(&tree, field)
    })
    .root_only(WHY),
    write("mount-move-away", |field| {
        call!(SYS_mkdir, &field.scratch("to"), 0o755)?;
        call!(
            SYS_mount,
            &field.at("m"),
            &field.scratch("to"),
            0,
            MS_MOVE,
            0
        )?;
        sys::done()
    })
    .prepare(mounted)
    .root_only(WHY),
    write("umount", |field| {
        call!(SYS_umount2, &field.at("m"), 0)?;
        sys::done()
    })
    .prepare(mounted)
    .root_only(WHY),
    write("umount-detach", |field| {
        call!(SYS_umount2, &field.at("m"), MNT_DETACH)?;
        sys::done()
    })
    .prepare(mounted)
    .root_only(WHY),
    write("remount-read-only", |field| {
        let flags = MS_REMOUNT | MS_BIND | MS_RDONLY;
        call!(SYS_mount, 0, &field.at("m"), 0, flags, 0)?;
        sys::done()
    })
    .prepare(mounted)
    .root_only(WHY),
    write("remount-file-system", |field| {
        call!(SYS_mount, 0, &field.at("m"), 0, MS_REMOUNT | MS_RDONLY, 0)?;
        sys::done()
    })
    .prepare(mounted)
    .root_only(WHY),
    write("mount-setattr", |field| {
        let attributes = sys::words(&[MOUNT_ATTR_RDONLY, 0, 0, 0]);
        let path = field.at("m");
        call!(
            SYS_mount_setattr,
            AT_FDCWD,
            &path,
            0,
            &attributes[..],
            attributes.len()
        )?;
        sys::done()
    })
    .prepare(mounted)
    .root_only(WHY),
];

/// Something mounted below the directory, with a file in it.
fn mounted(field: &Field) -> anyhow::Result<()> {
    mounts::tmpfs(field, &field.at("m"))?;
    field.put(&field.at("m").join("g"))
}

fn attached(tree: &std::os::fd::OwnedFd, field: &Field) -> Try {
    let empty = Path::new("");
    call!(
        SYS_move_mount,
        tree,
        empty,
        AT_FDCWD,
        &field.dir,
        MOVE_MOUNT_F_EMPTY_PATH
    )?;
    sys::done()
}

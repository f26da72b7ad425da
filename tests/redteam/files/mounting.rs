//! Mounting over a path, and taking mounts away, where everybody sees it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::libc::{
    self, AT_FDCWD, MNT_DETACH, MS_BIND, MS_MOVE, MS_RDONLY, MS_REMOUNT, O_PATH, O_WRONLY,
};

use crate::attempt::{Attempt, write};
use crate::field::{Field, User};
use crate::mounts;
use crate::sys::{self, Fail, Try, call};
use crate::victim::PROOF;

const WHY: &str = "the host's mounts are changed with CAP_SYS_ADMIN";
const OPEN_TREE_CLONE: i32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: i32 = 4;
const FSCONFIG_SET_FLAG: i32 = 0;
const FSCONFIG_CMD_CREATE: i32 = 6;
const FSCONFIG_CMD_RECONFIGURE: i32 = 7;
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
        fs::write(field.scratch("g"), sys::MARK)?;
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
        let to = made(field, "to")?;
        call!(SYS_move_mount, AT_FDCWD, &field.at("m"), AT_FDCWD, &to, 0)?;
        sys::done()
    })
    .prepare(mounted)
    .root_only(WHY),
    write("mount-move-away-by-mount", |field| {
        privately_as_control(field)?;
        let to = made(field, "to")?;
        call!(SYS_mount, &field.at("m"), &to, 0, MS_MOVE, 0)?;
        if to.join("g").exists() {
            return Ok(PROOF.to_vec());
        }
        Err(Fail::new("nothing has moved", 0))
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
    write("remount-file-system-by-fspick", |field| {
        let context = sys::owned(call!(SYS_fspick, AT_FDCWD, &field.at("m"), 0)?);
        call!(SYS_fsconfig, &context, FSCONFIG_SET_FLAG, c"ro", 0, 0)?;
        call!(SYS_fsconfig, &context, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0)?;
        sys::done()
    })
    .prepare(mounted)
    .root_only(WHY)
    .never(),
    write("mount-setattr", |field| {
        privately_as_control(field)?;
        set_read_only(&field.at("m"))
    })
    .prepare(mounted)
    .root_only(WHY),
    write("mount-setattr-by-descriptor", |field| {
        privately_as_control(field)?;
        let mount = sys::open(&field.at("m"), O_PATH)?;
        set_read_only(&sys::by_proc(&mount))
    })
    .prepare(mounted)
    .root_only(WHY),
];

/// What is refused to every agent where all see it is made by the control in mounts of
/// its own. An ordinary user's control has no use of that: the denied side would be refused
/// by the kernel itself.
fn privately_as_control(field: &Field) -> Try {
    if field.is_control() && field.user == User::Root {
        return mounts::own_mounts(field);
    }
    sys::done()
}

/// A directory of the agent's own.
fn made(field: &Field, name: &str) -> Try<PathBuf> {
    let path = field.scratch(name);
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// Makes a mount read-only, with the file `g` in it as the witness.
fn set_read_only(mount: &Path) -> Try {
    let attributes = sys::words(&[MOUNT_ATTR_RDONLY, 0, 0, 0]);
    call!(
        SYS_mount_setattr,
        AT_FDCWD,
        mount,
        0,
        &attributes[..],
        attributes.len()
    )?;
    match sys::open(&mount.join("g"), O_WRONLY) {
        Err(fail) if fail.errno == libc::EROFS => Ok(PROOF.to_vec()),
        _ => Err(Fail::new("the mount is not read-only", 0)),
    }
}

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

//! What ext4 has beside files: projects, versions, extents to exchange, names without
//! regard to case.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::libc::{O_RDONLY, O_RDWR};

use crate::attempt::{Attempt, read, write};
use crate::disks::{Disk, ruled, vault};
use crate::field::Field;
use crate::sys::{self, Try, call, content, marked};
use crate::victim::PROOF;
use crate::{mounts, snapshot};

const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
const FS_CASEFOLD: u64 = 0x4000_0000;
const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
const FS_IOC_GETVERSION: u64 = 0x8008_7601;
const FS_IOC_SETVERSION: u64 = 0x4008_7602;
const EXT4_IOC_MOVE_EXT: u64 = 0xc028_660f;
const EXT4: Disk = Disk {
    kind: "ext4",
    size: 8 << 20,
    options: &[
        "-q",
        "-O",
        "casefold,project,quota,^metadata_csum",
        "-E",
        "encoding=utf8",
    ],
};

pub const ATTEMPTS: &[Attempt] = &[
    write("ioctl-set-project-quota", |field| {
        let fd = sys::open(&EXT4.file(field), O_RDONLY)?;
        let mut attributes = [0; 28];
        call!(SYS_ioctl, &fd, FS_IOC_FSGETXATTR, &mut attributes[..])?;
        attributes[12] = 77;
        call!(SYS_ioctl, &fd, FS_IOC_FSSETXATTR, &attributes[..])?;
        sys::done()
    })
    .prepare(disk)
    .look(look),
    write("ioctl-set-version", |field| {
        let fd = sys::open(&EXT4.file(field), O_RDONLY)?;
        call!(SYS_ioctl, &fd, FS_IOC_SETVERSION, &sys::words(&[4711])[..])?;
        sys::done()
    })
    .prepare(disk)
    .look(|field| {
        let fd = sys::open(&EXT4.file(field), O_RDONLY)?;
        let mut version = [0; 8];
        call!(SYS_ioctl, &fd, FS_IOC_GETVERSION, &mut version[..])?;
        Ok(format!("{version:?}"))
    }),
    write("ioctl-move-extents", |field| {
        move_extents(field.inherited, EXT4.own_block(field, b'!')?.as_raw_fd())
    })
    .prepare(disk)
    .inherits(read_write)
    // Contents stay; the blocks are others.
    .look(|field| snapshot::blocks(&EXT4.file(field)))
    .never(),
    write("ioctl-move-extents-donor", |field| {
        move_extents(EXT4.own_block(field, b'!')?.as_raw_fd(), field.inherited)
    })
    .prepare(disk)
    .inherits(read_write)
    .look(|field| snapshot::blocks(&EXT4.file(field)))
    .never(),
    write("ioctl-shut-down", |field| {
        const EXT4_IOC_SHUTDOWN: u64 = 0x8004_587d;
        let mine = sys::open(&shared(field), O_RDONLY)?;
        // With everything written; then nothing more is.
        call!(SYS_ioctl, &mine, EXT4_IOC_SHUTDOWN, &sys::halves(&[0])[..])?;
        sys::done()
    })
    .prepare(of_its_own)
    .look(|field| {
        let file = shared(field).join(ruled(field)).join("g");
        Ok(format!("written to: {}", field.put(&file).is_ok()))
    })
    .root_only("file systems are shut down with CAP_SYS_ADMIN")
    .never(),
    write("ioctl-freeze", |field| {
        const FIFREEZE: u64 = 0xc004_5877;
        const FITHAW: u64 = 0xc004_5878;
        let mine = sys::open(&shared(field), O_RDONLY)?;
        call!(SYS_ioctl, &mine, FIFREEZE, 0)?;
        call!(SYS_ioctl, &mine, FITHAW, 0)?;
        Ok(PROOF.to_vec())
    })
    .prepare(of_its_own)
    .root_only("file systems are frozen with CAP_SYS_ADMIN")
    .never(),
    write("write-other-case", |field| {
        marked(&in_capitals(field, ruled(field)))
    })
    .prepare(|field| folding(field, ruled(field)))
    .look(|field| look_at_folding(field, ruled(field))),
    read("read-other-case", |field| {
        content(&in_capitals(field, vault(field)))
    })
    .prepare(|field| folding(field, vault(field)))
    .look(|field| look_at_folding(field, vault(field))),
];

fn disk(field: &Field) -> Result<()> {
    EXT4.prepare(field)
}

fn look(field: &Field) -> Result<String> {
    snapshot::of_path(&EXT4.file(field))
}

fn read_write(field: &Field) -> Result<OwnedFd> {
    Ok(sys::open(&EXT4.file(field), O_RDWR)?)
}

/// A directory of the agent's own in a file system in which others have files too.
fn shared(field: &Field) -> PathBuf {
    field.scratch("kept/d")
}

fn of_its_own(field: &Field) -> Result<()> {
    let kept = field.scratch("kept");
    mounts::file_system(field, ("ext4", 4 << 20), &["-q"], &kept)?;
    let directory = shared(field).join(ruled(field));
    field.make_dir(&shared(field))?;
    field.make_dir(&directory)?;
    field.put(&directory.join("g"))
}

/// Defragmentation puts the blocks of one file into another, and the other way.
fn move_extents(to: i32, donor: i32) -> Try {
    // Neither may have pages that have no blocks yet.
    call!(SYS_fsync, donor)?;
    call!(SYS_fsync, to)?;
    let mut request = sys::halves(&[0, donor.cast_unsigned()]);
    // From block 0 to block 0, one block; the kernel tells how many it moved.
    request.extend(sys::words(&[0, 0, 1, 0]));
    call!(SYS_ioctl, to, EXT4_IOC_MOVE_EXT, &mut request[..])?;
    sys::done()
}

/// A directory of the attempt's in which the kernel does not tell names apart by case; for
/// the control, one of the same file system in which it does.
fn place(field: &Field) -> PathBuf {
    let parent = if field.is_control() {
        "plain"
    } else {
        "folded"
    };
    EXT4.root(field).join(parent)
}

fn in_capitals(field: &Field, tree: &str) -> PathBuf {
    let name = field.dir.file_name().unwrap_or_default();
    place(field)
        .join(tree.to_ascii_uppercase())
        .join(name.to_ascii_uppercase())
}

/// The file, by its own name.
fn as_written(field: &Field, tree: &str) -> PathBuf {
    if field.is_control() {
        return in_capitals(field, tree);
    }
    let name = field.dir.file_name().unwrap_or_default();
    place(field).join(tree).join(name)
}

fn folding(field: &Field, tree: &str) -> Result<()> {
    EXT4.prepare(field)?;
    if !place(field).exists() {
        field.make_dir(&place(field))?;
        if !field.is_control() {
            fold(&place(field))?;
        }
    }
    let file = as_written(field, tree);
    if let Some(directory) = file.parent() {
        field.make_dir(directory)?;
    }
    field.put(&file)
}

/// Directories take it over from the one in which they are made.
fn fold(directory: &Path) -> Result<()> {
    let directory = sys::open(directory, O_RDONLY)?;
    let flags = sys::words(&[FS_CASEFOLD]);
    call!(SYS_ioctl, &directory, FS_IOC_SETFLAGS, &flags[..])?;
    Ok(())
}

/// Has the kernel forget how names were last written: who looks one up first decides how
/// it is remembered.
fn look_at_folding(field: &Field, tree: &str) -> Result<String> {
    let seen = snapshot::of_path(&as_written(field, tree))?;
    fs::write("/proc/sys/vm/drop_caches", "2")?;
    Ok(seen)
}

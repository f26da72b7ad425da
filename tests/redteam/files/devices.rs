//! Below the file system: block devices, loop devices, memory.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use agentguard_tests::daemon::both;
use anyhow::{Context as _, Result, ensure};
use nix::libc::{self, O_RDONLY, O_WRONLY, S_IFBLK};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::mounts;
use crate::snapshot;
use crate::sys::{self, Fail, Try, call};
use crate::victim::PROOF;

const DISKS: &str = "disks belong to root";
const MEMORY: &str = "the machine's memory belongs to root";
const NEWER: &[(i32, &str)] = &[
    (libc::EPERM, "the kernel itself keeps everybody from it"),
    (
        libc::EBUSY,
        "the kernel itself keeps everybody from writing below a mounted file system",
    ),
    (libc::ENOENT, "the kernel has no such file"),
];
const LOOP_SET_FD: u64 = 0x4c00;
const LOOP_CLR_FD: u64 = 0x4c01;
const LOOP_CTL_GET_FREE: u64 = 0x4c82;
const SIZE: u64 = 4 << 20;

pub const ATTEMPTS: &[Attempt] = &[
    write("block-device-write", |field| {
        sys::mark(&sys::open(&device(field)?, O_WRONLY)?)
    })
    .prepare(mounted)
    .look(look_at_device)
    .root_only(DISKS)
    .lacks(NEWER)
    .lifted(),
    write("block-device-of-own-making", |field| {
        let number = fs::metadata(device(field)?)?.rdev();
        call!(SYS_mknod, &field.scratch("device"), S_IFBLK | 0o600, number)?;
        sys::mark(&sys::open(&field.scratch("device"), O_WRONLY)?)
    })
    .prepare(mounted)
    .look(look_at_device)
    .root_only(DISKS)
    .lacks(NEWER)
    .lifted(),
    write("own-mount-of-block-device", |field| {
        let at = mounted_by_oneself(field)?;
        sys::marked(&at.join("g"))
    })
    .prepare(mounted)
    .look(|field| snapshot::of_path(&field.at("m/g")))
    .root_only(DISKS)
    .lifted(),
    write("swap-on", |field| {
        call!(SYS_swapon, &field.file(), 0)?;
        call!(SYS_swapoff, &field.file())?;
        Ok(PROOF.to_vec())
    })
    .prepare(|field| {
        let pages = [0; 16 * 4096];
        field.put_bytes(&field.file(), &pages)?;
        let made = Command::new("mkswap").arg(field.file()).output()?;
        ensure!(made.status.success(), "mkswap: {}", both(&made));
        field.own(&field.file(), 0o600)
    })
    .root_only("memory is given to files with CAP_SYS_ADMIN")
    .lifted(),
    read("read-own-mount-of-block-device", |field| {
        let at = mounted_by_oneself(field)?;
        sys::content(&at.join("g"))
    })
    .prepare(mounted)
    .root_only(DISKS)
    .lifted(),
    read("read-block-device", |field| {
        let device = sys::open(&device(field)?, O_RDONLY)?;
        let mut all = Vec::new();
        loop {
            let some = sys::read(&device)?;
            if some.is_empty() {
                return Ok(all);
            }
            // What comes back is text: only what could be the token.
            all.extend(some.into_iter().filter(u8::is_ascii_graphic));
        }
    })
    .prepare(mounted)
    .root_only(DISKS)
    .lifted(),
    read("read-loop-device-of-inherited", looped)
        .prepare(|field| {
            // A device is whole sectors.
            let text = format!("{:512}", field.token);
            field.put_bytes(&field.file(), text.as_bytes())
        })
        .inherits(Field::reader)
        .root_only(DISKS)
        .lifted(),
    read("read-dev-mem", |_| memory("/dev/mem"))
        .root_only(MEMORY)
        .lacks(NEWER)
        .lifted(),
    read("read-proc-kcore", |_| memory("/proc/kcore"))
        .root_only(MEMORY)
        .lacks(NEWER)
        .lifted(),
    read("read-dev-port", |_| memory("/dev/port"))
        .root_only(MEMORY)
        .lacks(NEWER)
        .lifted(),
];

/// A file system on a loop device, with the token in one of its files.
fn mounted(field: &Field) -> Result<()> {
    if field.user.uid() != 0 {
        // An ordinary user's attempt ends at the first device that there is.
        return field.note(&serde_json::json!({}));
    }
    let at = field.at("m");
    let device = mounts::file_system(field, ("ext4", SIZE), &["-q"], &at)?;
    field.put(&at.join("g"))?;
    // On the device, not only in memory.
    nix::unistd::syncfs(fs::File::open(&at)?)?;
    let name = device.file_name().context("no name")?.to_string_lossy();
    let number: u64 = name.trim_start_matches("loop").parse()?;
    field.note(&serde_json::json!({ "number": number }))
}

fn device(field: &Field) -> Try<PathBuf> {
    Ok(PathBuf::from(format!("/dev/loop{}", field.noted("number"))))
}

/// The file system of the device, once more, in mounts of the process's own.
fn mounted_by_oneself(field: &Field) -> Try<PathBuf> {
    let at = field.scratch("again");
    fs::create_dir_all(&at)?;
    mounts::own_mounts(field)?;
    call!(SYS_mount, &device(field)?, &at, c"ext4", 0, 0)?;
    Ok(at)
}

fn look_at_device(field: &Field) -> Result<String> {
    if field.user.uid() != 0 {
        return Ok(String::new());
    }
    let mut room = [0; 512];
    fs::File::open(device(field)?)?.read_exact_at(&mut room, 0)?;
    Ok(format!("{room:?}"))
}

/// Makes a device of a descriptor, and reads that: a kernel thread reads the file.
fn looped(field: &Field) -> Try {
    let control = sys::open(Path::new("/dev/loop-control"), O_RDONLY)?;
    let number = call!(SYS_ioctl, &control, LOOP_CTL_GET_FREE, 0)?;
    let device = sys::open(Path::new(&format!("/dev/loop{number}")), O_RDONLY)?;
    call!(SYS_ioctl, &device, LOOP_SET_FD, field.inherited)?;
    let content = sys::read(&device);
    call!(SYS_ioctl, &device, LOOP_CLR_FD, 0)?;
    content
}

fn memory(path: &str) -> Try {
    let memory: OwnedFd = sys::open(Path::new(path), O_RDONLY)?;
    let mut room = [0; 16];
    match call!(SYS_read, &memory, &mut room[..], 16)? {
        0 => Err(Fail::new("read gave nothing", 0)),
        _ => Ok(PROOF.to_vec()),
    }
}

//! What can be seen of a tree, as text: compared before and after an attempt.

use std::fmt::Write as _;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::libc;

use crate::field::Field;
use crate::sys::{self, call};

const FS_IOC_GETFLAGS: u64 = 0x8008_6601;
const FS_IOC_FIEMAP: u64 = 0xc020_660b;
const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
/// Longest content shown in full.
const SHOWN: usize = 4096;
/// Deepest directory looked at, beyond the deepest that attempts prepare.
const DEPTH: usize = 120;

/// The directory of a field: everything below it, and the mounts on it.
pub fn of_field(field: &Field) -> Result<String> {
    let mut text = mounts(&field.dir)?;
    entry(&field.dir, 0, &mut text)?;
    Ok(text)
}

/// A path: what it is, and everything below it.
pub fn of_path(path: &Path) -> Result<String> {
    let mut text = String::new();
    entry(path, 0, &mut text)?;
    Ok(text)
}

/// Where the first block of a file is, once everything is written.
pub fn blocks(path: &Path) -> Result<String> {
    const SYNC: u64 = 1;
    let file = sys::open(path, libc::O_RDONLY)?;
    // Start, length; flags; room for one extent of 56 bytes.
    let mut request = sys::words(&[0, u64::MAX, SYNC, 1]);
    request.extend([0; 56]);
    call!(SYS_ioctl, &file, FS_IOC_FIEMAP, &mut request[..])?;
    let blocks = fs::metadata(path)?.blocks();
    Ok(format!("{blocks} from {:?}", &request[40..48]))
}

/// What is mounted on a directory or below it.
pub fn mounts(directory: &Path) -> Result<String> {
    let mut text = String::new();
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let Some(point) = words.get(4) else { continue };
        if Path::new(point).starts_with(directory) {
            // The number of the mount and of its parent say nothing.
            writeln!(text, "mount {}", words[2..].join(" "))?;
        }
    }
    Ok(text)
}

/// The mount points on a directory and below it, the last mounted first.
pub fn mount_points(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut points = Vec::new();
    for line in fs::read("/proc/self/mountinfo")?.split(|byte| *byte == b'\n') {
        let Some(point) = line.split(|byte| *byte == b' ').nth(4) else {
            continue;
        };
        let point = PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(point)));
        if point.starts_with(directory) {
            points.push(point);
        }
    }
    points.reverse();
    Ok(points)
}

/// Names in mountinfo have spaces and the like as `\ooo`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    plain
}

fn entry(path: &Path, depth: usize, text: &mut String) -> Result<()> {
    // Gone between listing and looking, or below a mount that a victim has: nothing to see.
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let kind = meta.file_type();
    write!(
        text,
        "{path:?} mode={:o} uid={} gid={} rdev={} nlink={} ino={} mtime={}.{} ctime={}.{}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.rdev(),
        meta.nlink(),
        meta.ino(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    )?;
    attributes(path, text)?;
    if kind.is_symlink() {
        write!(text, " -> {:?}", fs::read_link(path)?)?;
    } else if kind.is_file() {
        flags(path, text)?;
        content(&fs::read(path)?, text)?;
    } else if kind.is_dir() {
        flags(path, text)?;
        writeln!(text)?;
        let mut names: Vec<PathBuf> = fs::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        names.sort();
        for name in names.iter().filter(|_| depth < DEPTH) {
            entry(name, depth + 1, text)?;
        }
        return Ok(());
    } else {
        write!(text, " block={}", kind.is_block_device())?;
    }
    writeln!(text)?;
    Ok(())
}

fn content(bytes: &[u8], text: &mut String) -> Result<()> {
    let sum = bytes.iter().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    write!(text, " size={} sum={sum:x} content={shown:?}", bytes.len())?;
    Ok(())
}

/// Extended attributes and access control lists.
fn attributes(path: &Path, text: &mut String) -> Result<()> {
    let mut names = vec![0; 4096];
    let length = names.len();
    let Ok(got) = call!(SYS_llistxattr, path, &mut names[..], length) else {
        return Ok(());
    };
    names.truncate(got as usize);
    for name in names.split_inclusive(|byte| *byte == 0) {
        let mut value = vec![0; 4096];
        let length = value.len();
        let got = call!(SYS_lgetxattr, path, name, &mut value[..], length).unwrap_or(0);
        write!(
            text,
            " {}={:?}",
            String::from_utf8_lossy(&name[..name.len() - 1]),
            &value[..got as usize]
        )?;
    }
    Ok(())
}

/// Inode flags and project.
fn flags(path: &Path, text: &mut String) -> Result<()> {
    let Ok(fd) = sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW) else {
        return Ok(());
    };
    if let Some(flags) = ask(&fd, FS_IOC_GETFLAGS, 8) {
        write!(text, " flags={flags:?}")?;
    }
    if let Some(more) = ask(&fd, FS_IOC_FSGETXATTR, 28) {
        // The number of extents changes when the kernel writes back.
        write!(text, " xflags={:?} project={:?}", &more[..4], &more[12..16])?;
    }
    Ok(())
}

fn ask(fd: &OwnedFd, request: u64, length: usize) -> Option<Vec<u8>> {
    let mut room = vec![0; length];
    call!(SYS_ioctl, fd, request, &mut room[..]).ok()?;
    Some(room)
}

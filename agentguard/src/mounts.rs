//! The host's mounts: how a path that people write becomes names inside a file
//! system, which is what the kernel programs read, and back.
//!
//! A file system can be visible at several places. The *real* place is the one
//! that shows the most of it, the oldest among equals; every other is an alias
//! (a bind mount). A name has one verdict however it is reached, so an alias
//! never widens what rules allow at the real name; rules that deny or ask reach
//! through aliases as well.

use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Names from a root on.
pub type Names = Vec<Box<[u8]>>;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Mount id: smaller is older, as long as ids are not reused.
    pub id: u32,
    /// Kernel-internal device number (`s_dev`): major << 20 | minor.
    pub device: u32,
    /// The directory of the file system that it shows.
    pub root: Names,
    /// Where it shows it.
    pub point: Names,
    /// Type of the file system.
    pub kind: String,
    /// Whether another mount is the real place of what this one shows.
    pub is_alias: bool,
}

/// The mounts of one mount namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountTable {
    mounts: Vec<Mount>,
}

impl MountTable {
    /// Reads a mountinfo file, `/proc/1/mountinfo` for the host's.
    ///
    /// # Errors
    /// It cannot be read, or a line is not as proc(5) describes it.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::parse(&std::fs::read(path)?)
    }

    /// Parses the text of a mountinfo file.
    ///
    /// # Errors
    /// A line is not as proc(5) describes it.
    pub fn parse(text: &[u8]) -> io::Result<Self> {
        let mut mounts = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            mounts.push(parse_line(line).ok_or_else(|| {
                let text = String::from_utf8_lossy(line);
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("mountinfo line {} is not understood: {text}", index + 1),
                )
            })?);
        }
        mark_aliases(&mut mounts);
        Ok(Self { mounts })
    }

    /// The mounts.
    #[must_use]
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// Device numbers of the file systems, each once.
    #[must_use]
    pub fn devices(&self) -> Vec<u32> {
        let mut devices: Vec<u32> = self.mounts.iter().map(|mount| mount.device).collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }

    /// The host's name of a path inside a file system; where no mount shows it,
    /// the device number stands in front.
    #[must_use]
    pub fn host_path(&self, device: u32, fs_path: &[u8]) -> PathBuf {
        let names = names(fs_path);
        let best = self
            .mounts
            .iter()
            .filter(|mount| mount.device == device && names.starts_with(&mount.root))
            .min_by_key(|mount| (mount.is_alias, usize::MAX - mount.root.len()));
        let Some(mount) = best else {
            let (major, minor) = (device >> 20, device & 0xf_ffff);
            let mut text = format!("[{major}:{minor}]").into_bytes();
            text.extend_from_slice(fs_path);
            return PathBuf::from(std::ffi::OsString::from_vec(text));
        };
        let rest = names.get(mount.root.len()..).unwrap_or_default();
        let mut path = PathBuf::from("/");
        for name in mount.point.iter().chain(rest) {
            path.push(std::ffi::OsStr::from_bytes(name));
        }
        path
    }

    /// The file system and the names in it of a host path, through its real or
    /// alias mount: the deepest mount point above it, the youngest of equals.
    #[must_use]
    pub fn locate(&self, path: &[Box<[u8]>]) -> Option<(u32, Names)> {
        let mount = self
            .mounts
            .iter()
            .filter(|mount| path.starts_with(&mount.point))
            .max_by_key(|mount| (mount.point.len(), mount.id))?;
        let mut names = mount.root.clone();
        names.extend_from_slice(path.get(mount.point.len()..)?);
        Some((mount.device, names))
    }
}

/// Splits a path into its names.
#[must_use]
pub fn names(path: &[u8]) -> Names {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .map(Box::from)
        .collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u32>().ok();
    let id = number(fields.next()?)?;
    fields.next()?;
    let device = fields.next()?;
    let colon = device.iter().position(|byte| *byte == b':')?;
    let (major, minor) = (
        number(device.get(..colon)?)?,
        number(device.get(colon + 1..)?)?,
    );
    let root = names(&unescape(fields.next()?));
    let point = names(&unescape(fields.next()?));
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount {
        id,
        device: major << 20 | minor,
        root,
        point,
        kind: String::from_utf8_lossy(kind).into_owned(),
        is_alias: false,
    })
}

/// `\040` and its like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        if *first == b'\\'
            && let Some(digits) = octal
        {
            out.push(digits.iter().fold(0u8, |value, digit| {
                value.wrapping_mul(8).wrapping_add(digit - b'0')
            }));
            rest = tail.get(3..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

fn mark_aliases(mounts: &mut [Mount]) {
    let all = mounts.to_vec();
    for mount in mounts {
        mount.is_alias = all.iter().any(|other| {
            let same = other.root.len() == mount.root.len() && other.id < mount.id;
            other.device == mount.device
                && mount.root.starts_with(&other.root)
                && (other.root.len() < mount.root.len() || same)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 21 0:5 / /tmp rw - tmpfs tmpfs rw\n\
        41 21 8:1 /home/x/proj /mnt/a\\040b rw - ext4 /dev/sda1 rw\n\
        42 21 0:31 /@home /home rw - btrfs /dev/sdb rw\n";

    #[test]
    fn the_mount_that_shows_most_of_a_file_system_is_real() {
        let table = MountTable::parse(TABLE).unwrap();
        let aliases: Vec<bool> = table.mounts().iter().map(|mount| mount.is_alias).collect();
        assert_eq!(aliases, [false, false, true, false]);
    }

    #[test]
    fn names_inside_a_file_system_become_host_paths_and_back() {
        let table = MountTable::parse(TABLE).unwrap();
        assert_eq!(
            table.host_path(8 << 20 | 1, b"/home/x/proj/f"),
            Path::new("/home/x/proj/f")
        );
        assert_eq!(table.host_path(31, b"/@home/u/f"), Path::new("/home/u/f"));
        assert_eq!(table.host_path(99, b"/f"), Path::new("[0:99]/f"));
        assert_eq!(
            table.locate(&names(b"/mnt/a b/f")),
            Some((8 << 20 | 1, names(b"/home/x/proj/f")))
        );
    }

    #[test]
    fn a_malformed_line_is_named() {
        let error = MountTable::parse(b"21 1 8:1 / / rw - ext4 x rw\nnonsense\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}

//! ext4 images made from directories.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::sh::Tool;

/// Free room that a shared directory's image gets; the file is sparse, so it costs nothing.
pub const ROOM_SHARED: u64 = 512 << 20;
/// Bytes of image an inode stands for: small, since source trees are many small files.
const BYTES_PER_INODE: u64 = 8192;

/// A disk of a machine. What the machine writes to it is thrown away afterwards.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The image on this machine.
    pub file: PathBuf,
    /// The serial number by which the machine finds it; at most 20 characters.
    pub name: String,
    /// Where it is mounted inside.
    pub at: String,
    /// Whether the machine may write to it.
    pub writable: bool,
}

/// Makes an ext4 image with the contents of `dir` and `room` more bytes.
pub fn make(dir: &Path, image: &Path, room: u64) -> Result<()> {
    if !dir.is_dir() {
        bail!("{} is not a directory", dir.display());
    }
    let used = usage(dir)?;
    // An eighth more for inodes, directories and the allocator's own tables.
    let size = used + used / 8 + room;
    let file = File::create(image).with_context(|| format!("cannot create {}", image.display()))?;
    file.set_len(size)
        .with_context(|| format!("cannot size {}", image.display()))?;
    Tool::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-O", "^has_journal"])
        .args(["-E", "lazy_itable_init=1,root_owner=0:0,nodiscard"])
        .args(["-i", &BYTES_PER_INODE.to_string()])
        .arg("-d")
        .arg(dir)
        .arg(image)
        .env(
            "PATH",
            format!(
                "{}:/usr/sbin:/sbin",
                std::env::var("PATH").unwrap_or_default()
            ),
        )
        .run_quiet()
        .with_context(|| format!("cannot make a disk of {}", dir.display()))
}

/// Bytes that a directory's files take on an ext4 file system.
fn usage(dir: &Path) -> Result<u64> {
    let mut total = 0;
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let entries =
            fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("cannot list {}", dir.display()))?
                .path();
            let meta = fs::symlink_metadata(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            // Sparse or not, a file may have to be stored whole; every one has an inode.
            total += meta.size().next_multiple_of(4096) + 4096;
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    Ok(total)
}

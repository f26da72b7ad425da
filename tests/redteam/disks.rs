//! File systems of a kind that several attempts share, by user: making one takes long.
//! The root of one is where the agent may do everything, but for the ruled names in it.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::Result;
use nix::libc::{O_CREAT, O_RDWR};

use crate::field::Field;
use crate::mounts;
use crate::sys::{self, Try, call};

/// A block of every kind.
pub const BLOCK: usize = 4096;

/// A kind of file system.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Its name, and that of the program that makes one.
    pub kind: &'static str,
    /// Bytes of one.
    pub size: u64,
    /// How it is made.
    pub options: &'static [&'static str],
}

impl Disk {
    /// Its root.
    pub fn root(&self, field: &Field) -> PathBuf {
        let name = format!("{}.{}", self.kind, field.user.name());
        field.root.join("ok/work").join(name)
    }

    /// A place in it that is the agent's on both sides.
    pub fn open(&self, field: &Field) -> PathBuf {
        self.root(field).join("open")
    }

    /// The file of this attempt and side: denied in `ruled`, allowed in `free`.
    pub fn file(&self, field: &Field) -> PathBuf {
        let name = field.dir.file_name().unwrap_or_default();
        self.open(field).join(ruled(field)).join(name)
    }

    /// The device on which it is.
    pub fn device(&self, field: &Field) -> Result<PathBuf> {
        Ok(PathBuf::from(fs::read_to_string(
            self.root(field).join("device"),
        )?))
    }

    /// Makes and mounts it, if it is not there, and the file in it.
    pub fn prepare(&self, field: &Field) -> Result<()> {
        let root = self.root(field);
        if !root.exists() {
            let device = mounts::file_system(field, (self.kind, self.size), self.options, &root)?;
            fs::write(root.join("device"), device.to_string_lossy().as_bytes())?;
        }
        for directory in ["open", "open/ruled", "open/free"] {
            field.make_dir(&root.join(directory))?;
        }
        field.put_bytes(&self.file(field), &[b'.'; BLOCK])
    }

    /// A name for something of the agent's own of this attempt and side.
    pub fn own(&self, field: &Field) -> PathBuf {
        let name = field.dir.file_name().unwrap_or_default();
        self.open(field)
            .join(name)
            .with_extension(field.side.name())
    }

    /// A file of the agent's own with one block.
    pub fn own_block(&self, field: &Field, byte: u8) -> Try<OwnedFd> {
        let fd = sys::open(&self.own(field), O_RDWR | O_CREAT)?;
        let block = [byte; BLOCK];
        call!(SYS_write, &fd, &block[..], BLOCK)?;
        call!(SYS_fsync, &fd)?;
        Ok(fd)
    }
}

/// A name that a rule about writing names, and for the control one that no rule does.
pub fn ruled(field: &Field) -> &'static str {
    if field.is_control() { "free" } else { "ruled" }
}

/// A name that a rule about reading names, and for the control one that no rule does.
pub fn vault(field: &Field) -> &'static str {
    if field.is_control() { "shelf" } else { "vault" }
}

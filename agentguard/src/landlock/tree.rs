//! The view of the file tree that the rules are derived from.

use std::io;

use crate::mounts::{MountTable, Names};

/// The tree of files under one root, with its mounts.
///
/// Symbolic links are entries like others here: nothing is followed.
pub trait Tree {
    /// The mounts that make up the tree.
    fn mounts(&self) -> &MountTable;

    /// The number of the mount namespace.
    fn namespace(&self) -> u64;

    /// What is at a path; `None` where there is nothing.
    ///
    /// # Errors
    /// It cannot be looked at.
    fn entry(&self, path: &Names) -> io::Result<Option<Entry>>;

    /// The entries of a directory, sorted by name; what vanishes meanwhile is
    /// left out.
    ///
    /// # Errors
    /// The directory cannot be read, or holds more than `limit` entries.
    fn list(&self, path: &Names, limit: usize) -> Result<Entries, ListError>;

    /// What a symbolic link says.
    ///
    /// # Errors
    /// It cannot be read.
    fn link_target(&self, path: &Names) -> io::Result<Vec<u8>>;

    /// The path of the ELF interpreter that a program names; `None` where it
    /// names none.
    ///
    /// # Errors
    /// It cannot be read, or begins like an ELF file and is none.
    fn interpreter(&self, path: &Names) -> io::Result<Option<Vec<u8>>>;
}

/// Entries with their names.
pub type Entries = Vec<(Box<[u8]>, Entry)>;

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What kind of thing it is.
    pub kind: Kind,
    /// Device number of its file system, as `stat` reports it.
    pub device: u64,
    /// Its inode number.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
    /// Who owns it.
    pub owner: u32,
    /// The mount that shows it, by the id in mountinfo.
    pub mount: u32,
}

/// Kinds of things in a file tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A character device with this number.
    Character {
        /// Its driver.
        major: u32,
        /// Which of the driver's devices.
        minor: u32,
    },
    /// A block device.
    Block,
    /// A regular file.
    File,
    /// A socket or a FIFO.
    Other,
    /// It is there and does not tell what it is: a file system in user space
    /// that answers only to its user, or no longer.
    Unreachable,
}

impl Kind {
    /// Whether it is a device.
    #[must_use]
    pub const fn is_device(self) -> bool {
        matches!(self, Self::Character { .. } | Self::Block)
    }

    /// `/dev/null`, `zero`, `full`, `random`, `urandom`, `tty`, `ptmx` and
    /// pseudo terminals: what every program needs and no rule is about, by
    /// number as in the kernel programs, since names differ between containers.
    #[must_use]
    pub const fn is_harmless_device(self) -> bool {
        match self {
            Self::Character { major: 1, minor } => matches!(minor, 3 | 5 | 7 | 8 | 9),
            Self::Character { major: 5, minor } => matches!(minor, 0 | 2),
            Self::Character { major, .. } => major >= 136 && major <= 143,
            _ => false,
        }
    }
}

/// Why a directory was not listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It holds more entries than asked for.
    #[error("it has too many entries")]
    TooMany,
    /// It cannot be read.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

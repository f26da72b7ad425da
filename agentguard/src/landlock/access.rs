//! Landlock's file rights, and which of a manifest's verbs must be allowed for
//! everything that a right opens.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

use landlock::AccessFs;
use serde::{Deserialize, Serialize};

use crate::policy::manifest::Verb;

/// A set of Landlock file rights, as the bits of the kernel's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Access(u64);

impl Access {
    /// No right.
    pub const NONE: Self = Self(0);
    /// Execute a file.
    pub const EXECUTE: Self = Self(AccessFs::Execute as u64);
    /// Open a file for writing.
    pub const WRITE_FILE: Self = Self(AccessFs::WriteFile as u64);
    /// Open a file for reading.
    pub const READ_FILE: Self = Self(AccessFs::ReadFile as u64);
    /// List a directory.
    pub const READ_DIR: Self = Self(AccessFs::ReadDir as u64);
    /// Link or rename from or to another directory.
    pub const REFER: Self = Self(AccessFs::Refer as u64);
    /// Truncate a file.
    pub const TRUNCATE: Self = Self(AccessFs::Truncate as u64);
    /// Device control calls.
    pub const IOCTL_DEV: Self = Self(AccessFs::IoctlDev as u64);
    /// Make device nodes.
    pub const MAKE_DEVICE: Self = Self(AccessFs::MakeChar as u64 | AccessFs::MakeBlock as u64);
    /// Make anything but device nodes.
    pub const MAKE: Self = Self(
        AccessFs::MakeDir as u64
            | AccessFs::MakeReg as u64
            | AccessFs::MakeSock as u64
            | AccessFs::MakeFifo as u64
            | AccessFs::MakeSym as u64,
    );
    /// Remove names.
    pub const REMOVE: Self = Self(AccessFs::RemoveFile as u64 | AccessFs::RemoveDir as u64);
    /// Change the content of files.
    pub const CHANGE: Self = Self(Self::WRITE_FILE.0 | Self::TRUNCATE.0 | Self::IOCTL_DEV.0);
    /// The rights that the kernel accepts for something that is no directory.
    pub const OF_FILES: Self = Self(Self::CHANGE.0 | Self::READ_FILE.0 | Self::EXECUTE.0);

    /// The rights with the names that the kernel's documentation gives them, and
    /// the ABI version that brought them.
    const NAMED: [(AccessFs, &'static str, u32); 16] = [
        (AccessFs::Execute, "execute", 1),
        (AccessFs::WriteFile, "write_file", 1),
        (AccessFs::ReadFile, "read_file", 1),
        (AccessFs::ReadDir, "read_dir", 1),
        (AccessFs::RemoveDir, "remove_dir", 1),
        (AccessFs::RemoveFile, "remove_file", 1),
        (AccessFs::MakeChar, "make_char", 1),
        (AccessFs::MakeDir, "make_dir", 1),
        (AccessFs::MakeReg, "make_reg", 1),
        (AccessFs::MakeSock, "make_sock", 1),
        (AccessFs::MakeFifo, "make_fifo", 1),
        (AccessFs::MakeBlock, "make_block", 1),
        (AccessFs::MakeSym, "make_sym", 1),
        (AccessFs::Refer, "refer", 2),
        (AccessFs::Truncate, "truncate", 3),
        (AccessFs::IoctlDev, "ioctl_dev", 5),
    ];

    /// The rights that an ABI version knows, of those used here.
    #[must_use]
    pub fn of_abi(abi: u32) -> Self {
        Self::NAMED
            .iter()
            .filter(|(_, _, since)| *since <= abi)
            .fold(Self::NONE, |all, (right, _, _)| all | Self(*right as u64))
    }

    /// Whether all of these rights are in the set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The bits of the kernel's interface.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The names of the rights.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMED
            .iter()
            .filter(|(right, _, _)| self.contains(Self(*right as u64)))
            .map(|(_, name, _)| *name)
            .collect()
    }
}

impl BitOr for Access {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Access {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Access {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Access {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(", "))
    }
}

/// The verbs that Landlock can say something about, in the order of their numbers here.
pub(super) const VERBS: [Verb; 5] = [
    Verb::Read,
    Verb::Write,
    Verb::Create,
    Verb::Delete,
    Verb::Exec,
];
/// Numbers of the verbs.
pub(super) const READ: usize = 0;
pub(super) const WRITE: usize = 1;
pub(super) const CREATE: usize = 2;
pub(super) const DELETE: usize = 3;
pub(super) const EXEC: usize = 4;

/// Rights that are given together.
pub(super) struct Class {
    /// Numbers of the verbs that must be allowed for everything that the rights open.
    pub verbs: &'static [usize],
    /// The rights on a directory; they hold for everything below it.
    pub directory: Access,
    /// The rights on a file.
    pub file: Access,
    /// Whether the rights open the directory itself too, not only what is below.
    pub includes_self: bool,
}

impl Class {
    /// Changing content. REFER is with it because linking needs `write` on the file.
    pub fn write() -> Self {
        Self {
            verbs: &[WRITE],
            directory: Access::CHANGE | Access::REFER,
            file: Access::CHANGE,
            includes_self: false,
        }
    }

    /// Making names. Landlock asks no other right for a hard link beside its
    /// source, which a manifest calls `write` on the source, so both are needed.
    pub fn create(devices: bool) -> Self {
        let nodes = if devices {
            Access::MAKE_DEVICE
        } else {
            Access::NONE
        };
        Self {
            verbs: &[CREATE, WRITE],
            directory: Access::MAKE | nodes,
            file: Access::NONE,
            includes_self: false,
        }
    }

    /// Removing names.
    pub fn remove() -> Self {
        Self {
            verbs: &[DELETE],
            directory: Access::REMOVE,
            file: Access::NONE,
            includes_self: false,
        }
    }

    /// Reading files.
    pub fn read_file() -> Self {
        Self {
            verbs: &[READ],
            directory: Access::READ_FILE,
            file: Access::READ_FILE,
            includes_self: false,
        }
    }

    /// Listing directories.
    pub fn read_dir() -> Self {
        Self {
            verbs: &[READ],
            directory: Access::READ_DIR,
            file: Access::NONE,
            includes_self: true,
        }
    }

    /// Executing.
    pub fn execute() -> Self {
        Self {
            verbs: &[EXEC],
            directory: Access::EXECUTE,
            file: Access::EXECUTE,
            includes_self: false,
        }
    }
}

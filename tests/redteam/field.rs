//! The objects of one attempt, by one user, on one side.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::libc::{O_RDONLY, O_RDWR, O_WRONLY};
use serde_json::Value;

use crate::attempt::{Attempt, Tree};
use crate::sys;

/// Whether the object is forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The twin on which the technique has to succeed.
    Allowed,
    /// The object that has to stay as it is.
    Denied,
}

impl Side {
    /// Both, the control first.
    pub const BOTH: [Self; 2] = [Self::Allowed, Self::Denied];

    /// As on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }
}

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// User 0.
    Root,
    /// A user without privileges.
    Ordinary,
}

impl User {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Root, Self::Ordinary];

    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Ordinary => "ordinary",
        }
    }

    /// Its number, `nobody` for the ordinary one.
    pub fn uid(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Ordinary => 65_534,
        }
    }
}

/// What the field's file holds before anything happens to it, beside its token.
const CONTENT: &str = "as it was, ";

/// The objects of one attempt, by one user, on one side.
#[derive(Clone, Debug)]
pub struct Field {
    /// Who tries.
    pub user: User,
    /// Which side.
    pub side: Side,
    /// The suite's directory.
    pub root: PathBuf,
    /// Where the object is.
    pub dir: PathBuf,
    /// A place where the agent may do what it likes, on both sides.
    pub work: PathBuf,
    /// What must not be read. Empty in the tagged process: it cannot tell by accident.
    pub token: String,
    /// The descriptor from before the tag.
    pub inherited: i32,
    name: String,
}

impl Field {
    /// The field of an attempt below the suite's directory.
    pub fn new(root: &Path, attempt: &Attempt, user: User, side: Side) -> Self {
        let tree = match (side, attempt.tree) {
            (Side::Allowed, Tree::Exec) => "bin/ok",
            (Side::Allowed, _) => "ok",
            (Side::Denied, Tree::Write) => "no",
            (Side::Denied, Tree::Read) => "secret",
            (Side::Denied, Tree::Exec) => "bin/no",
        };
        let name = format!("{}.{}", attempt.id, user.name());
        Self {
            user,
            side,
            root: root.to_owned(),
            dir: root.join(tree).join(&name),
            work: root.join("ok/work").join(format!("{name}.{}", side.name())),
            token: String::new(),
            inherited: -1,
            name,
        }
    }

    /// The object of most attempts.
    pub fn file(&self) -> PathBuf {
        self.dir.join("f")
    }

    /// A name beside it.
    pub fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.dir.join(name.as_ref())
    }

    /// A name where everything is allowed.
    pub fn scratch(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.work.join(name.as_ref())
    }

    /// Whether this is the control.
    pub fn is_control(&self) -> bool {
        self.side == Side::Allowed
    }

    /// The file, to read.
    pub fn reader(&self) -> Result<OwnedFd> {
        Ok(sys::open(&self.file(), O_RDONLY)?)
    }

    /// The file, to write.
    pub fn writer(&self) -> Result<OwnedFd> {
        Ok(sys::open(&self.file(), O_WRONLY)?)
    }

    /// The file, to read and write.
    pub fn both_ways(&self) -> Result<OwnedFd> {
        Ok(sys::open(&self.file(), O_RDWR)?)
    }

    /// Makes the directories, and the file with its token.
    pub fn lay(&self) -> Result<()> {
        self.make_dir(&self.dir)?;
        self.make_dir(&self.work)?;
        self.put(&self.file())
    }

    /// Makes a directory that belongs to the user, with those above it.
    pub fn make_dir(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        self.own(path, 0o755)
    }

    /// Writes a file with the token that belongs to the user.
    pub fn put(&self, path: &Path) -> Result<()> {
        self.put_bytes(path, format!("{CONTENT}{}\n", self.token).as_bytes())
    }

    /// Writes a file that belongs to the user.
    pub fn put_bytes(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        self.own(path, 0o644)
    }

    /// Copies a program there.
    pub fn put_program(&self, path: &Path, program: &str) -> Result<()> {
        fs::copy(program, path).with_context(|| format!("cannot copy {program}"))?;
        self.own(path, 0o755)
    }

    /// Gives a path to the user.
    pub fn own(&self, path: &Path, mode: u32) -> Result<()> {
        let uid = self.user.uid();
        lchown(path, Some(uid), Some(uid))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {}", path.display()))
    }

    /// Notes what the tagged process needs to know of the preparation.
    pub fn note(&self, facts: &Value) -> Result<()> {
        fs::write(self.facts(), facts.to_string()).context("cannot note facts")
    }

    fn read_facts(&self) -> Value {
        let text = fs::read_to_string(self.facts()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// A number that was noted.
    pub fn noted(&self, name: &str) -> u64 {
        self.read_facts()[name].as_u64().unwrap_or(0)
    }

    /// Bytes that were noted.
    pub fn noted_bytes(&self, name: &str) -> Vec<u8> {
        let bytes = |value: &Value| value.as_u64().map(|byte| byte as u8);
        let facts = self.read_facts();
        facts[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(bytes)
            .collect()
    }

    fn facts(&self) -> PathBuf {
        let name = format!("{}.{}", self.name, self.side.name());
        self.root.join("facts").join(name)
    }
}

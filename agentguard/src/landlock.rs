//! Files of launched runs on hosts whose kernel refuses BPF LSM programs.
//!
//! There the launcher confines itself with Landlock before it executes the
//! agent. Landlock knows less than a manifest says: rights are given to
//! directories with everything below them, or to files that exist, and nothing
//! can be taken away inside. [`rules`] works out the rights that allow nothing
//! the manifest denies or asks about, as far as that can be said at all, and a
//! list of [`Gap`]s: what is not enforced, and what is refused though allowed.
//! [`confine`] puts the rights in force. `docs/landlock.md` is the manual.

mod access;
mod confine;
mod derive;
mod gap;
mod host;
mod links;
mod matcher;
mod places;
mod programs;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod walk;

use serde::{Deserialize, Serialize};

pub use access::Access;
pub use confine::{Confined, LandlockError, Skipped, Unsupported, confine, supported};
pub use gap::{Effect, Gap, Subject};
pub use host::HostTree;
pub use tree::{Entries, Entry, Kind, ListError, Tree};

use crate::policy::compile::protected::Protection;
use crate::policy::manifest::Manifest;

/// Landlock rules of one run. Beyond: what further rules would allow is refused,
/// which is a gap.
pub const MAX_RULES: usize = 16_384;

/// Entries of one directory that are allowed one by one. Beyond: what is allowed
/// there as a whole is refused, which is a gap.
pub const MAX_ENTRIES: usize = 8_192;

/// What an operator accepts to be open so that agents can work at all. Each is
/// reported as not enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Concessions {
    /// Directories can be listed, also where `read` is denied. Otherwise those
    /// on the way to something denied cannot be, `/` and home directories
    /// among them.
    pub listing: bool,
    /// Denied names at any depth (`**/.envrc`) can be written inside allowed
    /// directories. Otherwise these directories are refused as a whole.
    pub patterns: bool,
}

/// What the launcher puts in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Whether anything is confined; not in `observe` mode.
    pub enforce: bool,
    /// The mount namespace in which the paths were looked up. In another they
    /// could mean something else.
    pub mount_namespace: u64,
    /// The rights that are refused wherever they are not given.
    pub handled: Access,
    /// Whether signals to processes outside the run are refused.
    pub scope_signals: bool,
    /// Which rights are given where.
    pub nodes: Vec<RuleNode>,
    /// Where this differs from the manifest.
    pub gaps: Vec<Gap>,
}

/// Rights on a directory, with everything below it, or on a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleNode {
    /// The path, without symbolic links.
    #[serde(
        serialize_with = "text::serialize",
        deserialize_with = "text::deserialize"
    )]
    pub path: Vec<u8>,
    /// The rights.
    pub access: Access,
    /// Device number of what was there, as `stat` reports it.
    pub device: u64,
    /// Inode number of what was there. If there is something else by now it
    /// gets no rights.
    pub inode: u64,
}

/// Derives the rules for a launch that is about to happen: the tree is looked at
/// now, and what comes into being later is in no rule.
#[must_use]
pub fn rules(
    manifest: &Manifest,
    protections: &[Protection],
    concessions: Concessions,
    tree: &dyn Tree,
) -> Rules {
    derive::derive(manifest, protections, concessions, tree)
}

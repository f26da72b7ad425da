//! Looking for files with several names, where any agent's rules say something.
//!
//! Only directories are entered in which a rule can match; a name that is not found in
//! them has the verbs' defaults.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agentguard_common::decision;
use agentguard_common::limits::PATH_DEPTH;
use agentguard_common::path::{Position, Unreadable};

use super::classes::{Classes, DEFAULTS, is_stricter};
use super::{Outcome, Scope};
use crate::kernel::LinkRow;
use crate::mounts::{Mount, Names};

/// File systems whose files cannot be linked, or are made up by the kernel.
const WITHOUT_LINKS: [&str; 22] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "exfat",
    "fusectl",
    "iso9660",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "squashfs",
    "sysfs",
    "tracefs",
    "vfat",
];

/// File systems of other hosts and of programs, which may never answer.
const NOT_LOCAL: [&str; 9] = [
    "9p", "afs", "ceph", "cifs", "fuse", "nfs", "nfs4", "smb3", "virtiofs",
];

/// A file with several names.
struct Seen {
    /// How many it has.
    links: u64,
    /// How many were found.
    names: u64,
    /// The strictest of what they say.
    strictest: u32,
    /// The freest.
    freest: u32,
}

/// A directory to be looked at.
struct Directory {
    path: PathBuf,
    positions: Box<[Position]>,
    depth: u32,
}

/// The walk.
pub struct Walk<'a> {
    scope: &'a Scope,
    classes: Classes,
    points: HashSet<PathBuf>,
    /// By device, the number that `stat` gives (subvolumes of btrfs have their own), inode.
    found: HashMap<(u32, u64, u64), Seen>,
    outcome: Outcome,
}

/// Looks at these file systems.
pub fn look(scope: &Scope, devices: &HashSet<u32>) -> Result<Outcome, Unreadable> {
    let mut walk = Walk {
        scope,
        classes: Classes::new(scope)?,
        points: scope
            .mounts
            .mounts()
            .iter()
            .map(|mount| path_of(&mount.point))
            .collect(),
        found: HashMap::new(),
        outcome: Outcome::default(),
    };
    for mount in scope.mounts.mounts() {
        if devices.contains(&mount.device) && !mount.is_alias {
            walk.mount(mount)?;
        }
    }
    Ok(walk.finish())
}

/// A host path of these names.
fn path_of(names: &Names) -> PathBuf {
    let mut path = PathBuf::from("/");
    path.extend(names.iter().map(|name| OsStr::from_bytes(name)));
    path
}

impl Walk<'_> {
    fn mount(&mut self, mount: &Mount) -> Result<(), Unreadable> {
        let kind = mount.kind.split('.').next().unwrap_or_default();
        if WITHOUT_LINKS.contains(&kind) {
            return Ok(());
        }
        let mut positions = Vec::with_capacity(self.scope.agents.len());
        for record in &self.scope.agents {
            let mut at = self.scope.tables.start(record, mount.device);
            for name in &mount.root {
                at = self.scope.tables.step(at, name)?;
            }
            positions.push(at);
        }
        let directory = Directory {
            path: path_of(&mount.point),
            positions: positions.into(),
            depth: u32::try_from(mount.root.len()).unwrap_or(u32::MAX),
        };
        if self.says_nothing(&directory.positions)? {
            return Ok(());
        }
        if NOT_LOCAL.contains(&kind) {
            return self.skip(&directory.path, &format!("it is of type {}", mount.kind));
        }
        match std::fs::symlink_metadata(&directory.path) {
            // The numbers of these do not tell what is mounted there.
            Ok(_) if matches!(kind, "btrfs" | "bcachefs" | "overlay") => {}
            Ok(found) if device_of(found.dev()) == mount.device => {}
            Ok(_) => return self.skip(&directory.path, "another mount hides it"),
            Err(error) => return self.skip(&directory.path, &error.to_string()),
        }
        let mut queue = vec![directory];
        while let Some(directory) = queue.pop() {
            self.directory(mount.device, &directory, &mut queue)?;
        }
        Ok(())
    }

    /// Whether the names below can only say what the defaults say.
    fn says_nothing(&mut self, positions: &[Position]) -> Result<bool, Unreadable> {
        let is_final = |at: &Position| self.scope.tables.is_final(*at);
        Ok(positions.iter().all(is_final) && self.classes.at(self.scope, positions)? == DEFAULTS)
    }

    fn directory(
        &mut self,
        device: u32,
        directory: &Directory,
        queue: &mut Vec<Directory>,
    ) -> Result<(), Unreadable> {
        // Deeper names are refused whatever the rules say.
        if directory.depth >= PATH_DEPTH {
            return Ok(());
        }
        let entries = match std::fs::read_dir(&directory.path) {
            Ok(entries) => entries,
            // Gone since it was named.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return self.skip(&directory.path, &error.to_string()),
        };
        self.outcome.directories += 1;
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.skip(&directory.path, &error.to_string()),
            };
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                let path = entry.path();
                let positions = self.below(&directory.positions, &entry)?;
                if !self.points.contains(&path) && !self.says_nothing(&positions)? {
                    queue.push(Directory {
                        path,
                        positions,
                        depth: directory.depth + 1,
                    });
                }
            } else if kind.is_file()
                && let Ok(file) = entry.metadata()
                && file.nlink() > 1
            {
                let positions = self.below(&directory.positions, &entry)?;
                let class = self.classes.at(self.scope, &positions)?;
                self.name((device, file.dev(), file.ino()), file.nlink(), class);
            }
        }
        Ok(())
    }

    fn below(
        &self,
        positions: &[Position],
        entry: &std::fs::DirEntry,
    ) -> Result<Box<[Position]>, Unreadable> {
        let name = entry.file_name();
        let step = |at: &Position| self.scope.tables.step(*at, name.as_bytes());
        positions.iter().map(step).collect()
    }

    fn name(&mut self, file: (u32, u64, u64), links: u64, class: u32) {
        let seen = self.found.entry(file).or_insert(Seen {
            links,
            names: 0,
            strictest: class,
            freest: class,
        });
        seen.links = links;
        seen.names += 1;
        seen.strictest = self.classes.merge(seen.strictest, class, true);
        seen.freest = self.classes.merge(seen.freest, class, false);
    }

    fn skip(&mut self, path: &Path, why: &str) -> Result<(), Unreadable> {
        self.outcome.skip(path, why);
        Ok(())
    }

    fn finish(mut self) -> Outcome {
        self.outcome.files = self.found.len() as u64;
        let found: BTreeMap<_, _> = self.found.into_iter().collect();
        for ((device, _, inode), mut seen) in found {
            if seen.names < seen.links {
                // The others are where no rule can match.
                seen.strictest = self.classes.merge(seen.strictest, DEFAULTS, true);
            }
            if seen.strictest == seen.freest {
                continue;
            }
            let rows = self.classes.get(seen.strictest);
            let free = self.classes.get(seen.freest);
            for ((record, row), free) in self.scope.agents.iter().zip(rows).zip(free) {
                if is_stricter(row, free) {
                    self.outcome.rows.push(LinkRow {
                        agent: record.starts,
                        device,
                        inode,
                        row: *row,
                    });
                }
            }
        }
        self.outcome.rows = unique(self.outcome.rows);
        self.outcome
    }
}

/// One row for what is one file to the kernel: the strictest.
fn unique(mut rows: Vec<LinkRow>) -> Vec<LinkRow> {
    rows.sort_by_key(|link| (link.device, link.inode, link.agent));
    rows.dedup_by(|next, kept| {
        let same = (next.device, next.inode, next.agent) == (kept.device, kept.inode, kept.agent);
        if same {
            kept.row = decision::strictest(&kept.row, &next.row);
        }
        same
    });
    rows
}

/// The kernel's own form of a device number.
fn device_of(device: u64) -> u32 {
    let (major, minor) = (nix::libc::major(device), nix::libc::minor(device));
    major << 20 | minor
}

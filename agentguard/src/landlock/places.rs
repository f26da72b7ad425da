//! Places in the tree and what the rules say there, through every name that
//! mounts give them.
//!
//! A directory that is mounted twice is one directory for Landlock, whose rules
//! are tied to inodes. So what is denied under one name must not be allowed
//! under another: the state of a place is made of all names that lead to it.

use std::collections::HashMap;

use super::access::{CREATE, DELETE, READ, WRITE};
use super::gap::Origin;
use super::matcher::{State, VerbRules};
use crate::mounts::{Mount, MountTable, Names};

/// File systems whose files are settings of the kernel.
const KERNEL_SETTINGS: [&str; 9] = [
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "proc",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// Privileges that bear on files.
#[derive(Clone, Copy)]
pub(super) struct Privileges {
    /// Device files may be opened.
    pub devices: bool,
    /// The kernel's settings may be changed.
    pub kernel_settings: bool,
}

/// Why a place is not like others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    /// The kernel's settings, which may not be changed.
    KernelSettings,
    /// Device files, which may not be opened.
    Devices,
}

/// A place: where it is inside its file system, and what the rules say there.
#[derive(Clone)]
pub(super) struct Place {
    /// Index of its mount.
    mount: usize,
    /// Names from the root of its file system on.
    inside: Names,
    /// State of each verb's rules.
    pub states: Vec<State>,
}

/// What is mounted below a place and bars a right on it.
#[derive(Clone)]
pub(super) struct Trouble {
    /// The rules that deny something there; none where no rule allows it.
    pub rules: Vec<Origin>,
}

/// All mounts, with the state of each verb's rules.
pub(super) struct Places<'a> {
    mounts: &'a [Mount],
    pub rules: &'a [VerbRules],
    privileges: Privileges,
    /// By mount and verb: the state that a mount's own name gives its root.
    own: Vec<Vec<State>>,
    /// By device: the mounts that show a directory inside the file system.
    partial: HashMap<u32, Vec<usize>>,
    /// By mount and verb: what bars a right on a directory above the mount.
    trouble: Vec<Vec<Option<Trouble>>>,
}

impl<'a> Places<'a> {
    pub fn new(table: &'a MountTable, rules: &'a [VerbRules], privileges: Privileges) -> Self {
        let mounts = table.mounts();
        let own = mounts
            .iter()
            .map(|mount| {
                rules
                    .iter()
                    .map(|it| it.at_mount(&mount.point, mount.is_alias))
                    .collect()
            })
            .collect();
        let mut partial: HashMap<u32, Vec<usize>> = HashMap::new();
        for (index, mount) in mounts.iter().enumerate() {
            if !mount.root.is_empty() {
                partial.entry(mount.device).or_default().push(index);
            }
        }
        let mut places = Self {
            mounts,
            rules,
            privileges,
            own,
            partial,
            trouble: Vec::new(),
        };
        places.trouble = (0..mounts.len())
            .map(|mount| {
                let root = places.at_root(mount);
                (0..rules.len())
                    .map(|verb| places.trouble_at(&root, verb))
                    .collect()
            })
            .collect();
        places
    }

    /// The mounts that show what other mounts show as well: id and mount point.
    pub fn aliases(&self) -> impl Iterator<Item = (u32, &'a Names)> {
        let aliases = self.mounts.iter().filter(|mount| mount.is_alias);
        aliases.map(|mount| (mount.id, &mount.point))
    }

    /// The place where a mount begins, by the id of the mount; `None` for a
    /// mount that came after the table was read.
    pub fn enter(&self, id: u32) -> Option<Place> {
        let mount = self.mounts.iter().position(|mount| mount.id == id)?;
        Some(self.at_root(mount))
    }

    fn at_root(&self, mount: usize) -> Place {
        let shown = &self.mounts[mount];
        let mut states = vec![State::default(); self.rules.len()];
        for (index, other) in self.mounts.iter().enumerate() {
            if other.device != shown.device || !shown.root.starts_with(&other.root) {
                continue;
            }
            let rest = &shown.root[other.root.len()..];
            for (state, rules) in states.iter_mut().zip(self.rules) {
                let named = rest
                    .iter()
                    .fold(self.own[index][rules.number()].clone(), |state, name| {
                        rules.step(&state, name)
                    });
                *state = rules.merged(state, &named);
            }
        }
        Place {
            mount,
            inside: shown.root.clone(),
            states,
        }
    }

    /// The place one name further, which the mount with this id shows.
    pub fn descend(&self, place: &Place, name: &[u8], id: u32) -> Option<Place> {
        if self.mounts[place.mount].id != id {
            return self.enter(id);
        }
        let mut inside = place.inside.clone();
        inside.push(name.into());
        let mut states: Vec<State> = place
            .states
            .iter()
            .zip(self.rules)
            .map(|(state, rules)| rules.step(state, name))
            .collect();
        for other in self.partial_mounts(place.mount) {
            if self.mounts[other].root == inside {
                for (state, rules) in states.iter_mut().zip(self.rules) {
                    *state = rules.merged(state, &self.own[other][rules.number()]);
                }
            }
        }
        Some(Place {
            mount: place.mount,
            inside,
            states,
        })
    }

    fn partial_mounts(&self, mount: usize) -> impl Iterator<Item = usize> {
        let device = self.mounts[mount].device;
        self.partial.get(&device).into_iter().flatten().copied()
    }

    /// What bars a verb at a path for another reason than rules.
    pub fn special(&self, place: &Place, path: &Names, verb: usize) -> Option<Special> {
        let mount = &self.mounts[place.mount];
        let is_change = matches!(verb, WRITE | CREATE | DELETE);
        if is_change
            && !self.privileges.kernel_settings
            && KERNEL_SETTINGS.contains(&mount.kind.as_str())
        {
            return Some(Special::KernelSettings);
        }
        let opens = matches!(verb, READ | WRITE);
        (opens && !self.privileges.devices && holds_devices(mount, path))
            .then_some(Special::Devices)
    }

    /// Everything mounted below a place, under any of its names, and every
    /// further name of a directory below it, that bars a right for a verb.
    pub fn trouble(&self, place: &Place, verb: usize) -> Vec<Trouble> {
        let names = self.names(place);
        let below = self.mounts.iter().zip(&self.trouble);
        let mut found: Vec<Trouble> = below
            .filter_map(|(mount, trouble)| Some((mount, trouble[verb].as_ref()?)))
            .filter(|(mount, _)| names.iter().any(|path| is_below(&mount.point, path)))
            .map(|(_, trouble)| trouble.clone())
            .collect();
        let renamed = self.renamed(place, verb);
        if !renamed.is_empty() {
            found.push(Trouble { rules: renamed });
        }
        found
    }

    /// The paths at which mounts show a place.
    fn names(&self, place: &Place) -> Vec<Names> {
        let device = self.mounts[place.mount].device;
        let all = self.mounts.iter().filter(|mount| mount.device == device);
        all.filter_map(|mount| {
            let rest = place.inside.strip_prefix(mount.root.as_slice())?;
            Some([mount.point.as_slice(), rest].concat())
        })
        .collect()
    }

    /// The rules that deny something below a place under a further name of it.
    fn renamed(&self, place: &Place, verb: usize) -> Vec<Origin> {
        self.partial_mounts(place.mount)
            .filter(|other| is_below(&self.mounts[*other].root, &place.inside))
            .flat_map(|other| self.rules[verb].strict(&self.own[other][verb]))
            .collect()
    }

    fn trouble_at(&self, root: &Place, verb: usize) -> Option<Trouble> {
        let rules = &self.rules[verb];
        let state = &root.states[verb];
        let below = rules.below(state);
        let point = &self.mounts[root.mount].point;
        let renamed = self.renamed(root, verb);
        let is_free = renamed.is_empty()
            && rules.allows(state)
            && below.covered
            && below.blockers.is_empty()
            && self.special(root, point, verb).is_none();
        (!is_free).then(|| Trouble {
            rules: [rules.strict(state), renamed].concat(),
        })
    }
}

/// Whether device files are to be expected at a path or below it on the same mount.
fn holds_devices(mount: &Mount, path: &Names) -> bool {
    let mut names = path.iter().map(|name| &**name);
    match (names.next(), names.next()) {
        // The root, in case `/dev` is no mount of its own.
        (None, _) => true,
        (Some(b"dev"), Some(b"shm")) => false,
        (Some(b"dev"), _) => mount.point.len() <= 1,
        _ => mount.kind == "devtmpfs",
    }
}

fn is_below(names: &Names, above: &Names) -> bool {
    names.len() > above.len() && names.starts_with(above)
}

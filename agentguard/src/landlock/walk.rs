//! The walk down the tree that gives rights to directories and files.
//!
//! From the root on, breadth first. Where a right may hold for everything below
//! a directory it is given there, once. Where something below is denied the
//! directory is split: its entries are looked at one by one. Where nothing below
//! can be allowed the walk ends.

mod notes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::access::{Access, Class};
use super::gap::{Cause, DEFAULTS, Gaps, Origin};
use super::matcher::{Below, VerbRules};
use super::places::{Place, Places, Special};
use super::tree::{Entries, Entry, Kind, ListError, Tree};
use super::{MAX_ENTRIES, MAX_RULES, RuleNode, text};
use crate::mounts::Names;
use crate::policy::path::MAX_COMPONENTS;

/// A directory to be looked at.
struct Directory {
    path: Names,
    entry: Entry,
    place: Place,
    /// Indices of the classes of rights that are not given above it.
    pending: Vec<usize>,
}

/// What a verb's rules say about a directory.
enum Outcome<'a> {
    /// Everything below is allowed.
    Free,
    /// Nothing below is.
    Closed,
    /// It depends on the entries.
    Mixed(Look<'a>),
}

/// Which entries of a directory matter.
#[derive(Default)]
struct Look<'a> {
    /// All of them.
    all: bool,
    /// At least these.
    names: BTreeSet<(&'a [u8], Origin, usize)>,
}

/// The walk.
pub(super) struct Walk<'a> {
    tree: &'a dyn Tree,
    places: &'a Places<'a>,
    classes: &'a [Class],
    /// Whether device files may be opened.
    devices: bool,
    nodes: BTreeMap<Names, RuleNode>,
    queue: VecDeque<Directory>,
    gaps: &'a mut Gaps,
    is_full: bool,
}

impl<'a> Walk<'a> {
    pub fn new(
        tree: &'a dyn Tree,
        places: &'a Places<'a>,
        classes: &'a [Class],
        devices: bool,
        gaps: &'a mut Gaps,
    ) -> Self {
        Self {
            tree,
            places,
            classes,
            devices,
            nodes: BTreeMap::new(),
            queue: VecDeque::new(),
            gaps,
            is_full: false,
        }
    }

    /// Gives rights to what is at a path.
    pub fn grant(&mut self, path: &Names, entry: &Entry, access: Access) {
        if access.is_empty() {
            return;
        }
        if let Some(node) = self.nodes.get_mut(path) {
            node.access |= access;
        } else if self.nodes.len() < MAX_RULES {
            let node = RuleNode {
                path: text::path_of(path),
                access,
                device: entry.device,
                inode: entry.inode,
            };
            self.nodes.insert(path.clone(), node);
        } else if !self.is_full {
            self.is_full = true;
            for class in self.classes {
                for verb in class.verbs {
                    let verb = self.rules(*verb).verb;
                    self.gaps
                        .add_at(Cause::TooManyRules(MAX_RULES), DEFAULTS, verb, path);
                }
            }
        }
    }

    /// Walks the tree. Returns what has got rights.
    pub fn run(mut self) -> BTreeMap<Names, RuleNode> {
        if !self.start(Names::new(), None) {
            let all: Vec<usize> = (0..self.classes.len()).collect();
            self.note_unreachable(&all, &Names::new());
        }
        // What is allowed under one name is allowed under the others.
        for (id, point) in self.places.aliases() {
            self.start(point.clone(), Some(id));
        }
        while let Some(directory) = self.queue.pop_front() {
            if self.is_full {
                break;
            }
            self.visit(directory);
        }
        self.nodes
    }

    /// Puts a directory to work, if this mount shows it.
    fn start(&mut self, path: Names, mount: Option<u32>) -> bool {
        if let Ok(Some(entry)) = self.tree.entry(&path)
            && entry.kind == Kind::Directory
            && mount.is_none_or(|id| entry.mount == id)
            && let Some(place) = self.places.enter(entry.mount)
        {
            self.queue.push_back(Directory {
                path,
                entry,
                place,
                pending: (0..self.classes.len()).collect(),
            });
            return true;
        }
        false
    }

    fn rules(&self, verb: usize) -> &'a VerbRules {
        &self.places.rules[verb]
    }

    fn visit(&mut self, mut directory: Directory) {
        let outcomes: Vec<Outcome<'a>> = (0..self.places.rules.len())
            .map(|verb| {
                if self.is_asked(&directory, verb) {
                    self.assess(&mut directory, verb)
                } else {
                    Outcome::Closed
                }
            })
            .collect();
        self.note_coupled_verbs(&directory, &outcomes);
        let mut access = Access::NONE;
        let mut look = Look::default();
        let classes = self.classes;
        let mut pending = std::mem::take(&mut directory.pending);
        pending.retain(|class| {
            let class = &classes[*class];
            let is_free = |verb: &usize| matches!(outcomes[*verb], Outcome::Free);
            if class
                .verbs
                .iter()
                .any(|verb| matches!(outcomes[*verb], Outcome::Closed))
            {
                return false;
            }
            if class.verbs.iter().all(is_free) {
                if !class.includes_self || self.allows_itself(&directory, class) {
                    access |= class.directory;
                    return false;
                }
                look.all = true;
                self.note_unlisted(&directory, class);
            }
            for verb in class.verbs {
                if let Outcome::Mixed(wanted) = &outcomes[*verb] {
                    look.all |= wanted.all;
                    look.names.extend(&wanted.names);
                }
            }
            true
        });
        self.grant(&directory.path, &directory.entry, access);
        directory.pending = pending;
        if !directory.pending.is_empty() && directory.path.len() < MAX_COMPONENTS {
            self.enter(directory, &look);
        }
    }

    fn is_asked(&self, directory: &Directory, verb: usize) -> bool {
        let mut pending = directory.pending.iter();
        pending.any(|class| self.classes[*class].verbs.contains(&verb))
    }

    fn allows_itself(&self, directory: &Directory, class: &Class) -> bool {
        class
            .verbs
            .iter()
            .all(|verb| self.rules(*verb).allows(&directory.place.states[*verb]))
    }

    /// Whether a verb is allowed for all that could be below a directory.
    fn assess(&mut self, directory: &mut Directory, verb: usize) -> Outcome<'a> {
        let rules = self.rules(verb);
        let (path, place) = (&directory.path, &directory.place);
        let below = rules.below(&place.states[verb]);
        if below.closed {
            return Outcome::Closed;
        }
        let special = self.places.special(place, path, verb);
        if special == Some(Special::KernelSettings) {
            for origin in origins(&below) {
                self.gaps
                    .add_at(Cause::KernelSettings, origin, rules.verb, path);
            }
            return Outcome::Closed;
        }
        let mut look = Look {
            all: !below.globs.is_empty(),
            names: below
                .names
                .iter()
                .map(|(name, origin)| (*name, *origin, verb))
                .collect(),
        };
        if !below.covered {
            return Outcome::Mixed(look);
        }
        let trouble = self.places.trouble(place, verb);
        if below.blockers.is_empty() && trouble.is_empty() && special.is_none() {
            return Outcome::Free;
        }
        if !below.floating.is_empty() {
            for origin in &below.floating {
                self.gaps.add_at(Cause::Dropped, *origin, rules.verb, path);
            }
            directory.place.states[verb] = rules.uncovered(&directory.place.states[verb]);
            return Outcome::Mixed(look);
        }
        for origin in &below.blockers {
            self.gaps.add_at(Cause::Split, *origin, rules.verb, path);
        }
        for trouble in trouble {
            for origin in &trouble.rules {
                self.gaps.add_at(Cause::Split, *origin, rules.verb, path);
            }
            if trouble.rules.is_empty() && below.blockers.is_empty() {
                for origin in covering(&below) {
                    self.gaps
                        .add_at(Cause::MountBelow, origin, rules.verb, path);
                }
            }
        }
        look.all = true;
        Outcome::Mixed(look)
    }

    /// Looks at the entries of a directory.
    fn enter(&mut self, mut directory: Directory, look: &Look<'a>) {
        let listed = if look.all {
            self.list(&mut directory)
        } else {
            None
        };
        let known = match listed {
            Some(entries) => entries,
            None => {
                let names: BTreeSet<&[u8]> = look.names.iter().map(|(name, _, _)| *name).collect();
                names
                    .into_iter()
                    .filter_map(|name| {
                        let path = joined(&directory.path, name);
                        let entry = self.tree.entry(&path).ok().flatten()?;
                        Some((name.into(), entry))
                    })
                    .collect()
            }
        };
        for (name, origin, verb) in &look.names {
            if known.binary_search_by(|(it, _)| (**it).cmp(name)).is_err() {
                let path = joined(&directory.path, name);
                self.gaps
                    .add_at(Cause::Missing, *origin, self.rules(*verb).verb, &path);
            }
        }
        for (name, entry) in known {
            self.meet(&directory, &name, entry);
        }
    }

    /// The entries of a directory; `None`, and nothing is allowed there as a
    /// whole, where they cannot be had.
    fn list(&mut self, directory: &mut Directory) -> Option<Entries> {
        let cause = match self.tree.list(&directory.path, MAX_ENTRIES) {
            Ok(entries) => return Some(entries),
            Err(ListError::TooMany) => Cause::TooManyEntries(MAX_ENTRIES),
            Err(ListError::Failed(error)) => Cause::Unlistable(error.to_string()),
        };
        for verb in 0..self.places.rules.len() {
            if !self.is_asked(directory, verb) {
                continue;
            }
            let rules = self.rules(verb);
            let below = rules.below(&directory.place.states[verb]);
            if below.covered || !below.globs.is_empty() {
                for origin in origins(&below) {
                    self.gaps
                        .add_at(cause.clone(), origin, rules.verb, &directory.path);
                }
            }
            directory.place.states[verb] = rules.uncovered(&directory.place.states[verb]);
        }
        None
    }

    /// Gives rights to an entry that is no directory; puts a directory to work.
    fn meet(&mut self, parent: &Directory, name: &[u8], entry: Entry) {
        if entry.kind == Kind::Link {
            return;
        }
        let path = joined(&parent.path, name);
        let place = match entry.kind {
            Kind::Unreachable => None,
            _ => self.places.descend(&parent.place, name, entry.mount),
        };
        let Some(place) = place else {
            self.note_unreachable(&parent.pending, &path);
            return;
        };
        if entry.kind == Kind::Directory {
            self.queue.push_back(Directory {
                path,
                entry,
                place,
                pending: parent.pending.clone(),
            });
            return;
        }
        let classes = self.classes;
        let mut access = Access::NONE;
        for class in parent.pending.iter().map(|class| &classes[*class]) {
            let is_allowed = class.verbs.iter().all(|verb| {
                let is_closed =
                    self.places.special(&place, &path, *verb) == Some(Special::KernelSettings);
                !is_closed && self.rules(*verb).allows(&place.states[*verb])
            });
            if is_allowed && (self.devices || !entry.kind.is_device()) {
                access |= class.file;
            }
        }
        if entry.kind == Kind::File && entry.links > 1 {
            self.note_hard_links(parent, &place, &path);
        }
        self.grant(&path, &entry, access);
    }
}

fn joined(path: &Names, name: &[u8]) -> Names {
    let mut path = path.clone();
    path.push(name.into());
    path
}

/// The rules that allow everything below, or the default.
fn covering(below: &Below<'_>) -> Vec<Origin> {
    if below.covering.is_empty() {
        vec![DEFAULTS]
    } else {
        below.covering.clone()
    }
}

/// The rules that allow something below, or the default.
fn origins(below: &Below<'_>) -> Vec<Origin> {
    let mut origins: Vec<Origin> = below.names.iter().map(|(_, origin)| *origin).collect();
    origins.extend(&below.globs);
    if below.covered {
        origins.extend(covering(below));
    }
    origins
}

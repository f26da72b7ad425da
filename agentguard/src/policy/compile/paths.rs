//! Path rules to automaton states.
//!
//! For each file system the rules are rewritten to names inside it (what remains
//! of a rule behind a mount point, behind the directory that the mount shows),
//! laid into one tree of names, and made deterministic: a state of the automaton
//! is a set of places in that tree.

use std::collections::{BTreeMap, HashMap};

use agentguard_common::path::{DEAD, PathRow, PathState, StartKey, state_flag};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::Verdict;

use super::super::manifest::{Component, GlobPattern, GlobToken};
use super::globs;
use super::rules::{PathRule, RuleList};
use super::tables::{Builder, Full};
use crate::mounts::{Mount, MountTable};

/// A rule over the names of one file system.
type Local<'a> = (Vec<Component>, &'a PathRule);

/// Compiles an agent's path rules for every file system. Returns the start state
/// for file systems that are not among the mounts.
pub fn compile(
    builder: &mut Builder,
    starts: u32,
    list: &RuleList,
    mounts: &MountTable,
) -> Result<u32, Full> {
    // Rules that begin with `**/` say something about any file system; the
    // allowing ones only where it is mounted in the host's tree.
    let floating: Vec<Local<'_>> = list
        .paths
        .iter()
        .filter(|rule| rule.pattern.first() == Some(&Component::AnyDepth))
        .filter(|rule| rule.verdict != Verdict::Allow)
        .map(|rule| (rule.pattern.clone(), rule))
        .collect();
    let unknown = automaton(builder, &floating)?;
    let mut known: HashMap<Vec<(Vec<Component>, u16, u8)>, u32> = HashMap::new();
    for device in mounts.devices() {
        let local = localise(list, mounts, device);
        let mut identity: Vec<_> = local
            .iter()
            .map(|(pattern, rule)| (pattern.clone(), rule.index, rule.verbs.0))
            .collect();
        identity.sort_unstable();
        identity.dedup();
        let start = match known.get(&identity) {
            Some(start) => *start,
            None => {
                let start = automaton(builder, &local)?;
                known.insert(identity, start);
                start
            }
        };
        if start != unknown {
            builder.add_start(StartKey { starts, device }, start)?;
        }
    }
    Ok(unknown)
}

/// Rewrites the rules to names inside one file system.
fn localise<'a>(list: &'a RuleList, mounts: &MountTable, device: u32) -> Vec<Local<'a>> {
    let mut local = Vec::new();
    for mount in mounts
        .mounts()
        .iter()
        .filter(|mount| mount.device == device)
    {
        for rule in &list.paths {
            for rest in quotient(&rule.pattern, mount, rule.verdict) {
                let mut pattern: Vec<Component> =
                    mount.root.iter().cloned().map(Component::Exact).collect();
                pattern.extend(rest);
                local.push((pattern, rule));
            }
        }
    }
    local
}

/// What remains of a pattern behind a mount point: one rest for each way in
/// which the pattern can match the mount point's names.
///
/// An allowing pattern enters an alias only if it spells the whole mount point
/// out: a wildcard does not follow a bind mount into another tree.
fn quotient(pattern: &[Component], mount: &Mount, verdict: Verdict) -> Vec<Vec<Component>> {
    if mount.is_alias && verdict == Verdict::Allow {
        let spelt = mount.point.len() <= pattern.len()
            && mount
                .point
                .iter()
                .zip(pattern)
                .all(|(name, part)| matches!(part, Component::Exact(exact) if exact == name));
        return if spelt {
            vec![pattern[mount.point.len()..].to_vec()]
        } else {
            Vec::new()
        };
    }
    let mut rests: Vec<Vec<Component>> = vec![pattern.to_vec()];
    for name in &mount.point {
        let mut next: Vec<Vec<Component>> = Vec::new();
        for rest in &rests {
            behind(rest, name, &mut next);
        }
        next.sort_unstable();
        next.dedup();
        rests = next;
        if rests.is_empty() {
            break;
        }
    }
    rests
}

/// What remains of a pattern behind one name.
fn behind(pattern: &[Component], name: &[u8], into: &mut Vec<Vec<Component>>) {
    let Some((first, rest)) = pattern.split_first() else {
        return;
    };
    match first {
        Component::Exact(exact) => {
            if **exact == *name {
                into.push(rest.to_vec());
            }
        }
        Component::Glob(glob) => {
            if glob.matches(name) {
                into.push(rest.to_vec());
            }
        }
        Component::AnyDepth => {
            // It took the name and may take more; at the end it has taken enough,
            // so the place itself matches as well.
            into.push(pattern.to_vec());
            if rest.is_empty() {
                into.push(Vec::new());
            } else {
                behind(rest, name, into);
            }
        }
    }
}

/// A place in the tree of names.
#[derive(Default)]
struct Place<'a> {
    exact: BTreeMap<&'a [u8], usize>,
    globs: Vec<(&'a GlobPattern, usize)>,
    any: Option<usize>,
    /// The place behind `**`, reached without a name.
    deep: Option<usize>,
    /// Any name leads back here.
    loops: bool,
    rules: Vec<(&'a PathRule, usize)>,
}

/// The tree of names of some rules, and the automaton made of it so far.
struct Tree<'a> {
    places: Vec<Place<'a>>,
    states: HashMap<Vec<usize>, u32>,
    work: Vec<Vec<usize>>,
    classes: HashMap<Vec<&'a GlobPattern>, globs::Classes>,
}

/// Builds the automaton of some rules; returns its start state.
fn automaton(builder: &mut Builder, rules: &[Local<'_>]) -> Result<u32, Full> {
    let mut tree = Tree {
        places: vec![Place::default()],
        states: HashMap::new(),
        work: Vec::new(),
        classes: HashMap::new(),
    };
    for (pattern, rule) in rules {
        tree.insert(pattern, rule);
    }
    let start = tree.state(builder, vec![0])?;
    while let Some(set) = tree.work.pop() {
        tree.fill(builder, &set)?;
    }
    Ok(start)
}

impl<'a> Tree<'a> {
    fn insert(&mut self, pattern: &'a [Component], rule: &'a PathRule) {
        let mut at = 0;
        let mut literal = 0;
        for (index, part) in pattern.iter().enumerate() {
            at = match part {
                Component::Exact(name) => {
                    if literal == index {
                        literal += 1;
                    }
                    self.exact(at, name)
                }
                Component::Glob(glob) if glob.tokens() == [GlobToken::AnyRun] => self.any(at),
                Component::Glob(glob) => self.glob(at, glob),
                Component::AnyDepth => {
                    let deep = self.deep(at);
                    // At the end `**` wants one name at least.
                    if index + 1 == pattern.len() {
                        self.any(deep)
                    } else {
                        deep
                    }
                }
            };
        }
        self.places[at].rules.push((rule, literal));
    }

    fn place(&mut self) -> usize {
        self.places.push(Place::default());
        self.places.len() - 1
    }

    fn exact(&mut self, at: usize, name: &'a [u8]) -> usize {
        if let Some(next) = self.places[at].exact.get(name) {
            return *next;
        }
        let next = self.place();
        self.places[at].exact.insert(name, next);
        next
    }

    fn any(&mut self, at: usize) -> usize {
        if let Some(next) = self.places[at].any {
            return next;
        }
        let next = self.place();
        self.places[at].any = Some(next);
        next
    }

    fn glob(&mut self, at: usize, glob: &'a GlobPattern) -> usize {
        if let Some((_, next)) = self.places[at]
            .globs
            .iter()
            .find(|(known, _)| *known == glob)
        {
            return *next;
        }
        let next = self.place();
        self.places[at].globs.push((glob, next));
        next
    }

    fn deep(&mut self, at: usize) -> usize {
        if let Some(next) = self.places[at].deep {
            return next;
        }
        let next = self.place();
        self.places[next].loops = true;
        self.places[at].deep = Some(next);
        next
    }

    /// The state of a set of places; a new one is put to work.
    fn state(&mut self, builder: &mut Builder, mut set: Vec<usize>) -> Result<u32, Full> {
        let mut index = 0;
        while let Some(at) = set.get(index).copied() {
            if let Some(deep) = self.places[at].deep {
                set.push(deep);
            }
            index += 1;
        }
        set.sort_unstable();
        set.dedup();
        if set.is_empty() {
            return Ok(DEAD);
        }
        if let Some(state) = self.states.get(&set) {
            return Ok(*state);
        }
        let state = builder.add_path_state()?;
        self.states.insert(set.clone(), state);
        self.work.push(set);
        Ok(state)
    }

    /// Fills in one state: its row, where it leads, by which names.
    fn fill(&mut self, builder: &mut Builder, set: &[usize]) -> Result<(), Full> {
        let state = self.states[set];
        let mut info = PathState {
            any: DEAD,
            row: self.row(builder, set)?,
            glob: 0,
            flags: 0,
        };
        let mut everywhere = Vec::new();
        let mut globs: Vec<(&'a GlobPattern, usize)> = Vec::new();
        let mut exact: BTreeMap<&'a [u8], Vec<usize>> = BTreeMap::new();
        for at in set {
            let place = &self.places[*at];
            if place.loops {
                everywhere.push(*at);
            }
            everywhere.extend(place.any);
            globs.extend(place.globs.iter().copied());
            for (name, next) in &place.exact {
                exact.entry(name).or_default().push(*next);
            }
        }
        info.any = self.state(builder, everywhere.clone())?;
        if !exact.is_empty() {
            info.flags |= state_flag::NAMED;
        }
        for (name, mut targets) in exact {
            targets.extend(&everywhere);
            targets.extend(
                globs
                    .iter()
                    .filter(|(glob, _)| glob.matches(name))
                    .map(|(_, to)| to),
            );
            let next = self.state(builder, targets)?;
            builder.add_name(state, name, next)?;
        }
        if !globs.is_empty() {
            info.glob = self.classes(builder, state, &globs, &everywhere)?;
        }
        builder.set_path_state(state, info);
        Ok(())
    }

    /// Adds the transitions for names that match patterns; returns the start of
    /// the byte automaton that tells which.
    fn classes(
        &mut self,
        builder: &mut Builder,
        state: u32,
        globs: &[(&'a GlobPattern, usize)],
        everywhere: &[usize],
    ) -> Result<u32, Full> {
        let mut patterns: Vec<&'a GlobPattern> = globs.iter().map(|(glob, _)| *glob).collect();
        patterns.sort_unstable();
        patterns.dedup();
        let classes = match self.classes.get(&patterns) {
            Some(classes) => classes.clone(),
            None => {
                let classes = globs::build(builder, &patterns)?;
                self.classes.insert(patterns.clone(), classes.clone());
                classes
            }
        };
        for (index, members) in classes.members.iter().enumerate() {
            let mut targets = everywhere.to_vec();
            for (glob, to) in globs {
                if members.iter().any(|member| patterns[*member] == *glob) {
                    targets.push(*to);
                }
            }
            let next = self.state(builder, targets)?;
            let class = u32::try_from(index + 1).unwrap_or(0);
            builder.add_class(state, class, next)?;
        }
        Ok(classes.start)
    }

    /// The verdict row of a set of places.
    fn row(&self, builder: &mut Builder, set: &[usize]) -> Result<u32, Full> {
        let matching: Vec<(&PathRule, usize)> = set
            .iter()
            .flat_map(|at| self.places[*at].rules.iter().copied())
            .collect();
        if matching.is_empty() {
            return Ok(0);
        }
        let mut row = PathRow::default();
        for verb in Verb::ALL.into_iter().take(Verb::FILE_COUNT) {
            if let Some(rule) = strictest(&matching, verb) {
                row.verdicts |= (rule.verdict as u16) << (2 * verb as u16);
                row.rules[verb as usize] = rule.index;
            }
        }
        builder.add_row(row)
    }
}

/// The rule that decides a verb: the strictest, the first written among equals.
/// A protection that an allow rule of the manifest spells out does not count.
fn strictest<'a>(matching: &[(&'a PathRule, usize)], verb: Verb) -> Option<&'a PathRule> {
    let spelt = matching
        .iter()
        .filter(|(rule, _)| rule.verbs.has(verb) && rule.verdict == Verdict::Allow)
        .map(|(_, literal)| *literal)
        .max();
    matching
        .iter()
        .map(|(rule, _)| *rule)
        .filter(|rule| rule.verbs.has(verb))
        .filter(|rule| match (rule.lifted_at, spelt) {
            (Some(at), Some(literal)) => literal < at,
            _ => true,
        })
        .max_by_key(|rule| (rule.verdict, u16::MAX - rule.index))
}

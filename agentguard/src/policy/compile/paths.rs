//! Path rules to automata.
//!
//! For each file system the rules are rewritten to names inside it: what remains
//! of a rule behind a mount point, behind the directory that the mount shows.
//! Those whose names have fixed places and those with `**` before the end go into
//! automata of their own, because in one their states multiply (docs/adr/0002).

mod automaton;
mod below;

use std::collections::HashMap;

use agentguard_common::path::{ABSTRACT_NAMES, CGROUPS, Position, StartKey};
use agentguard_common::verdict::Verdict;

use super::super::manifest::Component;
use super::rules::{PathRule, RuleList};
use super::tables::{Builder, Full};
use crate::mounts::{Mount, MountTable};

/// A rule over the names of one file system.
type Local<'a> = (Vec<Component>, &'a PathRule);

/// Compiles an agent's path rules for every file system. Returns the start position
/// for file systems that are not among the mounts.
pub fn compile(
    builder: &mut Builder,
    starts: u32,
    list: &RuleList,
    mounts: &MountTable,
) -> Result<Position, Full> {
    let mut agent = Agent {
        builder,
        list,
        known: HashMap::new(),
    };
    // Rules that begin with `**/` say something about any file system; the
    // allowing ones only where it is mounted in the host's tree.
    let anywhere = list
        .paths
        .iter()
        .filter(|rule| rule.pattern.first() == Some(&Component::AnyDepth))
        .filter(|rule| rule.verdict != Verdict::Allow || rule.is_match)
        .map(|rule| (rule.pattern.clone(), rule))
        .collect();
    let unknown = agent.position(anywhere)?;
    for device in mounts.devices() {
        let start = agent.position(localise(list, mounts, device))?;
        if start != unknown {
            let key = StartKey { starts, device };
            agent.builder.add_start(key, start)?;
        }
    }
    for (rules, device) in [(&list.abstracts, ABSTRACT_NAMES), (&list.cgroups, CGROUPS)] {
        let rules = rules.iter().map(|rule| (rule.pattern.clone(), rule));
        let start = agent.position(rules.collect())?;
        if !start.is_dead() {
            agent
                .builder
                .add_start(StartKey { starts, device }, start)?;
        }
    }
    Ok(unknown)
}

/// What the rows of an automaton say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    /// What one agent's rules say.
    Alone,
    /// Of a lineage: what all its layers say, of rules whose names have fixed places and of
    /// those others that do not deny.
    Fixed,
    /// Of a lineage: what the other rules deny.
    Deep,
}

impl Part {
    const fn of(layered: bool, part: Self) -> Self {
        if layered { part } else { Self::Alone }
    }
}

/// Patterns and rules (index, verbs) that make up an automaton.
type Contents = Vec<(Vec<Component>, u16, u8)>;

/// The automata of one agent: file systems with the same rules share them.
struct Agent<'a> {
    builder: &'a mut Builder,
    list: &'a RuleList,
    known: HashMap<(Part, Contents), u32>,
}

impl Agent<'_> {
    /// The start position for the rules of one file system.
    fn position(&mut self, rules: Vec<Local<'_>>) -> Result<Position, Full> {
        let (deep, mut fixed): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|(pattern, _)| is_deep(pattern));
        // What lifts a protection has to meet it, so it is in both. So has what any layer of a
        // lineage does not deny: the first automaton says whether all of them let it through,
        // the second one only what is denied.
        let layered = self.list.defaults.len() > 1;
        let meets = |rule: &PathRule| {
            let lifts = |other: &PathRule| rule.lifts(other);
            layered && rule.verdict != Verdict::Deny || self.list.paths.iter().any(lifts)
        };
        fixed.extend(deep.iter().filter(|(_, rule)| meets(rule)).cloned());
        Ok(Position {
            fixed: self.start(&fixed, Part::of(layered, Part::Fixed))?,
            deep: self.start(&deep, Part::of(layered, Part::Deep))?,
        })
    }

    fn start(&mut self, rules: &[Local<'_>], part: Part) -> Result<u32, Full> {
        let mut contents: Contents = rules
            .iter()
            .map(|(pattern, rule)| (pattern.clone(), rule.index, rule.verbs.0))
            .collect();
        contents.sort_unstable();
        contents.dedup();
        let key = (part, contents);
        if let Some(start) = self.known.get(&key) {
            return Ok(*start);
        }
        let start = automaton::build(self.builder, rules, &self.list.defaults, part)?;
        self.known.insert(key, start);
        Ok(start)
    }
}

/// Whether a pattern has `**` before its end.
fn is_deep(pattern: &[Component]) -> bool {
    let before = pattern.len().saturating_sub(1);
    pattern
        .iter()
        .take(before)
        .any(|part| *part == Component::AnyDepth)
}

/// Rewrites the rules to names inside one file system.
fn localise<'a>(list: &'a RuleList, mounts: &MountTable, device: u32) -> Vec<Local<'a>> {
    let mut local = Vec::new();
    let of_device = |mount: &&Mount| mount.device == device;
    let whole = |mount: &Mount| !mount.is_alias && mount.root.is_empty();
    let is_whole = mounts.mounts().iter().filter(of_device).any(whole);
    for mount in mounts.mounts().iter().filter(of_device) {
        for rule in &list.paths {
            let allows = rule.verdict == Verdict::Allow && !rule.is_match;
            for rest in quotient(&rule.pattern, mount, allows) {
                // Below a directory as well as anywhere: anywhere is enough.
                if is_whole
                    && !whole(mount)
                    && rest.first() == Some(&Component::AnyDepth)
                    && rest == rule.pattern
                {
                    continue;
                }
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
/// An allowing pattern (`allows`) enters an alias only if it spells the whole mount point
/// out: a wildcard does not follow a bind mount into another tree.
fn quotient(pattern: &[Component], mount: &Mount, allows: bool) -> Vec<Vec<Component>> {
    if mount.is_alias && allows {
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

//! One automaton: rules laid into a tree of names, made deterministic.

use std::collections::{BTreeMap, HashMap};

use agentguard_common::path::{DEAD, PathRow, PathState, state_flag};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::Verdict;

use super::super::super::manifest::{Component, GlobPattern, GlobToken};
use super::super::globs;
use super::super::rules::{PathRule, strictest_defaults};
use super::super::tables::{Builder, Full};
use super::{Local, Part, below};

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
    rules: Vec<&'a PathRule>,
}

/// The tree of names of some rules, and the automaton made of it so far.
struct Tree<'a> {
    /// Of each layer.
    defaults: &'a [u16],
    part: Part,
    places: Vec<Place<'a>>,
    states: HashMap<Vec<usize>, u32>,
    work: Vec<Vec<usize>>,
    /// Each state and the states that one name leads to.
    edges: Vec<(u32, u32)>,
}

/// Builds the automaton of some rules; returns its start state.
pub(super) fn build(
    builder: &mut Builder,
    rules: &[Local<'_>],
    defaults: &[u16],
    part: Part,
) -> Result<u32, Full> {
    let mut tree = Tree {
        defaults,
        part,
        places: vec![Place::default()],
        states: HashMap::new(),
        work: Vec::new(),
        edges: Vec::new(),
    };
    if rules.is_empty() {
        return Ok(DEAD);
    }
    for (pattern, rule) in rules {
        tree.insert(pattern, rule);
    }
    let start = tree.state(builder, vec![0])?;
    while let Some(set) = tree.work.pop() {
        tree.fill(builder, &set)?;
    }
    below::mark(builder, &tree.edges, strictest_defaults(defaults));
    Ok(start)
}

impl<'a> Tree<'a> {
    fn insert(&mut self, pattern: &'a [Component], rule: &'a PathRule) {
        let mut at = 0;
        for (index, part) in pattern.iter().enumerate() {
            at = match part {
                Component::Exact(name) => self.exact(at, name),
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
        self.places[at].rules.push(rule);
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
        self.prune(&mut set);
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

    /// Removes what a stricter rule over all the same names makes idle: without
    /// this, `n` rules such as `**/x/**` have up to 2ⁿ states, one for each
    /// combination of the directories that a path has gone through.
    fn prune(&self, set: &mut Vec<usize>) {
        let ends: Vec<(usize, usize, bool)> = set
            .iter()
            .filter_map(|at| self.end(*at).map(|(end, loops)| (*at, end, loops)))
            .collect();
        let covered = |a: usize, b: usize| {
            let by = &self.places[b].rules;
            self.places[a]
                .rules
                .iter()
                .all(|rule| by.iter().any(|by| covers(by, rule)))
        };
        let mut idle = Vec::new();
        for (at, end, loops) in &ends {
            if ends.iter().any(|(other, by, by_loops)| {
                other != at && loops == by_loops && !idle.contains(other) && covered(*end, *by)
            }) {
                idle.push(*at);
            }
        }
        set.retain(|at| !idle.contains(at));
    }

    /// The place whose rules decide, for a place behind which nothing else comes:
    /// the end of a pattern, or (and then it loops) its final `**`.
    fn end(&self, at: usize) -> Option<(usize, bool)> {
        let place = &self.places[at];
        if !place.exact.is_empty() || !place.globs.is_empty() || place.deep.is_some() {
            return None;
        }
        match (place.loops, place.any) {
            (false, None) => Some((at, false)),
            (true, Some(end)) if place.rules.is_empty() => match self.end(end) {
                Some((end, false)) => Some((end, true)),
                _ => None,
            },
            _ => None,
        }
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
        self.edges.push((state, info.any));
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
            self.edges.push((state, next));
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
        let classes = globs::build(builder, &patterns)?;
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
            self.edges.push((state, next));
        }
        Ok(classes.start)
    }

    /// The verdict row of a set of places.
    fn row(&self, builder: &mut Builder, set: &[usize]) -> Result<u32, Full> {
        let matching: Vec<&PathRule> = set
            .iter()
            .flat_map(|at| self.places[*at].rules.iter().copied())
            .collect();
        if matching.is_empty() {
            return Ok(0);
        }
        if matching.iter().any(|rule| rule.is_match) {
            let entries = matching.iter().map(|rule| u32::from(rule.index));
            let set = builder.add_match_set(entries)?;
            return builder.add_row(match_row(set));
        }
        let mut row = PathRow::default();
        for verb in Verb::ALL.into_iter().take(Verb::PATH_COUNT) {
            let decides = match self.part {
                Part::Alone => strictest(&matching, verb),
                Part::Fixed => of_layers(&matching, verb, self.defaults),
                Part::Deep => denied_by_layers(&matching, verb, self.defaults.len()),
            };
            if let Some(rule) = decides {
                row.verdicts |= (rule.verdict as u16) << (2 * verb as u16);
                row.rules[verb as usize] = rule.index;
            }
        }
        builder.add_row(row)
    }
}

/// The row of a set of entries under `enrol.match`.
fn match_row(set: u16) -> PathRow {
    let mut row = PathRow {
        verdicts: (Verdict::Allow as u16) << (2 * Verb::Exec as u16),
        ..PathRow::default()
    };
    row.rules[Verb::Exec as usize] = set;
    row
}

/// The rule that decides a verb for an agent in a lineage: the strictest of what each layer's
/// rules say, or none if one of them leaves it to a default that is stricter.
fn of_layers<'a>(matching: &[&'a PathRule], verb: Verb, defaults: &[u16]) -> Option<&'a PathRule> {
    let mut by_default = 0;
    let mut found: Option<&'a PathRule> = None;
    for (layer, defaults) in defaults.iter().enumerate() {
        match strictest(&of_layer(matching, layer), verb) {
            Some(rule) if found.is_none_or(|known| rule.verdict > known.verdict) => {
                found = Some(rule);
            }
            Some(_) => {}
            None => by_default = by_default.max((defaults >> (2 * verb as u16)) & 3),
        }
    }
    found.filter(|rule| rule.verdict as u16 >= by_default)
}

/// The rule by which a layer of a lineage denies a verb.
fn denied_by_layers<'a>(
    matching: &[&'a PathRule],
    verb: Verb,
    layers: usize,
) -> Option<&'a PathRule> {
    (0..layers)
        .filter_map(|layer| strictest(&of_layer(matching, layer), verb))
        .find(|rule| rule.verdict == Verdict::Deny)
}

fn of_layer<'a>(matching: &[&'a PathRule], layer: usize) -> Vec<&'a PathRule> {
    let own = |rule: &&&PathRule| rule.layer == layer;
    matching.iter().filter(own).copied().collect()
}

/// The rule that decides a verb: the strictest, the first written among equals.
/// A protection that an allow rule of the manifest spells out does not count.
fn strictest<'a>(matching: &[&'a PathRule], verb: Verb) -> Option<&'a PathRule> {
    let lifted = |protection: &PathRule| {
        let mut rules = matching.iter().filter(|rule| rule.verbs.has(verb));
        rules.any(|rule| rule.lifts(protection))
    };
    matching
        .iter()
        .copied()
        .filter(|rule| rule.verbs.has(verb) && !lifted(rule))
        .max_by_key(|rule| (rule.verdict, u16::MAX - rule.index))
}

/// Whether a rule decides wherever another does, so that the other never matters.
fn covers(by: &PathRule, rule: &PathRule) -> bool {
    if (by.is_match || rule.is_match) && by.index != rule.index {
        return false;
    }
    // What one layer does not deny the other has to name as well.
    if by.layer != rule.layer && by.verdict != Verdict::Deny {
        return false;
    }
    // Either may turn a protection, which is not in sight here, on or off.
    if by.lifted_at.is_some() || rule.verdict == Verdict::Allow && by.index != rule.index {
        return false;
    }
    let stricter = (by.verdict, u16::MAX - by.index) >= (rule.verdict, u16::MAX - rule.index);
    by.verbs.has_all(rule.verbs) && stricter
}

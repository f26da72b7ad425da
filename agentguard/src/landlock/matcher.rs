//! What a verb's rules say about a place: about itself, and about everything
//! that could ever be below it.
//!
//! A [`State`] is what remains of each rule behind the names so far. A right on
//! a directory holds for all that is below it, also for what comes later, so it
//! may only be given where the remains say that no name whatever is denied.

use super::access::VERBS;
use super::gap::Origin;
use crate::mounts::Names;
use crate::policy::manifest::{Component, GlobToken, Verb, Verdict};

/// The rules of one verb.
pub(super) struct VerbRules {
    /// The verb.
    pub verb: Verb,
    /// The verdict where no rule matches.
    pub default: Verdict,
    /// The rules.
    pub rules: Vec<PathRule>,
}

/// A rule about paths.
pub(super) struct PathRule {
    parts: Vec<Component>,
    /// What it says.
    pub verdict: Verdict,
    /// Whom to name in a report.
    pub origin: Origin,
    /// Names that it spells out before the first pattern.
    literal: usize,
    /// For protections: names that an allow rule must spell out to lift it.
    lifted_at: Option<usize>,
}

/// What remains of each rule: rule, and how many of its parts are used up.
/// A rule with no part left matches the place itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    left: Vec<(usize, usize)>,
    /// The default counts for nothing here.
    no_default: bool,
}

/// What the rules say about all that could be below a place.
#[derive(Default)]
pub(super) struct Below<'a> {
    /// Nothing below can be allowed.
    pub closed: bool,
    /// Everything below is allowed by these (or by the default), as far as no
    /// blocker says otherwise.
    pub covered: bool,
    /// The rules that cover; none where the default does.
    pub covering: Vec<Origin>,
    /// Rules that deny something below.
    pub blockers: Vec<Origin>,
    /// Those of them that could match at any depth.
    pub floating: Vec<Origin>,
    /// Names directly below at which an allowing rule goes on.
    pub names: Vec<(&'a [u8], Origin)>,
    /// Allowing rules that go on at names that match a pattern.
    pub globs: Vec<Origin>,
}

/// Whether a pattern could match at any depth below some place: `**` is anywhere
/// but at its end.
pub(super) fn is_floating(parts: &[Component]) -> bool {
    parts
        .split_last()
        .is_some_and(|(_, before)| before.contains(&Component::AnyDepth))
}

/// The parts of a pattern, `/**/*` at its end written as `/**`, which is the same.
pub(super) fn plain(parts: &[Component]) -> Vec<Component> {
    if let [before @ .., Component::AnyDepth, Component::Glob(glob)] = parts
        && glob.tokens() == [GlobToken::AnyRun]
    {
        let mut parts = before.to_vec();
        parts.push(Component::AnyDepth);
        return parts;
    }
    parts.to_vec()
}

impl PathRule {
    /// A rule; `parts` as [`plain`] gives them.
    pub fn new(
        parts: Vec<Component>,
        verdict: Verdict,
        origin: Origin,
        lifted_at: Option<usize>,
    ) -> Self {
        let literal = parts
            .iter()
            .take_while(|part| matches!(part, Component::Exact(_)))
            .count();
        Self {
            parts,
            verdict,
            origin,
            literal,
            lifted_at,
        }
    }
}

impl VerbRules {
    /// Whether rules or the default could refuse anything.
    pub fn restrict(&self) -> bool {
        let denies = |rule: &PathRule| rule.verdict != Verdict::Allow;
        self.default != Verdict::Allow || self.rules.iter().any(denies)
    }

    /// The number of the verb.
    pub fn number(&self) -> usize {
        VERBS
            .iter()
            .position(|verb| *verb == self.verb)
            .unwrap_or(0)
    }

    /// The state at the root of the tree of names.
    pub fn start(&self) -> State {
        State {
            left: (0..self.rules.len()).map(|rule| (rule, 0)).collect(),
            no_default: false,
        }
    }

    /// The state behind one name more.
    pub fn step(&self, state: &State, name: &[u8]) -> State {
        let mut next = State {
            left: Vec::new(),
            no_default: state.no_default,
        };
        for (rule, used) in &state.left {
            self.behind(*rule, *used, name, &mut next.left);
        }
        next.left.sort_unstable();
        next.left.dedup();
        next
    }

    fn behind(&self, rule: usize, used: usize, name: &[u8], into: &mut Vec<(usize, usize)>) {
        let parts = &self.rules[rule].parts;
        match parts.get(used) {
            Some(Component::Exact(exact)) if **exact == *name => into.push((rule, used + 1)),
            Some(Component::Glob(glob)) if glob.matches(name) => into.push((rule, used + 1)),
            Some(Component::AnyDepth) => {
                into.push((rule, used));
                if used + 1 == parts.len() {
                    into.push((rule, used + 1));
                } else {
                    self.behind(rule, used + 1, name, into);
                }
            }
            None | Some(Component::Exact(_) | Component::Glob(_)) => {}
        }
    }

    /// The state at a mount point, as far as the rules follow the mount: those
    /// that deny always do, those that allow enter an alias only where they
    /// spell its mount point out.
    pub fn at_mount(&self, point: &Names, is_alias: bool) -> State {
        let mut state = point
            .iter()
            .fold(self.start(), |state, name| self.step(&state, name));
        if is_alias {
            state.left.retain(|(rule, used)| {
                let rule = &self.rules[*rule];
                let is_spelt = rule.literal >= point.len() && *used == point.len();
                rule.verdict != Verdict::Allow || is_spelt
            });
        }
        state
    }

    /// Whether the place itself is allowed.
    pub fn allows(&self, state: &State) -> bool {
        if self.denying(state).next().is_some() {
            return false;
        }
        let by_default = self.default == Verdict::Allow && !state.no_default;
        by_default
            || self
                .matching(state)
                .any(|rule| rule.verdict == Verdict::Allow)
    }

    /// The rules that deny the place itself.
    pub fn denying(&self, state: &State) -> impl Iterator<Item = Origin> {
        let spelt = self
            .matching(state)
            .filter(|rule| rule.verdict == Verdict::Allow)
            .map(|rule| rule.literal)
            .max();
        self.matching(state)
            .filter(move |rule| rule.verdict != Verdict::Allow && !rule.is_lifted(spelt))
            .map(|rule| rule.origin)
    }

    fn matching(&self, state: &State) -> impl Iterator<Item = &PathRule> {
        state.left.iter().filter_map(|(rule, used)| {
            let rule = &self.rules[*rule];
            (*used == rule.parts.len()).then_some(rule)
        })
    }

    /// What is said about all that could be below.
    pub fn below(&self, state: &State) -> Below<'_> {
        let by_default = self.default == Verdict::Allow && !state.no_default;
        let mut below = Below {
            covered: by_default,
            ..Below::default()
        };
        // Names spelt out by rules that allow everything below, or something.
        let (mut all, mut some) = (None, None);
        for (rule, left) in self.live(state).filter(|(rule, _)| rule.allows()) {
            some = some.max(Some(rule.literal));
            match left {
                [Component::AnyDepth] => {
                    below.covered = true;
                    below.covering.push(rule.origin);
                    all = all.max(Some(rule.literal));
                }
                [Component::Exact(name), ..] => below.names.push((name, rule.origin)),
                _ => below.globs.push(rule.origin),
            }
        }
        let mut is_denied = false;
        for (rule, left) in self.live(state).filter(|(rule, _)| !rule.allows()) {
            if rule.is_lifted(all) {
                continue;
            }
            below.blockers.push(rule.origin);
            match left {
                // Everything below is denied, except what may lift it there.
                [Component::AnyDepth] => {
                    is_denied = true;
                    below.closed |= !rule.is_lifted(some);
                }
                [Component::AnyDepth, ..] => below.floating.push(rule.origin),
                _ => {}
            }
        }
        below.covered &= !is_denied;
        below.closed |= !below.covered && below.names.is_empty() && below.globs.is_empty();
        below
    }

    /// The same state without what allows everything below.
    pub fn uncovered(&self, state: &State) -> State {
        let covers = |(rule, used): &(usize, usize)| {
            let rule = &self.rules[*rule];
            rule.allows() && rule.parts[*used..] == [Component::AnyDepth]
        };
        State {
            left: state
                .left
                .iter()
                .copied()
                .filter(|it| !covers(it))
                .collect(),
            no_default: true,
        }
    }

    /// Both states together.
    pub fn merged(&self, a: &State, b: &State) -> State {
        let mut left = [a.left.as_slice(), b.left.as_slice()].concat();
        left.sort_unstable();
        left.dedup();
        State {
            left,
            no_default: a.no_default || b.no_default,
        }
    }

    /// Rules in the state that deny the place or something below.
    pub fn strict(&self, state: &State) -> Vec<Origin> {
        state
            .left
            .iter()
            .map(|(rule, _)| &self.rules[*rule])
            .filter(|rule| !rule.allows())
            .map(|rule| rule.origin)
            .collect()
    }

    fn live(&self, state: &State) -> impl Iterator<Item = (&PathRule, &[Component])> {
        state.left.iter().filter_map(|(rule, used)| {
            let rule = &self.rules[*rule];
            (*used < rule.parts.len()).then(|| (rule, &rule.parts[*used..]))
        })
    }
}

impl PathRule {
    fn allows(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// Whether an allow rule that spells out this many names lifts the protection.
    fn is_lifted(&self, spelt: Option<usize>) -> bool {
        match (self.lifted_at, spelt) {
            (Some(at), Some(literal)) => literal >= at,
            _ => false,
        }
    }
}

//! A manifest's rules as a numbered list: the numbers are what the kernel blames.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use agentguard_common::verb::{Verb, Verbs};
use agentguard_common::verdict::Verdict;

use super::super::diagnostic::{Diagnostic, Severity};
use super::super::manifest::{
    Component, Manifest, NetRule, NetTarget, PathPattern, Protocol, Rule, RuleSet,
};
use super::{RuleRef, common_verdict, lineage, manifest_verb, protected};
use crate::mounts::names;

/// A path rule ready for the automaton.
pub struct PathRule {
    /// What it is about.
    pub pattern: Vec<Component>,
    /// Verbs it governs.
    pub verbs: Verbs,
    /// Verdict.
    pub verdict: Verdict,
    /// Number.
    pub index: u16,
    /// For protections: names from which on an explicit allow rule lifts it;
    /// `None`: nothing lifts it.
    pub lifted_at: Option<usize>,
    /// Names that the pattern spells out before its first wildcard.
    pub spelt: usize,
    /// It says what a process becomes (`matching`): all that match count, not the strictest.
    pub is_match: bool,
    /// Whose it is: the agent's own, or that of one above it in the lineage.
    pub layer: usize,
}

impl PathRule {
    fn of_manifest(
        pattern: Vec<Component>,
        verbs: Verbs,
        verdict: Verdict,
        (layer, index): (usize, u16),
    ) -> Self {
        let exact = |part: &&Component| matches!(part, Component::Exact(_));
        let spelt = pattern.iter().take_while(exact).count();
        Self {
            pattern,
            verbs,
            verdict,
            index,
            lifted_at: None,
            spelt,
            is_match: false,
            layer,
        }
    }

    /// A part of an entry under `enrol.match`.
    pub fn of_match(pattern: Vec<Component>, entry: u16) -> Self {
        Self {
            is_match: true,
            ..Self::of_manifest(pattern, Verbs::of(Verb::Exec), Verdict::Allow, (0, entry))
        }
    }

    /// Whether this is an allow rule that spells out what a protection protects.
    pub fn lifts(&self, protection: &Self) -> bool {
        let Some(names) = protection.lifted_at else {
            return false;
        };
        self.verdict == Verdict::Allow
            && self.layer == protection.layer
            && self.spelt >= names
            && protection
                .pattern
                .iter()
                .take(names)
                .zip(&self.pattern)
                .all(|pair| match pair {
                    (Component::Exact(wanted), Component::Exact(name)) => wanted == name,
                    (Component::Glob(wanted), Component::Exact(name)) => wanted.matches(name),
                    _ => false,
                })
    }
}

/// A network rule ready for the tries.
#[derive(Clone)]
pub struct NetRuleRef {
    /// What it is about.
    pub rule: NetRule,
    /// Verdict.
    pub verdict: Verdict,
    /// Number.
    pub index: u16,
}

/// All rules of one agent, built-in protections first.
pub struct RuleList {
    /// Path rules.
    pub paths: Vec<PathRule>,
    /// Rules about abstract names of unix sockets.
    pub abstracts: Vec<PathRule>,
    /// Matches that ask for a cgroup.
    pub cgroups: Vec<PathRule>,
    /// `connect` rules.
    pub connect: Vec<NetRuleRef>,
    /// `listen` rules.
    pub listen: Vec<NetRuleRef>,
    /// Rules below this number are protections.
    pub protected: u32,
    /// Of each layer, two bits for the default of each verb, verb 0 lowest: the agent's own,
    /// then those of the agents above it.
    pub defaults: Vec<u16>,
    names: Vec<RuleRef>,
}

/// The verbs of manifests that are about paths.
const PATH_VERBS: [Verb; Verb::FILE_COUNT] = [
    Verb::Read,
    Verb::Write,
    Verb::Create,
    Verb::Delete,
    Verb::Attributes,
    Verb::Exec,
];

impl RuleList {
    /// A list without rules.
    pub const fn empty() -> Self {
        Self {
            paths: Vec::new(),
            abstracts: Vec::new(),
            cgroups: Vec::new(),
            connect: Vec::new(),
            listen: Vec::new(),
            protected: 0,
            defaults: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Numbers the rules of an agent: of its manifest, and of those of the agents above it.
    pub fn of(
        layers: &[&Manifest],
        own: &[protected::Protection],
        links: &mut Links,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<Self, TooManyPairs> {
        let mut list = Self::empty();
        for (layer, manifest) in layers.iter().enumerate() {
            list.add_protections((layer, manifest), own, links);
        }
        list.protected = u32::try_from(list.names.len()).unwrap_or(u32::MAX);
        let mut nets = Vec::new();
        for (layer, manifest) in layers.iter().enumerate() {
            list.defaults.push(defaults(manifest));
            list.add_api(layer, own);
            for verb in PATH_VERBS {
                if let Some(rules) = own_rules(manifest, verb) {
                    list.add_paths((layer, manifest), verb, rules, links, warnings);
                }
            }
            nets.push(list.add_nets(layer, manifest));
        }
        let of_verb = |verb: Verb| -> Vec<Layer> {
            let rules = |all: &Vec<(Verb, NetRuleRef)>| {
                let wanted = all.iter().filter(|(of, _)| *of == verb);
                wanted.map(|(_, rule)| rule.clone()).collect()
            };
            let default =
                |defaults: &u16| Verdict::from_bits((defaults >> (2 * verb as u16)) as u8 & 3);
            nets.iter()
                .zip(&list.defaults)
                .map(|(all, defaults)| Layer {
                    rules: rules(all),
                    allows: default(defaults) == Some(Verdict::Allow),
                })
                .collect()
        };
        let (connect, listen) = (of_verb(Verb::Connect), of_verb(Verb::Listen));
        list.connect = common_to(connect)?;
        list.listen = common_to(listen)?;
        Ok(list)
    }

    fn add_protections(
        &mut self,
        (layer, manifest): (usize, &Manifest),
        own: &[protected::Protection],
        links: &mut Links,
    ) {
        for protection in protected::protections().iter().chain(own) {
            if protection.is_lifted_for(manifest) {
                continue;
            }
            let index = self.number(RuleRef {
                text: protection.text.clone(),
                at: format!("built-in:{}", protection.name),
                verb: Verb::Read,
                verdict: Verdict::Deny,
            });
            let resolved = links
                .resolve(&protection.pattern)
                .map(|(pattern, _)| pattern);
            for pattern in std::iter::once(protection.pattern.clone()).chain(resolved) {
                let is_name = |part: &&Component| !matches!(part, Component::AnyDepth);
                let spelt_out = pattern.iter().filter(is_name).count();
                self.paths.push(PathRule {
                    pattern,
                    verbs: protection.verbs,
                    verdict: Verdict::Deny,
                    index,
                    lifted_at: protection.lifted_at.map(|_| spelt_out),
                    spelt: 0,
                    is_match: false,
                    layer,
                });
            }
        }
    }

    /// Every agent may ask the daemon about itself.
    fn add_api(&mut self, layer: usize, own: &[protected::Protection]) {
        let all = protected::protections().iter().chain(own);
        for (text, pattern) in all.filter_map(protected::api_of) {
            let index = self.number(RuleRef {
                text: format!("unix:{text}"),
                at: "built-in:agentguard-api".to_owned(),
                verb: Verb::Connect,
                verdict: Verdict::Allow,
            });
            let verbs = Verbs::of(Verb::Connect);
            let at = (layer, index);
            self.paths
                .push(PathRule::of_manifest(pattern, verbs, Verdict::Allow, at));
        }
    }

    /// Rules about sockets: those about addresses are returned.
    fn add_nets(&mut self, layer: usize, manifest: &Manifest) -> Vec<(Verb, NetRuleRef)> {
        let mut nets = Vec::new();
        for (verb, verdict, rule) in net_rules(manifest) {
            let index = self.number(RuleRef {
                text: rule.text.to_string(),
                at: rule.location.file_line(),
                verb,
                verdict,
            });
            self.add_unix(verb, verdict, &rule.matcher, (layer, index));
            let rule = rule.matcher.clone();
            nets.push((
                verb,
                NetRuleRef {
                    rule,
                    verdict,
                    index,
                },
            ));
        }
        nets
    }

    /// What each number means.
    pub fn names(&self) -> Vec<RuleRef> {
        self.names.clone()
    }

    fn number(&mut self, rule: RuleRef) -> u16 {
        // Rule limits are checked before: 32,768 rules an agent at most.
        let index = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        self.names.push(rule);
        index
    }

    /// Rules about unix sockets are rules about names: those with a file about its path, the
    /// others about names of a file system of their own.
    fn add_unix(&mut self, verb: Verb, verdict: Verdict, rule: &NetRule, at: (usize, u16)) {
        match (&rule.target, verb) {
            (NetTarget::UnixPath(pattern), Verb::Connect) => {
                let pattern = pattern.components().to_vec();
                let verbs = Verbs::of(Verb::Connect);
                self.paths
                    .push(PathRule::of_manifest(pattern, verbs, verdict, at));
            }
            (NetTarget::UnixAbstract(name), _) => {
                let pattern = vec![Component::Exact(name.clone().into())];
                let verbs = Verbs::of(match verb {
                    Verb::Listen => Verb::Create,
                    _ => Verb::Connect,
                });
                self.abstracts
                    .push(PathRule::of_manifest(pattern, verbs, verdict, at));
            }
            // Binding to a path makes a name: `create`.
            _ => {}
        }
    }

    fn add_paths(
        &mut self,
        (layer, manifest): (usize, &Manifest),
        verb: Verb,
        rules: &RuleSet<PathPattern>,
        links: &mut Links,
        warnings: &mut Vec<Diagnostic>,
    ) {
        let verbs = governed(manifest, verb);
        for (verdict, rule) in rules.iter() {
            let verdict = common_verdict(verdict);
            let index = self.number(RuleRef {
                text: rule.text.to_string(),
                at: rule.location.file_line(),
                verb,
                verdict,
            });
            let at = (layer, index);
            let pattern = rule.matcher.components().to_vec();
            if let Some((resolved, link)) = links.resolve(&pattern) {
                let message = format!(
                    "{} goes through the symbolic link {}",
                    rule.text,
                    link.display()
                );
                let help =
                    "the rule covers the link's target as well; write the target to be plain";
                warnings.push(Diagnostic::at(
                    Severity::Warning,
                    &rule.location,
                    message,
                    help,
                ));
                self.paths
                    .push(PathRule::of_manifest(resolved, verbs, verdict, at));
            }
            self.paths
                .push(PathRule::of_manifest(pattern, verbs, verdict, at));
        }
    }
}

/// Rules about addresses of one layer.
struct Layer {
    rules: Vec<NetRuleRef>,
    /// What no rule matches is allowed.
    allows: bool,
}

/// Pairs of allowing rules of an agent and of one above it.
const PAIRS: usize = 1 << 20;

/// More pairs than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the agents of a lineage have more than {PAIRS} pairs of allowing network rules; use networks instead of lists of addresses"
)]
pub struct TooManyPairs;

/// The rules of one agent at the end of a lineage: what any layer denies, and what none leaves
/// out.
fn common_to(mut layers: Vec<Layer>) -> Result<Vec<NetRuleRef>, TooManyPairs> {
    if layers.len() == 1 {
        return Ok(layers.pop().map_or_else(Vec::new, |layer| layer.rules));
    }
    // Where all allow by default, nothing is left out.
    if layers.iter().all(|layer| layer.allows) {
        return Ok(layers.into_iter().flat_map(|layer| layer.rules).collect());
    }
    let (mut denying, mut common): (Vec<NetRuleRef>, Option<Vec<NetRuleRef>>) = (Vec::new(), None);
    for layer in layers {
        let (deny, mut named): (Vec<_>, Vec<_>) = layer
            .rules
            .into_iter()
            .partition(|rule| rule.verdict == Verdict::Deny);
        denying.extend(deny);
        if layer.allows {
            named.push(anything());
        }
        common = Some(match common {
            None => named,
            Some(known) => pairs(&known, &named)?,
        });
    }
    denying.extend(common.unwrap_or_default());
    Ok(denying)
}

/// What a layer allows that allows by default. Never blamed: another layer restricts.
fn anything() -> NetRuleRef {
    NetRuleRef {
        rule: NetRule {
            target: NetTarget::Any,
            ports: 0..=u16::MAX,
            protocol: Protocol::Both,
        },
        verdict: Verdict::Allow,
        index: u16::MAX,
    }
}

/// What rules of two layers have in common, each with the stricter of both verdicts.
fn pairs(ones: &[NetRuleRef], others: &[NetRuleRef]) -> Result<Vec<NetRuleRef>, TooManyPairs> {
    if ones.len().saturating_mul(others.len()) > PAIRS {
        return Err(TooManyPairs);
    }
    let pair = |one: &NetRuleRef, other: &NetRuleRef| {
        let stricter = if other.verdict > one.verdict || one.index == u16::MAX {
            other
        } else {
            one
        };
        Some(NetRuleRef {
            rule: lineage::both(&one.rule, &other.rule)?,
            ..stricter.clone()
        })
    };
    let mut found: Vec<NetRuleRef> = ones
        .iter()
        .flat_map(|one| others.iter().filter_map(move |other| pair(one, other)))
        .collect();
    found.sort_by_cached_key(|found| (found.rule.to_string(), Reverse(found.verdict), found.index));
    // Of the same addresses the strictest verdict counts.
    found.dedup_by(|later, first| later.rule == first.rule);
    Ok(found)
}

/// The defaults of a manifest, two bits a verb.
fn defaults(manifest: &Manifest) -> u16 {
    let bits = |verb: Verb| {
        let verdict = manifest.permissions.default_verdict(manifest_verb(verb));
        (common_verdict(verdict) as u16) << (2 * verb as u16)
    };
    Verb::ALL
        .into_iter()
        .map(bits)
        .fold(0, |all, bits| all | bits)
}

/// The strictest of what layers have for defaults.
#[must_use]
pub fn strictest_defaults(layers: &[u16]) -> u16 {
    let bits = |verb: Verb| {
        let of = |defaults: &u16| (defaults >> (2 * verb as u16)) & 3;
        layers.iter().map(of).max().unwrap_or(0) << (2 * verb as u16)
    };
    Verb::ALL
        .into_iter()
        .map(bits)
        .fold(0, |all, bits| all | bits)
}

/// The rules written under a path verb itself.
fn own_rules(manifest: &Manifest, verb: Verb) -> Option<&RuleSet<PathPattern>> {
    let permissions = &manifest.permissions;
    match verb {
        Verb::Read => permissions.read.as_ref(),
        Verb::Write => permissions.write.as_ref(),
        Verb::Create => permissions.create.as_ref(),
        Verb::Delete => permissions.delete.as_ref(),
        Verb::Attributes => permissions.attributes.as_ref(),
        Verb::Exec => permissions.exec.as_ref(),
        Verb::Connect | Verb::Listen => None,
    }
}

/// The verbs that the rules under one verb govern: `write` stands for `create`,
/// `delete` and `attributes` where the manifest does not name those.
fn governed(manifest: &Manifest, verb: Verb) -> Verbs {
    let mut verbs = Verbs::of(verb);
    if verb == Verb::Write {
        for other in [Verb::Create, Verb::Delete, Verb::Attributes] {
            if own_rules(manifest, other).is_none() {
                verbs = verbs.and(other);
            }
        }
    }
    verbs
}

fn net_rules(manifest: &Manifest) -> Vec<(Verb, Verdict, &Rule<NetRule>)> {
    let mut found = Vec::new();
    for verb in [Verb::Connect, Verb::Listen] {
        if let Some(rules) = manifest.permissions.net_rules(manifest_verb(verb)) {
            found.extend(
                rules
                    .iter()
                    .map(|(verdict, rule)| (verb, common_verdict(verdict), rule)),
            );
        }
    }
    found
}

/// Symbolic links in the literal part of patterns, each path looked at once.
#[derive(Default)]
pub struct Links {
    seen: HashMap<PathBuf, bool>,
}

impl Links {
    /// The pattern with its literal prefix resolved, and the link met, if any.
    pub fn resolve(&mut self, pattern: &[Component]) -> Option<(Vec<Component>, PathBuf)> {
        let literal = pattern
            .iter()
            .take_while(|part| matches!(part, Component::Exact(_)))
            .count();
        let mut path = PathBuf::from("/");
        for part in pattern.get(..literal)? {
            let Component::Exact(name) = part else { break };
            path.push(std::ffi::OsStr::from_bytes(name));
            let is_link = *self
                .seen
                .entry(path.clone())
                .or_insert_with(|| path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()));
            if is_link {
                return Some((Self::through(pattern, literal)?, path));
            }
        }
        None
    }

    fn through(pattern: &[Component], literal: usize) -> Option<Vec<Component>> {
        let mut whole = PathBuf::from("/");
        for part in pattern.get(..literal)? {
            if let Component::Exact(name) = part {
                whole.push(std::ffi::OsStr::from_bytes(name));
            }
        }
        // The deepest part that exists is resolved; the rest may come later.
        let mut rest: Vec<Component> = pattern.get(literal..)?.to_vec();
        loop {
            if let Ok(real) = whole.canonicalize() {
                let mut resolved = exact(&real);
                resolved.append(&mut rest);
                return Some(resolved);
            }
            let name = whole.file_name()?.as_bytes().to_vec();
            rest.insert(0, Component::Exact(name.into()));
            whole = whole.parent()?.to_path_buf();
        }
    }
}

fn exact(path: &Path) -> Vec<Component> {
    names(path.as_os_str().as_bytes())
        .into_iter()
        .map(Component::Exact)
        .collect()
}

//! `connect` rules about names: who may ask for one, and what an address that was given
//! for it is good for.
//!
//! The tries know addresses only. Which addresses a name stands for is known when a run
//! has asked, so these rules are kept as they are and applied to every answer.

use std::collections::{BTreeSet, HashMap};

use agentguard_common::net::{Transport, port_key};
use agentguard_common::resolver::{PortRange, RANGES};
use agentguard_common::verdict::Verdict;

use super::super::manifest::{NetTarget, Protocol};
use super::rules::NetRuleRef;

/// The last key of [`port_key`]: the last port of UDP.
const LAST: u32 = port_key(Transport::Udp, u16::MAX);

/// An agent's rules about names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRules {
    /// About one name.
    exact: HashMap<Box<str>, Vec<PortRange>>,
    /// About every name below one.
    below: HashMap<Box<str>, Vec<PortRange>>,
    /// About every host: no rules about names, but they cover names as well.
    any: Vec<PortRange>,
    /// Where no rule matches.
    default: Verdict,
}

impl Default for NameRules {
    /// No rules: nothing may be asked for.
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            below: HashMap::new(),
            any: Vec::new(),
            default: Verdict::Deny,
        }
    }
}

impl NameRules {
    /// Those among an agent's `connect` rules.
    #[must_use]
    pub fn of(rules: &[NetRuleRef], default: Verdict) -> Self {
        let mut all = Self {
            default,
            ..Self::default()
        };
        for rule in rules {
            let list = match &rule.rule.target {
                NetTarget::Name(name) => all.exact.entry(name.as_str().into()).or_default(),
                NetTarget::NameSuffix(name) => all.below.entry(name.as_str().into()).or_default(),
                NetTarget::Any => &mut all.any,
                NetTarget::Cidr(..) | NetTarget::UnixPath(_) | NetTarget::UnixAbstract(_) => {
                    continue;
                }
            };
            list.extend(ranges_of(rule));
        }
        all
    }

    /// Whether there are any. `*` is no rule about names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    /// What the rules about a name say of ports, the strictest first, and whether some of
    /// it found no room. What is left out was allowed: it is closed instead.
    #[must_use]
    pub fn ranges(&self, name: &str) -> (Vec<PortRange>, bool) {
        fitted(self.about(name).copied().collect())
    }

    /// The same of an address that was given for several names, and what else is known of
    /// it: the strictest of what any of them says.
    #[must_use]
    pub fn union<'a>(
        &'a self,
        names: impl IntoIterator<Item = &'a str>,
        also: &[PortRange],
    ) -> (Vec<PortRange>, bool) {
        let all = names.into_iter().flat_map(|name| self.about(name));
        fitted(all.chain(also).copied().collect())
    }

    /// Whether the run may ask for a name: where some port of some transport is allowed for
    /// it, by its rules, those of `*`, or the default.
    #[must_use]
    pub fn may_ask(&self, name: &str) -> bool {
        let rules: Vec<&PortRange> = self.about(name).chain(&self.any).collect();
        // The verdict changes at these keys and nowhere else.
        let mut edges: BTreeSet<u32> = rules.iter().map(|range| range.low).collect();
        edges.extend(rules.iter().map(|range| range.high + 1));
        edges.insert(0);
        edges.range(..=LAST).any(|key| {
            let covers = |range: &&&PortRange| range.low <= *key && *key <= range.high;
            let strictest = rules.iter().filter(covers).map(|range| range.verdict).max();
            strictest.unwrap_or(self.default as u16) == Verdict::Allow as u16
        })
    }

    /// Why a name may not be asked for: the rule to blame, or none where it is the default.
    #[must_use]
    pub fn blame(&self, name: &str) -> (Verdict, Option<u16>) {
        let refusing = self
            .about(name)
            .chain(&self.any)
            .filter(|range| range.verdict != Verdict::Allow as u16)
            .max_by_key(|range| (range.verdict, u16::MAX - range.rule));
        match refusing {
            Some(range) => {
                let verdict = Verdict::from_bits(range.verdict as u8).unwrap_or(Verdict::Deny);
                (verdict, Some(range.rule))
            }
            None => (self.default, None),
        }
    }

    /// Names, or patterns, whose rules have more ports than fit.
    #[must_use]
    pub fn too_many(&self) -> Vec<String> {
        let exact = self.exact.keys().map(|name| (name.to_string(), name));
        let below = self.below.keys().map(|name| (format!("x.{name}"), name));
        let mut found: Vec<String> = exact
            .chain(below)
            .filter(|(probe, _)| self.ranges(probe).1)
            .map(|(_, name)| name.to_string())
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// What the rules say, name by name: whether of the names below it, the name, and the
    /// ranges of ports. What found no room is closed.
    pub fn table(&self) -> impl Iterator<Item = (bool, &str, Vec<PortRange>)> {
        let exact = self.exact.iter().map(|entry| (false, entry));
        let below = self.below.iter().map(|entry| (true, entry));
        exact
            .chain(below)
            .map(|(below, (name, ranges))| (below, name.as_ref(), fitted(ranges.clone()).0))
    }

    /// The ranges of all rules about a name.
    fn about<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a PortRange> {
        let parents = name
            .match_indices('.')
            .filter(|(at, _)| *at > 0)
            .filter_map(|(at, _)| self.below.get(name.get(at + 1..)?));
        self.exact.get(name).into_iter().chain(parents).flatten()
    }
}

/// The ports of a rule: one range where they are all of both transports.
fn ranges_of(rule: &NetRuleRef) -> Vec<PortRange> {
    let range = |low, high| PortRange {
        low,
        high,
        verdict: rule.verdict as u16,
        rule: rule.index,
    };
    let (first, last) = (*rule.rule.ports.start(), *rule.rule.ports.end());
    let of = |transport| range(port_key(transport, first), port_key(transport, last));
    match rule.rule.protocol {
        Protocol::Both if (first, last) == (0, u16::MAX) => vec![range(0, LAST)],
        Protocol::Both => vec![of(Transport::Tcp), of(Transport::Udp)],
        Protocol::Tcp => vec![of(Transport::Tcp)],
        Protocol::Udp => vec![of(Transport::Udp)],
    }
}

/// As many as there is room for, the strictest first.
fn fitted(mut ranges: Vec<PortRange>) -> (Vec<PortRange>, bool) {
    // Of equals the first rule is blamed, as for addresses.
    ranges.sort_by_key(|range| (std::cmp::Reverse(range.verdict), range.rule, range.low));
    let mut kept: Vec<PortRange> = Vec::new();
    for range in ranges {
        // A range within a stricter one, or one as strict, never decides.
        let decides = |known: &PortRange| known.low > range.low || known.high < range.high;
        if kept.iter().all(decides) {
            kept.push(range);
        }
    }
    let is_closing = |range: &PortRange| range.verdict != Verdict::Allow as u16;
    let closing = kept.iter().filter(|range| is_closing(range)).count();
    if closing > RANGES {
        kept.truncate(closing);
        return (merged(kept), true);
    }
    let left_out = kept.len() > RANGES;
    kept.truncate(RANGES);
    (kept, left_out)
}

/// Refusals that are more than fit: neighbours become one, and what is between them is
/// refused as well. Never less is refused than the rules say.
fn merged(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_by_key(|range| range.low);
    while ranges.len() > RANGES {
        let gap = |at: &usize| match ranges.get(*at..at + 2) {
            Some([a, b]) => b.low.saturating_sub(a.high),
            _ => u32::MAX,
        };
        let nearest = (0..ranges.len() - 1).min_by_key(gap).unwrap_or(0);
        let next = ranges.remove(nearest + 1);
        if let Some(range) = ranges.get_mut(nearest) {
            range.high = range.high.max(next.high);
            if next.verdict > range.verdict {
                (range.verdict, range.rule) = (next.verdict, next.rule);
            }
        }
    }
    ranges.sort_by_key(|range| (std::cmp::Reverse(range.verdict), range.rule));
    ranges
}

#[cfg(test)]
mod tests {
    use super::super::super::net::parse_rule;
    use super::*;

    /// Rules in the order of their numbers, which begin at 10.
    fn rules(list: &[(&str, Verdict)], default: Verdict) -> NameRules {
        let numbered: Vec<NetRuleRef> = (10..)
            .zip(list)
            .map(|(index, (text, verdict))| NetRuleRef {
                rule: parse_rule(text).unwrap(),
                verdict: *verdict,
                index,
            })
            .collect();
        NameRules::of(&numbered, default)
    }

    fn shown(ranges: &[PortRange]) -> Vec<(u32, u32, u16, u16)> {
        ranges
            .iter()
            .map(|range| (range.low, range.high, range.verdict, range.rule))
            .collect()
    }

    const UDP: u32 = 1 << 16;
    use Verdict::{Allow, Ask, Deny};

    #[test]
    fn a_name_has_its_rules_and_those_of_the_names_above() {
        let rules = rules(
            &[
                ("api.example.com:443/tcp", Allow),
                ("*.example.com:80", Allow),
                ("*.com:22/tcp", Deny),
                ("example.com", Allow),
                ("*:25", Deny),
            ],
            Deny,
        );
        let of = |name| shown(&rules.ranges(name).0);
        assert_eq!(
            of("api.example.com"),
            [
                (22, 22, 3, 12),
                (443, 443, 1, 10),
                (80, 80, 1, 11),
                (UDP + 80, UDP + 80, 1, 11)
            ]
        );
        assert_eq!(of("example.com"), [(22, 22, 3, 12), (0, LAST, 1, 13)]);
        assert_eq!(of("notexample.com"), [(22, 22, 3, 12)]);
        assert_eq!(of("com"), []);
        assert_eq!(of("api.example.com.evil.net"), []);
    }

    #[test]
    fn a_name_may_be_asked_for_if_some_port_is_allowed() {
        let all = rules(
            &[
                ("api.example.com:443", Allow),
                ("*.example.com", Deny),
                ("partly.net", Allow),
                ("partly.net:22", Deny),
                ("held.net", Ask),
                ("closed.org:80/tcp", Allow),
                ("closed.org:1-100", Deny),
            ],
            Deny,
        );
        let may = |name| all.may_ask(name);
        assert!(!may("api.example.com"), "deny is stricter");
        assert!(!may("www.example.com"));
        assert!(may("partly.net"));
        assert!(!may("held.net"), "asking nobody yet");
        assert!(!may("closed.org"));
        assert!(!may("other.net"));
        assert_eq!(all.blame("www.example.com"), (Deny, Some(11)));
        assert_eq!(all.blame("held.net"), (Ask, Some(14)));
        assert_eq!(all.blame("other.net"), (Deny, None));
        assert!(!NameRules::default().may_ask("a.net"));
    }

    #[test]
    fn rules_for_every_host_and_the_default_cover_names_too() {
        let open = rules(&[("*:443", Allow), ("evil.net", Deny)], Deny);
        assert!(open.may_ask("good.net"));
        assert!(!open.may_ask("evil.net"));
        assert_eq!(open.ranges("good.net").0, []);
        let by_default = rules(&[("evil.net", Deny)], Allow);
        assert!(by_default.may_ask("good.net"));
        assert!(!by_default.may_ask("evil.net"));
        let networks = [("10.0.0.0/8", Allow)];
        assert!(
            !rules(&networks, Deny).may_ask("x"),
            "no name is in a network"
        );
        assert!(
            rules(&[("*", Allow)], Deny).is_empty(),
            "no rule about a name"
        );
        assert!(!open.is_empty());
    }

    #[test]
    fn asked_ranges_are_kept_as_such() {
        let rules = rules(&[("a.net:1", Allow), ("a.net:2", Ask)], Deny);
        let verdicts: Vec<u16> = rules.ranges("a.net").0.iter().map(|r| r.verdict).collect();
        assert_eq!(verdicts, [2, 2, 1, 1]);
    }

    #[test]
    fn what_does_not_fit_is_closed() {
        let ports: Vec<String> = (1..=20).map(|port| format!("a.net:{port}00/tcp")).collect();
        let of = |verdict| {
            let list: Vec<(&str, Verdict)> =
                ports.iter().map(|text| (text.as_str(), verdict)).collect();
            rules(&list, Deny)
        };
        let (ranges, left_out) = of(Allow).ranges("a.net");
        assert!(left_out && ranges.len() == RANGES);
        assert_eq!(of(Allow).too_many(), ["a.net"]);
        // Of refusals, none is lost: those near one another become one.
        let (ranges, left_out) = of(Deny).ranges("a.net");
        assert!(left_out && ranges.len() == RANGES);
        for port in 1..=20 {
            let key = port * 100;
            assert!(
                ranges
                    .iter()
                    .any(|r| r.low <= key && key <= r.high && r.verdict == 3)
            );
        }
    }

    #[test]
    fn an_address_of_several_names_has_the_strictest_of_all() {
        let rules = rules(&[("a.net:443/tcp", Allow), ("b.net:443/tcp", Deny)], Deny);
        let (ranges, _) = rules.union(["a.net", "b.net"], &[]);
        // The allowed range lies within the refused one.
        assert_eq!(shown(&ranges), [(443, 443, 3, 11)]);
    }
}

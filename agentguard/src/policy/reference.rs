//! The decision about one object, worked out rule by rule.
//!
//! This is the meaning of a manifest in its plainest form. What decides in the
//! kernel is compiled and tested against it. The protected set, modes and
//! privileges are not rules of a manifest and are not considered here.

use super::manifest::{Location, Object, Permissions, Rule, RuleSet, Verb, Verdict};

/// What is decided and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The verdict.
    pub verdict: Verdict,
    /// The rule to blame; `None` where the verb's default decided.
    pub rule: Option<&'a Location>,
}

/// Decides about an object: the strictest matching rule wins, and the verb's
/// default decides where no rule matches. An object of the other kind (a path
/// for a network verb) matches nothing.
#[must_use]
pub fn decide<'a>(permissions: &'a Permissions, verb: Verb, object: &Object) -> Decision<'a> {
    let found = match object {
        Object::Path(path) => permissions
            .path_rules(verb)
            .and_then(|rules| strictest(rules, |rule| rule.matcher.matches(path.components()))),
        Object::Net(place) => permissions
            .net_rules(verb)
            .and_then(|rules| strictest(rules, |rule| rule.matcher.matches(place))),
    };
    found.unwrap_or(Decision {
        verdict: permissions.default_verdict(verb),
        rule: None,
    })
}

fn strictest<T>(rules: &RuleSet<T>, matches: impl Fn(&Rule<T>) -> bool) -> Option<Decision<'_>> {
    Verdict::ALL.iter().rev().find_map(|&verdict| {
        let mut rules = rules.with_verdict(verdict).iter();
        rules.find(|rule| matches(rule)).map(|rule| Decision {
            verdict,
            rule: Some(&rule.location),
        })
    })
}

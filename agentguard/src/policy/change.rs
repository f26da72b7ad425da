//! What a new version of a manifest changes in meaning, and whether that gives the
//! agent more or less. Spelling, order and comments are not looked at: two manifests
//! of the same version have no change.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

use super::duration;
use super::manifest::{ExecMatch, Manifest, RuleSet, Verb, Verdict};

/// Changes that are told of one version. A manifest that is written anew changes in
/// thousands of places, which nobody reads; how many more there are is told.
pub const MAX_CHANGES: usize = 200;

/// Whether a change gives the agent, or those who use it, more or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Something more may happen, or is not stopped any more.
    Wider,
    /// Something less may happen.
    Narrower,
    /// Some more and some less. Only of several changes together.
    Both,
    /// Neither more nor less.
    Neither,
    /// It depends on other rules, or on what is asked.
    Unclear,
}

impl Effect {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wider => "wider",
            Self::Narrower => "narrower",
            Self::Both => "both",
            Self::Neither => "neither",
            Self::Unclear => "unclear",
        }
    }

    /// What this and another come to together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Neither, effect) | (effect, Self::Neither) => effect,
            (Self::Wider, Self::Wider) => Self::Wider,
            (Self::Narrower, Self::Narrower) => Self::Narrower,
            (Self::Unclear, _) | (_, Self::Unclear) => Self::Unclear,
            _ => Self::Both,
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What, as the manifest calls it: `permissions.connect`, `mode`, `lease`.
    pub field: String,
    /// What it was; null: it was not there.
    pub before: Option<String>,
    /// What it is; null: it is not there.
    pub after: Option<String>,
    /// Whether that is more or less.
    pub effect: Effect,
}

/// What all these changes come to.
#[must_use]
pub fn overall(changes: &[Change]) -> Effect {
    changes
        .iter()
        .fold(Effect::Neither, |sum, change| sum.and(change.effect))
}

/// What changes from one version to the other: at most [`MAX_CHANGES`], and one more
/// that says how many are left out.
#[must_use]
pub fn changes(before: &Manifest, after: &Manifest) -> Vec<Change> {
    let mut found = Found(Vec::new());
    found.fields(before, after);
    for &verb in Verb::ALL {
        found.verb(verb, before, after);
    }
    found.lists(before, after);
    found.bounds(before, after);
    let mut changes = found.0;
    // What widens is what somebody has to see.
    changes.sort_by_key(|change| match change.effect {
        Effect::Wider => 0,
        Effect::Unclear | Effect::Both => 1,
        Effect::Narrower => 2,
        Effect::Neither => 3,
    });
    if changes.len() > MAX_CHANGES {
        let left = changes.split_off(MAX_CHANGES);
        changes.push(Change {
            field: "more".to_owned(),
            before: None,
            after: Some(format!("{} changes more", left.len())),
            effect: overall(&left),
        });
    }
    changes
}

struct Found(Vec<Change>);

impl Found {
    fn push(&mut self, field: &str, before: Option<String>, after: Option<String>, effect: Effect) {
        if before != after {
            self.0.push(Change {
                field: field.to_owned(),
                before,
                after,
                effect,
            });
        }
    }

    fn fields(&mut self, before: &Manifest, after: &Manifest) {
        let text = |text: &str| Some(text.to_owned());
        self.push(
            "mode",
            text(before.mode.as_str()),
            text(after.mode.as_str()),
            // Observed, it may do everything.
            grows(after.mode < before.mode),
        );
        self.push(
            "authority",
            text(before.authority.as_str()),
            text(after.authority.as_str()),
            // Delegated, it needs a person.
            grows(after.authority < before.authority),
        );
        self.push(
            "owner",
            text(&before.owner),
            text(&after.owner),
            Effect::Neither,
        );
        self.push(
            "description",
            before.description.clone(),
            after.description.clone(),
            Effect::Neither,
        );
        self.push(
            "lease",
            before.lease.map(duration::format),
            after.lease.map(duration::format),
            bound(before.lease, after.lease),
        );
    }

    fn verb(&mut self, verb: Verb, before: &Manifest, after: &Manifest) {
        let (old, new) = (&before.permissions, &after.permissions);
        // What `write` covers is told under `write`.
        let named = |permissions: &super::manifest::Permissions| match verb {
            Verb::Create => permissions.create.is_some(),
            Verb::Delete => permissions.delete.is_some(),
            Verb::Attributes => permissions.attributes.is_some(),
            _ => true,
        };
        if !named(old) && !named(new) {
            return;
        }
        let field = format!("permissions.{verb}");
        let (was, is) = (old.default_verdict(verb), new.default_verdict(verb));
        self.push(
            &format!("{field}.default"),
            Some(was.as_str().to_owned()),
            Some(is.as_str().to_owned()),
            grows(is < was),
        );
        if verb.is_network() {
            self.rules(&field, old.net_rules(verb), new.net_rules(verb));
        } else {
            self.rules(&field, old.path_rules(verb), new.path_rules(verb));
        }
    }

    fn rules<T: Display>(
        &mut self,
        field: &str,
        before: Option<&RuleSet<T>>,
        after: Option<&RuleSet<T>>,
    ) {
        let mut rules: BTreeMap<String, (Option<Verdict>, Option<Verdict>)> = BTreeMap::new();
        // Of the same rule under several verdicts, the strictest counts.
        for (verdict, rule) in before.into_iter().flat_map(RuleSet::iter) {
            rules.entry(rule.matcher.to_string()).or_default().0 = Some(verdict);
        }
        for (verdict, rule) in after.into_iter().flat_map(RuleSet::iter) {
            rules.entry(rule.matcher.to_string()).or_default().1 = Some(verdict);
        }
        for (rule, (was, is)) in rules {
            let effect = match (was, is) {
                (None, Some(Verdict::Allow)) | (Some(Verdict::Deny), None) => Effect::Wider,
                (None, Some(Verdict::Deny)) | (Some(Verdict::Allow), None) => Effect::Narrower,
                (Some(was), Some(is)) => grows(is < was),
                // It depends on what else matches.
                _ => Effect::Unclear,
            };
            let told =
                |verdict: Option<Verdict>| verdict.map(|verdict| format!("{verdict} {rule}"));
            self.push(field, told(was), told(is), effect);
        }
    }

    fn lists(&mut self, before: &Manifest, after: &Manifest) {
        let privileges = |manifest: &Manifest| {
            let named = manifest.permissions.privileges.iter();
            named.map(|item| item.value.to_string()).collect::<Vec<_>>()
        };
        let delegates = |manifest: &Manifest| {
            let named = manifest.delegates.iter();
            named.map(|item| item.value.clone()).collect::<Vec<_>>()
        };
        let matches =
            |manifest: &Manifest| manifest.matches.iter().map(exec_match).collect::<Vec<_>>();
        let more = |added: bool| grows(added);
        self.list(
            "permissions.privileges",
            &privileges(before),
            &privileges(after),
            more,
        );
        self.list(
            "enrol.launch.users",
            &before.launch_users,
            &after.launch_users,
            more,
        );
        // More processes become the agent: each of them is held to less than before.
        self.list("enrol.match", &matches(before), &matches(after), |_| {
            Effect::Unclear
        });
        self.list("delegates", &delegates(before), &delegates(after), more);
        self.list(
            "approvals.approvers",
            &before.approvals.approvers,
            &after.approvals.approvers,
            more,
        );
    }

    fn list(
        &mut self,
        field: &str,
        before: &[String],
        after: &[String],
        effect: impl Fn(bool) -> Effect,
    ) {
        for gone in before.iter().filter(|item| !after.contains(item)) {
            self.push(field, Some(gone.clone()), None, effect(false));
        }
        for new in after.iter().filter(|item| !before.contains(item)) {
            self.push(field, None, Some(new.clone()), effect(true));
        }
    }

    fn bounds(&mut self, before: &Manifest, after: &Manifest) {
        let (old, new) = (&before.limits, &after.limits);
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        self.push(
            "limits.processes",
            number(old.processes),
            number(new.processes),
            bound(old.processes, new.processes),
        );
        self.push(
            "limits.denials_per_minute",
            number(old.denials_per_minute),
            number(new.denials_per_minute),
            bound(old.denials_per_minute, new.denials_per_minute),
        );
        self.push(
            "limits.on_limit",
            Some(old.on_limit.to_string()),
            Some(new.on_limit.to_string()),
            Effect::Unclear,
        );
        let (old, new) = (&before.approvals, &after.approvals);
        self.push(
            "approvals.timeout",
            Some(duration::format(old.timeout)),
            Some(duration::format(new.timeout)),
            Effect::Neither,
        );
        self.push(
            "approvals.uses",
            Some(old.uses.to_string()),
            Some(new.uses.to_string()),
            grows(new.uses > old.uses),
        );
    }
}

const fn grows(more: bool) -> Effect {
    if more {
        Effect::Wider
    } else {
        Effect::Narrower
    }
}

/// Of an upper bound, of which none is the widest.
fn bound<T: Ord>(before: Option<T>, after: Option<T>) -> Effect {
    match (before, after) {
        (_, None) => Effect::Wider,
        (None, Some(_)) => Effect::Narrower,
        (Some(before), Some(after)) => grows(after > before),
    }
}

/// A match on one line, as the manifest says it.
fn exec_match(item: &ExecMatch) -> String {
    let digest = item.sha256.map(|digest| {
        let hex = digest.iter().map(|byte| format!("{byte:02x}"));
        hex.collect::<String>()
    });
    let parts = [
        ("exe", item.exe.as_ref().map(ToString::to_string)),
        ("user", item.user.clone()),
        ("sha256", digest),
        ("systemd_unit", item.systemd_unit.clone()),
    ];
    let said = parts
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}: {}", value?)));
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;

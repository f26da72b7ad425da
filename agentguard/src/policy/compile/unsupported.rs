//! What a manifest may say and this version does not act on: told for every
//! manifest that says it, so that nobody counts on it.

use agentguard_common::resolver::{DNS_PORT, RANGES};
use agentguard_common::verb::Verb;

use super::super::diagnostic::{Diagnostic, Severity};
use super::super::manifest::{
    Approvals, Limits, Location, Manifest, NetRule, NetTarget, Rule, Verdict,
};
use super::super::net::address_bits;
use super::{NameRules, manifest_verb};

/// Findings about one manifest.
pub fn findings(manifest: &Manifest) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut tell = |place: &Location, message: String, help: &str| {
        found.push(Diagnostic::at(Severity::Warning, place, message, help));
    };
    let here = &manifest.source;
    let agent = &manifest.name;
    for entry in manifest
        .matches
        .iter()
        .filter(|entry| entry.sha256.is_some())
    {
        let message = format!(
            "agent {agent}: `sha256` is not measured by this version: nothing matches this entry"
        );
        tell(
            &entry.location,
            message,
            "leave `sha256` out, and let only root write the program",
        );
    }
    if manifest.limits != Limits::default() {
        let message = format!("agent {agent}: `limits` are not acted on by this version");
        tell(
            here,
            message,
            "bound the agent by other means, such as its systemd unit's TasksMax=",
        );
    }
    if manifest.approvals != Approvals::default() {
        let message = format!("agent {agent}: `approvals` are not acted on by this version");
        tell(
            here,
            message,
            "nothing is held: what `ask` names is refused",
        );
    }
    if let Some(rule) = first_ask(manifest) {
        let message = format!(
            "agent {agent}: {}: `ask` is refused like `deny` by this version, and recorded as ask",
            rule.0
        );
        tell(rule.1, message, "allow what the agent cannot do without");
    }
    found.extend(chooses_server(manifest));
    found
}

/// Text and place of the first rule that asks: one warning stands for all of them.
fn first_ask(manifest: &Manifest) -> Option<(&str, &Location)> {
    let permissions = &manifest.permissions;
    Verb::ALL.into_iter().map(manifest_verb).find_map(|verb| {
        let path = permissions.path_rules(verb).and_then(|rules| {
            let rule = rules.with_verdict(Verdict::Ask).first()?;
            Some((&*rule.text, &rule.location))
        });
        path.or_else(|| {
            let rules = permissions.net_rules(verb)?;
            let rule = rules.with_verdict(Verdict::Ask).first()?;
            Some((&*rule.text, &rule.location))
        })
    })
}

/// Rules about names with more ports than the kernel has room for.
pub fn crowded(manifest: &Manifest, names: &NameRules) -> Vec<Diagnostic> {
    let tell = |name: String| {
        let message = format!(
            "agent {}: the rules about {name} have more ranges of ports than the {RANGES} that are kept for an address",
            manifest.name
        );
        let help = "write ranges (`:8000-8100`) or one protocol; what finds no room is refused";
        Diagnostic::at(Severity::Warning, &manifest.source, message, help)
    };
    names.too_many().into_iter().map(tell).collect()
}

/// A rule that lets the agent choose among servers of the DNS, beside rules that allow what
/// a name stands for: whoever runs such a server says what that is.
fn chooses_server(manifest: &Manifest) -> Option<Diagnostic> {
    let rules = manifest.permissions.connect.as_ref()?;
    let is_name = |rule: &Rule<NetRule>| {
        matches!(
            rule.matcher.target,
            NetTarget::Name(_) | NetTarget::NameSuffix(_)
        )
    };
    if !rules.allow.iter().any(is_name) {
        return None;
    }
    let is_open = |rule: &&Rule<NetRule>| {
        let many = match rule.matcher.target {
            NetTarget::Any => true,
            NetTarget::Cidr(address, prefix) => prefix != address_bits(address),
            _ => false,
        };
        many && rule.matcher.ports.contains(&DNS_PORT)
    };
    let rule = rules.allow.iter().find(is_open)?;
    let message = format!(
        "agent {}: {} lets it choose its DNS server, and that server says which addresses its names stand for",
        manifest.name, rule.text
    );
    let help = "leave port 53 out of the rule; the host's own servers need no rule";
    Some(Diagnostic::at(
        Severity::Warning,
        &rule.location,
        message,
        help,
    ))
}

//! What a manifest may say and this version does not act on: told for every
//! manifest that says it, so that nobody counts on it.

use agentguard_common::verb::Verb;

use super::super::diagnostic::{Diagnostic, Severity};
use super::super::manifest::{
    Approvals, Limits, Location, Manifest, NetTarget, Privilege, Verdict,
};
use super::manifest_verb;

/// Findings about one manifest.
pub fn findings(manifest: &Manifest) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut tell = |place: &Location, message: String, help: &str| {
        found.push(Diagnostic::at(Severity::Warning, place, message, help));
    };
    let here = &manifest.source;
    let agent = &manifest.name;
    for entry in &manifest.matches {
        let message = format!("agent {agent}: `match` is not acted on by this version");
        tell(
            &entry.location,
            message,
            "start the agent with `agentguard run`",
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
    for delegate in &manifest.delegates {
        let message = format!(
            "agent {agent}: sub-agents are not started by this version; a run inside a run is refused"
        );
        tell(
            &delegate.location,
            message,
            "start the other agent from outside",
        );
    }
    for privilege in &manifest.permissions.privileges {
        if matches!(
            privilege.value,
            Privilege::PtraceOutside | Privilege::Mount | Privilege::Devices
        ) {
            continue;
        }
        let message = format!(
            "agent {agent}: privilege {} is neither denied nor granted by this version",
            privilege.value.as_str()
        );
        tell(
            &privilege.location,
            message,
            "run the agent as an unprivileged user",
        );
    }
    found.extend(net_findings(manifest));
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

/// Findings about network rules.
fn net_findings(manifest: &Manifest) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut tell = |place: &Location, message: String, help: &str| {
        found.push(Diagnostic::at(Severity::Warning, place, message, help));
    };
    let agent = &manifest.name;
    for rules in [&manifest.permissions.connect, &manifest.permissions.listen]
        .into_iter()
        .flatten()
    {
        for (verdict, rule) in rules.iter() {
            let closed = match rule.matcher.target {
                NetTarget::Name(_) | NetTarget::NameSuffix(_) => "host names admit no address yet",
                NetTarget::UnixPath(_) | NetTarget::UnixAbstract(_) => {
                    "unix sockets are not decided yet"
                }
                NetTarget::Any | NetTarget::Cidr(..) => continue,
            };
            if verdict == Verdict::Allow || closed.starts_with("unix") {
                let message = format!("agent {agent}: {}: {closed}", rule.text);
                tell(
                    &rule.location,
                    message,
                    "name addresses or networks for what must be reachable",
                );
            }
        }
    }
    if let Some(listen) = &manifest.permissions.listen {
        for (_, rule) in listen.iter().take(1) {
            let message = format!("agent {agent}: `listen` is not decided by this version");
            tell(
                &rule.location,
                message,
                "use a firewall for what the agent serves",
            );
        }
    }
    found
}

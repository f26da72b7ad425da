//! Whether this host has what enforcing a policy needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::kernel::{Protection, ProtectionStatus};
use crate::policy::manifest::{Manifest, Mode, Permissions, RuleSet, Verb, Verdict};

/// What enforcing these manifests needs, this host does not have in full, and
/// the operator has not accepted. One message a protection.
pub(super) fn missing_protections(
    protections: &[Protection],
    manifests: &[Arc<Manifest>],
    accepted: &BTreeSet<String>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for protection in protections {
        if protection.status == ProtectionStatus::Enforcing || accepted.contains(protection.name) {
            continue;
        }
        let needing: Vec<&str> = manifests
            .iter()
            .filter(|manifest| manifest.mode == Mode::Enforce)
            .filter(|manifest| needs(&manifest.permissions, protection.name))
            .map(|manifest| manifest.name.as_str())
            .collect();
        if !needing.is_empty() {
            problems.push(refusal(protection, &needing));
        }
    }
    problems
}

fn refusal(protection: &Protection, needing: &[&str]) -> String {
    let state = match protection.status {
        ProtectionStatus::Enforcing => "in force",
        ProtectionStatus::Degraded => "only partly there",
        ProtectionStatus::Absent => "absent",
    };
    let fix = protection
        .fix
        .as_ref()
        .map_or_else(String::new, |fix| format!(" To have it: {fix}."));
    format!(
        "protection `{name}` is {state} on this host, and {agents} must be enforced: {detail}.{fix} To go on without it: `accept_degraded: [{name}]` in agentguard.yaml, or `mode: observe` in the manifest",
        name = protection.name,
        agents = needing.join(", "),
        detail = protection.detail.trim_end_matches('.'),
    )
}

/// Whether enforcing these permissions needs a protection. One that this
/// function does not know is needed: closed on error.
fn needs(permissions: &Permissions, protection: &str) -> bool {
    let restricts = |verb: Verb| {
        permissions.default_verdict(verb) != Verdict::Allow
            || permissions.path_rules(verb).is_some_and(restricts_some)
            || permissions.net_rules(verb).is_some_and(restricts_some)
    };
    match protection {
        "files" => [
            Verb::Read,
            Verb::Write,
            Verb::Create,
            Verb::Delete,
            Verb::Attributes,
        ]
        .into_iter()
        .any(restricts),
        "exec" => restricts(Verb::Exec),
        "network" => restricts(Verb::Connect) || restricts(Verb::Listen),
        _ => true,
    }
}

fn restricts_some<T>(rules: &RuleSet<T>) -> bool {
    !rules.ask.is_empty() || !rules.deny.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{manifest, manifest_of};

    fn absent(name: &'static str) -> Protection {
        Protection {
            name,
            status: ProtectionStatus::Absent,
            detail: "the kernel does not list bpf among its security modules.".to_owned(),
            fix: Some("boot with lsm=...,bpf".to_owned()),
        }
    }

    #[test]
    fn an_absent_protection_is_refused_by_name_with_reason_and_fix() {
        let problems = missing_protections(&[absent("files")], &[manifest("a")], &BTreeSet::new());
        assert_eq!(
            problems,
            [
                "protection `files` is absent on this host, and a must be enforced: the kernel does not list bpf among its security modules. To have it: boot with lsm=...,bpf. To go on without it: `accept_degraded: [files]` in agentguard.yaml, or `mode: observe` in the manifest"
            ]
        );
    }

    #[test]
    fn accepting_observing_or_not_needing_it_is_enough() {
        let none = BTreeSet::new();
        let accepted = BTreeSet::from(["files".to_owned()]);
        let observing = Arc::new(manifest_of("a", |manifest| manifest.mode = Mode::Observe));
        assert!(missing_protections(&[absent("files")], &[manifest("a")], &accepted).is_empty());
        assert!(missing_protections(&[absent("files")], &[observing], &none).is_empty());
        // Executing is allowed by default and this manifest restricts none of it.
        assert!(missing_protections(&[absent("exec")], &[manifest("a")], &none).is_empty());
        assert!(!missing_protections(&[absent("new")], &[manifest("a")], &none).is_empty());
    }
}

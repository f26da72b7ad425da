use std::path::Path;

use super::*;

fn manifest(spec: &str) -> Manifest {
    let text = format!(
        "apiVersion: agentguard/v1\nkind: Agent\nmetadata: {{ name: a }}\nspec:\n  owner: o@example.com\n  environment: production\n  authority: service\n  enrol: {{ launch: {{ users: [root] }} }}\n{spec}"
    );
    let parsed = crate::policy::parse(Path::new("a.yaml"), text.as_bytes()).unwrap();
    let mut checked = crate::policy::check(&parsed);
    let failed = checked
        .diagnostics
        .iter()
        .any(crate::policy::Diagnostic::is_error);
    assert!(!failed, "{:?}", checked.diagnostics);
    checked.manifests.remove(0)
}

fn told(before: &str, after: &str) -> Vec<String> {
    let changes = changes(&manifest(before), &manifest(after));
    let line = |change: &Change| {
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".into());
        format!(
            "{}: {} > {} ({})",
            change.field,
            side(&change.before),
            side(&change.after),
            change.effect.name()
        )
    };
    changes.iter().map(line).collect()
}

#[test]
fn spelling_is_no_change() {
    let before = "  mode: enforce\n  permissions:\n    read: { deny: ['/a', '/b'] }\n";
    let after = "  mode: enforce\n  # why\n  permissions: { read: { deny: ['/b', '/a'] } }\n";
    assert!(told(before, after).is_empty());
    assert_eq!(manifest(before).version, manifest(after).version);
}

#[test]
fn rules_say_whether_they_widen() {
    let before = "  mode: enforce\n  permissions:\n    connect: { allow: ['10.0.0.1:1'], deny: ['10.0.0.2:2'] }\n    write: { allow: ['/m'] }\n";
    let after = "  mode: enforce\n  permissions:\n    connect: { allow: ['10.0.0.3:3'], ask: ['10.0.0.4:4'] }\n    write: { deny: ['/m'] }\n";
    assert_eq!(
        told(before, after),
        [
            "permissions.connect: deny 10.0.0.2:2 > - (wider)",
            "permissions.connect: - > allow 10.0.0.3:3 (wider)",
            "permissions.connect: - > ask 10.0.0.4:4 (unclear)",
            "permissions.write: allow /m > deny /m (narrower)",
            "permissions.connect: allow 10.0.0.1:1 > - (narrower)",
        ]
    );
}

#[test]
fn everything_else_says_so_too() {
    let before = "  mode: enforce\n  lease: 2h\n  limits: { processes: 5 }\n  delegates: [b]\n";
    let after = "  mode: observe\n  lease: 1h\n  limits: { processes: 6 }\n  description: d\n  permissions: { privileges: { allow: [mount] }, write: { default: allow } }\n";
    assert_eq!(
        told(before, after),
        [
            "mode: enforce > observe (wider)",
            "permissions.write.default: deny > allow (wider)",
            "permissions.privileges: - > mount (wider)",
            "limits.processes: 5 > 6 (wider)",
            "lease: 2h > 1h (narrower)",
            "delegates: b > - (narrower)",
            "description: - > d (neither)",
        ]
    );
}

#[test]
fn effects_add_up() {
    use Effect::{Both, Narrower, Neither, Unclear, Wider};
    for (a, b, sum) in [
        (Neither, Wider, Wider),
        (Wider, Narrower, Both),
        (Both, Unclear, Unclear),
        (Both, Wider, Both),
        (Neither, Neither, Neither),
    ] {
        assert_eq!((a.and(b), b.and(a)), (sum, sum));
    }
}

#[test]
fn many_changes_are_cut_with_their_number() {
    let rules: Vec<String> = (0..500).map(|n| format!("'/f{n}'")).collect();
    let after = format!(
        "  mode: enforce\n  permissions: {{ read: {{ deny: [{}] }} }}\n",
        rules.join(", ")
    );
    let changes = changes(&manifest("  mode: enforce\n"), &manifest(&after));
    assert_eq!(changes.len(), MAX_CHANGES + 1);
    let last = changes.last().unwrap();
    assert_eq!(last.after.as_deref(), Some("300 changes more"));
    assert_eq!(last.effect, Effect::Narrower);
}

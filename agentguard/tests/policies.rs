//! The manifests that come with the program are valid, say what their tests
//! say, and what the manual shows is accepted.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a failed test"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use agentguard::policy::manifest::{
    Authority, Environment, Manifest, Mode, OnLimit, Verb, Verdict,
};
use agentguard::policy::reference::decide;
use agentguard::policy::{LoadOptions, PolicySet, check, load_dir, load_paths, parse};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Loads without findings, save about who may write to the checkout.
fn load_cleanly(path: &Path) -> PolicySet {
    let set = load_paths(&[path.to_path_buf()], LoadOptions::default())
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    for warning in &set.warnings {
        assert!(warning.line.is_none(), "{warning}");
    }
    set
}

fn assert_tests_hold(manifest: &Manifest) {
    for test in &manifest.tests {
        let decision = decide(&manifest.permissions, test.verb, &test.object);
        let by = decision
            .rule
            .map_or("the default".into(), ToString::to_string);
        assert_eq!(
            decision.verdict, test.expect,
            "{}: {}: decided by {by}",
            test.location, test.text
        );
    }
}

#[test]
fn the_shipped_manifests_are_right() {
    for (file, agents) in [
        ("claude-code.yaml", &["claude-code"][..]),
        ("codex.yaml", &["codex"]),
        (
            "invoice-summarizer.yaml",
            &["invoice-summarizer", "invoice-ocr"],
        ),
        ("unknown-agent-observe.yaml", &["unknown-agent"]),
    ] {
        let set = load_cleanly(&repository("policies").join(file));
        let names: Vec<_> = set.manifests.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, agents, "{file}");
        for manifest in &set.manifests {
            assert!(manifest.tests.len() > 4, "{file} has few tests");
            assert_tests_hold(manifest);
        }
    }
}

#[test]
fn the_shipped_manifests_can_be_used_together() {
    let set = load_dir(&repository("policies"), LoadOptions::default())
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert_eq!(set.manifests.len(), 5, "a manifest without a test above?");
}

#[test]
fn only_the_observing_manifest_observes() {
    let set = load_dir(&repository("policies"), LoadOptions::default()).unwrap();
    for manifest in &set.manifests {
        let expected = if manifest.name == "unknown-agent" {
            Mode::Observe
        } else {
            Mode::Enforce
        };
        assert_eq!(manifest.mode, expected, "{}", manifest.name);
    }
}

/// Every YAML block of the manual that is a whole manifest.
#[test]
fn the_manuals_examples_are_accepted() {
    let manual = std::fs::read_to_string(repository("docs/manifest.md")).unwrap();
    let mut examples = 0;
    for block in manual.split("```yaml\n").skip(1) {
        let yaml = block.split("```").next().unwrap();
        if !yaml.starts_with("apiVersion:") {
            continue;
        }
        examples += 1;
        let parsed = parse(Path::new("docs/manifest.md"), yaml.as_bytes()).unwrap();
        let checked = check(&parsed);
        let told: Vec<_> = checked
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(told.is_empty(), "{}", told.join("\n"));
        checked.manifests.iter().for_each(assert_tests_hold);
    }
    assert!(examples >= 2, "the manual lost its examples");
}

const EVERYTHING: &str = r#"
apiVersion: agentguard/v1
kind: Agent
metadata:
  name: invoice-summarizer
spec:
  description: Summarises supplier invoices into the review queue
  owner: finance-platform@example.com
  environment: production
  authority: service
  mode: enforce
  lease: 2h
  enrol:
    launch: { users: [svc-invoice, 1000] }
    match:
      - { exe: /usr/local/bin/invoice-agent, user: svc-invoice, sha256: "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff" }
      - { systemd_unit: invoice-agent.service }
  permissions:
    connect:
      allow: ["api.anthropic.com:443", "10.20.0.0/16:5432", "[fd00::]/8:443/tcp", "unix:/run/postgresql/.s.PGSQL.5432"]
      ask:   ["*.github.com:443"]
      deny:  ["169.254.169.254"]
    write:
      allow: ["/srv/invoices/out/**"]
      ask:   ["/srv/invoices/archive/**"]
    read:
      deny:  ["/srv/payroll/**", "**/*.pem"]
    exec:
      deny:  ["/usr/bin/sudo"]
    listen: { default: ask }
    create: {}
    privileges:
      allow: [namespaces, mount]
  delegates: [invoice-ocr]
  limits: { processes: 200, denials_per_minute: 50, on_limit: kill }
  approvals: { approvers: [finance-oncall], timeout: 1h30m, uses: 3 }
  tests:
    - { deny: "connect 1.1.1.1:53/udp" }
    - { allow: "write /srv/invoices/out/a.json" }
"#;

fn manifest(yaml: &str) -> Manifest {
    let parsed = parse(Path::new("x.yaml"), yaml.as_bytes()).unwrap();
    let mut checked = check(&parsed);
    assert!(checked.diagnostics.is_empty(), "{:?}", checked.diagnostics);
    checked.manifests.remove(0)
}

#[test]
fn every_key_arrives() {
    let manifest = manifest(EVERYTHING);
    assert_eq!(manifest.name, "invoice-summarizer");
    assert_eq!(manifest.owner, "finance-platform@example.com");
    assert!(
        manifest
            .description
            .as_deref()
            .unwrap()
            .starts_with("Summarises")
    );
    assert_eq!(manifest.environment, Environment::Production);
    assert_eq!(manifest.authority, Authority::Service);
    assert_eq!(manifest.mode, Mode::Enforce);
    assert_eq!(manifest.lease, Some(Duration::from_secs(7_200)));
    assert_eq!(manifest.launch_users, ["svc-invoice", "1000"]);
    assert_eq!(manifest.matches.len(), 2);
    assert_eq!(manifest.matches[0].sha256.unwrap()[..2], [0x00, 0x11]);
    let unit = manifest.matches[1].systemd_unit.as_deref();
    assert_eq!(unit, Some("invoice-agent.service"));
    assert_eq!(manifest.delegates[0].value, "invoice-ocr");
    assert_eq!(manifest.limits.processes, Some(200));
    assert_eq!(manifest.limits.on_limit, OnLimit::Kill);
    assert_eq!(manifest.approvals.timeout, Duration::from_secs(5_400));
    assert_eq!(manifest.approvals.uses, 3);
    assert_eq!(manifest.permissions.privileges.len(), 2);
    assert_eq!((manifest.source.line, manifest.source.column), (2, 1));
    assert_tests_hold(&manifest);
}

#[test]
fn rules_keep_their_text_and_place() {
    let manifest = manifest(EVERYTHING);
    let connect = manifest.permissions.connect.as_ref().unwrap();
    let rule = &connect.allow[2];
    assert_eq!(&*rule.text, "[fd00::]/8:443/tcp");
    assert_eq!(rule.location.file_line(), "x.yaml:20");
    assert_eq!(rule.location.to_string(), "x.yaml:20:61");
}

#[test]
fn verbs_that_are_not_named_follow_write() {
    let permissions = manifest(EVERYTHING).permissions;
    // `create` is named, if only to be empty; `delete` and `attributes` are not.
    assert!(permissions.path_rules(Verb::Create).unwrap().is_empty());
    assert_eq!(permissions.path_rules(Verb::Delete).unwrap().len(), 2);
    assert_eq!(permissions.path_rules(Verb::Attributes).unwrap().len(), 2);
    assert_eq!(permissions.default_verdict(Verb::Listen), Verdict::Ask);
    assert_eq!(permissions.default_verdict(Verb::Connect), Verdict::Deny);
    assert_eq!(permissions.default_verdict(Verb::Create), Verdict::Deny);
    assert_eq!(permissions.default_verdict(Verb::Read), Verdict::Allow);
    assert_eq!(permissions.path_rule_count(), 5);
    assert_eq!(permissions.net_rule_count(), 6);
    let open = manifest(&EVERYTHING.replace("    write:\n", "    write:\n      default: ask\n"));
    assert_eq!(open.permissions.default_verdict(Verb::Delete), Verdict::Ask);
    assert_eq!(
        open.permissions.default_verdict(Verb::Create),
        Verdict::Deny
    );
}

#[test]
fn the_version_follows_the_meaning_alone() {
    let version = |yaml: &str| manifest(yaml).version;
    let original = version(EVERYTHING);
    assert_eq!(original.len(), 64);
    for (from, to) in [
        ("mode: enforce", "mode:   enforce # for now"),
        ("[namespaces, mount]", "[mount, namespaces]"),
        (
            "\"api.anthropic.com:443\", ",
            "\"API.anthropic.com.:443\", ",
        ),
        ("[\"169.254.169.254\"]", "[169.254.169.254/32]"),
        ("lease: 2h", "lease: 120m"),
        ("    - { deny: \"connect 1.1.1.1:53/udp\" }\n", ""),
        ("\nkind: Agent", "\n\nkind: 'Agent'"),
    ] {
        assert!(EVERYTHING.contains(from), "{from}");
        assert_eq!(
            version(&EVERYTHING.replace(from, to)),
            original,
            "{from} -> {to}"
        );
    }
    for (from, to) in [
        ("name: invoice-summarizer", "name: other"),
        ("owner: finance-platform", "owner: other"),
        ("description: Summarises", "description: Summarizes"),
        ("environment: production", "environment: staging"),
        ("authority: service", "authority: delegated"),
        ("mode: enforce", "mode: observe"),
        ("lease: 2h", "lease: 3h"),
        ("  lease: 2h\n", ""),
        ("[svc-invoice, 1000]", "[svc-invoice]"),
        ("user: svc-invoice, ", ""),
        ("sha256: \"0011", "sha256: \"1111"),
        ("invoice-agent.service", "other.service"),
        (":443/tcp", ":443/udp"),
        ("      ask:   [\"*.github.com:443\"]\n", ""),
        ("[\"/usr/bin/sudo\"]", "[\"/usr/bin/su\"]"),
        ("default: ask", "default: deny"),
        ("    create: {}\n", ""),
        ("[namespaces, mount]", "[namespaces]"),
        ("[invoice-ocr]", "[]"),
        ("processes: 200", "processes: 201"),
        ("denials_per_minute: 50", "denials_per_minute: 51"),
        ("on_limit: kill", "on_limit: pause"),
        ("[finance-oncall]", "[finance]"),
        ("timeout: 1h30m", "timeout: 1h"),
        ("uses: 3", "uses: 4"),
    ] {
        assert!(EVERYTHING.contains(from), "{from}");
        let changed = version(&EVERYTHING.replace(from, to));
        assert_ne!(changed, original, "{from} -> {to}");
    }
}

#[test]
fn the_strictest_matching_rule_decides() {
    let yaml = EVERYTHING.replace(
        "ask:   [\"/srv/invoices/archive/**\"]",
        "ask: [\"/srv/invoices/out/*.csv\"]\n      deny: [\"**/secret.csv\"]",
    );
    let permissions = manifest(&yaml).permissions;
    for (path, expected) in [
        ("/srv/invoices/out/a.json", Verdict::Allow),
        ("/srv/invoices/out/a.csv", Verdict::Ask),
        ("/srv/invoices/out/secret.csv", Verdict::Deny),
        ("/srv/invoices/out", Verdict::Deny),
    ] {
        let object = agentguard::policy::manifest::PathObject::from_bytes(path.as_bytes()).unwrap();
        let object = agentguard::policy::manifest::Object::Path(object);
        assert_eq!(
            decide(&permissions, Verb::Write, &object).verdict,
            expected,
            "{path}"
        );
    }
}

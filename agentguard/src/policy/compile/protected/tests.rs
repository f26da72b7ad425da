//! The built-in protections: that they parse, are documented, and what lifts them.

use std::sync::Arc;

use agentguard_common::decision::{self, Subject};
use agentguard_common::identity::{RunRecord, Tag};
use agentguard_common::verdict::Verdict;

use super::super::super::{check, parse};
use super::super::{Set, compile};
use super::*;
use crate::mounts::{MountTable, names};

#[test]
fn every_protection_parses() {
    let of = |path: &str, kind: Kind| match kind.by {
        Some(_) if !path.ends_with(TREE) => 1,
        _ => 2,
    };
    let homes: usize = HOME_TABLES
        .iter()
        .flat_map(|(table, kind)| table.iter().map(|(_, path, _)| of(path, *kind)))
        .sum();
    let host = persistence::ON_HOST.iter().chain(&handoff::ON_HOST);
    let host: usize = host.map(|(_, path, _)| of(path, PERSISTENCE)).sum();
    let expected = homes * USUAL_HOMES.len() + host + secrets::ON_HOST.len() + OWN.len();
    assert_eq!(protections().len(), expected);
}

/// The list that people read has the same entries, each with why.
#[test]
fn the_document_lists_every_entry() {
    let document = include_str!("../../../../../docs/protected-set.md");
    let rows: Vec<&str> = document
        .lines()
        .filter(|line| line.starts_with("| `built-in:"))
        .collect();
    let mut expected = Vec::new();
    for (name, path, why) in HOME_TABLES.iter().flat_map(|(table, _)| table.iter()) {
        expected.push(format!("| `built-in:{name}` | `~/{path}` | {why} |"));
    }
    let host = secrets::ON_HOST.iter().chain(&persistence::ON_HOST);
    for (name, pattern, why) in host.chain(&handoff::ON_HOST) {
        expected.push(format!("| `built-in:{name}` | `{pattern}` | {why} |"));
    }
    let missing: Vec<&String> = expected
        .iter()
        .filter(|row| !rows.contains(&row.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/protected-set.md lacks:\n{missing:#?}"
    );
    assert_eq!(rows.len(), expected.len(), "docs/protected-set.md has more");
}

#[test]
fn homes_elsewhere_and_links_in_homes_are_protected() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path().canonicalize().unwrap();
    let (home, other) = (place.join("u"), place.join("dotfiles"));
    std::fs::create_dir_all(home.join(".config")).unwrap();
    std::fs::create_dir_all(other.join("ssh")).unwrap();
    std::os::unix::fs::symlink(other.join("ssh"), home.join(".ssh")).unwrap();
    let texts: Vec<String> = in_homes(std::slice::from_ref(&home))
        .into_iter()
        .map(|protection| protection.text)
        .collect();
    for wanted in [
        home.join(".ssh"),
        home.join(".aws/**"),
        home.join(".bashrc"),
        other.join("ssh/**"),
    ] {
        assert!(texts.contains(&wanted.display().to_string()), "{wanted:?}");
    }
    assert!(in_homes(&[PathBuf::from("/root")]).len() < secrets::IN_HOMES.len());
}

fn verdict(permissions: &str, verb: Verb, path: &str) -> Verdict {
    let text = format!(
        "apiVersion: agentguard/v1\nkind: Agent\nmetadata: {{ name: t }}\nspec:\n  \
         owner: o@example.com\n  environment: production\n  authority: service\n  mode: enforce\n  \
         permissions:\n{permissions}"
    );
    let parsed = parse(Path::new("t.yaml"), text.as_bytes()).unwrap();
    let manifest = Arc::new(check(&parsed).manifests.into_iter().next().unwrap());
    let mounts = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
    let mounts = MountTable::parse(mounts).unwrap();
    let compiled =
        compile(&Set::of(1, manifest), &mounts, &[], 1).unwrap_or_else(|all| panic!("{all:?}"));
    let record = &compiled.agents[0].record;
    let at = names(path.as_bytes());
    let rows = compiled.tables.rows(record, 8 << 20 | 1, &at).unwrap();
    let (tag, run) = (Tag::default(), RunRecord::default());
    let subject = Subject {
        tag: &tag,
        policy: record,
        run: &run,
    };
    let decision = match verb {
        Verb::Connect => decision::decide_unix(&subject, verb, rows),
        _ => decision::decide_path(&subject, Verbs::of(verb), rows).0,
    };
    decision.verdict
}

#[test]
fn services_stay_closed_under_wide_rules() {
    const DOCKER: &str = "/run/docker.sock";
    let verdict = |permissions| verdict(permissions, Verb::Connect, DOCKER);
    assert_eq!(verdict("    connect: { default: allow }\n"), Verdict::Deny);
    let wide = "    connect: { allow: ['unix:/run/**'] }\n";
    assert_eq!(verdict(wide), Verdict::Deny);
    let exact = "    connect: { allow: ['unix:/run/docker.sock'] }\n";
    assert_eq!(verdict(exact), Verdict::Allow);
    // The privilege opens nothing that no rule opens.
    let privileged = "    privileges: { allow: [handoff] }\n";
    assert_eq!(verdict(privileged), Verdict::Deny);
    assert_eq!(verdict(&format!("{wide}{privileged}")), Verdict::Allow);
}

#[test]
fn what_starts_later_needs_a_privilege_or_an_exact_rule() {
    let bashrc = |permissions, verb| verdict(permissions, verb, "/home/u/.bashrc");
    let wide = "    write: { default: allow }\n";
    assert_eq!(bashrc(wide, Verb::Write), Verdict::Deny);
    assert_eq!(bashrc(wide, Verb::Delete), Verdict::Deny);
    assert_eq!(bashrc(wide, Verb::Read), Verdict::Allow);
    let exact = "    write: { allow: [/home/u/.bashrc] }\n";
    assert_eq!(bashrc(exact, Verb::Write), Verdict::Allow);
    let privileged = format!("{wide}    privileges: {{ allow: [persistence] }}\n");
    assert_eq!(bashrc(&privileged, Verb::Create), Verdict::Allow);
    // It lifts what it is about, and no credential.
    assert_eq!(
        verdict(&privileged, Verb::Write, "/home/u/.ssh/authorized_keys"),
        Verdict::Deny
    );
    assert_eq!(verdict(wide, Verb::Create, "/etc/cron.d/x"), Verdict::Deny);
}

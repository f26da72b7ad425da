//! Real links in a real directory, against a policy about it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use agentguard_common::decision::decide_names;
use agentguard_common::path::NO_RULE;
use agentguard_common::verb::{Verb, Verbs};
use agentguard_common::verdict::{Reason, Verdict};

use super::{Outcome, Scope, walk};
use crate::mounts::MountTable;
use crate::policy::compile::{Set, compile};
use crate::policy::{check, parse};

/// A policy about the directories `ok` and `no` of a place, and the place.
fn scope(place: &Path) -> (Scope, u32) {
    let device = fs::metadata(place).unwrap().dev();
    let (major, minor) = (nix::libc::major(device), nix::libc::minor(device));
    let at = place.display();
    let line = format!("21 1 {major}:{minor} / {at} rw - ext4 x rw\n");
    let mounts = MountTable::parse(line.as_bytes()).unwrap();
    let text = format!(
        "apiVersion: agentguard/v1\nkind: Agent\nmetadata: {{ name: t }}\nspec:\n  \
         owner: o@example.com\n  environment: production\n  authority: service\n  mode: enforce\n  \
         permissions:\n    write: {{ default: deny, allow: ['{at}/ok/**', '{at}/free/**'] }}\n    \
         read: {{ default: allow, deny: ['{at}/no/**'] }}\n"
    );
    let parsed = parse(Path::new("t.yaml"), text.as_bytes()).unwrap();
    let checked = check(&parsed);
    let manifest = Arc::new(checked.manifests.into_iter().next().unwrap());
    let Ok(compiled) = compile(&Set::of(3, manifest), &mounts, &[], 1) else {
        panic!("the policy compiles")
    };
    (Scope::of(&compiled), major << 20 | minor)
}

fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for directory in ["ok", "ok/deep", "free", "no", "elsewhere"] {
        fs::create_dir(place.path().join(directory)).unwrap();
    }
    place
}

fn link(place: &Path, first: &str, second: &str) -> u64 {
    let path = place.join(first);
    fs::write(&path, "x").unwrap();
    fs::hard_link(&path, place.join(second)).unwrap();
    fs::metadata(path).unwrap().ino()
}

fn look(place: &Path) -> Outcome {
    let (scope, device) = scope(place);
    walk::look(&scope, &HashSet::from([device])).unwrap()
}

#[test]
fn names_that_are_equally_free_need_no_row() {
    let place = place();
    link(place.path(), "ok/a", "ok/deep/b");
    link(place.path(), "ok/c", "free/d");
    link(place.path(), "no/e", "no/f");
    let outcome = look(place.path());
    assert_eq!(outcome.files, 3);
    assert_eq!(outcome.rows, []);
    assert_eq!(outcome.skipped_count, 0);
}

#[test]
fn the_strictest_name_decides_about_the_file() {
    let place = place();
    let inode = link(place.path(), "no/secret", "ok/deep/alias");
    let outcome = look(place.path());
    let [row] = outcome.rows.as_slice() else {
        panic!("one row: {:?}", outcome.rows);
    };
    assert_eq!((row.agent, row.inode), (3, inode));
    let allow = Verdict::Allow as u8;
    let (read, verb) = decide_names(allow, Verbs::of(Verb::Read), &row.row).unwrap();
    assert_eq!((read.verdict, verb), (Verdict::Deny, Verb::Read));
    assert_eq!(read.reason, Reason::OtherName);
    assert_ne!(read.rule, NO_RULE);
    // What is denied already stays as it was decided.
    let deny = Verdict::Deny as u8;
    assert_eq!(decide_names(deny, Verbs::of(Verb::Read), &row.row), None);
    // A name can be removed whatever the others say.
    assert_eq!(decide_names(allow, Verbs::of(Verb::Delete), &row.row), None);
}

#[test]
fn a_name_where_no_rule_matches_has_the_defaults() {
    let place = place();
    let inode = link(place.path(), "elsewhere/plain", "ok/alias");
    let outcome = look(place.path());
    let [row] = outcome.rows.as_slice() else {
        panic!("one row: {:?}", outcome.rows);
    };
    assert_eq!(row.inode, inode);
    let allow = Verdict::Allow as u8;
    let (write, _) = decide_names(allow, Verbs::of(Verb::Write), &row.row).unwrap();
    assert_eq!((write.verdict, write.rule), (Verdict::Deny, NO_RULE));
    assert_eq!(decide_names(allow, Verbs::of(Verb::Read), &row.row), None);
}

#[test]
fn a_name_below_a_mount_point_is_not_mistaken_for_one_of_the_file_system() {
    let place = place();
    link(place.path(), "ok/a", "ok/deep/b");
    let (scope, device) = scope(place.path());
    let point = place.path().join("ok/deep");
    let mut text = String::new();
    for mount in scope.mounts.mounts() {
        let (major, minor) = (mount.device >> 20, mount.device & 0xf_ffff);
        text += &format!(
            "21 1 {major}:{minor} / {} rw - ext4 x rw\n",
            place.path().display()
        );
    }
    text += &format!("22 21 0:99 / {} rw - proc x rw\n", point.display());
    let scope = Scope {
        mounts: Arc::new(MountTable::parse(text.as_bytes()).unwrap()),
        ..scope
    };
    let outcome = walk::look(&scope, &HashSet::from([device])).unwrap();
    // The second name is hidden: it counts as one that no rule is about.
    assert_eq!(outcome.rows.len(), 1);
}

#[test]
fn a_file_system_that_no_rule_is_about_is_not_looked_at() {
    let place = place();
    let (scope, device) = scope(place.path());
    let elsewhere = Scope {
        mounts: Arc::new(
            MountTable::parse(b"21 1 0:4095 / /nonexistent rw - ext4 x rw\n").unwrap(),
        ),
        ..scope
    };
    assert_ne!(device, 4095);
    let outcome = walk::look(&elsewhere, &HashSet::from([4095])).unwrap();
    assert_eq!((outcome.skipped_count, outcome.directories), (0, 0));
}

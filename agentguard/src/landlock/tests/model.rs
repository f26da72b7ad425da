//! Random manifests on random trees: whatever Landlock would let through is
//! allowed by the manifest, and what exists and is allowed is let through.

use proptest::prelude::*;

use super::memory::MemoryTree;
use super::{Case, case_with, manifest};
use crate::landlock::{Access, Concessions, Kind, Tree as _};
use crate::mounts::{Mount, Names};
use crate::policy::manifest::{Component, Manifest, Verb, Verdict};
use crate::policy::path::PathPattern;

/// Ways to mount two file systems.
const MOUNTS: &[&str] = &[
    "21 1 8:1 / / rw - ext4 a rw\n",
    "21 1 8:1 / / rw - ext4 a rw\n22 21 8:2 / /a/b rw - ext4 b rw\n",
    "21 1 8:1 / / rw - ext4 a rw\n22 21 8:2 / /a/b rw - ext4 b rw\n23 21 8:2 /a /ab rw - ext4 b rw\n",
    "21 1 8:1 / / rw - ext4 a rw\n22 21 8:1 /a /b rw - ext4 a rw\n",
    "21 1 8:1 / / rw - ext4 a rw\n22 21 8:1 /a/b /b/a rw - ext4 a rw\n23 21 8:2 / /ab rw - ext4 b rw\n",
    "21 1 8:1 / / rw - ext4 a rw\n22 21 8:1 / /a/a rw - ext4 a rw\n23 21 8:1 /b /ab rw - ext4 a rw\n",
];
/// Directories that the mounts need.
const DIRECTORIES: &[&str] = &[
    "1 /a/a/", "1 /a/b/", "1 /ab/", "1 /b/a/", "1 /b/b/", "2 /a/", "2 /b/",
];

/// Patterns over a tiny alphabet, so that they meet often.
fn pattern(floating: bool) -> impl Strategy<Value = String> {
    let names = prop_oneof![
        6 => Just("a".to_owned()),
        6 => Just("b".to_owned()),
        2 => Just("ab".to_owned()),
        1 => Just("*".to_owned()),
        1 => Just("a*".to_owned()),
        1 => Just("?".to_owned()),
    ];
    let inner = if floating { 1 } else { 0 };
    let parts = prop_oneof![
        8 => names,
        inner => Just("**".to_owned()),
    ];
    (prop::collection::vec(parts, 1..4), any::<bool>()).prop_map(|(parts, below)| {
        let tail = if below { "/**" } else { "" };
        format!("/{}{tail}", parts.join("/"))
    })
}

fn list(patterns: &[String]) -> String {
    let quoted: Vec<String> = patterns.iter().map(|it| format!("'{it}'")).collect();
    format!("[{}]", quoted.join(", "))
}

/// The rules of one verb.
fn rules(verb: &'static str, floating: bool) -> impl Strategy<Value = String> {
    (
        prop::collection::vec(pattern(floating), 0..3),
        prop::collection::vec(pattern(floating), 0..2),
        prop::collection::vec(pattern(floating), 0..3),
        prop_oneof![Just("allow"), Just("deny")],
    )
        .prop_map(move |(allow, ask, deny, default)| {
            format!(
                "    {verb}: {{ allow: {}, ask: {}, deny: {}, default: {default} }}\n",
                list(&allow),
                list(&ask),
                list(&deny)
            )
        })
}

fn permissions(floating: bool) -> impl Strategy<Value = String> {
    let privileges = prop_oneof![
        Just(""),
        Just("    privileges: { allow: [devices, kernel-settings] }\n")
    ];
    (
        rules("write", floating),
        prop::option::of(rules("create", floating)),
        prop::option::of(rules("delete", floating)),
        rules("read", floating),
        rules("exec", floating),
        privileges,
    )
        .prop_map(|(write, create, delete, read, exec, privileges)| {
            [
                write,
                create.unwrap_or_default(),
                delete.unwrap_or_default(),
                read,
                exec,
                privileges.to_owned(),
            ]
            .concat()
        })
}

fn tree() -> impl Strategy<Value = (usize, Vec<String>)> {
    let name = prop_oneof![Just("a"), Just("b"), Just("ab"), Just("c")];
    let file = (1..3u8, prop::collection::vec(name, 1..5), any::<bool>()).prop_map(
        |(device, names, is_directory)| {
            let tail = if is_directory { "/" } else { "" };
            format!("{device} /{}{tail}", names.join("/"))
        },
    );
    (0..MOUNTS.len(), prop::collection::vec(file, 0..12))
}

fn derived(mounts: usize, files: &[String], permissions: &str) -> Case {
    let files: Vec<&str> = DIRECTORIES
        .iter()
        .copied()
        .chain(files.iter().map(String::as_str))
        .collect();
    let tree = MemoryTree::new(MOUNTS[mounts], &files);
    case_with(tree, permissions, &[], Concessions::default())
}

/// The manifest's verdict on a path, through all names of the place, leaving
/// out the rules that were reported as not enforced.
fn decide(case: &Case, manifest: &Manifest, verb: Verb, path: &Names) -> Verdict {
    let spot = case.tree.locate(path);
    let mut strictest = None;
    let permissions = &manifest.permissions;
    let rules = permissions.path_rules(verb).into_iter();
    for (verdict, rule) in rules.flat_map(crate::policy::manifest::RuleSet::iter) {
        let is_ignored = rule.matcher.components().first() == Some(&Component::AnyDepth)
            && rule.matcher.components().len() > 1
            && permissions.default_verdict(verb) == Verdict::Allow;
        if verdict != Verdict::Allow && is_ignored {
            continue;
        }
        for mount in case.tree.mounts().mounts() {
            if mount.device != spot.device || !spot.inside.starts_with(&mount.root) {
                continue;
            }
            let rest = &spot.inside[mount.root.len()..];
            let name: Names = mount.point.iter().chain(rest).cloned().collect();
            let is_closed =
                verdict == Verdict::Allow && mount.is_alias && !spells(&rule.matcher, mount);
            if !is_closed && rule.matcher.matches(&name) {
                strictest = strictest.max(Some(verdict));
            }
        }
    }
    strictest.unwrap_or(permissions.default_verdict(verb))
}

fn spells(pattern: &PathPattern, mount: &Mount) -> bool {
    let literal = pattern.literal_prefix();
    let mut point = mount.point.iter().enumerate();
    point.all(|(index, name)| literal.get(index).is_some_and(|it| **it == **name))
}

/// A path below another.
fn below(path: &Names, name: &str) -> Names {
    let mut path = path.clone();
    path.push(name.as_bytes().into());
    path
}

/// Files that are there or could come: their paths.
fn objects(case: &Case, directories: &[Names]) -> Vec<Names> {
    let mut objects = Vec::new();
    for directory in directories {
        for name in ["a", "b", "ab", "c", "new"] {
            let path = below(directory, name);
            if case.tree.entry(&path).unwrap().is_none() {
                objects.push(below(&path, "b"));
            }
            objects.push(path);
        }
    }
    objects
}

fn kind(case: &Case, path: &Names) -> Option<Kind> {
    Some(case.tree.entry(path).unwrap()?.kind)
}

/// Everything that Landlock lets through and the manifest does not allow.
fn leaks(case: &Case, manifest: &Manifest) -> Vec<String> {
    let paths = case.tree.paths();
    let is_directory = |path: &&Names| kind(case, path) == Some(Kind::Directory);
    let directories: Vec<Names> = paths.iter().filter(is_directory).cloned().collect();
    let mut leaks = Vec::new();
    for object in objects(case, &directories) {
        let kind = kind(case, &object);
        let itself = case.tree.granted(&case.rules, &object);
        let parent = case
            .tree
            .granted(&case.rules, &object[..object.len() - 1].to_vec());
        let mut uses = vec![
            (parent, Access::MAKE, Verb::Create),
            (parent, Access::REMOVE, Verb::Delete),
            // Linking: any file of the directory, to any name in it.
            (parent, Access::MAKE, Verb::Write),
            (parent, Access::REFER, Verb::Write),
        ];
        if kind != Some(Kind::Directory) {
            uses.extend([
                (itself, Access::CHANGE, Verb::Write),
                (itself, Access::READ_FILE, Verb::Read),
                (itself, Access::EXECUTE, Verb::Exec),
            ]);
        }
        if kind.is_none() || kind == Some(Kind::Directory) {
            uses.push((itself, Access::READ_DIR, Verb::Read));
        }
        for (given, access, verb) in uses {
            if !(given & access).is_empty()
                && decide(case, manifest, verb, &object) != Verdict::Allow
            {
                leaks.push(format!("{access}: {verb} {object:?}"));
            }
        }
    }
    leaks
}

/// Files that exist and that the manifest allows, and Landlock does not.
fn losses(case: &Case, manifest: &Manifest) -> Vec<String> {
    let mut losses = Vec::new();
    for path in case.tree.paths() {
        if kind(case, &path) != Some(Kind::File) {
            continue;
        }
        for (access, verb) in [
            (Access::WRITE_FILE, Verb::Write),
            (Access::READ_FILE, Verb::Read),
            (Access::EXECUTE, Verb::Exec),
        ] {
            let is_allowed = decide(case, manifest, verb, &path) == Verdict::Allow;
            if is_allowed && !case.tree.granted(&case.rules, &path).contains(access) {
                losses.push(format!("{verb} {path:?}"));
            }
        }
    }
    losses
}

proptest! {

    #[test]
    fn nothing_is_let_through_that_the_manifest_does_not_allow(
        (mounts, files) in tree(),
        permissions in permissions(true),
    ) {
        let case = derived(mounts, &files, &permissions);
        let manifest = manifest(&permissions);
        let leaks = leaks(&case, &manifest);
        prop_assert!(leaks.is_empty(), "{:#?}\n{}\n{:#?}", leaks, case.listing(), case.rules.gaps);
    }

    #[test]
    fn files_that_exist_are_let_through_where_the_manifest_allows_it(
        (mounts, files) in tree(),
        permissions in permissions(false),
    ) {
        let case = derived(mounts, &files, &permissions);
        let manifest = manifest(&permissions);
        let losses = losses(&case, &manifest);
        prop_assert!(losses.is_empty(), "{:#?}\n{}\n{:#?}", losses, case.listing(), case.rules.gaps);
    }
}

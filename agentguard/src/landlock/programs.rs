//! ELF interpreters of allowed programs.
//!
//! Starting a program needs the right to execute it *and* its interpreter (the
//! dynamic loader); libraries are mapped, which Landlock does not mediate. A
//! manifest that lists programs does not list loaders, so they are added.

use std::collections::{BTreeMap, BTreeSet};

use super::RuleNode;
use super::access::{Access, EXEC};
use super::gap::{Effect, Gaps, Subject};
use super::links::Links;
use super::places::Places;
use super::text;
use super::tree::{Kind, Tree};
use crate::mounts::Names;
use crate::policy::manifest::Verb;

/// Where the C libraries' loaders are, for allowed directories, whose programs
/// are not looked into.
const LOADERS: [&str; 8] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux-riscv64-lp64d.so.1",
    "/lib64/ld64.so.2",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
    "/lib/ld-musl-riscv64.so.1",
];

/// Gives the right to execute to the interpreters of what may be executed.
pub(super) fn add_interpreters(
    tree: &dyn Tree,
    places: &Places<'_>,
    nodes: &mut BTreeMap<Names, RuleNode>,
    gaps: &mut Gaps,
) {
    let links = Links::new(tree);
    let mut wanted: BTreeSet<Vec<u8>> = BTreeSet::new();
    for (path, node) in &*nodes {
        if !node.access.contains(Access::EXECUTE) {
            continue;
        }
        match tree.entry(path) {
            Ok(Some(entry)) if entry.kind == Kind::Directory => {
                wanted.extend(LOADERS.map(|loader| loader.as_bytes().to_vec()));
            }
            _ => wanted.extend(tree.interpreter(path).ok().flatten()),
        }
    }
    let mut added = BTreeSet::new();
    for interpreter in wanted {
        let Some((path, entry)) = links.lookup(&interpreter) else {
            continue;
        };
        if entry.kind != Kind::File || is_denied(tree, places, &path) {
            continue;
        }
        let node = nodes.entry(path.clone()).or_insert_with(|| RuleNode {
            path: text::path_of(&path),
            access: Access::NONE,
            device: entry.device,
            inode: entry.inode,
        });
        if !node.access.contains(Access::EXECUTE) {
            node.access |= Access::EXECUTE;
            added.insert(text::encode(&node.path));
        }
    }
    if !added.is_empty() {
        let list: Vec<String> = added.into_iter().collect();
        gaps.add_fixed(
            Effect::NotEnforced,
            Subject::Verb(Verb::Exec),
            "exec",
            &format!(
                "{} can be executed as well: the allowed programs need it to start",
                list.join(", ")
            ),
        );
    }
}

/// Whether a rule denies executing the path.
fn is_denied(tree: &dyn Tree, places: &Places<'_>, path: &Names) -> bool {
    let mut at = Names::new();
    let Some(mut place) = mount_of(tree, &at).and_then(|id| places.enter(id)) else {
        return true;
    };
    for name in path {
        at.push(name.clone());
        let next = mount_of(tree, &at).and_then(|id| places.descend(&place, name, id));
        let Some(next) = next else {
            return true;
        };
        place = next;
    }
    let mut denying = places.rules[EXEC].denying(&place.states[EXEC]);
    denying.next().is_some()
}

fn mount_of(tree: &dyn Tree, path: &Names) -> Option<u32> {
    Some(tree.entry(path).ok()??.mount)
}

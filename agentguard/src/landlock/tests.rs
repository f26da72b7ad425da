//! Deriving rules, on trees in memory.

mod cases;
mod memory;
mod model;

use memory::MemoryTree;

use super::{Access, Concessions, Effect, Rules, rules, text};
use crate::mounts::names;
use crate::policy::compile::protected::Protection;
use crate::policy::manifest::Manifest;
use crate::policy::{check, parse};

/// One file system, and `/proc`, `/dev` and its terminals.
const MOUNTS: &str = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
    22 21 8:2 / /proc rw - proc proc rw\n\
    23 21 8:3 / /dev rw - devtmpfs devtmpfs rw\n\
    24 23 8:4 / /dev/pts rw - devpts devpts rw\n";
/// Files that every test has.
const SYSTEM: &[&str] = &[
    "1 /proc/",
    "1 /dev/",
    "1 /etc/shadow",
    "1 /etc/passwd",
    "1 /usr/bin/sudo",
    "1 /usr/bin/python3->python3.11",
    "1 /usr/bin/python3.11#/lib64/ld-linux-x86-64.so.2",
    "1 /usr/bin/env#/lib64/ld-linux-x86-64.so.2",
    "1 /usr/lib64/ld-linux-x86-64.so.2",
    "1 /lib64->usr/lib64",
    "1 /home/u/.ssh/id",
    "1 /home/u/.ssh/config",
    "1 /home/u/src/main.c",
    "1 /home/u/notes",
    "2 /sys/kernel",
    "2 /version",
    "3 /null c1:3",
    "3 /sda c8:0",
    "3 /tty c5:0",
    "3 /pts/",
    "3 /shm/",
    "4 /0 c136:0",
];

fn manifest(permissions: &str) -> Manifest {
    let text = format!(
        "apiVersion: agentguard/v1\nkind: Agent\nmetadata: {{ name: t }}\nspec:\n  \
         owner: o@example.com\n  environment: production\n  authority: service\n  mode: enforce\n  \
         permissions:\n{permissions}"
    );
    let parsed = parse(std::path::Path::new("t.yaml"), text.as_bytes())
        .unwrap_or_else(|error| panic!("{error:?}"));
    let checked = check(&parsed);
    assert!(
        checked.manifests.len() == 1,
        "{:?}\n{text}",
        checked.diagnostics
    );
    checked.manifests.into_iter().next().unwrap()
}

fn tree(files: &[&str]) -> MemoryTree {
    MemoryTree::new(MOUNTS, &[SYSTEM, files].concat())
}

/// A case: what is derived on a tree, and questions about it.
struct Case {
    tree: MemoryTree,
    rules: Rules,
}

fn case(files: &[&str], permissions: &str) -> Case {
    case_with(tree(files), permissions, &[], Concessions::default())
}

fn case_with(
    tree: MemoryTree,
    permissions: &str,
    protections: &[Protection],
    concessions: Concessions,
) -> Case {
    let rules = rules(&manifest(permissions), protections, concessions, &tree);
    Case { tree, rules }
}

impl Case {
    #[track_caller]
    fn allows(&self, access: Access, paths: &[&str]) {
        for path in paths {
            let given = self.tree.granted(&self.rules, &names(path.as_bytes()));
            assert!(
                given.contains(access),
                "{access} at {path}: {:#?}",
                self.rules
            );
        }
    }

    #[track_caller]
    fn refuses(&self, access: Access, paths: &[&str]) {
        for path in paths {
            let given = self.tree.granted(&self.rules, &names(path.as_bytes()));
            assert!(
                (given & access).is_empty(),
                "{access} at {path}: {:#?}",
                self.rules
            );
        }
    }

    /// A gap about this rule with these words in its reason.
    #[track_caller]
    fn reports(&self, effect: Effect, rule: &str, words: &str) {
        let found = self
            .rules
            .gaps
            .iter()
            .any(|gap| gap.effect == effect && gap.rule == rule && gap.reason.contains(words));
        assert!(found, "{effect} {rule}: {words}: {:#?}", self.rules.gaps);
    }

    #[track_caller]
    fn reports_nothing_about(&self, rule: &str) {
        let found: Vec<_> = self
            .rules
            .gaps
            .iter()
            .filter(|it| it.rule == rule)
            .collect();
        assert!(found.is_empty(), "{found:#?}");
    }

    /// All rights with their paths.
    fn listing(&self) -> String {
        let line =
            |node: &super::RuleNode| format!("{}: {}\n", text::encode(&node.path), node.access);
        self.rules.nodes.iter().map(line).collect()
    }
}

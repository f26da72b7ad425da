//! The compiled tables against the meaning of a manifest, rule by rule.

use std::sync::Arc;

use agentguard_common::decision::{self, Subject};
use agentguard_common::identity::{RunRecord, Tag, policy_flag, run_state};
use agentguard_common::net::{Address, Transport};
use agentguard_common::verb::{Verb, Verbs};
use agentguard_common::verdict::{Decision, Reason, Verdict};
use proptest::prelude::*;

use super::super::manifest::{self, Manifest, NetHost, NetObject, Object, PathObject};
use super::super::{check, parse, reference};
use super::{Compiled, Set, common_verdict, compile, manifest_verb};
use crate::mounts::{MountTable, names};

mod lineage;

const ROOT: u32 = 8 << 20 | 1;
const TMP: u32 = 5;

fn mounts() -> MountTable {
    MountTable::parse(
        b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 21 0:5 / /srv/t rw - tmpfs tmpfs rw\n\
          41 21 8:1 /a /srv/alias rw - ext4 /dev/sda1 rw\n",
    )
    .unwrap()
}

/// Without an alias: the plain meaning of a manifest knows nothing of mounts.
fn plain_mounts() -> MountTable {
    MountTable::parse(
        b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 21 0:5 / /srv/t rw - tmpfs tmpfs rw\n",
    )
    .unwrap()
}

fn manifest(permissions: &str) -> Arc<Manifest> {
    let text = format!(
        "apiVersion: agentguard/v1\nkind: Agent\nmetadata: {{ name: t }}\nspec:\n  \
         owner: o@example.com\n  environment: production\n  authority: service\n  mode: enforce\n  \
         permissions:\n{permissions}"
    );
    let parsed = parse(std::path::Path::new("t.yaml"), text.as_bytes()).unwrap();
    let checked = check(&parsed);
    assert!(checked.manifests.len() == 1, "{:?}", checked.diagnostics);
    Arc::new(checked.manifests.into_iter().next().unwrap())
}

fn compiled(manifest: &Arc<Manifest>) -> Compiled {
    compile(&Set::of(1, Arc::clone(manifest)), &mounts(), &[], 1)
        .unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// What the tables say of a name inside a file system.
fn verdict(compiled: &Compiled, verb: Verb, device: u32, path: &str) -> Verdict {
    decision(compiled, verb, device, path).verdict
}

/// The place of the rule to blame, if a rule decides.
fn blamed(compiled: &Compiled, verb: Verb, device: u32, path: &str) -> Option<String> {
    let decision = decision(compiled, verb, device, path);
    let rules = &compiled.agents[0].rules;
    (decision.reason != Reason::Default).then(|| rules[usize::from(decision.rule)].at.clone())
}

fn decision(compiled: &Compiled, verb: Verb, device: u32, path: &str) -> Decision {
    decision_of(compiled, 0, verb, device, path)
}

/// The same of one of several agents.
fn decision_of(compiled: &Compiled, agent: usize, verb: Verb, device: u32, path: &str) -> Decision {
    let record = &compiled.agents[agent].record;
    let rows = compiled
        .tables
        .rows(record, device, &names(path.as_bytes()))
        .unwrap();
    let run = RunRecord {
        serial: 1,
        state: run_state::ACTIVE,
        ..RunRecord::default()
    };
    let tag = Tag {
        agent: 1,
        run: 1,
        run_serial: 1,
    };
    let subject = Subject {
        tag: &tag,
        policy: record,
        run: &run,
    };
    assert_eq!(decision::standing(&subject, || 0), None);
    decision::decide_path(&subject, Verbs::of(verb), rows).0
}

fn write(compiled: &Compiled, path: &str) -> Verdict {
    verdict(compiled, Verb::Write, ROOT, path)
}

#[test]
fn the_strictest_rule_wins_and_names_match_exactly() {
    let policy = manifest(
        "    write:\n      allow: ['/w/**', '/v/a*b/f?']\n      ask: ['/w/ask/**']\n      \
         deny: ['/w/no', '**/*.key']\n",
    );
    let policy = compiled(&policy);
    for (path, expected) in [
        ("/w", Verdict::Deny),
        ("/w/x/y", Verdict::Allow),
        ("/w/no", Verdict::Deny),
        ("/w/no/x", Verdict::Allow),
        ("/w/ask/x", Verdict::Ask),
        ("/w/ask/x.key", Verdict::Deny),
        ("/v/a--b/f1", Verdict::Allow),
        ("/v/ab/fé", Verdict::Allow),
        ("/v/ab/f", Verdict::Deny),
        ("/v/abx/f1", Verdict::Deny),
        ("/x", Verdict::Deny),
    ] {
        assert_eq!(write(&policy, path), expected, "{path}");
    }
}

#[test]
fn names_longer_than_a_key_are_compared_in_full() {
    let long = "n".repeat(200);
    let policy = compiled(&manifest(&format!(
        "    write:\n      allow: ['/{long}/**']\n"
    )));
    assert_eq!(write(&policy, &format!("/{long}/f")), Verdict::Allow);
    for other in [&long[1..], &format!("{long}n"), &format!("{}m", &long[1..])] {
        assert_eq!(write(&policy, &format!("/{other}/f")), Verdict::Deny);
    }
}

#[test]
fn a_rule_follows_into_a_mounted_file_system_but_not_into_an_alias() {
    let policy = compiled(&manifest("    write:\n      allow: ['/srv/**']\n"));
    // /srv/t is a file system of its own: below the rule, whatever its inner names are.
    assert_eq!(verdict(&policy, Verb::Write, TMP, "/f"), Verdict::Allow);
    // /srv/alias shows /a of the root: the real name has no rule.
    assert_eq!(write(&policy, "/a/f"), Verdict::Deny);
    // Spelt out, the alias is meant.
    let policy = compiled(&manifest("    write:\n      allow: ['/srv/alias/**']\n"));
    assert_eq!(write(&policy, "/a/f"), Verdict::Allow);
    // A denial reaches through it in any case.
    let policy = compiled(&manifest(
        "    write:\n      allow: ['/a/**']\n      deny: ['/srv/**']\n",
    ));
    assert_eq!(write(&policy, "/a/f"), Verdict::Deny);
}

#[test]
fn unknown_file_systems_get_the_defaults_and_the_floating_denials() {
    let policy = manifest(
        "    write:\n      allow: ['/**', '**/ok']\n    read:\n      deny: ['**/*.key']\n",
    );
    let policy = compiled(&policy);
    assert_eq!(verdict(&policy, Verb::Write, 99, "/ok"), Verdict::Deny);
    assert_eq!(verdict(&policy, Verb::Read, 99, "/x"), Verdict::Allow);
    assert_eq!(verdict(&policy, Verb::Read, 99, "/x/a.key"), Verdict::Deny);
}

#[test]
fn credentials_are_protected_until_a_rule_spells_them_out() {
    let policy = compiled(&manifest(
        "    read:\n      default: allow\n      allow: ['/home/u/**']\n",
    ));
    assert_eq!(
        verdict(&policy, Verb::Read, ROOT, "/home/u/.ssh/id_ed25519"),
        Verdict::Deny
    );
    assert_eq!(
        verdict(&policy, Verb::Read, ROOT, "/home/u/src/a.c"),
        Verdict::Allow
    );
    let policy = compiled(&manifest(
        "    read:\n      default: allow\n      allow: ['/home/u/.ssh/config']\n",
    ));
    assert_eq!(
        verdict(&policy, Verb::Read, ROOT, "/home/u/.ssh/config"),
        Verdict::Allow
    );
    assert_eq!(
        verdict(&policy, Verb::Read, ROOT, "/home/u/.ssh/id_ed25519"),
        Verdict::Deny
    );
}

#[test]
fn a_rule_with_a_wildcard_in_its_middle_lifts_what_it_spells_out() {
    let policy = compiled(&manifest(
        "    read:\n      default: allow\n      allow: ['/home/u/.ssh/**/known', '/home/*/**/x']\n",
    ));
    let read = |path: &str| verdict(&policy, Verb::Read, ROOT, path);
    assert_eq!(read("/home/u/.ssh/a/known"), Verdict::Allow);
    assert_eq!(read("/home/v/.ssh/a/known"), Verdict::Deny);
    assert_eq!(read("/home/u/.ssh/a/x"), Verdict::Deny);
    assert_eq!(read("/home/u/.gnupg/a/known"), Verdict::Deny);
}

#[test]
fn a_protection_is_lifted_the_same_way_on_a_file_system_of_its_own() {
    let mounts = MountTable::parse(
        b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 21 0:5 / /home rw - ext4 /dev/sda2 rw\n",
    )
    .unwrap();
    let manifest = manifest("    read:\n      default: allow\n      allow: ['/home/u/.ssh/**']\n");
    let policy = compile(&Set::of(1, manifest), &mounts, &[], 1)
        .unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(
        verdict(&policy, Verb::Read, TMP, "/u/.ssh/config"),
        Verdict::Allow
    );
    assert_eq!(
        verdict(&policy, Verb::Read, TMP, "/v/.ssh/config"),
        Verdict::Deny
    );
}

/// What `count` rules with names at fixed places take, and some at any depth.
fn states(count: usize, deep: &[String]) -> usize {
    let fixed: Vec<String> = (0..count)
        .map(|n| format!("/srv/a{}/b{}/c{n}/**", n % 7, n % 31))
        .collect();
    let policy = compiled(&manifest(&format!(
        "    write:\n      allow: {}\n      deny: {}\n",
        list(&fixed),
        list(deep)
    )));
    policy.tables.states.len()
}

#[test]
fn rules_at_any_depth_add_to_the_others_and_do_not_multiply_with_them() {
    let deep: Vec<String> = (0..12)
        .map(|n| format!("**/d{n}/**"))
        .chain(["**/.env".to_owned()])
        .collect();
    let (fixed, alone, both) = (states(2_000, &[]), states(0, &deep), states(2_000, &deep));
    // Beside the protected set.
    let none = states(0, &[]);
    assert!(alone - none < 200, "{alone} - {none}");
    assert!(both <= fixed + alone, "{both} > {fixed} + {alone}");
}

/// Patterns over a tiny alphabet, so that they meet often.
fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("ab".to_owned()),
        Just("*".to_owned()),
        Just("a*".to_owned()),
        Just("*b".to_owned()),
        Just("?".to_owned()),
        Just("**".to_owned()),
    ];
    (any::<bool>(), prop::collection::vec(part, 1..5)).prop_map(|(floating, parts)| {
        let path = parts.join("/");
        if floating {
            format!("**/{path}")
        } else {
            format!("/{path}")
        }
    })
}

fn list(patterns: &[String]) -> String {
    let quoted: Vec<String> = patterns
        .iter()
        .map(|pattern| format!("'{pattern}'"))
        .collect();
    format!("[{}]", quoted.join(", "))
}

fn address(bits: u8) -> std::net::IpAddr {
    std::net::Ipv4Addr::new(10, bits >> 6, bits >> 3 & 7, bits & 7).into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn path_tables_mean_what_the_manifest_says(
        allow in prop::collection::vec(pattern(), 0..4),
        ask in prop::collection::vec(pattern(), 0..3),
        deny in prop::collection::vec(pattern(), 0..3),
        paths in prop::collection::vec(prop::collection::vec("[ab]{1,3}|é", 0..5), 1..12),
    ) {
        let text = format!(
            "    write:\n      allow: {}\n      ask: {}\n      deny: {}\n",
            list(&allow), list(&ask), list(&deny)
        );
        let manifest = manifest(&text);
        let compiled = compile(&Set::of(1, Arc::clone(&manifest)), &plain_mounts(), &[], 1)
            .unwrap_or_else(|errors| panic!("{errors:?}"));
        for path in paths {
            let path = format!("/{}", path.join("/"));
            let object = Object::Path(PathObject::from_bytes(path.as_bytes()).unwrap());
            let expected =
                reference::decide(&manifest.permissions, manifest::Verb::Write, &object);
            prop_assert_eq!(
                verdict(&compiled, Verb::Write, ROOT, &path),
                common_verdict(expected.verdict),
                "{} under {}", path, text
            );
            prop_assert_eq!(
                blamed(&compiled, Verb::Write, ROOT, &path),
                expected.rule.map(manifest::Location::file_line),
                "{} under {}", path, text
            );
        }
    }

    #[test]
    fn address_tables_mean_what_the_manifest_says(
        rules in prop::collection::vec(
            (0u8..=255, 20u8..=32, 0u16..4, 0u16..3, 0usize..3, 0usize..3), 1..10
        ),
        asked in prop::collection::vec((0u8..=255, 1u16..8, any::<bool>()), 1..20),
    ) {
        let mut lists: [Vec<String>; 3] = Default::default();
        for (bits, len, port, span, protocol, verdict) in &rules {
            let mask = u32::MAX << (32 - u32::from(*len));
            let std::net::IpAddr::V4(v4) = address(*bits) else { unreachable!() };
            let network = std::net::Ipv4Addr::from(u32::from(v4) & mask);
            let ports = match port {
                0 => String::new(),
                port => format!(":{port}-{}", port + span),
            };
            let protocol = ["", "/tcp", "/udp"][*protocol];
            lists[*verdict].push(format!("{network}/{len}{ports}{protocol}"));
        }
        let text = format!(
            "    connect:\n      allow: {}\n      ask: {}\n      deny: {}\n",
            list(&lists[0]), list(&lists[1]), list(&lists[2])
        );
        let manifest = manifest(&text);
        let compiled = compiled(&manifest);
        let record = &compiled.agents[0].record;
        for (bits, port, tcp) in asked {
            let std::net::IpAddr::V4(v4) = address(bits) else { unreachable!() };
            let (ours, theirs) = if tcp {
                (Transport::Tcp, manifest::Transport::Tcp)
            } else {
                (Transport::Udp, manifest::Transport::Udp)
            };
            let object = Object::Net(NetObject::Inet {
                host: NetHost::Address(address(bits)), port, transport: theirs,
            });
            let expected =
                reference::decide(&manifest.permissions, manifest_verb(Verb::Connect), &object).verdict;
            let found = compiled
                .tables
                .net(record.connect.v4, &Address::v4(u32::from(v4)), ours, port)
                .unwrap();
            let run = RunRecord::default();
            let tag = Tag::default();
            let subject = Subject { tag: &tag, policy: record, run: &run };
            prop_assert_eq!(
                decision::decide_net(&subject, Verb::Connect, found).verdict,
                common_verdict(expected),
                "{}:{} under {}", v4, port, text
            );
        }
    }
}

fn has_names(permissions: &str) -> bool {
    let compiled = compiled(&manifest(permissions));
    let agent = &compiled.agents[0];
    let flag = agent.record.flags & policy_flag::NAMES != 0;
    assert_eq!(flag, !agent.names.is_empty());
    flag
}

#[test]
fn the_record_says_whether_there_are_rules_about_names() {
    assert!(has_names(
        "    connect: { allow: ['api.example.com:443'] }\n"
    ));
    assert!(has_names(
        "    connect: { deny: ['*.example.com'], default: allow }\n"
    ));
    assert!(!has_names(
        "    connect: { allow: ['*:443', '10.0.0.0/8', 'unix:/run/x'] }\n"
    ));
    assert!(!has_names("    read: { allow: ['/srv/**'] }\n"));
}

#[test]
fn names_are_blamed_by_the_numbers_of_events() {
    let compiled = compiled(&manifest(
        "    connect: { allow: ['*.example.com:443/tcp'], deny: ['bad.example.com'] }\n",
    ));
    let agent = &compiled.agents[0];
    let (_, rule) = agent.names.blame("bad.example.com");
    assert_eq!(
        agent.rules[usize::from(rule.unwrap())].text,
        "bad.example.com"
    );
    let (ranges, left_out) = agent.names.ranges("www.example.com");
    let rule = &agent.rules[usize::from(ranges[0].rule)];
    assert_eq!(
        (rule.text.as_str(), ranges.len(), left_out),
        ("*.example.com:443/tcp", 1, false)
    );
}

#[test]
fn a_choice_of_servers_and_a_crowd_of_ports_are_warned_about() {
    let warnings = |permissions: &str| {
        let compiled = compiled(&manifest(permissions));
        let texts = compiled
            .warnings
            .iter()
            .map(|warning| warning.message.clone());
        texts.collect::<Vec<String>>()
    };
    let chosen = warnings("    connect: { allow: ['api.example.com:443', '10.0.0.0/8'] }\n");
    assert!(
        chosen[0].contains("10.0.0.0/8 lets it choose its DNS server"),
        "{chosen:?}"
    );
    for fine in [
        "    connect: { allow: ['api.example.com:443', '10.0.0.0/8:443', '10.0.0.53:53'] }\n",
        "    connect: { allow: ['*'] }\n",
    ] {
        assert_eq!(warnings(fine), Vec::<String>::new());
    }
    let ports: Vec<String> = (1..=13)
        .map(|port| format!("'a.net:{port}0/tcp'"))
        .collect();
    let crowded = warnings(&format!(
        "    connect: {{ allow: [{}] }}\n",
        ports.join(", ")
    ));
    assert!(
        crowded[0].contains("the rules about a.net have more ranges"),
        "{crowded:?}"
    );
}

//! A sub-agent may do what its own manifest and that of each agent above it allow.

use super::super::lineage;
use super::*;

/// The manifests of a chain of agents, the first one starting the others.
fn chain(permissions: &[String]) -> Vec<Arc<Manifest>> {
    let last = permissions.len() - 1;
    let named = |(at, text): (usize, &String)| {
        let mut manifest = Manifest::clone(&manifest(text));
        manifest.name = format!("a{at}");
        if at < last {
            manifest.delegates.push(manifest::Located {
                value: format!("a{}", at + 1),
                location: manifest.source.clone(),
            });
        }
        Arc::new(manifest)
    };
    permissions.iter().enumerate().map(named).collect()
}

/// The compiled chain, and the agent at its end.
fn below(manifests: &[Arc<Manifest>]) -> (Compiled, usize) {
    let places = lineage::places(manifests).unwrap();
    let mut indexes = 1..;
    let set = Set {
        agents: indexes.by_ref().zip(manifests.iter().cloned()).collect(),
        places: indexes.zip(places).collect(),
    };
    let whole = |(_, place): &&(u32, lineage::Place)| place.above.len() + 1 == manifests.len();
    let index = set.places.iter().find(whole).unwrap().0;
    let compiled = compile(&set, &plain_mounts(), &[], 1);
    let compiled = compiled.unwrap_or_else(|errors| panic!("{errors:?}"));
    let at = compiled
        .agents
        .iter()
        .position(|agent| agent.index == index);
    (compiled, at.unwrap())
}

fn strictest(manifests: &[Arc<Manifest>], verb: manifest::Verb, object: &Object) -> Verdict {
    let verdicts = manifests
        .iter()
        .map(|manifest| reference::decide(&manifest.permissions, verb, object).verdict);
    common_verdict(verdicts.max().unwrap())
}

/// Patterns of which a lineage can have some that do not deny: those with `**` before the end
/// meet everything else there, and their states multiply.
fn tame() -> impl Strategy<Value = String> {
    let floating = prop_oneof![
        Just("**/a".to_owned()),
        Just("**/*b".to_owned()),
        Just("**/ab/**".to_owned()),
    ];
    let anchored = pattern().prop_filter("it begins at the root", |pattern| {
        !pattern.trim_end_matches("/**").contains("**")
    });
    prop_oneof![1 => floating, 4 => anchored]
}

fn rules() -> impl Strategy<Value = String> {
    let denied = prop::collection::vec(pattern(), 0..3);
    let others = || prop::collection::vec(tame(), 0..3);
    (others(), others(), denied, any::<bool>()).prop_map(|(allow, ask, deny, open)| {
        format!(
            "    write:\n      allow: {}\n      ask: {}\n      deny: {}\n      default: {}\n",
            list(&allow),
            list(&ask),
            list(&deny),
            if open { "allow" } else { "deny" }
        )
    })
}

fn networks() -> impl Strategy<Value = String> {
    let rule = (0u8..=255, 20u8..=32, 0u16..4, 0u16..3, 0usize..3, 0usize..3);
    (prop::collection::vec(rule, 0..6), any::<bool>()).prop_map(|(rules, open)| {
        let mut lists: [Vec<String>; 3] = Default::default();
        for (bits, len, port, span, protocol, verdict) in rules {
            let mask = u32::MAX << (32 - u32::from(len));
            let std::net::IpAddr::V4(v4) = address(bits) else {
                unreachable!()
            };
            let network = std::net::Ipv4Addr::from(u32::from(v4) & mask);
            let ports = match port {
                0 => String::new(),
                port => format!(":{port}-{}", port + span),
            };
            let protocol = ["", "/tcp", "/udp"][protocol];
            lists[verdict].push(format!("{network}/{len}{ports}{protocol}"));
        }
        format!(
            "    connect:\n      allow: {}\n      ask: {}\n      deny: {}\n      default: {}\n",
            list(&lists[0]),
            list(&lists[1]),
            list(&lists[2]),
            if open { "allow" } else { "deny" }
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn paths_need_the_leave_of_the_whole_line(
        permissions in prop::collection::vec(rules(), 2..4),
        paths in prop::collection::vec(prop::collection::vec("[ab]{1,3}|é", 0..5), 1..12),
    ) {
        let manifests = chain(&permissions);
        let (compiled, at) = below(&manifests);
        for path in paths {
            let path = format!("/{}", path.join("/"));
            let object = Object::Path(PathObject::from_bytes(path.as_bytes()).unwrap());
            prop_assert_eq!(
                decision_of(&compiled, at, Verb::Write, ROOT, &path).verdict,
                strictest(&manifests, manifest::Verb::Write, &object),
                "{} under {:?}", path, permissions
            );
        }
    }

    #[test]
    fn addresses_need_the_leave_of_the_whole_line(
        permissions in prop::collection::vec(networks(), 2..4),
        asked in prop::collection::vec((0u8..=255, 1u16..8, any::<bool>()), 1..20),
    ) {
        let manifests = chain(&permissions);
        let (compiled, at) = below(&manifests);
        let record = &compiled.agents[at].record;
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
            let found = compiled
                .tables
                .net(record.connect.v4, &Address::v4(u32::from(v4)), ours, port)
                .unwrap();
            let (run, tag) = (RunRecord::default(), Tag::default());
            let subject = Subject { tag: &tag, policy: record, run: &run };
            prop_assert_eq!(
                decision::decide_net(&subject, Verb::Connect, found).verdict,
                strictest(&manifests, manifest_verb(Verb::Connect), &object),
                "{}:{} under {:?}", v4, port, permissions
            );
        }
    }
}

#[test]
fn a_protection_is_lifted_only_by_the_whole_line() {
    let lifting = "    read: { allow: ['/home/a/.ssh/**'] }\n".to_owned();
    let plain = "    read: { allow: ['/home/a/**'] }\n".to_owned();
    let read = |permissions: &[String]| {
        let (compiled, at) = below(&chain(permissions));
        decision_of(&compiled, at, Verb::Read, ROOT, "/home/a/.ssh/id").verdict
    };
    assert_eq!(read(&[lifting.clone(), lifting.clone()]), Verdict::Allow);
    assert_eq!(read(&[plain.clone(), lifting.clone()]), Verdict::Deny);
    assert_eq!(read(&[lifting, plain]), Verdict::Deny);
}

#[test]
fn privileges_and_names_are_those_of_the_whole_line() {
    let one = "    privileges: { allow: [mount, devices] }\n    connect: { allow: ['*.example.com:443'] }\n";
    let other = "    privileges: { allow: [devices] }\n    connect: { allow: ['api.example.com', '*:80'] }\n";
    let (compiled, at) = below(&chain(&[one.to_owned(), other.to_owned()]));
    let agent = &compiled.agents[at];
    assert_eq!(
        agent.record.privileges,
        agentguard_common::identity::privilege::DEVICES
    );
    assert!(agent.names.may_ask("api.example.com"));
    assert!(!agent.names.may_ask("www.example.com"));
    let (ranges, _) = agent.names.ranges("api.example.com");
    assert!(ranges.iter().all(|range| range.low & 0xffff == 443));
}

#[test]
fn of_agents_that_are_only_observed_nothing_binds_below_enforced_ones() {
    let mut manifests = chain(&[
        "    write: { allow: ['/a/**'] }\n".to_owned(),
        "    write: { allow: ['/a/b/**'] }\n".to_owned(),
    ]);
    let write = |manifests: &[Arc<Manifest>], path: &str| {
        let (compiled, at) = below(manifests);
        assert_eq!(compiled.agents[at].record.mode, 2);
        decision_of(&compiled, at, Verb::Write, ROOT, path).verdict
    };
    assert_eq!(write(&manifests, "/a/x"), Verdict::Deny);
    let mut child = Manifest::clone(&manifests[1]);
    child.mode = manifest::Mode::Observe;
    manifests[1] = Arc::new(child);
    assert_eq!(write(&manifests, "/a/x"), Verdict::Allow);
    assert_eq!(write(&manifests, "/x"), Verdict::Deny);
}

#[test]
fn who_starts_whom_is_in_the_tables() {
    let text = || "    write: { allow: ['/a/**'] }\n".to_owned();
    let (compiled, _) = below(&chain(&[text(), text(), text()]));
    let mut found: Vec<(u32, u32)> = compiled
        .tables
        .delegations
        .iter()
        .map(|(key, _)| (key.from, key.agent))
        .collect();
    found.sort_unstable();
    // a0 starts a1, a1 starts a2, and so does a1 below a0.
    assert_eq!(found.len(), 3);
    assert_eq!(found[..2], [(1, 2), (2, 3)]);
    assert_eq!(found[2].1, 3);
}

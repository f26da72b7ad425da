//! The table of grants by itself; with the engine around it: `daemon/tests/names.rs`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use agentguard_common::limits;
use agentguard_common::net::{Transport, port_key};
use agentguard_common::resolver::{Grant, GrantKey, PortRange};
use agentguard_common::verdict::Verdict;

use super::grants::{Given, Grants, address_of};
use super::ip_of;
use crate::policy::compile::NameRules;
use crate::policy::compile::rules::NetRuleRef;

const SECOND: u64 = 1_000_000_000;

fn rules(list: &[(&str, Verdict)]) -> Arc<NameRules> {
    let numbered: Vec<NetRuleRef> = (0..)
        .zip(list)
        .map(|(index, (text, verdict))| NetRuleRef {
            rule: crate::policy::net::parse_rule(text).unwrap(),
            verdict: *verdict,
            index,
        })
        .collect();
    Arc::new(NameRules::of(&numbered, Verdict::Deny))
}

fn ip(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn key(serial: u64, number: u32) -> GrantKey {
    GrantKey::new(serial, &address_of(ip(number)))
}

/// Gives addresses for five minutes.
fn give(
    grants: &mut Grants,
    serial: u64,
    name: &str,
    numbers: std::ops::Range<u32>,
    rules: &NameRules,
    now: u64,
) -> Result<Vec<(GrantKey, Grant)>, String> {
    let addresses: Vec<_> = numbers
        .map(|number| (ip(number), Duration::from_secs(300)))
        .collect();
    let plan = grants
        .plan(&Given {
            serial,
            name,
            addresses: &addresses,
            rules,
            generation: 1,
            now,
        })
        .map_err(|full| full.to_string())?;
    let written = plan.grants();
    grants.keep(plan);
    Ok(written)
}

fn says(grant: &Grant, generation: u32, port: u16) -> u8 {
    grant
        .lookup(generation, port_key(Transport::Tcp, port))
        .verdict
}

#[test]
fn time_is_added_and_never_taken() {
    let rules = rules(&[("a.net:443", Verdict::Allow)]);
    let mut grants = Grants::default();
    let first = give(&mut grants, 7, "a.net", 1..2, &rules, 100 * SECOND).unwrap();
    assert_eq!(first[0].1.until_ns, 400 * SECOND);
    assert_eq!(says(&first[0].1, 1, 443), 1);
    let earlier = give(&mut grants, 7, "a.net", 1..2, &rules, 0).unwrap();
    assert_eq!(earlier[0].1.until_ns, 400 * SECOND);
    let later = give(&mut grants, 7, "a.net", 1..2, &rules, 200 * SECOND).unwrap();
    assert_eq!(later[0].1.until_ns, 500 * SECOND);
    assert_eq!(grants.len(), 1);
}

#[test]
fn an_address_of_two_names_has_the_strictest_of_both() {
    let rules = rules(&[
        ("a.net:443", Verdict::Allow),
        ("b.net:80", Verdict::Allow),
        ("b.net:443", Verdict::Deny),
    ]);
    let mut grants = Grants::default();
    let first = give(&mut grants, 7, "a.net", 1..2, &rules, 0).unwrap();
    assert_eq!(
        (says(&first[0].1, 1, 443), says(&first[0].1, 1, 80)),
        (1, 0)
    );
    let both = give(&mut grants, 7, "b.net", 1..2, &rules, 0).unwrap();
    assert_eq!((says(&both[0].1, 1, 443), says(&both[0].1, 1, 80)), (3, 1));
}

#[test]
fn a_name_without_rules_takes_no_room() {
    let rules = rules(&[("a.net:443", Verdict::Allow)]);
    let mut grants = Grants::default();
    assert!(
        give(&mut grants, 7, "b.net", 1..9, &rules, 0)
            .unwrap()
            .is_empty()
    );
    assert_eq!(grants.len(), 0);
}

#[test]
fn both_generations_are_there_while_one_follows_the_other() {
    let old = rules(&[("a.net:443", Verdict::Allow)]);
    let new = rules(&[("x.net", Verdict::Allow), ("a.net:444", Verdict::Allow)]);
    let mut grants = Grants::default();
    give(&mut grants, 7, "a.net", 1..2, &old, 0).unwrap();
    for generation in 2..6 {
        let now = if generation % 2 == 0 { &new } else { &old };
        let changed = grants.renew(
            generation - 1,
            generation,
            &|_| Some(Arc::clone(now)),
            &|_, _| Vec::new(),
        );
        let grant = changed[0].1;
        let (before, after) = if generation % 2 == 0 {
            (443, 444)
        } else {
            (444, 443)
        };
        assert_eq!(says(&grant, generation - 1, before), 1, "{generation}");
        assert_eq!(says(&grant, generation, after), 1, "{generation}");
        assert_eq!(says(&grant, generation, before), 0, "{generation}");
    }
}

#[test]
fn a_number_that_is_used_again_after_a_refusal_has_its_last_meaning() {
    let mut grants = Grants::default();
    let [first, second, third] =
        ["a.net:1", "a.net:2", "a.net:3"].map(|text| rules(&[(text, Verdict::Allow)]));
    give(&mut grants, 7, "a.net", 1..2, &first, 0).unwrap();
    let none = |_: u64, _: &[PortRange]| Vec::new();
    grants.renew(1, 2, &|_| Some(Arc::clone(&second)), &none);
    let grant = grants.renew(1, 2, &|_| Some(Arc::clone(&third)), &none)[0].1;
    assert_eq!([1, 2, 3].map(|port| says(&grant, 2, port)), [0, 0, 1]);
    assert_eq!(says(&grant, 1, 1), 1, "in force all the time");
}

#[test]
fn a_run_keeps_to_its_share_and_what_ended_makes_room() {
    let rules = rules(&[("a.net", Verdict::Allow)]);
    let share = limits::GRANTS / 4;
    let mut grants = Grants::default();
    give(&mut grants, 7, "a.net", 0..10, &rules, 0).unwrap();
    give(&mut grants, 7, "a.net", 10..share, &rules, 100 * SECOND).unwrap();
    let full = give(
        &mut grants,
        7,
        "a.net",
        share..share + 1,
        &rules,
        200 * SECOND,
    )
    .unwrap_err();
    assert!(full.contains("limit of 4096"), "{full}");
    // Those that it has already are no new ones.
    give(&mut grants, 7, "a.net", 5..10, &rules, 200 * SECOND).unwrap();
    // Of the five that have ended, three go.
    give(
        &mut grants,
        7,
        "a.net",
        share..share + 3,
        &rules,
        350 * SECOND,
    )
    .unwrap();
    let kept = grants.of_run(7);
    assert_eq!(kept.len(), share as usize);
    let left = (0..5).filter(|number| kept.contains(&key(7, *number)));
    assert_eq!(left.count(), 2);
    assert!((5..share + 3).all(|number| kept.contains(&key(7, number))));
}

#[test]
fn the_whole_table_is_bounded() {
    let rules = rules(&[("a.net", Verdict::Allow)]);
    let share = limits::GRANTS / 4;
    let mut grants = Grants::default();
    for serial in 1..=4 {
        give(
            &mut grants,
            serial,
            "a.net",
            0..share,
            &rules,
            serial * SECOND,
        )
        .unwrap();
    }
    assert_eq!(grants.len(), limits::GRANTS as usize);
    let full = give(&mut grants, 5, "a.net", 0..2, &rules, 100 * SECOND).unwrap_err();
    assert!(full.contains("limit of 16384"), "{full}");
    give(&mut grants, 5, "a.net", 0..2, &rules, 302 * SECOND).unwrap();
    assert_eq!(grants.len(), limits::GRANTS as usize);
    assert_eq!(grants.of_run(1).len(), share as usize - 2);
    let keys = grants.of_run(5);
    grants.forget(&keys);
    assert_eq!(
        (grants.of_run(5).len(), grants.len()),
        (0, limits::GRANTS as usize - 2)
    );
}

#[test]
fn what_an_earlier_daemon_gave_is_kept_beside_new_names() {
    let rules = rules(&[("a.net:1", Verdict::Allow), ("b.net:2", Verdict::Allow)]);
    let mut before = Grants::default();
    let left = give(&mut before, 7, "a.net", 1..2, &rules, 0).unwrap()[0];
    let mut grants = Grants::default();
    grants.inherit(left.0, left.1, 1);
    let same = |_: u64, ranges: &[PortRange]| ranges.to_vec();
    let grant = grants.renew(1, 2, &|_| Some(Arc::clone(&rules)), &same)[0].1;
    grants.renewed(&same);
    assert_eq!((says(&grant, 1, 1), says(&grant, 2, 1)), (1, 1));
    let both = give(&mut grants, 7, "b.net", 1..2, &rules, 0).unwrap()[0].1;
    assert_eq!((says(&both, 1, 1), says(&both, 1, 2)), (1, 1));
    // Under other rules nobody knows for which name it was.
    let grant = grants.renew(2, 3, &|_| Some(Arc::clone(&rules)), &|_, _| Vec::new())[0].1;
    assert_eq!((says(&grant, 3, 1), says(&grant, 3, 2)), (0, 1));
}

/// What the kernel asks when a program connects a datagram socket to see the way to an address.
#[test]
fn where_a_port_is_allowed_addresses_can_be_sorted() {
    let all = rules(&[
        ("a.net:443/tcp", Verdict::Allow),
        ("b.net:443/tcp", Verdict::Deny),
        ("*.d.net", Verdict::Deny),
        ("x.d.net:443", Verdict::Allow),
    ]);
    let mut grants = Grants::default();
    let mut of = |name, number| give(&mut grants, 7, name, number..number + 1, &all, 0).unwrap()[0];
    let opens = |grant: &Grant| grant.opens(1);
    assert!(opens(&of("a.net", 1).1));
    assert!(!opens(&of("b.net", 2).1), "no port is allowed");
    assert!(!of("a.net", 1).1.opens(2), "another generation");
    // A rule that denies is found first.
    let denied = of("x.d.net", 3).1;
    let look = port_key(Transport::Udp, 9);
    assert_eq!(denied.lookup(1, look).verdict, Verdict::Deny as u8);
}

#[test]
fn addresses_survive_the_kernels_form() {
    for text in ["192.0.2.7", "2001:db8::1:2", "255.255.255.255", "::5"] {
        let address: IpAddr = text.parse().unwrap();
        let kernel = address_of(address);
        assert_eq!(ip_of(kernel.words, kernel.is_v4), address);
    }
}

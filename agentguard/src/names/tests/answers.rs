//! What of an answer is admitted, and what is told. No sockets.

use std::net::IpAddr;

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Serial, Ttl};
use domain::rdata::svcb::{SvcParams, SvcParamsBuilder};
use domain::rdata::{Dname, Https, Soa, Txt};

use super::super::answer::{self, AnswerError, Limits};
use super::super::question;
use super::super::{Grant, reply};
use super::{Owned, Seen, a, answer_to, ask, cname, name, seen};

const NAME: &str = "www.example.com";

/// What becomes of an answer to a question.
struct Outcome {
    grant: Grant,
    reply: Seen,
}

impl Outcome {
    fn addresses(&self) -> Vec<String> {
        let addresses = self.grant.addresses.iter();
        addresses
            .map(|(address, life)| format!("{address} {}", life.as_secs()))
            .collect()
    }

    fn unusable(&self) -> Vec<String> {
        self.grant.unusable.iter().map(IpAddr::to_string).collect()
    }
}

fn outcome_of(question: &[u8], rcode: Rcode, records: &[Owned], rest: &[Owned]) -> Outcome {
    let question = question::read(question).expect("a question");
    let message = answer_to(&question.query(1).expect("built"), rcode, records, rest);
    let answer = answer::read(&message, &question, Limits::default()).expect("an answer");
    Outcome {
        reply: seen(&reply::answer(&question, &answer, reply::TCP_ROOM)),
        grant: answer.grant,
    }
}

fn outcome(records: &[Owned]) -> Outcome {
    outcome_of(&ask(NAME, Rtype::A), Rcode::NOERROR, records, &[])
}

fn soa(owner: &str) -> Owned {
    let second = Ttl::from_secs(1);
    let soa = Soa::new(
        name("ns.example"),
        name("who.example"),
        Serial(1),
        second,
        second,
        second,
        second,
    );
    (name(owner), 7200, soa.into())
}

fn https(owner: &str, priority: u16, target: &str, v4: &[&str], v6: &[&str]) -> Owned {
    let mut params = SvcParamsBuilder::<Vec<u8>>::empty();
    params
        .ipv4hint(v4.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>())
        .unwrap();
    params
        .ipv6hint(v6.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>())
        .unwrap();
    let params: SvcParams<Vec<u8>> = params.freeze().expect("frozen");
    (
        name(owner),
        300,
        Https::new(priority, name(target), params)
            .expect("short")
            .into(),
    )
}

#[test]
fn a_chain_is_followed_in_any_order_with_its_least_ttl() {
    let mut records = [
        cname(NAME, 120, "x.cdn.example"),
        cname("X.cdn.example", 600, "y.cdn.example"),
        a("y.CDN.example", 400, "192.0.2.1"),
        a("y.cdn.example", 400, "192.0.2.2"),
        a(NAME, 500, "192.0.2.3"),
    ];
    for _ in 0..records.len() {
        records.rotate_left(1);
        let outcome = outcome(&records);
        let mut addresses = outcome.addresses();
        addresses.sort();
        assert_eq!(
            addresses,
            ["192.0.2.1 150", "192.0.2.2 150", "192.0.2.3 530"]
        );
        assert_eq!(outcome.grant.name, NAME);
        let mut told = outcome.reply.records;
        told.iter_mut()
            .for_each(|record| record.make_ascii_lowercase());
        told.sort();
        assert_eq!(
            told,
            [
                "www.example.com 120 cname x.cdn.example.",
                "www.example.com 500 a 192.0.2.3",
                "x.cdn.example 120 cname y.cdn.example.",
                "y.cdn.example 120 a 192.0.2.1",
                "y.cdn.example 120 a 192.0.2.2",
            ]
        );
    }
}

#[test]
fn records_of_other_names_are_neither_admitted_nor_told() {
    let outcome = outcome(&[
        a(NAME, 300, "192.0.2.1"),
        a("other.example.com", 300, "192.0.2.66"),
        a("example.com", 300, "192.0.2.67"),
        a("x.www.example.com", 300, "192.0.2.68"),
        cname("other.example.com", 300, NAME),
    ]);
    assert_eq!(outcome.addresses(), ["192.0.2.1 330"]);
    assert_eq!(outcome.reply.records, ["www.example.com 300 A 192.0.2.1"]);
}

#[test]
fn records_of_other_types_are_neither_admitted_nor_told() {
    let records = [a(NAME, 300, "192.0.2.1"), a(NAME, 300, "2001:db8::1")];
    assert_eq!(outcome(&records).addresses(), ["192.0.2.1 330"]);
    for rtype in [Rtype::TXT, Rtype::HTTPS, Rtype::CNAME, Rtype::MX] {
        let outcome = outcome_of(&ask(NAME, rtype), Rcode::NOERROR, &records, &[]);
        assert!(
            outcome.grant.is_empty() && outcome.reply.records.is_empty(),
            "{rtype}"
        );
    }
}

#[test]
fn authority_and_additional_sections_give_no_addresses() {
    let rest = [
        a(NAME, 300, "192.0.2.66"),
        a("ns.example.com", 300, "192.0.2.67"),
    ];
    let records = [a(NAME, 300, "192.0.2.1")];
    let outcome = outcome_of(&ask(NAME, Rtype::A), Rcode::NOERROR, &records, &rest);
    assert_eq!(outcome.addresses(), ["192.0.2.1 330"]);
    assert_eq!(outcome.reply.authority, []);
    assert_eq!(outcome.reply.records.len(), 1);
    let outcome = outcome_of(&ask(NAME, Rtype::A), Rcode::NOERROR, &[], &rest);
    assert!(outcome.grant.is_empty());
}

#[test]
fn loops_end_and_long_chains_are_cut() {
    let outcome_of_loop = outcome(&[
        cname(NAME, 300, "b.example"),
        cname("b.example", 300, NAME),
        a("b.example", 300, "192.0.2.1"),
    ]);
    assert_eq!(outcome_of_loop.addresses(), ["192.0.2.1 330"]);
    assert!(outcome(&[cname(NAME, 300, NAME)]).grant.is_empty());

    for (links, admitted) in [(16, 1), (17, 0)] {
        let mut records = vec![cname(NAME, 300, "c1.example")];
        for i in 1..links {
            records.push(cname(
                &format!("c{i}.example"),
                300,
                &format!("c{}.example", i + 1),
            ));
        }
        records.push(a(&format!("c{links}.example"), 300, "192.0.2.1"));
        assert_eq!(outcome(&records).grant.addresses.len(), admitted, "{links}");
    }
}

#[test]
fn aliases_made_from_dname_records_are_followed() {
    let dname: Owned = (
        name("example.com"),
        300,
        Dname::new(name("example.net")).into(),
    );
    let outcome = outcome(&[
        dname,
        cname(NAME, 0, "www.example.net"),
        a("www.example.net", 300, "192.0.2.1"),
    ]);
    assert_eq!(outcome.addresses(), ["192.0.2.1 90"]);
    assert_eq!(outcome.reply.records.len(), 3);
}

#[test]
fn ttls_are_bounded() {
    for (ttl, life, told) in [
        (0, 90, 0),
        (59, 90, 59),
        (3600, 3630, 3600),
        (86_400, 3630, 3600),
        ((1 << 31) - 1, 3630, 3600),
        (1 << 31, 90, 0),
        (u32::MAX, 90, 0),
    ] {
        let outcome = outcome(&[a(NAME, ttl, "192.0.2.1")]);
        assert_eq!(outcome.addresses(), [format!("192.0.2.1 {life}")]);
        assert_eq!(
            outcome.reply.records,
            [format!("{NAME} {told} A 192.0.2.1")]
        );
    }
}

#[test]
fn of_a_thousand_addresses_the_first_are_admitted_and_told() {
    let records: Vec<_> = (0..1000)
        .map(|i| a(NAME, 300, &format!("10.0.{}.{}", i / 256, i % 256)))
        .collect();
    let outcome = outcome(&records);
    assert_eq!(outcome.grant.addresses.len(), 64);
    assert_eq!(outcome.grant.unusable.len(), 936);
    assert_eq!(outcome.reply.records.len(), 64);

    let many: Vec<_> = (0..2049).map(|_| a(NAME, 300, "10.0.0.1")).collect();
    let question = question::read(&ask(NAME, Rtype::A)).expect("a question");
    let message = answer_to(
        &question.query(1).expect("built"),
        Rcode::NOERROR,
        &many,
        &[],
    );
    let error = answer::read(&message, &question, Limits::default()).map(drop);
    assert!(
        matches!(error, Err(AnswerError::TooManyRecords(2048))),
        "{error:?}"
    );
}

#[test]
fn an_address_that_comes_twice_is_admitted_once_for_longest() {
    let outcome = outcome(&[
        a(NAME, 100, "192.0.2.1"),
        a(NAME, 300, "192.0.2.1"),
        a(NAME, 200, "192.0.2.1"),
    ]);
    assert_eq!(outcome.addresses(), ["192.0.2.1 330"]);
}

#[test]
fn addresses_that_no_name_stands_for_are_listed() {
    let outcome = outcome(&[
        a(NAME, 300, "127.0.0.1"),
        a(NAME, 300, "169.254.169.254"),
        a(NAME, 300, "10.1.2.3"),
        a(NAME, 300, "0.0.0.0"),
    ]);
    assert_eq!(outcome.addresses(), ["10.1.2.3 330"]);
    assert_eq!(
        outcome.unusable(),
        ["127.0.0.1", "169.254.169.254", "0.0.0.0"]
    );
    let records = [
        a(NAME, 300, "::ffff:127.0.0.1"),
        a(NAME, 300, "fe80::1"),
        a(NAME, 300, "fd00::1"),
    ];
    let outcome = outcome_of(&ask(NAME, Rtype::AAAA), Rcode::NOERROR, &records, &[]);
    assert_eq!(outcome.addresses(), ["fd00::1 330"]);
    assert_eq!(outcome.unusable(), ["::ffff:127.0.0.1", "fe80::1"]);
}

#[test]
fn hints_of_services_are_admitted() {
    let records = [
        cname(NAME, 120, "cdn.example"),
        https(
            "cdn.example",
            1,
            ".",
            &["192.0.2.1", "127.0.0.1"],
            &["2001:db8::1"],
        ),
        https(
            "cdn.example",
            2,
            "cdn.example",
            &["192.0.2.2"],
            &["2001:db8::2"],
        ),
        https(
            "cdn.example",
            3,
            "elsewhere.example",
            &["192.0.2.66"],
            &["2001:db8::66"],
        ),
        https(
            "cdn.example",
            0,
            "alias.example",
            &["192.0.2.67"],
            &["2001:db8::67"],
        ),
        https("other.example", 1, ".", &["192.0.2.68"], &["2001:db8::68"]),
    ];
    let outcome = outcome_of(&ask(NAME, Rtype::HTTPS), Rcode::NOERROR, &records, &[]);
    assert_eq!(
        outcome.addresses(),
        [
            "192.0.2.1 150",
            "2001:db8::1 150",
            "192.0.2.2 150",
            "2001:db8::2 150"
        ]
    );
    assert_eq!(
        outcome.unusable(),
        ["127.0.0.1", "192.0.2.66", "2001:db8::66"]
    );
    assert_eq!(outcome.reply.records.len(), 5);
}

#[test]
fn negative_answers_keep_their_soa_alone() {
    let rest = [
        soa("example.com"),
        soa("elsewhere.example"),
        a("ns.example.com", 1, "192.0.2.66"),
    ];
    for rcode in [Rcode::NXDOMAIN, Rcode::NOERROR] {
        let outcome = outcome_of(&ask(NAME, Rtype::A), rcode, &[], &rest);
        assert_eq!(
            (outcome.reply.rcode, outcome.reply.authority),
            (rcode, vec![Rtype::SOA])
        );
        assert!(outcome.grant.is_empty());
    }
    // A name that does not exist has no addresses, whatever else is said.
    let records = [a(NAME, 300, "192.0.2.1")];
    let outcome = outcome_of(&ask(NAME, Rtype::A), Rcode::NXDOMAIN, &records, &rest);
    assert!(outcome.grant.is_empty() && outcome.reply.records.is_empty());
}

#[test]
fn other_types_are_passed_on() {
    let txt: Owned = (
        name(NAME),
        300,
        Txt::build_from_slice(b"v=spf1").expect("short").into(),
    );
    let outcome = outcome_of(&ask(NAME, Rtype::TXT), Rcode::NOERROR, &[txt], &[]);
    assert_eq!(
        outcome.reply.records,
        ["www.example.com 300 TXT \"v=spf1\""]
    );
    assert!(outcome.grant.is_empty());
}

//! Whole questions: client, resolver, server.

use std::time::Duration;

use domain::base::Message;
use domain::base::iana::{Rcode, Rtype};

use super::super::{Count, Protocol, Server};
use super::client::{receive, start};
use super::upstream::Upstream;
use super::{Fake, a, answer_to, ask, ask_edns, seen, until};

pub(super) const NAME: &str = "api.example.com";

/// A server with one address for every name.
pub(super) async fn honest() -> Upstream {
    Upstream::start(|_, query| vec![honest_answer(query)]).await
}

fn honest_answer(query: &[u8]) -> Vec<u8> {
    let asked = Message::from_octets(query).expect("a message");
    let asked = asked.sole_question().expect("one");
    let owner = asked.qname().to_string();
    let address = match asked.qtype() {
        Rtype::A => "192.0.2.1",
        Rtype::AAAA => "2001:db8::1",
        _ => return answer_to(query, Rcode::NOERROR, &[], &[]),
    };
    answer_to(query, Rcode::NOERROR, &[a(&owner, 300, address)], &[])
}

#[tokio::test]
async fn an_allowed_name_is_answered_and_its_addresses_admitted() {
    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[upstream.address]);
    let running = start(&authority);

    let reply = running.ask(&ask(NAME, Rtype::A)).await;
    assert_eq!((reply.id, reply.rcode), (0x1234, Rcode::NOERROR));
    assert_eq!(reply.records, ["api.example.com 300 A 192.0.2.1"]);
    assert!(!reply.has_opt, "the client has none");
    let reply = running.ask(&ask(NAME, Rtype::AAAA)).await;
    assert_eq!(reply.records, ["api.example.com 300 AAAA 2001:db8::1"]);

    let grants = authority.grants();
    let life = Duration::from_secs(330);
    assert_eq!(grants[0].name, NAME);
    assert_eq!(grants[0].addresses, [("192.0.2.1".parse().unwrap(), life)]);
    assert_eq!(
        grants[1].addresses,
        [("2001:db8::1".parse().unwrap(), life)]
    );
    assert_eq!(running.count(Count::Answered), 2);
}

#[tokio::test]
async fn a_refused_name_never_reaches_a_server() {
    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[upstream.address]);
    let running = start(&authority);

    for name in [
        "evil.example.com",
        "com",
        "x.api.example.com",
        "1.2.0.192.in-addr.arpa",
    ] {
        let reply = running.ask(&ask_edns(name, Rtype::A, 1232, false)).await;
        assert_eq!(
            (reply.rcode, reply.extended),
            (Rcode::NXDOMAIN, Some(15)),
            "{name}"
        );
        let reply = running.ask(&ask(name, Rtype::TXT)).await;
        assert_eq!(
            (reply.rcode, reply.has_opt),
            (Rcode::NXDOMAIN, false),
            "{name}"
        );
    }
    assert_eq!(
        running.ask(&ask(NAME, Rtype::A)).await.rcode,
        Rcode::NOERROR
    );
    assert_eq!(upstream.queries().len(), 1);
    assert_eq!(running.count(Count::Refused), 8);
    assert_eq!(authority.lines()[0], "refused evil.example.com: NotAllowed");
}

#[tokio::test]
async fn case_and_trailing_dot_do_not_matter_and_are_repeated() {
    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[upstream.address]);
    let running = start(&authority);

    let reply = running.ask(&ask("API.eXample.COM.", Rtype::A)).await;
    assert_eq!(reply.rcode, Rcode::NOERROR);
    assert_eq!(reply.question, "API.eXample.COM");
    assert_eq!(authority.only_grant().name, NAME);
}

#[tokio::test]
async fn nothing_but_the_question_leaves_the_host() {
    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[upstream.address]);
    let running = start(&authority);

    let mut question = ask_edns("api.EXAMPLE.com", Rtype::A, 4096, true);
    question[3] |= 0x30;
    question.extend_from_slice(b"and what follows the message");
    let reply = running.ask(&question).await;
    assert_eq!(reply.rcode, Rcode::NOERROR);
    assert!(reply.has_opt);

    let mut query = upstream.queries()[0].1.clone();
    query[..2].fill(0);
    let mut expected =
        b"\0\0\x01\x30\0\x01\0\0\0\0\0\x01\x03api\x07example\x03com\0\0\x01\0\x01".to_vec();
    expected.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\x80\0\0\0");
    assert_eq!(query, expected);
}

#[tokio::test]
async fn addresses_are_admitted_before_the_reply_is_sent() {
    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[upstream.address])
        .with(|inner| inner.gate = tokio::sync::Semaphore::new(0));
    let running = start(&authority);

    let socket = running.socket().await;
    socket.send(&ask(NAME, Rtype::A)).await.expect("sent");
    until(|| authority.lines() == ["admitting api.example.com"]).await;
    let early = socket.try_recv(&mut [0; 512]).map_err(|e| e.kind());
    assert_eq!(early, Err(std::io::ErrorKind::WouldBlock));
    authority.0.gate.add_permits(1);
    let reply = seen(&receive(&socket).await);
    authority.log("replied");
    assert_eq!(reply.rcode, Rcode::NOERROR);
    assert_eq!(
        authority.lines(),
        [
            "admitting api.example.com",
            "admitted api.example.com",
            "replied"
        ]
    );
}

#[tokio::test]
async fn addresses_that_cannot_be_admitted_are_not_told() {
    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[upstream.address]).with(|inner| inner.cannot_admit = true);
    let running = start(&authority);

    let reply = running.ask(&ask(NAME, Rtype::A)).await;
    assert_eq!((reply.rcode, reply.records.len()), (Rcode::SERVFAIL, 0));
    assert_eq!(running.count(Count::NotAdmitted), 1);
}

#[tokio::test(start_paused = true)]
async fn an_admission_that_hangs_is_a_failure() {
    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[upstream.address])
        .with(|inner| inner.gate = tokio::sync::Semaphore::new(0));
    let running = start(&authority);
    assert_eq!(
        running.ask(&ask(NAME, Rtype::A)).await.rcode,
        Rcode::SERVFAIL
    );
}

#[tokio::test]
async fn whom_the_kernel_did_not_send_is_refused() {
    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[upstream.address]).with(|inner| inner.knows_nobody = true);
    let running = start(&authority);
    assert_eq!(
        running.ask(&ask(NAME, Rtype::A)).await.rcode,
        Rcode::REFUSED
    );
    assert_eq!(upstream.queries().len(), 0);
    assert_eq!(running.count(Count::Strangers), 1);
}

#[tokio::test]
async fn answers_with_another_number_or_question_are_ignored() {
    let upstream = Upstream::start(|_, query| {
        let right = honest_answer(query);
        let mut number = right.clone();
        number[0] ^= 1;
        let mut question = right.clone();
        question[13] ^= 1;
        let mut not_answer = right.clone();
        not_answer[2] &= 0x7f;
        vec![
            number,
            question,
            not_answer,
            b"garbage".to_vec(),
            Vec::new(),
            right,
        ]
    })
    .await;
    let authority = Fake::new(&[NAME], &[upstream.address]);
    let running = start(&authority);

    let reply = running.ask(&ask(NAME, Rtype::A)).await;
    assert_eq!(reply.records, ["api.example.com 300 A 192.0.2.1"]);
    assert_eq!(running.count(Count::Ignored), 5);
    assert_eq!(running.count(Count::FailedTries), 0);
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_over_tcp() {
    let upstream = Upstream::start(|protocol, query| {
        let mut answer = honest_answer(query);
        if protocol == Protocol::Udp {
            answer[2] |= 2;
            // Cut in the middle of a record, as some servers do.
            answer.truncate(answer.len() - 7);
        }
        vec![answer]
    })
    .await;
    let authority = Fake::new(&[NAME], &[upstream.address]);
    let running = start(&authority);

    let reply = running.ask(&ask(NAME, Rtype::A)).await;
    assert_eq!(reply.records, ["api.example.com 300 A 192.0.2.1"]);
    let protocols: Vec<_> = upstream.queries().iter().map(|(p, _)| *p).collect();
    assert_eq!(protocols, [Protocol::Udp, Protocol::Tcp]);
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_comes_by_tcp() {
    let upstream = Upstream::start(|_, query| {
        let records: Vec<_> = (0..60)
            .map(|i| a(NAME, 300, &format!("192.0.2.{i}")))
            .collect();
        vec![answer_to(query, Rcode::NOERROR, &records, &[])]
    })
    .await;
    let authority = Fake::new(&[NAME], &[upstream.address]);
    let running = start(&authority);

    let question = ask(NAME, Rtype::A);
    let reply = running.ask(&question).await;
    assert!(reply.truncated && reply.bytes <= 512, "{reply:?}");
    let reply = running.ask(&ask_edns(NAME, Rtype::A, 600, false)).await;
    assert!(
        reply.truncated && reply.bytes <= 600 && reply.has_opt,
        "{reply:?}"
    );
    let reply = running.ask(&ask_edns(NAME, Rtype::A, 1232, false)).await;
    assert!(!reply.truncated && reply.records.len() == 60, "{reply:?}");

    let refused = ask("evil.example.com", Rtype::A);
    let replies = running.ask_tcp(&[&question, &refused, &question]).await;
    assert_eq!(replies[0].records.len(), 60);
    assert_eq!(replies[1].rcode, Rcode::NXDOMAIN);
    assert_eq!(replies[2].records.len(), 60);
}

#[tokio::test]
async fn what_is_no_question_is_answered_with_its_fault_or_not_at_all() {
    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[upstream.address]);
    let running = start(&authority);

    let question = ask(NAME, Rtype::A);
    let mut two = question.clone();
    two[5] = 2;
    two.extend_from_slice(&question[12..]);
    assert_eq!(running.ask(&two).await.rcode, Rcode::FORMERR);
    let mut none = question[..12].to_vec();
    none[5] = 0;
    assert_eq!(running.ask(&none).await.rcode, Rcode::FORMERR);
    assert_eq!(running.ask(&question[..20]).await.rcode, Rcode::FORMERR);
    let mut notify = question.clone();
    notify[2] |= 4 << 3;
    assert_eq!(running.ask(&notify).await.rcode, Rcode::NOTIMP);
    let mut chaos = question.clone();
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(running.ask(&chaos).await.rcode, Rcode::REFUSED);
    for rtype in [Rtype::ANY, Rtype::AXFR, Rtype::IXFR, Rtype::OPT] {
        assert_eq!(
            running.ask(&ask(NAME, rtype)).await.rcode,
            Rcode::NOTIMP,
            "{rtype}"
        );
    }
    let mut version = ask_edns(NAME, Rtype::A, 1232, false);
    let ttl = version.len() - 12 - 2 - 4;
    version[ttl + 1] = 1;
    assert!(running.ask(&version).await.has_opt);

    // Neither is answered: the next reply belongs to the question after them.
    let socket = running.socket().await;
    let mut response = question.clone();
    response[2] |= 0x80;
    for silent in [&b"garbage"[..], &[], &response, &question] {
        socket.send(silent).await.expect("sent");
    }
    assert_eq!(seen(&receive(&socket).await).rcode, Rcode::NOERROR);
    assert_eq!(upstream.queries().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn silent_servers_are_asked_twice_and_the_next_one_answers() {
    let silent = Upstream::start(|_, _| Vec::new()).await;
    let authority = Fake::new(&[NAME], &[silent.address]);
    let running = start(&authority);
    let reply = running.ask(&ask_edns(NAME, Rtype::A, 1232, false)).await;
    assert_eq!((reply.rcode, reply.extended), (Rcode::SERVFAIL, Some(22)));
    assert_eq!(silent.queries().len(), 2);
    assert_eq!(running.count(Count::Unanswered), 1);

    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[silent.address, upstream.address]);
    let running = start(&authority);
    let reply = running.ask(&ask(NAME, Rtype::A)).await;
    assert_eq!(reply.records, ["api.example.com 300 A 192.0.2.1"]);
    assert_eq!(silent.queries().len(), 3);
}

#[tokio::test]
async fn a_server_that_cannot_answer_is_passed_over() {
    let failing = Upstream::start(|_, q| vec![answer_to(q, Rcode::REFUSED, &[], &[])]).await;
    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[failing.address, upstream.address]);
    let reply = start(&authority).ask(&ask(NAME, Rtype::A)).await;
    assert_eq!(reply.rcode, Rcode::NOERROR);

    let authority = Fake::new(&[NAME], &[failing.address]);
    let reply = start(&authority).ask(&ask(NAME, Rtype::A)).await;
    assert_eq!(reply.rcode, Rcode::REFUSED);
    assert_eq!(failing.queries().len(), 2);
}

#[tokio::test]
async fn servers_have_ipv6_addresses_too() {
    let Some(upstream) = Upstream::start_at("[::1]:0", |_, q| vec![honest_answer(q)]).await else {
        // A host without IPv6 has no such servers.
        assert!(!std::path::Path::new("/proc/net/if_inet6").exists());
        return;
    };
    let authority = Fake::new(&[NAME], &[upstream.address]);
    let reply = start(&authority).ask(&ask(NAME, Rtype::AAAA)).await;
    assert_eq!(reply.records, ["api.example.com 300 AAAA 2001:db8::1"]);
}

#[tokio::test]
async fn a_datagram_longer_than_was_asked_for_is_no_harm() {
    let upstream = Upstream::start(|_, query| {
        // About 3,000 bytes are read; 10,000 are cut, and cannot be read.
        let count = if query[13] == b'a' { 180 } else { 600 };
        let owner = Message::from_octets(query)
            .unwrap()
            .sole_question()
            .unwrap()
            .qname()
            .to_string();
        let records: Vec<_> = (0..count)
            .map(|i| a(&owner, 300, &format!("192.0.{}.{}", 2 + i / 256, i % 256)))
            .collect();
        vec![answer_to(query, Rcode::NOERROR, &records, &[])]
    })
    .await;
    let authority = Fake::new(&["a.com", "b.com"], &[upstream.address]);
    let running = start(&authority);
    let reply = running.ask(&ask_edns("a.com", Rtype::A, 4096, false)).await;
    assert_eq!((reply.rcode, reply.records.len()), (Rcode::NOERROR, 64));
    let reply = running.ask(&ask_edns("b.com", Rtype::A, 4096, false)).await;
    assert_eq!(reply.rcode, Rcode::SERVFAIL);
    assert_eq!(authority.only_grant().name, "a.com");
}

#[tokio::test]
async fn at_the_end_the_sockets_are_closed() {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let address = udp.local_addr().expect("an address");
    let authority = Fake::new(&[NAME], &[]);
    let server = Server::new(vec![udp], Vec::new(), authority.clone());
    server.run(async {}).await.expect("sockets work");
    until(|| std::net::UdpSocket::bind(address).is_ok()).await;
}

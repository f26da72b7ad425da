//! Bytes from strangers: whatever they are, reading them ends, within bounds, and
//! what is made of them is sound.

use std::collections::HashSet;

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, Name};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::address::admissible;
use super::super::answer::{self, AnswerError, Limits};
use super::super::question::{self, Question};
use super::super::reply;
use super::{Owned, a, answer_to, ask, ask_edns, cname};

const NAME: &str = "www.example.com";

fn question() -> Question {
    question::read(&ask_edns(NAME, Rtype::A, 1232, true)).expect("a question")
}

/// Reads it as a question, and whatever can be made of that.
fn as_question(bytes: &[u8]) {
    let question = match question::read(bytes) {
        Ok(question) => question,
        Err(error) => {
            if let Some(reply) = reply::error(error) {
                assert_eq!((&reply[..2], reply.len()), (&bytes[..2], 12));
            }
            return;
        }
    };
    if let Some(text) = &question.text {
        assert!(text.len() <= 253 && text.bytes().all(|b| b.is_ascii_graphic()));
        assert!(!text.contains("..") && !text.starts_with('.') && !text.ends_with('.'));
        assert_eq!(*text, text.to_ascii_lowercase());
    }
    let query = question.query(7).expect("built");
    assert!(query.len() <= 12 + 255 + 4 + 11);
    let again = question::read(&query).expect("our own question");
    assert_eq!(
        (again.text, again.rtype),
        (question.text.clone(), question.rtype)
    );
    for why in [reply::Refused::Blocked, reply::Refused::Unreachable] {
        let refusal = reply::refused(&question, why);
        assert!(refusal.len() <= question.udp_room());
        assert_eq!(refusal[..2], bytes[..2]);
    }
    as_answer(bytes, &question);
}

/// Reads it as an answer, and whatever can be made of that.
fn as_answer(bytes: &[u8], question: &Question) {
    let limits = Limits::default();
    let Ok(answer) = answer::read(bytes, question, limits) else {
        return;
    };
    let addresses = &answer.grant.addresses;
    assert!(addresses.len() <= limits.addresses);
    assert!(answer.grant.unusable.len() <= limits.records);
    assert!(answer.records.len() <= limits.records && answer.authority.len() <= limits.records);
    let distinct: HashSet<_> = addresses.iter().map(|(address, _)| address).collect();
    assert_eq!(distinct.len(), addresses.len());
    for (address, life) in addresses {
        assert_eq!(admissible(*address), Some(*address));
        assert!((90..=3630).contains(&life.as_secs()));
    }
    for room in [question.udp_room(), reply::TCP_ROOM] {
        let reply = reply::answer(question, &answer, room);
        assert!(reply.len() <= room);
        let parsed = Message::from_octets(&reply).expect("a message");
        assert_eq!(parsed.header().id(), question.head.id);
        if parsed.header().tc() {
            continue;
        }
        // Reading our own reply grants nothing more.
        let again = answer::read(&reply, question, limits).expect("our own reply");
        assert!(
            again
                .grant
                .addresses
                .iter()
                .all(|(address, _)| distinct.contains(address))
        );
    }
}

/// A header and a question for [`NAME`], as an answer with so many records.
fn head(records: u16) -> Vec<u8> {
    let mut message = question().query(1).expect("built");
    // Without the OPT record.
    message.truncate(message.len() - 11);
    message[2] |= 0x80;
    message[6..8].copy_from_slice(&records.to_be_bytes());
    message[10..12].fill(0);
    message
}

/// A record with a pointer as its owner.
fn record(pointer: u16, rtype: Rtype, data: &[u8]) -> Vec<u8> {
    let mut record = (0xc000 | pointer).to_be_bytes().to_vec();
    record.extend_from_slice(&rtype.to_int().to_be_bytes());
    record.extend_from_slice(&[0, 1, 0, 0, 1, 44]);
    record.extend_from_slice(&u16::try_from(data.len()).expect("short").to_be_bytes());
    record.extend_from_slice(data);
    record
}

fn samples() -> Vec<Vec<u8>> {
    let query = question().query(1).expect("built");
    let records: [Owned; 4] = [
        cname(NAME, 60, "cdn.example"),
        a("cdn.example", 60, "192.0.2.1"),
        a("cdn.example", 60, "127.0.0.1"),
        a("other.example", 60, "192.0.2.2"),
    ];
    vec![
        ask(NAME, Rtype::A),
        ask_edns("_443._https.a.example", Rtype::HTTPS, 4096, true),
        answer_to(&query, Rcode::NOERROR, &records, &records),
        answer_to(&query, Rcode::NXDOMAIN, &[], &records),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_to_the_end(bytes in vec(any::<u8>(), 0..600)) {
        as_question(&bytes);
        as_answer(&bytes, &question());
    }

    #[test]
    fn arbitrary_bytes_behind_a_sound_beginning(
        records in any::<u16>(),
        bytes in vec(any::<u8>(), 0..600),
    ) {
        let mut message = head(records % 64);
        message.extend_from_slice(&bytes);
        as_answer(&message, &question());
    }

    #[test]
    fn sound_messages_with_changed_bytes(
        sample in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<Index>()),
        more in vec(any::<u8>(), 0..32),
    ) {
        let samples = samples();
        let mut message = sample.get(&samples).clone();
        for (index, byte) in changes {
            let index = index.index(message.len());
            message[index] = byte;
        }
        if let Some(cut) = cut {
            message.truncate(cut.index(message.len()));
        }
        message.extend_from_slice(&more);
        as_question(&message);
        as_answer(&message, &question());
    }

    #[test]
    fn records_with_arbitrary_pointers_types_and_data(
        records in vec((0_u16..400, any::<Index>(), vec(any::<u8>(), 0..40)), 0..30),
    ) {
        let types = [
            Rtype::A, Rtype::AAAA, Rtype::CNAME, Rtype::DNAME, Rtype::HTTPS, Rtype::RRSIG,
            Rtype::SOA, Rtype::NSEC, Rtype::NSEC3, Rtype::TXT,
        ];
        let mut message = head(u16::try_from(records.len()).expect("few"));
        for (pointer, rtype, data) in records {
            message.extend_from_slice(&record(pointer, *rtype.get(&types), &data));
        }
        for rtype in types {
            let question = question::read(&ask_edns(NAME, rtype, 512, true)).expect("a question");
            let end = message.len().min(12 + 17 + 2);
            message[end - 2..end].copy_from_slice(&rtype.to_int().to_be_bytes());
            as_answer(&message, &question);
        }
    }
}

#[test]
fn pointers_to_themselves_forward_and_in_circles_are_malformed() {
    let question = question();
    let at = u16::try_from(head(1).len()).expect("short");
    // To itself, forward, behind the end, and to a pointer that points back here.
    for pointer in [at, at + 2, at + 12, 0x3fff] {
        let mut message = head(1);
        message.extend_from_slice(&record(pointer, Rtype::A, &[192, 0, 2, 1]));
        let error = answer::read(&message, &question, Limits::default()).map(drop);
        assert!(
            matches!(error, Err(AnswerError::Malformed(_))),
            "{pointer}: {error:?}"
        );
    }
    let mut message = head(2);
    message.extend_from_slice(&record(
        12,
        Rtype::CNAME,
        &(0xc000 | (at + 12)).to_be_bytes(),
    ));
    message.extend_from_slice(&record(at + 12, Rtype::A, &[192, 0, 2, 1]));
    let error = answer::read(&message, &question, Limits::default()).map(drop);
    assert!(matches!(error, Err(AnswerError::Malformed(_))), "{error:?}");

    let mut sound = head(1);
    sound.extend_from_slice(&record(12, Rtype::A, &[192, 0, 2, 1]));
    let answer = answer::read(&sound, &question, Limits::default()).expect("an answer");
    assert_eq!(answer.grant.addresses.len(), 1);
}

/// As costly an answer as could be thought of: names of 127 labels that differ
/// only in the last but one, each label behind a pointer, sixteen of them in a
/// chain, and as many records as are read.
fn costly() -> (Vec<u8>, Question) {
    // `x.x. … .x.0.`: labels of one byte, so that a name has 127.
    let long = |last: u8| {
        let mut labels = b"\x01x".repeat(125);
        labels.extend_from_slice(&[1, b'a' + last, 0]);
        Name::from_octets(labels).expect("a name")
    };
    let mut asked = ask(".", Rtype::A);
    asked.splice(12..13, long(0).as_slice().iter().copied());
    let question = question::read(&asked).expect("a question");
    let mut message = question.query(1).expect("built");
    message.truncate(message.len() - 11);
    message[2] |= 0x80;
    message[10..12].fill(0);
    let mut places = vec![12];
    let mut count = 0_u16;
    // The chain, each target written out as pointers to single labels.
    for link in 1..=16 {
        let mut data = Vec::new();
        let start = message.len() + 12;
        for _ in 0..125 {
            data.extend_from_slice(b"\x01x");
        }
        data.extend_from_slice(&[1, b'a' + link, 0]);
        let owner = *places.last().expect("one");
        message.extend_from_slice(&record(owner, Rtype::CNAME, &data));
        places.push(u16::try_from(start).expect("short"));
        count += 1;
    }
    // Names outside the chain, equal to all of it but for one letter.
    let other = message.len();
    let mut data = b"\x01x".repeat(125);
    data.extend_from_slice(b"\x01z\0");
    message.extend_from_slice(&record(12, Rtype::TXT, &data));
    let other = u16::try_from(other + 12).expect("short");
    count += 1;
    while count < 2048 {
        message.extend_from_slice(&record(other, Rtype::CNAME, &[0xc0, 12]));
        count += 1;
    }
    message[6..8].copy_from_slice(&count.to_be_bytes());
    assert!(message.len() <= 65_535);
    (message, question)
}

#[test]
fn the_longest_messages_are_read_in_bounded_work() {
    let (message, question) = costly();
    let started = std::time::Instant::now();
    let answer = answer::read(&message, &question, Limits::default()).expect("an answer");
    assert_eq!(answer.records.len(), 16);
    println!("{} bytes in {:?}", message.len(), started.elapsed());

    let mut zeros = head(u16::MAX);
    zeros.resize(65_535, 0);
    as_answer(&zeros, &self::question());
    as_question(&zeros);
    let mut pointers = head(2048);
    while pointers.len() < 65_534 {
        let back = u16::try_from((pointers.len() - 2).min(0x3fff)).expect("short");
        pointers.extend_from_slice(&(0xc000 | back).to_be_bytes());
    }
    as_answer(&pointers, &self::question());
}

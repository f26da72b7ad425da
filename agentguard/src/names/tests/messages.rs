//! What is read from messages, and how long replies are. No sockets.

use domain::base::iana::{Rcode, Rtype};
use domain::rdata::Txt;

use super::super::answer::{self, AnswerError, Limits};
use super::super::{question, reply};
use super::{answer_to, ask, ask_edns, name, seen};

const NAME: &str = "www.example.com";

#[test]
fn truncated_answers_and_errors_that_only_edns_knows_are_no_answers() {
    let question = question::read(&ask_edns(NAME, Rtype::A, 1232, false)).expect("a question");
    let mut message = question.query(1).expect("built");
    message[2] |= 0x80;
    message[2] |= 2;
    let error = answer::read(&message, &question, Limits::default()).map(drop);
    assert!(matches!(error, Err(AnswerError::Truncated)), "{error:?}");
    message[2] &= !2;
    let extended = message.len() - 6;
    message[extended] = 1;
    let error = answer::read(&message, &question, Limits::default()).map(drop);
    assert!(matches!(error, Err(AnswerError::Extended(16))), "{error:?}");
}

#[test]
fn a_reply_is_truncated_from_the_first_byte_too_many() {
    for asked in [
        ask(NAME, Rtype::TXT),
        ask_edns(NAME, Rtype::TXT, 512, false),
    ] {
        let question = question::read(&asked).expect("a question");
        let query = question.query(1).expect("built");
        let mut fitted = 0;
        for length in 0..250 {
            let txt = Txt::<Vec<u8>>::build_from_slice(&vec![b'x'; 300 + length]).expect("short");
            let message = answer_to(&query, Rcode::NOERROR, &[(name(NAME), 1, txt.into())], &[]);
            let answer = answer::read(&message, &question, Limits::default()).expect("an answer");
            let whole = reply::answer(&question, &answer, reply::TCP_ROOM);
            let told = seen(&reply::answer(&question, &answer, 512));
            assert_eq!(told.truncated, whole.len() > 512, "{}", whole.len());
            assert!(told.bytes <= 512);
            fitted += usize::from(whole.len() == 512);
        }
        assert!(fitted > 0, "the edge was tried");
    }
}

#[test]
fn names_that_no_rule_can_mean_have_no_text() {
    let read = |labels: &[&[u8]]| {
        let mut message = ask(".", Rtype::A);
        message.truncate(12);
        for label in labels {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend_from_slice(label);
        }
        message.extend_from_slice(&[0, 0, 1, 0, 1]);
        question::read(&message).expect("a question").text
    };
    assert_eq!(
        read(&[b"_443", b"_TCP", b"a-B", b"com"]).as_deref(),
        Some("_443._tcp.a-b.com")
    );
    for odd in [&b"a.b"[..], b"a b", b"a\0", b"\xc3\xa4", b"\x7f"] {
        assert_eq!(read(&[odd, b"com"]), None);
    }
    assert_eq!(read(&[]), None);
}

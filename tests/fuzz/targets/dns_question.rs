//! What a client sends: read, asked anew, refused, passed on.

#![no_main]

use agentguard::names::answer::{self, Limits};
use agentguard::names::{question, reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let question = match question::read(bytes) {
        Ok(question) => question,
        Err(error) => {
            if let Some(reply) = reply::error(error) {
                assert_eq!(reply[..2], bytes[..2]);
            }
            return;
        }
    };
    if let Some(text) = &question.text {
        assert!(text.len() <= 253 && text.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!text.contains("..") && !text.starts_with('.') && !text.ends_with('.'));
    }
    assert!(!question.shown().is_empty());
    let query = question
        .query(7)
        .expect("a question that was read can be built");
    let again = question::read(&query).expect("what we ask is a question");
    assert_eq!((&again.text, again.rtype), (&question.text, question.rtype));
    assert!(again.query(7).is_ok_and(|same| same == query));
    let refusal = reply::refused(&question, reply::Refused::Blocked);
    assert!(refusal.len() <= question.udp_room());
    let _ = answer::read(&refusal, &question, Limits::default()).map(drop);
});

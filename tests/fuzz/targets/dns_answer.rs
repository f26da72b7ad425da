//! What a server sends: read, judged, and passed on.
//!
//! The first two bytes choose the type that was asked for and the flags; the rest is
//! what follows the question in the answer, with its counts before it. So nothing is
//! spent on guessing the question.

#![no_main]

use std::collections::HashSet;

use agentguard::names::answer::{self, Limits};
use agentguard::names::{address, question, reply};
use libfuzzer_sys::fuzz_target;

const TYPES: [u8; 10] = [1, 28, 65, 64, 5, 16, 15, 6, 2, 33];

fuzz_target!(|bytes: &[u8]| {
    let Some(([choice, flags, counts @ ..], records)) = bytes.split_first_chunk::<8>() else {
        return;
    };
    let rtype = TYPES[usize::from(*choice) % TYPES.len()];
    let dnssec_ok = if choice & 0x80 == 0 { 0 } else { 0x80 };
    let mut asked = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x03www\x07example\x03com\0\0".to_vec();
    asked.extend_from_slice(&[rtype, 0, 1, 0, 0, 41, 4, 208, 0, 0, dnssec_ok, 0, 0, 0]);
    let question = question::read(&asked).expect("a question");

    let mut message = asked[..33].to_vec();
    message[2] = 0x81;
    message[3] = flags & 0xbf;
    message[6..12].copy_from_slice(counts);
    message.extend_from_slice(records);
    let limits = Limits::default();
    let Ok(answer) = answer::read(&message, &question, limits) else {
        return;
    };
    let addresses = &answer.grant.addresses;
    assert!(addresses.len() <= limits.addresses);
    let distinct: HashSet<_> = addresses.iter().map(|(address, _)| *address).collect();
    assert_eq!(distinct.len(), addresses.len());
    for (one, life) in addresses {
        assert_eq!(address::admissible(*one), Some(*one));
        assert!((90..=3630).contains(&life.as_secs()));
    }
    for room in [512, question.udp_room(), reply::TCP_ROOM] {
        let reply = reply::answer(&question, &answer, room);
        assert!(reply.len() <= room);
        if let Ok(again) = answer::read(&reply, &question, limits) {
            assert!(
                again
                    .grant
                    .addresses
                    .iter()
                    .all(|(one, _)| distinct.contains(one))
            );
        } else {
            assert!(reply[2] & 2 != 0, "only a truncated reply cannot be read");
        }
    }
});

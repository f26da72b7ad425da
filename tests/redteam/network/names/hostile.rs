//! Answers that are wrong as messages: of another question, from elsewhere, cut, or such as
//! readers go astray in. Of those that the resolver passes over, the right one follows, so
//! that nothing has to be waited for.

use super::answers::{good, opens};
use super::{Family, ask_and_reach, leads, look};
use crate::attempt::{Attempt, write};
use crate::network::dns::{self, Message, TTL, kind};
use crate::network::nameserver::{Asked, Given, Out};

/// The flag of answers.
const RESPONSE: u16 = 0x8000;
const NOTIFY: u16 = 4 << 11;
/// More bytes than the resolver reads of a datagram.
const LONG: usize = 4_400;

pub const ATTEMPTS: &[Attempt] = &[
    opens!("net-dns-hostile-number-v4", Family::V4, |asked, given| {
        first(asked, given, |bad| bad.number ^= 1)
    }),
    opens!("net-dns-hostile-number-v6", Family::V6, |asked, given| {
        first(asked, given, |bad| bad.number ^= 0x8000)
    }),
    opens!(
        "net-dns-hostile-all-numbers-v4",
        Family::V4,
        |asked, given| {
            // Many guesses, all wrong.
            let right = asked.reply().number;
            let mut out: Vec<Out> = (0..200_u16)
                .map(|number| right.wrapping_add(1 + number * 300))
                .map(|number| {
                    Message {
                        number,
                        ..bad(asked, given)
                    }
                    .into()
                })
                .collect();
            out.push(good(asked, given).into());
            out
        }
    ),
    opens!(
        "net-dns-hostile-question-name-v4",
        Family::V4,
        |asked, given| {
            first(asked, given, |bad| {
                let other = dns::dotted("other.ok.test");
                bad.sections[0] = vec![dns::asking(&other, kind::A, dns::IN)];
            })
        }
    ),
    opens!(
        "net-dns-hostile-question-type-v4",
        Family::V4,
        |asked, given| {
            let question = dns::asking(&asked.name(), kind::TXT, dns::IN);
            first_with(asked, given, |bad| bad.sections[0] = vec![question])
        }
    ),
    opens!(
        "net-dns-hostile-question-class-v4",
        Family::V4,
        |asked, given| {
            let question = dns::asking(&asked.name(), kind::A, dns::CHAOS);
            first_with(asked, given, |bad| bad.sections[0] = vec![question])
        }
    ),
    opens!(
        "net-dns-hostile-no-question-v4",
        Family::V4,
        |asked, given| {
            let owner = asked.name();
            first_with(asked, given, |bad| {
                bad.sections[0].clear();
                let address = bad.sections[1][0].split_off(dns::ASKED.len());
                bad.sections[1][0] = [owner, address].concat();
            })
        }
    ),
    opens!(
        "net-dns-hostile-two-questions-v4",
        Family::V4,
        |asked, given| {
            first(asked, given, |bad| {
                let second = bad.sections[0][0].clone();
                bad.sections[0].push(second);
            })
        }
    ),
    opens!(
        "net-dns-hostile-no-response-v4",
        Family::V4,
        |asked, given| { first(asked, given, |bad| bad.flags &= !RESPONSE) }
    ),
    opens!(
        "net-dns-hostile-operation-v4",
        Family::V4,
        |asked, given| { first(asked, given, |bad| bad.flags |= NOTIFY) }
    ),
    opens!(
        "net-dns-hostile-header-alone-v4",
        Family::V4,
        |asked, given| {
            let header = bad(asked, given).bytes()[..dns::HEADER - 1].to_vec();
            vec![
                Out::Here(header),
                Out::Here(Vec::new()),
                good(asked, given).into(),
            ]
        }
    ),
    opens!(
        "net-dns-hostile-other-port-v4",
        Family::V4,
        |asked, given| {
            let bad = Out::OtherPort(bad(asked, given).bytes());
            vec![bad, good(asked, given).into()]
        }
    ),
    opens!(
        "net-dns-hostile-other-port-v6",
        Family::V6,
        |asked, given| {
            let bad = Out::OtherPort(bad(asked, given).bytes());
            vec![bad, good(asked, given).into()]
        }
    ),
    opens!(
        "net-dns-hostile-other-address-v4",
        Family::V4,
        |asked, given| {
            let bad = Out::OtherAddress(bad(asked, given).bytes());
            vec![bad, good(asked, given).into()]
        }
    ),
    opens!(
        "net-dns-hostile-other-address-v6",
        Family::V6,
        |asked, given| {
            let bad = Out::OtherAddress(bad(asked, given).bytes());
            vec![bad, good(asked, given).into()]
        }
    ),
    opens!(
        "net-dns-hostile-late-second-v4",
        Family::V4,
        |asked, given| {
            // What comes behind the answer comes too late.
            vec![good(asked, given).into(), bad(asked, given).into()]
        }
    ),
    opens!("net-dns-hostile-cut-v4", Family::V4, |asked, given| {
        // What is cut counts for nothing: the whole comes over TCP.
        if asked.by_tcp {
            return vec![good(asked, given).into()];
        }
        vec![bad(asked, given).flags(dns::CUT).into()]
    }),
    opens!("net-dns-hostile-cut-v6", Family::V6, |asked, given| {
        if asked.by_tcp {
            return vec![good(asked, given).into()];
        }
        vec![bad(asked, given).flags(dns::CUT).into()]
    }),
    opens!(
        "net-dns-hostile-cut-twice-v4",
        Family::V4,
        |asked, given| {
            if asked.by_tcp && given.is_control {
                return vec![good(asked, given).into()];
            }
            vec![bad(asked, given).flags(dns::CUT).into()]
        }
    ),
    opens!(
        "net-dns-hostile-tcp-number-v4",
        Family::V4,
        |asked, given| {
            if !asked.by_tcp {
                return vec![asked.reply().flags(dns::CUT).into()];
            }
            broken(asked, given, |message| message.number ^= 1)
        }
    ),
    opens!(
        "net-dns-hostile-tcp-second-v4",
        Family::V4,
        |asked, given| {
            if !asked.by_tcp {
                return vec![asked.reply().flags(dns::CUT).into()];
            }
            vec![good(asked, given).into(), bad(asked, given).into()]
        }
    ),
    opens!(
        "net-dns-hostile-oversized-v4",
        Family::V4,
        |asked, given| {
            let length = if given.is_control { 0 } else { LONG };
            let padding = dns::record(&dns::ASKED, kind::NULL, dns::IN, TTL, &vec![0; length]);
            let record = dns::address(&dns::ASKED, TTL, given.to());
            vec![asked.reply().answer(padding).answer(record).into()]
        }
    ),
];

/// An answer with the address that must not count.
fn bad(asked: &Asked<'_>, given: &Given) -> Message {
    let record = dns::address(&dns::ASKED, TTL, &given.bad);
    asked.reply().answer(record)
}

/// First one that is wrong, then the right one.
fn first(asked: &Asked<'_>, given: &Given, wrong: fn(&mut Message)) -> Vec<Out> {
    first_with(asked, given, wrong)
}

fn first_with(asked: &Asked<'_>, given: &Given, wrong: impl FnOnce(&mut Message)) -> Vec<Out> {
    let mut bad = bad(asked, given);
    wrong(&mut bad);
    vec![bad.into(), good(asked, given).into()]
}

/// One that is wrong, but for the control.
fn broken(asked: &Asked<'_>, given: &Given, wrong: fn(&mut Message)) -> Vec<Out> {
    let record = dns::address(&dns::ASKED, TTL, given.to());
    let mut message = asked.reply().answer(record);
    if !given.is_control {
        wrong(&mut message);
    }
    vec![message.into()]
}

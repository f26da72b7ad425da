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
    opens!(
        "net-dns-hostile-pointer-loop-v4",
        Family::V4,
        |asked, given| { owner_at(asked, given, 0) }
    ),
    opens!(
        "net-dns-hostile-pointer-loop-v6",
        Family::V6,
        |asked, given| { owner_at(asked, given, 0) }
    ),
    opens!(
        "net-dns-hostile-pointer-forward-v4",
        Family::V4,
        |asked, given| { owner_at(asked, given, 2) }
    ),
    opens!(
        "net-dns-hostile-pointer-beyond-v4",
        Family::V4,
        |asked, given| { owner_at(asked, given, 4_000) }
    ),
    opens!(
        "net-dns-hostile-pointer-chain-v4",
        Family::V4,
        pointer_chain
    ),
    opens!(
        "net-dns-hostile-alias-pointer-loop-v4",
        Family::V4,
        alias_loop
    ),
    opens!(
        "net-dns-hostile-label-of-64-v4",
        Family::V4,
        |asked, given| {
            let owner = if given.is_control {
                asked.name()
            } else {
                [&[64][..], &[b'a'; 64], &[0]].concat()
            };
            owned(asked, given, &owner)
        }
    ),
    opens!(
        "net-dns-hostile-owner-of-256-v4",
        Family::V4,
        |asked, given| {
            let long = [&[63][..], &[b'a'; 63]].concat().repeat(4);
            let owner = if given.is_control { Vec::new() } else { long };
            owned(asked, given, &[owner, asked.name()].concat())
        }
    ),
    opens!(
        "net-dns-hostile-data-short-v4",
        Family::V4,
        |asked, given| { data(asked, given, |to| to[..3].to_vec()) }
    ),
    opens!(
        "net-dns-hostile-data-long-v4",
        Family::V4,
        |asked, given| { data(asked, given, |to| [to, &[0]].concat()) }
    ),
    opens!(
        "net-dns-hostile-data-of-v6-v4",
        Family::V4,
        |asked, given| {
            // An address of IPv4 in a record of IPv6's, and no other.
            data(asked, given, |to| {
                [&[0; 10][..], &[0xff, 0xff], to].concat()
            })
        }
    ),
    opens!(
        "net-dns-hostile-data-length-v4",
        Family::V4,
        |asked, given| {
            let mut bytes = asked
                .reply()
                .answer(dns::address(&dns::ASKED, TTL, given.to()))
                .bytes();
            if !given.is_control {
                let at = bytes.len() - given.good.len() - 1;
                bytes[at] = 0xff;
            }
            vec![Out::Here(bytes)]
        }
    ),
    opens!("net-dns-hostile-count-v4", Family::V4, |asked, given| {
        let mut bytes = asked
            .reply()
            .answer(dns::address(&dns::ASKED, TTL, given.to()))
            .bytes();
        if !given.is_control {
            // More records than there are.
            bytes[7] = 9;
        }
        vec![Out::Here(bytes)]
    }),
    opens!(
        "net-dns-hostile-cut-record-v4",
        Family::V4,
        |asked, given| {
            let mut message = asked
                .reply()
                .answer(dns::address(&dns::ASKED, TTL, given.to()));
            if !given.is_control {
                message = message.answer(dns::address(&dns::ASKED, TTL, given.to()));
            }
            let mut bytes = message.bytes();
            let cut = if given.is_control { 0 } else { 3 };
            bytes.truncate(bytes.len() - cut);
            vec![Out::Here(bytes)]
        }
    ),
    opens!(
        "net-dns-hostile-uncounted-v4",
        Family::V4,
        |asked, given| {
            // A record behind those that are counted.
            let behind = dns::address(&dns::ASKED, TTL, &given.bad);
            vec![good(asked, given).trailing(&behind).into()]
        }
    ),
    opens!(
        "net-dns-hostile-extended-result-v4",
        Family::V4,
        |asked, given| {
            // A result that only EDNS has a number for.
            let ttl = if given.is_control { 0 } else { 0x0100_0000 };
            let options = dns::record(&[0], kind::OPT, 1232, ttl, &[]);
            let record = dns::address(&dns::ASKED, TTL, given.to());
            vec![asked.reply().answer(record).with(3, options).into()]
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

/// A record of this owner.
fn owned(asked: &Asked<'_>, given: &Given, owner: &[u8]) -> Vec<Out> {
    let record = dns::address(owner, TTL, given.to());
    vec![asked.reply().answer(record).into()]
}

/// A record whose owner is a pointer so many bytes behind itself; the control's points to
/// the question.
fn owner_at(asked: &Asked<'_>, given: &Given, ahead: u16) -> Vec<Out> {
    let here = dns::question_end(asked.message) as u16;
    let pointer = (0xc000 | (here + ahead)).to_be_bytes();
    let owner = if given.is_control {
        dns::ASKED
    } else {
        pointer
    };
    owned(asked, given, &owner)
}

/// A pointer to a pointer, and so on, to the question's name at last: more than anybody
/// needs. The control's is one.
fn pointer_chain(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    const JUMPS: u16 = 500;
    // The pointers are the data of a record before it.
    let data_at = dns::question_end(asked.message) as u16 + 12;
    let pointer = |to: u16| (0xc000 | to).to_be_bytes();
    let mut pointers = dns::ASKED.to_vec();
    for jump in 1..JUMPS {
        pointers.extend(pointer(data_at + 2 * (jump - 1)));
    }
    let before = dns::record(&dns::ASKED, kind::NULL, dns::IN, TTL, &pointers);
    let last = pointer(data_at + 2 * (JUMPS - 1));
    let other = dns::dotted("other.test");
    // Whatever is made of it, the name is the question's: so the attempt's is another.
    let owner = if given.is_control {
        dns::ASKED.to_vec()
    } else {
        [other, last.to_vec()].concat()
    };
    let record = dns::address(&owner, TTL, given.to());
    vec![asked.reply().answer(before).answer(record).into()]
}

/// An alias whose name is a pointer to itself.
fn alias_loop(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    let data_at = dns::question_end(asked.message) as u16 + 12;
    let pointer = (0xc000 | data_at).to_be_bytes();
    let alias = if given.is_control {
        dns::dotted("end.test")
    } else {
        pointer.to_vec()
    };
    let reply = asked.reply().answer(dns::alias(&dns::ASKED, &alias));
    let owner = if given.is_control {
        alias
    } else {
        dns::ASKED.to_vec()
    };
    vec![reply.answer(dns::address(&owner, TTL, given.to())).into()]
}

/// A record whose data is not an address, but for the control.
fn data(asked: &Asked<'_>, given: &Given, wrong: fn(&[u8]) -> Vec<u8>) -> Vec<Out> {
    let to = given.to();
    let data = if given.is_control {
        to.to_vec()
    } else {
        wrong(to)
    };
    let kind = if data.len() == 16 && to.len() == 4 {
        kind::AAAA
    } else {
        kind::A
    };
    let record = dns::record(&dns::ASKED, kind, dns::IN, TTL, &data);
    vec![asked.reply().answer(record).into()]
}

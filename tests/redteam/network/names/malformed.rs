//! Answers in which readers go astray: pointers that lead nowhere or in circles, lengths and
//! counts that are not true, data that is none.

use super::answers::{good, opens};
use super::{Family, ask_and_reach, leads, look};
use crate::attempt::{Attempt, write};
use crate::network::dns::{self, TTL, kind};
use crate::network::nameserver::{Asked, Given, Out};

pub const ATTEMPTS: &[Attempt] = &[
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

//! Answers with addresses that are not the name's: each gives one address where it counts
//! and another where it must not. The control goes to the first, the attempt to the second.

use agentguard_common::names;
use agentguard_common::resolver::{Grant, GrantKey};
use agentguard_tests::daemon::pins;
use anyhow::Result;
use aya::maps::{HashMap, Map, MapData};
use nix::libc::SOCK_STREAM;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::questions::below;
use super::{
    Family, Ground, ask_and_reach, exchange, fresh, leads, listen_at, look, question, reach,
};
use crate::attempt::{Attempt, write};
use crate::field::{Field, Side};
use crate::network::dns::{self, Message, TTL, kind};
use crate::network::nameserver::{Asked, Given, Needle, Out, fresh_label};
use crate::network::wire;
use crate::sys::Try;
use crate::victim::PROOF;

/// One more link than are followed, behind those that are.
const LINKS: usize = 20;
/// The most seconds that the resolver tells.
const MOST: u32 = 3_600;
const HALF: u32 = 1 << 31;
/// Seconds that an address is given for beyond those, and a minute for slow machines.
const SPARE: u64 = 90;

/// An attempt to have an answer open an address.
macro_rules! opens {
    ($id:literal, $family:expr, $script:expr) => {
        write($id, ask_and_reach)
            .prepare(|field| leads(field, $family, $script))
            .look(look)
    };
}
pub(super) use opens;

pub const ATTEMPTS: &[Attempt] = &[
    opens!("net-dns-answer-other-owner-v4", Family::V4, other_owner),
    opens!("net-dns-answer-other-owner-v6", Family::V6, other_owner),
    opens!(
        "net-dns-answer-parent-owner-v4",
        Family::V4,
        |asked, given| { owned_by(asked, given, &dns::dotted("ok.test")) }
    ),
    opens!(
        "net-dns-answer-root-owner-v4",
        Family::V4,
        |asked, given| { owned_by(asked, given, &[0]) }
    ),
    opens!(
        "net-dns-answer-wildcard-owner-v4",
        Family::V4,
        |asked, given| { owned_by(asked, given, &dns::labels(&[b"*", b"ok", b"test"])) }
    ),
    opens!("net-dns-answer-authority-v4", Family::V4, |asked, given| {
        in_section(asked, given, 2)
    }),
    opens!("net-dns-answer-authority-v6", Family::V6, |asked, given| {
        in_section(asked, given, 2)
    }),
    opens!(
        "net-dns-answer-additional-v4",
        Family::V4,
        |asked, given| { in_section(asked, given, 3) }
    ),
    opens!(
        "net-dns-answer-additional-v6",
        Family::V6,
        |asked, given| { in_section(asked, given, 3) }
    ),
    opens!(
        "net-dns-answer-other-class-v4",
        Family::V4,
        |asked, given| {
            let bad = dns::record(&dns::ASKED, kind::A, dns::CHAOS, TTL, &given.bad);
            say(good(asked, given).answer(bad))
        }
    ),
    write("net-dns-answer-other-type-v6", ask_and_reach)
        .prepare(other_type)
        .look(look),
    opens!(
        "net-dns-answer-no-such-name-v4",
        Family::V4,
        |asked, given| { result(asked, given, dns::code::NXDOMAIN) }
    ),
    opens!(
        "net-dns-answer-no-such-name-v6",
        Family::V6,
        |asked, given| { result(asked, given, dns::code::NXDOMAIN) }
    ),
    opens!(
        "net-dns-answer-server-failed-v4",
        Family::V4,
        |asked, given| { result(asked, given, dns::code::SERVFAIL) }
    ),
    opens!(
        "net-dns-answer-server-refused-v4",
        Family::V4,
        |asked, given| { result(asked, given, dns::code::REFUSED) }
    ),
    opens!("net-dns-alias-v4", Family::V4, |asked, given| {
        // Of an allowed name: the address of its alias, and one of a name beside it.
        let (alias, other) = (dns::dotted("a.cdn.test"), dns::dotted("b.cdn.test"));
        let reply = asked.reply().answer(dns::alias(&dns::ASKED, &alias));
        say(with(reply, &alias, &other, given))
    }),
    opens!("net-dns-alias-v6", Family::V6, |asked, given| {
        let (alias, other) = (dns::dotted("a.cdn.test"), dns::dotted("b.cdn.test"));
        let reply = asked.reply().answer(dns::alias(&dns::ASKED, &alias));
        say(with(reply, &alias, &other, given))
    }),
    opens!("net-dns-alias-of-other-v4", Family::V4, |asked, given| {
        // Another name's alias is no alias of this one.
        let (other, end) = (dns::dotted("other.test"), dns::dotted("end.test"));
        let reply = asked.reply().answer(dns::alias(&other, &end));
        say(with(reply, &dns::ASKED, &end, given))
    }),
    opens!("net-dns-alias-backwards-v4", Family::V4, |asked, given| {
        let other = dns::dotted("other.test");
        let reply = asked.reply().answer(dns::alias(&other, &asked.name()));
        say(with(reply, &dns::ASKED, &other, given))
    }),
    opens!("net-dns-alias-loop-v4", Family::V4, |asked, given| {
        let (alias, end) = (dns::dotted("loop.test"), dns::dotted("end.test"));
        let reply = asked.reply().answer(dns::alias(&dns::ASKED, &alias));
        let reply = reply.answer(dns::alias(&alias, &asked.name()));
        say(with(reply, &alias, &end, given))
    }),
    opens!("net-dns-alias-of-itself-v4", Family::V4, |asked, given| {
        let end = dns::dotted("end.test");
        let reply = asked.reply().answer(dns::alias(&dns::ASKED, &asked.name()));
        say(with(
            reply.answer(dns::alias(&dns::ASKED, &end)),
            &dns::ASKED,
            &end,
            given,
        ))
    }),
    opens!("net-dns-alias-chain-v4", Family::V4, chain),
    opens!(
        "net-dns-alias-in-additional-v4",
        Family::V4,
        |asked, given| {
            let end = dns::dotted("end.test");
            let reply = asked.reply().with(3, dns::alias(&dns::ASKED, &end));
            say(with(reply, &dns::ASKED, &end, given))
        }
    ),
    opens!(
        "net-dns-alias-other-class-v4",
        Family::V4,
        |asked, given| {
            let end = dns::dotted("end.test");
            let alias = dns::record(&dns::ASKED, kind::CNAME, dns::CHAOS, TTL, &end);
            say(with(asked.reply().answer(alias), &dns::ASKED, &end, given))
        }
    ),
    opens!("net-dns-alias-of-parent-v4", Family::V4, |asked, given| {
        // A DNAME without the alias that comes with it.
        let parent = dns::record(
            &dns::dotted("ok.test"),
            kind::DNAME,
            dns::IN,
            TTL,
            &dns::dotted("end.test"),
        );
        let mut end = asked.name();
        end.truncate(end.len() - b"\x02ok\x04test\0".len());
        end.extend(dns::dotted("end.test"));
        say(with(asked.reply().answer(parent), &dns::ASKED, &end, given))
    }),
    // The rules of the name that was asked for count, not those of its aliases.
    opens!("net-dns-alias-to-denied-v4", Family::V4, to_denied),
    opens!("net-dns-alias-to-denied-v6", Family::V6, to_denied),
    opens!("net-dns-answer-thousand-v4", Family::V4, thousand),
    opens!("net-dns-answer-thousand-v6", Family::V6, thousand),
    opens!(
        "net-dns-answer-four-thousand-v4",
        Family::V4,
        |asked, given| {
            // Too many to be looked at: the control has one alone.
            if !asked.by_tcp {
                return say(asked.reply().flags(dns::CUT));
            }
            let count = if given.is_control { 0 } else { 4_000 };
            say(many(asked, given, count, given.to()))
        }
    ),
    opens!("net-dns-ttl-zero-v4", Family::V4, |asked, given| {
        timed(asked, given, 0)
    }),
    opens!("net-dns-ttl-half-v4", Family::V4, |asked, given| {
        timed(asked, given, HALF)
    }),
    opens!("net-dns-ttl-most-v4", Family::V4, |asked, given| {
        timed(asked, given, u32::MAX)
    }),
    opens!("net-dns-ttl-most-v6", Family::V6, |asked, given| {
        timed(asked, given, u32::MAX)
    }),
    told("net-dns-ttl-told-half-v4", |field| {
        leads(field, Family::V4, |asked, given| both(asked, given, HALF))
    }),
    told("net-dns-ttl-told-most-v4", |field| {
        leads(field, Family::V4, |asked, given| {
            both(asked, given, u32::MAX)
        })
    }),
    told("net-dns-ttl-told-long-v6", |field| {
        leads(field, Family::V6, |asked, given| {
            both(asked, given, HALF - 1)
        })
    }),
];

/// What the agent is told of an address's time, which works at once.
const fn told(id: &'static str, prepare: fn(&Field) -> Result<()>) -> Attempt {
    write(id, bounded).prepare(prepare).look(held).never()
}

/// How many runs have the field's address for longer than they may.
fn held(field: &Field) -> Result<String> {
    const KEY: usize = size_of::<GrantKey>();
    const VALUE: usize = size_of::<Grant>();
    let mut address = wire::host(&field.noted_bytes("to"));
    address.resize(16, 0);
    let wanted: Vec<u8> = address
        .chunks_exact(4)
        .flat_map(|word| word.iter().rev().copied())
        .collect();
    let pin = pins().join("maps").join(names::map::GRANTS);
    let map = Map::HashMap(MapData::from_pin(pin)?);
    let grants: HashMap<_, [u8; KEY], [u8; VALUE]> = HashMap::try_from(map)?;
    let most = clock_gettime(ClockId::CLOCK_BOOTTIME)?.tv_sec() as u64 + u64::from(MOST) + SPARE;
    let mut long = 0;
    for grant in &grants {
        let (key, value) = grant?;
        let (until, _) = value.split_at(size_of::<u64>());
        let seconds = u64::from_ne_bytes(until.try_into()?) / 1_000_000_000;
        long += usize::from(key[8..24] == wanted[..] && seconds > most);
    }
    Ok(format!("{long} have it for too long\n"))
}

/// Goes to an address at once, and tells if its time is longer than it may be.
fn bounded(field: &Field) -> Try {
    let reply = exchange(field, &question(field))?;
    reach(field)?;
    let at = dns::question_end(&reply) + 6;
    let high = u32::from(dns::number_at(&reply, at)) << 16;
    let ttl = high | u32::from(dns::number_at(&reply, at + 2));
    Ok(if ttl > MOST {
        PROOF.to_vec()
    } else {
        Vec::new()
    })
}

/// An answer with an address of IPv6 where one of IPv4 was asked for; the control's is.
fn other_type(field: &Field) -> Result<()> {
    let family = match field.side {
        Side::Allowed => Family::V4,
        Side::Denied => Family::V6,
    };
    let to = listen_at(field, &fresh(family)?, SOCK_STREAM)?;
    let ground = Ground {
        needle: Needle::Flags(0),
        script: |asked, given| {
            let beside = dns::address(&dns::ASKED, TTL, &[198, 19, 0, 1]);
            let reply = asked.reply().answer(beside);
            say(reply.answer(dns::address(&dns::ASKED, TTL, given.to())))
        },
        to,
        ..Ground::asking(Family::V4, below(Side::Allowed))
    };
    ground.lay_with(field, fresh_label(), json!({ "kind": kind::A }))
}

fn say(message: Message) -> Vec<Out> {
    vec![message.into()]
}

/// An answer with the address that counts.
pub(super) fn good(asked: &Asked<'_>, given: &Given) -> Message {
    let record = dns::address(&dns::ASKED, TTL, &given.good);
    asked.reply().answer(record)
}

/// With the address that counts at one name and the other at another.
fn with(reply: Message, good: &[u8], bad: &[u8], given: &Given) -> Message {
    reply
        .answer(dns::address(bad, TTL, &given.bad))
        .answer(dns::address(good, TTL, &given.good))
}

fn owned_by(asked: &Asked<'_>, given: &Given, other: &[u8]) -> Vec<Out> {
    say(with(asked.reply(), &dns::ASKED, other, given))
}

fn other_owner(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    owned_by(asked, given, &dns::dotted("other.ok.test"))
}

fn in_section(asked: &Asked<'_>, given: &Given, section: usize) -> Vec<Out> {
    let bad = dns::address(&dns::ASKED, TTL, &given.bad);
    say(good(asked, given).with(section, bad))
}

/// The result says that there is none, or that the server cannot tell; the control's does
/// not.
fn result(asked: &Asked<'_>, given: &Given, code: u8) -> Vec<Out> {
    let code = if given.is_control { 0 } else { u16::from(code) };
    let record = dns::address(&dns::ASKED, TTL, given.to());
    say(asked.reply().flags(code).answer(record))
}

/// A long way: the address that counts is in its middle, the other behind where it is
/// followed.
fn chain(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    let link = |number: usize| match number {
        0 => asked.name(),
        _ => dns::dotted(&format!("link-{number}.test")),
    };
    let mut reply = asked.reply();
    for number in 0..LINKS {
        reply = reply.answer(dns::alias(&link(number), &link(number + 1)));
    }
    say(with(reply, &link(LINKS / 2), &link(LINKS), given))
}

fn to_denied(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    let denied = dns::dotted("other.no.ok.test");
    let reply = asked.reply().answer(dns::alias(&dns::ASKED, &denied));
    say(reply.answer(dns::address(&denied, TTL, given.to())))
}

/// Many addresses, with one at the end.
fn many(asked: &Asked<'_>, given: &Given, count: u16, last: &[u8]) -> Message {
    let mut reply = asked.reply();
    for number in 0..count {
        let mut address = match given.good.len() {
            4 => vec![10, 77, 0, 0],
            _ => vec![0xfd, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        let end = address.len() - 2;
        address[end..].copy_from_slice(&number.to_be_bytes());
        reply = reply.answer(dns::address(&dns::ASKED, TTL, &address));
    }
    reply.answer(dns::address(&dns::ASKED, TTL, last))
}

/// More than are admitted: the address that counts is the first, the other the last. Over
/// TCP, because it does not fit.
fn thousand(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    const COUNT: u16 = 1_000;
    if !asked.by_tcp {
        return say(asked.reply().flags(dns::CUT));
    }
    let mut reply = many(asked, given, COUNT, &given.bad);
    reply.sections[1].insert(0, dns::address(&dns::ASKED, TTL, &given.good));
    say(reply)
}

/// The address that counts for this time, and another for the longest elsewhere.
fn timed(asked: &Asked<'_>, given: &Given, ttl: u32) -> Vec<Out> {
    let good = dns::address(&dns::ASKED, ttl, &given.good);
    let bad = dns::address(&dns::ASKED, u32::MAX, &given.bad);
    say(asked.reply().answer(good).with(3, bad))
}

/// What the attempt goes to on both sides, for this time.
fn both(asked: &Asked<'_>, given: &Given, ttl: u32) -> Vec<Out> {
    say(asked
        .reply()
        .answer(dns::address(&dns::ASKED, ttl, given.to())))
}

//! Addresses that were not given to this run, for this name, for this port.

use anyhow::Result;
use nix::libc::{SOCK_DGRAM, SOCK_STREAM};

use super::questions::below;
use super::{
    DENIED, Family, Ground, OTHER_PORT, RULED_PORT, ask_and_reach, exchange, fresh, listen_at,
    look, question, reach, told,
};
use crate::attempt::{Attempt, write};
use crate::field::{Field, Side};
use crate::network::dns;
use crate::network::nameserver::{Asked, Given, Needle, Out};
use crate::network::{interface, wire};
use crate::sys::Try;

const fn v4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack).look(look)
}

pub const ATTEMPTS: &[Attempt] = &[
    v4("net-dns-given-to-nobody-v4", unasked).prepare(|field| unnamed(field, Family::V4)),
    v4("net-dns-given-to-nobody-v6", unasked).prepare(|field| unnamed(field, Family::V6)),
    v4("net-dns-given-for-unlisted-v4", ask_and_reach)
        .prepare(|field| names(field, Family::V4, below(field.side))),
    v4("net-dns-given-for-unlisted-v6", ask_and_reach)
        .prepare(|field| names(field, Family::V6, below(field.side))),
    v4("net-dns-given-other-port-v4", ask_and_reach)
        .prepare(|field| ported(field, Family::V4, SOCK_STREAM)),
    v4("net-dns-given-other-port-v6", ask_and_reach)
        .prepare(|field| ported(field, Family::V6, SOCK_STREAM)),
    v4("net-dns-given-other-protocol-v4", ask_and_send)
        .prepare(|field| ported(field, Family::V4, SOCK_DGRAM)),
    v4("net-dns-given-two-names-v4", |field| {
        // Of two names, the strictest counts, whichever was given last.
        let half = dns::labels(&[&field.noted_bytes("label"), b"half", b"ok", b"test"]);
        let kind = field.noted("kind") as u16;
        told(&exchange(field, &dns::query(&half, kind))?)?;
        ask_and_reach(field)
    })
    .prepare(halved),
    v4("net-dns-given-by-wider-alias-v4", ask_and_reach).prepare(|field| {
        // Its alias may be connected to at every port; the name may not.
        let port = match field.side {
            Side::Allowed => RULED_PORT,
            Side::Denied => OTHER_PORT,
        };
        let to = listen_at(
            field,
            &wire::with_port(&fresh(Family::V4)?, port),
            SOCK_STREAM,
        )?;
        Ground {
            needle: Needle::Flags(0),
            script: |asked, given| {
                let alias = dns::dotted("wider.ok.test");
                let reply = asked.reply().answer(dns::alias(&dns::ASKED, &alias));
                vec![
                    reply
                        .answer(dns::address(&alias, dns::TTL, given.to()))
                        .into(),
                ]
            },
            to,
            ..Ground::asking(Family::V4, &[b"@", b"ported", b"test"])
        }
        .lay(field)
    }),
    v4("net-dns-given-denied-address-v4", ask_and_reach).prepare(|field| {
        let address = match field.side {
            Side::Allowed => fresh(Family::V4)?,
            Side::Denied => {
                interface::add(&DENIED)?;
                wire::v4(DENIED, 0)
            }
        };
        let to = listen_at(field, &address, SOCK_STREAM)?;
        leads(field, Family::V4, below(Side::Allowed), to)
    }),
];

fn answers(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    // Both sides' address: what differs is who asks, for what.
    let record = dns::address(&dns::ASKED, dns::TTL, given.to());
    vec![asked.reply().answer(record).into()]
}

fn leads(field: &Field, family: Family, name: &[&[u8]], to: Vec<u8>) -> Result<()> {
    Ground {
        needle: Needle::Flags(0),
        script: answers,
        to,
        ..Ground::asking(family, name)
    }
    .lay(field)
}

fn names(field: &Field, family: Family, name: &[&[u8]]) -> Result<()> {
    let to = listen_at(field, &fresh(family)?, SOCK_STREAM)?;
    leads(field, family, name, to)
}

pub fn unnamed(field: &Field, family: Family) -> Result<()> {
    names(field, family, below(Side::Allowed))
}

/// Goes there; the control has asked before.
pub fn unasked(field: &Field) -> Try {
    if field.is_control() {
        exchange(field, &question(field))?;
    }
    reach(field)
}

/// A name whose rule is about one port of TCP; the denied side goes to another port, or by
/// datagrams.
fn ported(field: &Field, family: Family, kind: i32) -> Result<()> {
    let port = match (field.side, kind) {
        (Side::Denied, SOCK_STREAM) => OTHER_PORT,
        _ => RULED_PORT,
    };
    let address = wire::with_port(&fresh(family)?, port);
    // The control of datagrams has a rule about all ports.
    let name: &[&[u8]] = match (field.side, kind) {
        (Side::Allowed, SOCK_DGRAM) => below(Side::Allowed),
        _ => &[b"@", b"ported", b"test"],
    };
    let to = listen_at(field, &address, kind)?;
    leads(field, family, name, to)
}

fn ask_and_send(field: &Field) -> Try {
    exchange(field, &question(field))?;
    let to = field.noted_bytes("to");
    wire::send_to(&wire::socket_to(&to, SOCK_DGRAM)?, &to, 0)
}

/// An address of two names, of which one has a port that is denied.
fn halved(field: &Field) -> Result<()> {
    let port = match field.side {
        Side::Allowed => RULED_PORT,
        Side::Denied => OTHER_PORT,
    };
    let address = wire::with_port(&fresh(Family::V4)?, port);
    let to = listen_at(field, &address, SOCK_STREAM)?;
    leads(field, Family::V4, below(Side::Allowed), to)
}

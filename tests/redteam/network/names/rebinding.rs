//! Answers that lead to this host, its link, or groups: no name stands for them.

use anyhow::Result;
use nix::libc::SOCK_STREAM;
use serde_json::json;

use super::questions::below;
use super::{Family, Ground, exchange, fresh, listen_at, look, question};
use crate::attempt::{Attempt, write};
use crate::field::{Field, Side};
use crate::network::dns::{self, TTL, kind};
use crate::network::ground::{self, Place, STREAM};
use crate::network::nameserver::{self, Asked, Given, Needle, Out, Script};
use crate::network::{interface, wire};
use crate::sys::{self, Try};

/// The service of clouds that gives away credentials.
const METADATA: [u8; 4] = [169, 254, 169, 254];
const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

/// What a name leads to on the denied side: where the listener is, and the address of the
/// answer.
type Lead = fn(&Field) -> Result<(Vec<u8>, Vec<u8>)>;

fn leads(field: &Field, lead: Lead, kind: u16, script: Script) -> Result<()> {
    let (to, answered) = match field.side {
        Side::Denied => lead(field)?,
        Side::Allowed => {
            // Of the family that the denied side's answer has.
            let is_v6 = kind == kind::AAAA;
            let family = if is_v6 { Family::V6 } else { Family::V4 };
            let to = listen_at(field, &fresh(family)?, SOCK_STREAM)?;
            let host = wire::host(&to);
            (to, host)
        }
    };
    let ground = Ground {
        needle: Needle::Flags(0),
        script,
        to,
        answered,
        ..Ground::asking(Family::V4, below(Side::Allowed))
    };
    ground.lay_with(field, nameserver::fresh_label(), json!({ "kind": kind }))
}

/// Asks and goes there, by an IPv6 socket if that is how the address is written.
fn attack(field: &Field) -> Try {
    exchange(field, &question(field))?;
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    wire::connect(&socket, &to)?;
    sys::mark(&socket)
}

macro_rules! rebinds {
    ($id:literal, $kind:expr, $script:expr, $lead:expr) => {
        write($id, attack)
            .prepare(|field| leads(field, $lead, $kind, $script))
            .look(look)
    };
}

pub const ATTEMPTS: &[Attempt] = &[
    rebinds!("net-dns-rebind-localhost-v4", kind::A, plain, local_v4),
    rebinds!("net-dns-rebind-localhost-v6", kind::AAAA, plain, local_v6),
    rebinds!("net-dns-rebind-loopback-net-v4", kind::A, plain, |field| {
        at(field, &wire::v4([127, 200, 1, 2], 0))
    }),
    rebinds!("net-dns-rebind-unspecified-v4", kind::A, plain, |field| {
        let (to, _) = local_v4(field)?;
        Ok((wire::any(&to), vec![0; 4]))
    }),
    rebinds!(
        "net-dns-rebind-unspecified-v6",
        kind::AAAA,
        plain,
        |field| {
            let (to, _) = local_v6(field)?;
            Ok((wire::any(&to), vec![0; 16]))
        }
    ),
    rebinds!("net-dns-rebind-this-network-v4", kind::A, plain, |field| {
        // Answered is an address that nobody has; gone to is the local host.
        let (to, _) = local_v4(field)?;
        Ok((to, vec![0, 0, 0, 1]))
    }),
    rebinds!(
        "net-dns-rebind-mapped-localhost",
        kind::AAAA,
        plain,
        |field| {
            let (to, _) = local_v4(field)?;
            let mapped = wire::mapped(&to);
            Ok((mapped.clone(), wire::host(&mapped)))
        }
    ),
    rebinds!("net-dns-rebind-mapped-as-v4", kind::AAAA, plain, |field| {
        let (to, _) = local_v4(field)?;
        Ok((to.clone(), wire::host(&wire::mapped(&to))))
    }),
    rebinds!(
        "net-dns-rebind-mapped-unspecified",
        kind::AAAA,
        plain,
        |field| {
            let (to, _) = local_v4(field)?;
            let mapped = wire::mapped(&wire::any(&to));
            Ok((mapped.clone(), wire::host(&mapped)))
        }
    ),
    rebinds!(
        "net-dns-rebind-compatible-localhost",
        kind::AAAA,
        plain,
        |field| { embedded(field, [0; 6], LOCALHOST) }
    ),
    rebinds!(
        "net-dns-rebind-nat64-localhost",
        kind::AAAA,
        plain,
        |field| { embedded(field, [0x64, 0xff9b, 0, 0, 0, 0], LOCALHOST) }
    ),
    rebinds!(
        "net-dns-rebind-nat64-local-localhost",
        kind::AAAA,
        plain,
        |field| { embedded(field, [0x64, 0xff9b, 1, 0, 0, 0], LOCALHOST) }
    ),
    rebinds!(
        "net-dns-rebind-translated-localhost",
        kind::AAAA,
        plain,
        |field| { embedded(field, [0, 0, 0, 0, 0xffff, 0], LOCALHOST) }
    ),
    rebinds!(
        "net-dns-rebind-6to4-localhost",
        kind::AAAA,
        plain,
        |field| { embedded(field, [0x2002, 0x7f00, 1, 0, 0, 0], [0, 0, 0, 1]) }
    ),
    rebinds!("net-dns-rebind-metadata-v4", kind::A, plain, metadata),
    rebinds!(
        "net-dns-rebind-metadata-mapped",
        kind::AAAA,
        plain,
        |field| {
            let (to, _) = metadata(field)?;
            let mapped = wire::mapped(&to);
            Ok((mapped.clone(), wire::host(&mapped)))
        }
    ),
    rebinds!(
        "net-dns-rebind-metadata-nat64",
        kind::AAAA,
        plain,
        |field| { embedded(field, [0x64, 0xff9b, 0, 0, 0, 0], METADATA) }
    ),
    rebinds!("net-dns-rebind-link-local-v6", kind::AAAA, plain, |field| {
        at(field, &ground::address(Place::Link6, Side::Denied))
    }),
    rebinds!("net-dns-rebind-broadcast-v4", kind::A, plain, |field| {
        let (to, _) = local_v4(field)?;
        Ok((to, vec![255; 4]))
    }),
    rebinds!("net-dns-rebind-among-others-v4", kind::A, among, local_v4),
    rebinds!("net-dns-rebind-behind-alias-v4", kind::A, aliased, local_v4),
    rebinds!("net-dns-hint-localhost-v4", kind::HTTPS, hint, local_v4),
    rebinds!("net-dns-hint-metadata-v4", kind::HTTPS, hint, metadata),
    rebinds!(
        "net-dns-hint-svcb-localhost-v4",
        kind::SVCB,
        hint_svcb,
        local_v4
    ),
    rebinds!("net-dns-hint-localhost-v6", kind::HTTPS, hint, local_v6),
    rebinds!(
        "net-dns-hint-mapped-localhost",
        kind::HTTPS,
        hint,
        |field| {
            let (to, _) = local_v4(field)?;
            Ok((to.clone(), wire::host(&wire::mapped(&to))))
        }
    ),
    rebinds!(
        "net-dns-hint-other-target-v4",
        kind::HTTPS,
        hint_elsewhere,
        |field| { at(field, &fresh(Family::V4)?) }
    ),
    rebinds!(
        "net-dns-hint-other-owner-v4",
        kind::HTTPS,
        hint_of_other,
        |field| { at(field, &fresh(Family::V4)?) }
    ),
    rebinds!(
        "net-dns-hint-alias-form-v4",
        kind::HTTPS,
        hint_alias,
        |field| { at(field, &fresh(Family::V4)?) }
    ),
];

/// A listener at this address, which is what is answered.
fn at(field: &Field, address: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let to = listen_at(field, address, SOCK_STREAM)?;
    let host = wire::host(&to);
    Ok((to, host))
}

/// A listener at a port of the local host that no rule names.
fn local(field: &Field, place: Place) -> Result<(Vec<u8>, Vec<u8>)> {
    let (socket, to) = ground::bound(place, Side::Denied, STREAM)?;
    crate::sys::call!(SYS_listen, &socket, 16)?;
    ground::watch(field, socket, true)?;
    let host = wire::host(&to);
    Ok((to, host))
}

fn local_v4(field: &Field) -> Result<(Vec<u8>, Vec<u8>)> {
    local(field, Place::Local4)
}

fn local_v6(field: &Field) -> Result<(Vec<u8>, Vec<u8>)> {
    local(field, Place::Local6)
}

fn metadata(field: &Field) -> Result<(Vec<u8>, Vec<u8>)> {
    interface::add(&METADATA)?;
    at(field, &wire::v4(METADATA, 0))
}

/// An IPv6 address that means an IPv4 one to some: here it is one of this machine.
fn embedded(field: &Field, prefix: [u16; 6], v4: [u8; 4]) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut words = [0; 8];
    words[..6].copy_from_slice(&prefix);
    let mut address = wire::words_v6(words);
    address[12..].copy_from_slice(&v4);
    interface::add(&address)?;
    at(field, &wire::v6(address, 0, 0))
}

fn plain(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    let record = dns::address(&dns::ASKED, TTL, given.to());
    vec![asked.reply().answer(record).into()]
}

/// Beside an address that may be named.
fn among(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    let address = |of: &[u8]| dns::address(&dns::ASKED, TTL, of);
    let reply = asked.reply().answer(address(&given.good));
    vec![reply.answer(address(&given.bad)).into()]
}

fn aliased(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    let alias = dns::dotted("a.cdn.test");
    let reply = asked.reply().answer(dns::alias(&dns::ASKED, &alias));
    vec![reply.answer(dns::address(&alias, TTL, given.to())).into()]
}

fn service(asked: &Asked<'_>, kind: u16, owner: &[u8], data: &[u8]) -> Vec<Out> {
    let record = dns::record(owner, kind, dns::IN, TTL, data);
    vec![asked.reply().answer(record).into()]
}

/// A hint of an address of the name itself.
fn hint(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    service(
        asked,
        kind::HTTPS,
        &dns::ASKED,
        &dns::service(&[0], given.to()),
    )
}

fn hint_svcb(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    service(
        asked,
        kind::SVCB,
        &dns::ASKED,
        &dns::service(&[0], given.to()),
    )
}

/// A hint for a name that nobody asked for; the control's is for the name itself.
fn hint_elsewhere(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    let target = if given.is_control {
        vec![0]
    } else {
        dns::dotted("other.test")
    };
    service(
        asked,
        kind::HTTPS,
        &dns::ASKED,
        &dns::service(&target, given.to()),
    )
}

fn hint_of_other(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    let owner = if given.is_control {
        dns::ASKED.to_vec()
    } else {
        dns::dotted("other.test")
    };
    service(asked, kind::HTTPS, &owner, &dns::service(&[0], given.to()))
}

/// The form of an alias (priority 0) has no hints that count; the control's is a service.
fn hint_alias(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    let mut data = dns::service(&[0], given.to());
    if !given.is_control {
        data[..2].fill(0);
    }
    service(asked, kind::HTTPS, &dns::ASKED, &data)
}

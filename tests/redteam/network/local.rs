//! Other forms of an address: mapped, unspecified, link-local, of a group, of everybody.

use nix::libc::{self, SOCK_DGRAM, SOCK_STREAM};

use super::ground::{self, DATAGRAM, Place, STREAM};
use super::listener;
use super::{interface, wire};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::sys::{self, Try};
use crate::victim::PROOF;

const MCAST_JOIN_GROUP: i32 = 42;

const fn at(
    id: &'static str,
    prepare: fn(&Field) -> anyhow::Result<()>,
    attack: fn(&Field) -> Try,
) -> Attempt {
    write(id, attack).prepare(prepare).look(listener::look)
}

const fn join(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack).lifted()
}

pub const ATTEMPTS: &[Attempt] = &[
    at("net-mapped-tcp-connect", tcp4, |field| {
        stream(&wire::mapped(&field.noted_bytes("to")))
    }),
    at("net-mapped-tcp-fastopen", tcp4, |field| {
        fast_open(&wire::mapped(&field.noted_bytes("to")))
    }),
    at("net-mapped-udp-connect", udp4, |field| {
        datagram_connected(&wire::mapped(&field.noted_bytes("to")))
    }),
    at("net-mapped-udp-sendto", udp4, |field| {
        datagram(&wire::mapped(&field.noted_bytes("to")))
    }),
    at("net-any-tcp-connect-v4", local_tcp4, |field| {
        stream(&wire::any(&field.noted_bytes("to")))
    }),
    at("net-any-tcp-connect-v6", local_tcp6, |field| {
        stream(&wire::any(&field.noted_bytes("to")))
    }),
    at("net-any-tcp-connect-mapped", local_tcp4, |field| {
        stream(&wire::mapped(&wire::any(&field.noted_bytes("to"))))
    }),
    at("net-any-tcp-fastopen-v4", local_tcp4, |field| {
        fast_open(&wire::any(&field.noted_bytes("to")))
    }),
    at("net-any-tcp-fastopen-v6", local_tcp6, |field| {
        fast_open(&wire::any(&field.noted_bytes("to")))
    }),
    at("net-any-udp-sendto-v4", local_udp4, |field| {
        datagram(&wire::any(&field.noted_bytes("to")))
    }),
    at("net-any-udp-sendto-v6", local_udp6, |field| {
        datagram(&wire::any(&field.noted_bytes("to")))
    }),
    at("net-any-udp-connect-v4", local_udp4, |field| {
        datagram_connected(&wire::any(&field.noted_bytes("to")))
    }),
    at("net-any-udp-connect-v6", local_udp6, |field| {
        datagram_connected(&wire::any(&field.noted_bytes("to")))
    }),
    at("net-local-host-tcp-v4", local_tcp4, |field| {
        stream(&field.noted_bytes("to"))
    }),
    at("net-local-host-tcp-v6", local_tcp6, |field| {
        stream(&field.noted_bytes("to"))
    }),
    at(
        "net-link-local-tcp",
        |field| ground::listen(field, Place::Link6, STREAM),
        |field| stream(&field.noted_bytes("to")),
    ),
    at(
        "net-link-local-udp",
        |field| ground::listen(field, Place::Link6, DATAGRAM),
        |field| datagram(&field.noted_bytes("to")),
    ),
    at(
        "net-multicast-sendto-v4",
        |field| ground::listen(field, Place::Group4, DATAGRAM),
        multicast_v4,
    ),
    at(
        "net-multicast-sendto-v6",
        |field| ground::listen(field, Place::Group6, DATAGRAM),
        multicast_v6,
    ),
    at(
        "net-broadcast-sendto",
        |field| ground::listen(field, Place::Broadcast4, DATAGRAM),
        |field| {
            let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
            wire::set_number(&socket, libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
            wire::send_to(&socket, &field.noted_bytes("to"), 0)
        },
    ),
    join("net-multicast-join-v4", |field| {
        let index = interface::index().to_ne_bytes();
        let group = interface::group_v4(field.side);
        let request = [&group[..], &[0; 4], &index].concat();
        joined(libc::AF_INET, libc::IP_ADD_MEMBERSHIP, &request)
    }),
    join("net-multicast-join-v6", |field| {
        let index = interface::index().to_ne_bytes();
        let group = interface::group_v6(field.side);
        let request = [&group[..], &index].concat();
        joined(libc::AF_INET6, libc::IPV6_ADD_MEMBERSHIP, &request)
    }),
    join("net-multicast-join-group-v4", |field| {
        let group = wire::v4(interface::group_v4(field.side), 0);
        joined(libc::AF_INET, MCAST_JOIN_GROUP, &group_request(&group))
    }),
    join("net-multicast-join-group-v6", |field| {
        let group = wire::v6(interface::group_v6(field.side), 0, 0);
        joined(libc::AF_INET6, MCAST_JOIN_GROUP, &group_request(&group))
    }),
    join("net-multicast-join-source-v4", |field| {
        let group = interface::group_v4(field.side);
        let mine = interface::v4(field.side, 1);
        let request = [group, mine, interface::v4(field.side, 7)].concat();
        joined(libc::AF_INET, libc::IP_ADD_SOURCE_MEMBERSHIP, &request)
    }),
];

fn tcp4(field: &Field) -> anyhow::Result<()> {
    ground::listen(field, Place::V4, STREAM)
}

fn udp4(field: &Field) -> anyhow::Result<()> {
    ground::listen(field, Place::V4, DATAGRAM)
}

fn local_tcp4(field: &Field) -> anyhow::Result<()> {
    ground::listen(field, Place::Local4, STREAM)
}

fn local_tcp6(field: &Field) -> anyhow::Result<()> {
    ground::listen(field, Place::Local6, STREAM)
}

fn local_udp4(field: &Field) -> anyhow::Result<()> {
    ground::listen(field, Place::Local4, DATAGRAM)
}

fn local_udp6(field: &Field) -> anyhow::Result<()> {
    ground::listen(field, Place::Local6, DATAGRAM)
}

fn stream(to: &[u8]) -> Try {
    let socket = wire::socket_to(to, SOCK_STREAM)?;
    wire::connect(&socket, to)?;
    sys::mark(&socket)
}

fn fast_open(to: &[u8]) -> Try {
    wire::send_to(&wire::socket_to(to, SOCK_STREAM)?, to, wire::FAST_OPEN)
}

fn datagram(to: &[u8]) -> Try {
    wire::send_to(&wire::socket_to(to, SOCK_DGRAM)?, to, 0)
}

fn datagram_connected(to: &[u8]) -> Try {
    let socket = wire::socket_to(to, SOCK_DGRAM)?;
    wire::connect(&socket, to)?;
    sys::mark(&socket)
}

fn multicast_v4(field: &Field) -> Try {
    let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
    let index = interface::index().to_ne_bytes();
    let request = [&[0; 8], &index[..]].concat();
    wire::set(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)?;
    wire::send_to(&socket, &field.noted_bytes("to"), 0)
}

fn multicast_v6(field: &Field) -> Try {
    let socket = wire::socket(libc::AF_INET6, SOCK_DGRAM, 0)?;
    let index = interface::index().to_ne_bytes();
    wire::set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &index)?;
    wire::send_to(&socket, &field.noted_bytes("to"), 0)
}

/// A `struct group_req`: the interface, then room for an address of any family.
fn group_request(group: &[u8]) -> Vec<u8> {
    let mut bytes = sys::halves(&[interface::index(), 0]);
    bytes.extend(group);
    bytes.resize(8 + 128, 0);
    bytes
}

fn joined(family: i32, option: i32, request: &[u8]) -> Try {
    let socket = wire::socket(family, SOCK_DGRAM, 0)?;
    let level = match family {
        libc::AF_INET => libc::IPPROTO_IP,
        _ => libc::IPPROTO_IPV6,
    };
    wire::set(&socket, level, option, request)?;
    Ok(PROOF.to_vec())
}

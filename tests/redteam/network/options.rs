//! Options of sockets by which packets go elsewhere than the address says.

use anyhow::Result;
use nix::libc::{self, SOCK_DGRAM, SOCK_STREAM};

use super::ground::{self, Place};
use super::listener;
use super::wire::{self, Message};
use super::{ROOT_ONLY, uring};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::files::compat::Low;
use crate::ring::{Entry, op};
use crate::sys::{self, MARK, Try};
use crate::victim::PROOF;

const IP_RETOPTS: i32 = 7;
const LOOSE_SOURCE_ROUTE: u8 = 0x83;
const STRICT_SOURCE_ROUTE: u8 = 0x89;
const IPV6_TRANSPARENT: i32 = 75;
const SO_BINDTOIFINDEX: i32 = 62;
const SO_MARK: i32 = 36;
const IPV6_RTHDR: i32 = 57;
const IPV6_HOPOPTS: i32 = 54;
const IPV6_DSTOPTS: i32 = 59;

/// Why an ordinary user has none.
const SOURCE_ROUTES: &str = "source routes need CAP_NET_RAW";

/// Packets to the address are counted on their way.
const NO_HEADER: &[(i32, &str)] = &[(
    libc::EINVAL,
    "the kernel has no routing header of this type (CONFIG_IPV6_MIP6)",
)];

const fn way(
    id: &'static str,
    prepare: fn(&Field) -> Result<()>,
    attack: fn(&Field) -> Try,
) -> Attempt {
    write(id, attack)
        .prepare(prepare)
        .look(listener::look)
        .lifted()
}

const fn option(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack).lifted()
}

pub const ATTEMPTS: &[Attempt] = &[
    way("net-source-route-loose", sniff_v4, |field| {
        routed(field, LOOSE_SOURCE_ROUTE)
    })
    .root_only(SOURCE_ROUTES),
    way("net-source-route-strict", sniff_v4, |field| {
        routed(field, STRICT_SOURCE_ROUTE)
    })
    .root_only(SOURCE_ROUTES),
    way("net-source-route-connect", sniff_v4, |field| {
        let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
        wire::connect(&socket, &field.noted_bytes("to"))?;
        let route = source_route(field, LOOSE_SOURCE_ROUTE);
        wire::set(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &route)?;
        wire::connect(&socket, &field.noted_bytes("to"))?;
        sys::mark(&socket)
    })
    .root_only(SOURCE_ROUTES),
    way("net-source-route-control-message", sniff_v4, |field| {
        let route = source_route(field, LOOSE_SOURCE_ROUTE);
        let control = wire::control(libc::IPPROTO_IP, IP_RETOPTS, &route);
        let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
        Message::new(&field.noted_bytes("to"), &[MARK], &control).send(&socket, 0)
    })
    .root_only(SOURCE_ROUTES),
    way("net-routing-header", sniff_v6, |field| {
        headed(field, &routing_header(field))
    })
    .lacks(NO_HEADER),
    way("net-routing-header-segments", sniff_v6, |field| {
        headed(field, &segments(field))
    }),
    way("net-routing-header-control-message", sniff_v6, |field| {
        let header = routing_header(field);
        let control = wire::control(libc::IPPROTO_IPV6, IPV6_RTHDR, &header);
        let socket = wire::socket(libc::AF_INET6, SOCK_DGRAM, 0)?;
        Message::new(&field.noted_bytes("to"), &[MARK], &control).send(&socket, 0)
    })
    .lacks(NO_HEADER),
    way("net-routing-header-sticky", sniff_v6, |field| {
        // Several headers in one option, as RFC 2292 had it.
        const IPV6_2292PKTOPTIONS: i32 = 6;
        let header = routing_header(field);
        let control = wire::control(libc::IPPROTO_IPV6, IPV6_RTHDR, &header);
        let socket = wire::socket(libc::AF_INET6, SOCK_DGRAM, 0)?;
        wire::set(&socket, libc::IPPROTO_IPV6, IPV6_2292PKTOPTIONS, &control)?;
        wire::send_to(&socket, &field.noted_bytes("to"), 0)
    })
    .lacks(NO_HEADER),
    option("net-option-hop-by-hop", |_| {
        let padding = [0, 0, 1, 4, 0, 0, 0, 0];
        set(libc::AF_INET6, libc::IPPROTO_IPV6, IPV6_HOPOPTS, &padding)
    })
    .root_only(ROOT_ONLY),
    option("net-option-destination-header", |_| {
        let padding = [0, 0, 1, 4, 0, 0, 0, 0];
        set(libc::AF_INET6, libc::IPPROTO_IPV6, IPV6_DSTOPTS, &padding)
    })
    .root_only(ROOT_ONLY),
    option("net-option-transparent-v4", |_| {
        set(
            libc::AF_INET,
            libc::IPPROTO_IP,
            libc::IP_TRANSPARENT,
            &one(),
        )
    })
    .root_only(ROOT_ONLY),
    option("net-option-transparent-v6", |_| {
        set(libc::AF_INET6, libc::IPPROTO_IPV6, IPV6_TRANSPARENT, &one())
    })
    .root_only(ROOT_ONLY),
    option("net-option-bind-to-device", |_| {
        set(
            libc::AF_INET,
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            b"lo\0",
        )
    }),
    option("net-option-bind-to-index", |_| {
        set(libc::AF_INET, libc::SOL_SOCKET, SO_BINDTOIFINDEX, &one())
    }),
    option("net-option-bind-to-index-tcp-v6", |_| {
        let socket = wire::socket(libc::AF_INET6, SOCK_STREAM, 0)?;
        wire::set_number(&socket, libc::SOL_SOCKET, SO_BINDTOIFINDEX, 1)?;
        Ok(PROOF.to_vec())
    }),
    option("net-option-mark", |_| {
        set(libc::AF_INET, libc::SOL_SOCKET, SO_MARK, &one())
    })
    .root_only(ROOT_ONLY),
    option("net-option-mark-control-message", |field| {
        let control = wire::control(libc::SOL_SOCKET, SO_MARK, &one());
        let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
        let to = field.noted_bytes("friend");
        Message::new(&to, &[MARK], &control).send(&socket, 0)?;
        Ok(PROOF.to_vec())
    })
    .prepare(|field| ground::listen(field, Place::V4, ground::DATAGRAM))
    .root_only(ROOT_ONLY),
    option("net-option-uring-bind-to-index", |_| {
        const SET_OPTION: u64 = 3;
        let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
        let value = one();
        let entry = Entry {
            code: op::URING_CMD,
            fd: wire::raw(&socket),
            offset: SET_OPTION,
            address: libc::SOL_SOCKET as u64 | (SO_BINDTOIFINDEX as u64) << 32,
            second: value.len() as u32,
            third: value.as_ptr() as u64,
            ..Entry::default()
        };
        uring::alone(&entry, "SOCKET_URING_OP_SETSOCKOPT")?;
        Ok(PROOF.to_vec())
    })
    .lacks(&[
        (libc::ENOSYS, "the kernel has no such io_uring operation"),
        (
            libc::EOPNOTSUPP,
            "the kernel has no such command of sockets",
        ),
    ]),
    option("net-option-int80-bind-to-index", |_| {
        const SOCKETCALL: u32 = 102;
        const SET_OPTION: u32 = 14;
        let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
        let low = Low::new()?;
        let value = low.bytes(1, &one());
        let fd = wire::raw(&socket).cast_unsigned();
        let (level, name) = (libc::SOL_SOCKET as u32, SO_BINDTOIFINDEX as u32);
        let arguments = low.bytes(0, &sys::halves(&[fd, level, name, value, 4]));
        low.call("socketcall", SOCKETCALL, [SET_OPTION, arguments, 0, 0, 0])?;
        Ok(PROOF.to_vec())
    })
    .lacks(&[(libc::ENOSYS, "the kernel does not offer this table")]),
];

fn sniff_v4(field: &Field) -> Result<()> {
    ground::sniff(field, Place::V4)
}

fn sniff_v6(field: &Field) -> Result<()> {
    ground::sniff(field, Place::V6)
}

fn one() -> [u8; 4] {
    1_i32.to_ne_bytes()
}

fn set(family: i32, level: i32, option: i32, value: &[u8]) -> Try {
    let socket = wire::socket(family, SOCK_DGRAM, 0)?;
    wire::set(&socket, level, option, value)?;
    Ok(PROOF.to_vec())
}

/// First to the field's address; from there to that of the call.
fn source_route(field: &Field, kind: u8) -> Vec<u8> {
    let mut bytes = vec![kind, 7, 4];
    bytes.extend(field.noted_bytes("host"));
    bytes.push(0);
    bytes
}

fn routed(field: &Field, kind: u8) -> Try {
    let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
    let route = source_route(field, kind);
    wire::set(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &route)?;
    wire::send_to(&socket, &field.noted_bytes("to"), 0)
}

/// Type 2, of mobile hosts: first to the field's address.
fn routing_header(field: &Field) -> Vec<u8> {
    let mut bytes = vec![0, 2, 2, 1, 0, 0, 0, 0];
    bytes.extend(field.noted_bytes("host"));
    bytes
}

/// Type 4, of segment routing: the last of the list comes first.
fn segments(field: &Field) -> Vec<u8> {
    let mut bytes = vec![0, 4, 4, 1, 1, 0, 0, 0];
    bytes.extend([0; 16]);
    bytes.extend(field.noted_bytes("host"));
    bytes
}

fn headed(field: &Field, header: &[u8]) -> Try {
    let socket = wire::socket(libc::AF_INET6, SOCK_DGRAM, 0)?;
    wire::set(&socket, libc::IPPROTO_IPV6, IPV6_RTHDR, header)?;
    wire::send_to(&socket, &field.noted_bytes("to"), 0)
}

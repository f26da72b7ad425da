//! Listening: binding, letting others in, and what is free of it.

use std::os::fd::OwnedFd;

use anyhow::Result;
use nix::libc::{self, SOCK_DGRAM, SOCK_STREAM};

use super::ground::{self, DATAGRAM, Place, STREAM};
use super::listener;
use super::wire;
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::files::compat::Low;
use crate::ring::{Entry, LACKS, op};
use crate::stage::receive;
use crate::sys::{self, Fail, MARK, Try, call};
use crate::victim::PROOF;

const fn spot(
    id: &'static str,
    prepare: fn(&Field) -> Result<()>,
    attack: fn(&Field) -> Try,
) -> Attempt {
    write(id, attack).prepare(prepare)
}

/// The descriptor is a socket that listens, with somebody who has connected and sent the mark.
const fn visited(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
}

pub const ATTEMPTS: &[Attempt] = &[
    spot("net-bind-tcp-v4", tcp4, |field| bound(field, SOCK_STREAM)),
    spot("net-bind-tcp-v6", tcp6, |field| bound(field, SOCK_STREAM)),
    spot("net-bind-udp-v4", udp4, |field| bound(field, SOCK_DGRAM)),
    spot("net-bind-udp-v6", udp6, |field| bound(field, SOCK_DGRAM)),
    spot("net-bind-mapped", tcp4, |field| {
        let at = wire::mapped(&field.noted_bytes("to"));
        let socket = wire::socket(libc::AF_INET6, SOCK_STREAM, 0)?;
        wire::bind(&socket, &at)?;
        Ok(PROOF.to_vec())
    }),
    spot("net-bind-unspecified-family", tcp_any, |field| {
        // Of IPv4, for 0.0.0.0: as old programs have it.
        let to = wire::any(&field.noted_bytes("to"));
        let socket = wire::socket(libc::AF_INET, SOCK_STREAM, 0)?;
        wire::bind(&socket, &wire::with_family(&to, libc::AF_UNSPEC))?;
        Ok(PROOF.to_vec())
    })
    .lifted(),
    spot("net-bind-any-v4", tcp_any, |field| {
        let to = wire::any(&field.noted_bytes("to"));
        wire::bind(&wire::socket_to(&to, SOCK_STREAM)?, &to)?;
        Ok(PROOF.to_vec())
    })
    .lifted(),
    spot("net-listen-tcp-v4", tcp4, listened),
    spot("net-listen-tcp-v6", tcp6, listened),
    spot("net-listen-unbound-v4", tcp4, |_| unbound(libc::AF_INET)).lifted(),
    spot("net-listen-unbound-v6", tcp6, |_| unbound(libc::AF_INET6)).lifted(),
    spot("net-listen-after-port-zero", tcp4, |field| {
        // Binding to a port that the kernel chooses is free; listening at it is not.
        let socket = wire::socket(libc::AF_INET, SOCK_STREAM, 0)?;
        wire::bind(&socket, &wire::with_port(&field.noted_bytes("to"), 0))?;
        listening(&socket)
    }),
    spot("net-listen-inherited-v4", tcp4, |field| {
        let socket = sys::owned(call!(SYS_dup, wire::need(field.inherited)?)?);
        listening(&socket)
    })
    .inherits(|field| {
        let socket = wire::socket(libc::AF_INET, SOCK_STREAM, 0)?;
        wire::set_number(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        wire::bind(&socket, &field.noted_bytes("to"))?;
        Ok(socket)
    }),
    spot("net-uring-bind-v4", tcp4, |field| {
        let to = field.noted_bytes("to");
        let socket = wire::socket_to(&to, SOCK_STREAM)?;
        let entry = Entry {
            code: op::BIND,
            fd: wire::raw(&socket),
            address: to.as_ptr() as u64,
            offset: to.len() as u64,
            ..Entry::default()
        };
        super::uring::alone(&entry, "IORING_OP_BIND")?;
        Ok(PROOF.to_vec())
    })
    .lacks(LACKS),
    spot("net-uring-listen-v4", tcp4, |_| {
        let socket = wire::socket(libc::AF_INET, SOCK_STREAM, 0)?;
        let entry = Entry {
            code: op::LISTEN,
            fd: wire::raw(&socket),
            length: 4,
            ..Entry::default()
        };
        super::uring::alone(&entry, "IORING_OP_LISTEN")?;
        accepting(&socket)
    })
    .lifted()
    .lacks(LACKS),
    spot("net-int80-bind-v4", tcp4, |field| {
        const SOCKETCALL: u32 = 102;
        const BIND: u32 = 2;
        let to = field.noted_bytes("to");
        let socket = wire::socket_to(&to, SOCK_STREAM)?;
        let low = Low::new()?;
        let (fd, address) = (wire::raw(&socket).cast_unsigned(), low.bytes(1, &to));
        let arguments = low.bytes(0, &sys::halves(&[fd, address, to.len() as u32]));
        low.call("socketcall", SOCKETCALL, [BIND, arguments, 0, 0, 0])?;
        Ok(PROOF.to_vec())
    })
    .lacks(&[(libc::ENOSYS, "the kernel does not offer this table")]),
    visited("net-accept-inherited-v4", |field| {
        accepted(wire::need(field.inherited)?)
    })
    .prepare(tcp4)
    .inherits(with_visitor),
    visited("net-accept-inherited-v6", |field| {
        accepted(wire::need(field.inherited)?)
    })
    .prepare(tcp6)
    .inherits(with_visitor),
    visited("net-accept-received-v4", |_| {
        accepted(wire::raw(&receive()?))
    })
    .prepare(tcp4)
    .receives(with_visitor),
    visited("net-accept-uring-v4", |field| {
        let entry = Entry {
            code: op::ACCEPT,
            fd: wire::need(field.inherited)?,
            ..Entry::default()
        };
        let fd = entry.alone("IORING_OP_ACCEPT", 0)?;
        heard(&sys::owned(fd.into()))
    })
    .prepare(tcp4)
    .inherits(with_visitor)
    .lacks(LACKS),
    visited("net-answer-accepted-v4", |field| {
        // Accepted by somebody else, who has passed it on: who connects was let in.
        sys::mark_raw(wire::need(field.inherited)?)?;
        Ok(PROOF.to_vec())
    })
    .prepare(tcp4)
    .inherits(|field| {
        let listener = with_visitor(field)?;
        Ok(sys::owned(call!(
            SYS_accept4,
            &listener,
            0,
            0,
            libc::SOCK_CLOEXEC
        )?))
    }),
    spot("net-bind-port-zero-v4", tcp4, |field| {
        port_zero(field, SOCK_DGRAM)
    }),
    spot("net-bind-port-zero-v6", tcp6, |field| {
        port_zero(field, SOCK_DGRAM)
    }),
];

fn tcp4(field: &Field) -> Result<()> {
    ground::spot(field, Place::V4, STREAM)
}

fn tcp6(field: &Field) -> Result<()> {
    ground::spot(field, Place::V6, STREAM)
}

fn udp4(field: &Field) -> Result<()> {
    ground::spot(field, Place::V4, DATAGRAM)
}

fn udp6(field: &Field) -> Result<()> {
    ground::spot(field, Place::V6, DATAGRAM)
}

/// A port of every address.
fn tcp_any(field: &Field) -> Result<()> {
    ground::spot_at(field, &wire::v4([0; 4], 0), STREAM)
}

fn bound(field: &Field, kind: i32) -> Try {
    let to = field.noted_bytes("to");
    wire::bind(&wire::socket_to(&to, kind)?, &to)?;
    Ok(PROOF.to_vec())
}

fn port_zero(field: &Field, kind: i32) -> Try {
    let to = wire::with_port(&field.noted_bytes("to"), 0);
    wire::bind(&wire::socket_to(&to, kind)?, &to)?;
    Ok(PROOF.to_vec())
}

fn listened(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    wire::bind(&socket, &to)?;
    listening(&socket)
}

fn unbound(family: i32) -> Try {
    listening(&wire::socket(family, SOCK_STREAM, 0)?)
}

fn listening(socket: &OwnedFd) -> Try {
    call!(SYS_listen, socket, 4)?;
    accepting(socket)
}

/// Whether the kernel would let others in.
fn accepting(socket: &OwnedFd) -> Try {
    match wire::number(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? {
        1 => Ok(PROOF.to_vec()),
        _ => Err(Fail::new("listen without an effect", 0)),
    }
}

/// A socket of the driver that listens, at which somebody has been who sent the mark.
fn with_visitor(field: &Field) -> Result<OwnedFd> {
    let to = wire::with_port(&field.noted_bytes("to"), 0);
    let listener = wire::socket_to(&to, SOCK_STREAM)?;
    wire::bind(&listener, &to)?;
    call!(SYS_listen, &listener, 4)?;
    let at = wire::name(&listener)?;
    let visitor = wire::socket_to(&at, SOCK_STREAM)?;
    wire::connect(&visitor, &at)?;
    sys::mark(&visitor)?;
    listener::keep_open(visitor);
    Ok(listener)
}

/// Lets the visitor in, and hears it.
fn accepted(listener: i32) -> Try {
    let fd = call!(SYS_accept4, listener, 0, 0, libc::SOCK_CLOEXEC)?;
    heard(&sys::owned(fd))
}

fn heard(visitor: &OwnedFd) -> Try {
    match sys::read(visitor)? {
        bytes if bytes == MARK => Ok(PROOF.to_vec()),
        _ => Err(Fail::new("the visitor says nothing", 0)),
    }
}

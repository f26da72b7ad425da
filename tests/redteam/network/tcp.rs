//! TCP: every way to begin a connection.

use nix::libc::{self, SOCK_STREAM};

use super::ground::{self, Place, STREAM};
use super::listener;
use super::wire::{self, Message};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::sys::{self, Fail, MARK, Try, call};

const TCP_FASTOPEN_CONNECT: i32 = 30;
/// Rounds in which an address is changed while it is used.
const ROUNDS: usize = 100;

const fn v4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V4, STREAM))
        .look(listener::look)
}

const fn v6(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V6, STREAM))
        .look(listener::look)
}

pub const ATTEMPTS: &[Attempt] = &[
    v4("net-tcp-connect-v4", connect),
    v6("net-tcp-connect-v6", connect),
    v4("net-tcp-connect-nonblocking-v4", nonblocking),
    v6("net-tcp-connect-nonblocking-v6", nonblocking),
    v4("net-tcp-reconnect-v4", reconnect),
    v6("net-tcp-reconnect-v6", reconnect),
    v4("net-tcp-reconnect-in-child-v4", forked),
    v4("net-tcp-fastopen-sendto-v4", fast_open),
    v6("net-tcp-fastopen-sendto-v6", fast_open),
    v4("net-tcp-fastopen-sendmsg-v4", fast_open_message),
    v6("net-tcp-fastopen-sendmsg-v6", fast_open_message),
    v4("net-tcp-fastopen-sendmmsg-v4", fast_open_many),
    v6("net-tcp-fastopen-sendmmsg-v6", fast_open_many),
    v4("net-tcp-fastopen-connect-v4", fast_open_connect),
    v6("net-tcp-fastopen-connect-v6", fast_open_connect),
    v4("net-tcp-connect-race-v4", race),
    v4("net-mptcp-connect-v4", multipath)
        .lifted()
        .lacks(MULTIPATH),
    v6("net-mptcp-connect-v6", multipath)
        .lifted()
        .lacks(MULTIPATH),
    v4("net-mptcp-fastopen-v4", multipath_fast_open)
        .lifted()
        .lacks(MULTIPATH),
    v6("net-mptcp-fastopen-v6", multipath_fast_open)
        .lifted()
        .lacks(MULTIPATH),
];

const MULTIPATH: &[(i32, &str)] = &[
    (libc::EPROTONOSUPPORT, "the kernel has no MPTCP"),
    (
        libc::ENOPROTOOPT,
        "MPTCP is switched off (net.mptcp.enabled)",
    ),
    (libc::EOPNOTSUPP, "the kernel's MPTCP has no fast open"),
];

fn connect(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    wire::connect(&socket, &to)?;
    sys::mark(&socket)
}

fn nonblocking(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM | libc::SOCK_NONBLOCK)?;
    match wire::connect(&socket, &to) {
        Err(fail) if fail.errno != libc::EINPROGRESS => return Err(fail),
        _ => {}
    }
    let events = u32::from(libc::POLLOUT as u16);
    let mut wanted = sys::halves(&[wire::raw(&socket).cast_unsigned(), events]);
    call!(SYS_poll, &mut wanted[..], 1, 2_000)?;
    sys::mark(&socket)
}

/// To where it may, then from there on.
fn reconnect(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    wire::connect(&socket, &field.noted_bytes("friend"))?;
    wire::connect(&socket, &wire::unspecified())?;
    wire::connect(&socket, &to)?;
    sys::mark(&socket)
}

/// The socket is made in one process and connected in another.
fn forked(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    wire::connect(&socket, &field.noted_bytes("friend"))?;
    let child = sys::fork(|| {
        wire::connect(&socket, &wire::unspecified())?;
        wire::connect(&socket, &to)?;
        sys::mark(&socket)
    })?;
    match child.wait()? >> 8 {
        0 => sys::done(),
        errno => Err(Fail::new("connect in a child", errno)),
    }
}

fn fast_open(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    wire::send_to(&wire::socket_to(&to, SOCK_STREAM)?, &to, wire::FAST_OPEN)
}

fn fast_open_message(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    Message::to(&to).send(&socket, wire::FAST_OPEN)
}

fn fast_open_many(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    let message = Message::to(&to);
    let vector = [message.header(), &[0; 8]].concat();
    call!(SYS_sendmmsg, &socket, &vector[..], 1, wire::FAST_OPEN)?;
    sys::done()
}

/// Nothing is sent by `connect`, and all by the first `write`.
fn fast_open_connect(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    wire::set_number(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)?;
    wire::connect(&socket, &to)?;
    sys::mark(&socket)
}

fn multipath(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket(wire::family(&to), SOCK_STREAM, libc::IPPROTO_MPTCP)?;
    wire::connect(&socket, &to)?;
    sys::mark(&socket)
}

fn multipath_fast_open(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket(wire::family(&to), SOCK_STREAM, libc::IPPROTO_MPTCP)?;
    wire::send_to(&socket, &to, wire::FAST_OPEN)
}

/// Another process changes the address all the time while the kernel reads it.
fn race(field: &Field) -> Try {
    let address = super::race::Address::turning(field)?;
    let mut refused = None;
    for _ in 0..ROUNDS {
        let socket = wire::socket(libc::AF_INET, SOCK_STREAM, 0)?;
        let outcome = call!(SYS_connect, &socket, address.pointer()?, 16)
            .and_then(|_| call!(SYS_write, &socket, MARK, MARK.len()));
        refused = refusal(outcome).or(refused);
    }
    address.stop()?;
    refused.map_or_else(sys::done, Err)
}

/// Of failures in a race only refusals count.
pub fn refusal<T>(outcome: Try<T>) -> Option<Fail> {
    outcome.err().filter(|fail| fail.errno == libc::EPERM)
}

//! UDP: every way to give a datagram its destination.

use nix::libc::{self, SOCK_DGRAM};

use super::ground::{self, DATAGRAM, Place, UDP_LITE};
use super::listener;
use super::tcp::refusal;
use super::wire::{self, Message};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::sys::{self, MARK, Try, call};

const UDP_SEGMENT: i32 = 103;
/// Rounds in which an address is changed while it is used.
const ROUNDS: usize = 2_000;

const fn v4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V4, DATAGRAM))
        .look(listener::look)
}

const fn v6(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V6, DATAGRAM))
        .look(listener::look)
}

const fn lite(mut attempt: Attempt, place: Place) -> Attempt {
    attempt.prepare = match place {
        Place::V6 => |field| ground::listen(field, Place::V6, UDP_LITE),
        _ => |field| ground::listen(field, Place::V4, UDP_LITE),
    };
    attempt.lacks(&[(libc::EPROTONOSUPPORT, "the kernel has no UDP-Lite")])
}

pub const ATTEMPTS: &[Attempt] = &[
    v4("net-udp-connect-v4", connect),
    v6("net-udp-connect-v6", connect),
    v4("net-udp-reconnect-v4", reconnect),
    v6("net-udp-reconnect-v6", reconnect),
    v4("net-udp-connect-over-v4", over),
    v6("net-udp-connect-over-v6", over),
    v4("net-udp-sendto-v4", send_to),
    v6("net-udp-sendto-v6", send_to),
    v4("net-udp-sendto-empty-v4", empty),
    v6("net-udp-sendto-empty-v6", empty),
    v4("net-udp-sendto-segments-v4", segments),
    v6("net-udp-sendto-segments-v6", segments),
    v4("net-udp-sendto-corked-v4", corked),
    v6("net-udp-sendto-corked-v6", corked),
    v4("net-udp-sendto-unspecified-v4", unspecified),
    v4("net-udp-sendto-v4-by-v6-socket", by_other_socket),
    v4("net-udp-connect-v4-by-v6-socket", connect_by_other_socket),
    v4("net-udp-sendmsg-v4", message),
    v6("net-udp-sendmsg-v6", message),
    v4("net-udp-sendmmsg-second-v4", second),
    v6("net-udp-sendmmsg-second-v6", second),
    v4("net-udp-sendmmsg-repeated-v4", repeated),
    v6("net-udp-sendmmsg-repeated-v6", repeated),
    v4("net-udp-connected-sendto-v4", connected_elsewhere),
    v6("net-udp-connected-sendto-v6", connected_elsewhere),
    v4("net-udp-connected-sendmmsg-v4", connected_many),
    v6("net-udp-connected-sendmmsg-v6", connected_many),
    v4("net-udp-connect-race-v4", connect_race),
    v4("net-udp-sendto-race-v4", send_race),
    v4("net-udp-sendmsg-race-v4", message_race),
    lite(v4("net-udplite-connect-v4", lite_connect), Place::V4),
    lite(v6("net-udplite-connect-v6", lite_connect), Place::V6),
    lite(v4("net-udplite-sendto-v4", lite_send), Place::V4),
    lite(v6("net-udplite-sendto-v6", lite_send), Place::V6),
];

fn connect(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    wire::connect(&socket, &to)?;
    sys::mark(&socket)
}

fn reconnect(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    wire::connect(&socket, &field.noted_bytes("friend"))?;
    sys::mark(&socket)?;
    wire::connect(&socket, &wire::unspecified())?;
    wire::connect(&socket, &to)?;
    sys::mark(&socket)
}

/// A connected socket connects elsewhere, without disconnecting in between.
fn over(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    wire::connect(&socket, &field.noted_bytes("friend"))?;
    wire::connect(&socket, &to)?;
    sys::mark(&socket)
}

fn send_to(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    wire::send_to(&wire::socket_to(&to, SOCK_DGRAM)?, &to, 0)
}

fn empty(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    wire::send_bytes_to(&wire::socket_to(&to, SOCK_DGRAM)?, &[], &to, 0)
}

/// One call that the kernel cuts into several datagrams.
fn segments(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    let length = MARK.len() as i32;
    wire::set_number(&socket, libc::IPPROTO_UDP, UDP_SEGMENT, length)?;
    wire::send_bytes_to(&socket, &MARK.repeat(4), &to, 0)
}

/// In two pieces: the second call, without an address, sends it.
fn corked(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    wire::send_to(&socket, &to, libc::MSG_MORE)?;
    wire::send_raw(wire::raw(&socket), 0)
}

/// UDP over IPv4 takes an address of no family for its own.
fn unspecified(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    wire::send_to(&socket, &wire::with_family(&to, libc::AF_UNSPEC), 0)
}

/// An IPv6 socket takes IPv4 addresses as they are.
fn by_other_socket(field: &Field) -> Try {
    let socket = wire::socket(libc::AF_INET6, SOCK_DGRAM, 0)?;
    wire::send_to(&socket, &field.noted_bytes("to"), 0)
}

fn connect_by_other_socket(field: &Field) -> Try {
    let socket = wire::socket(libc::AF_INET6, SOCK_DGRAM, 0)?;
    wire::connect(&socket, &field.noted_bytes("to"))?;
    sys::mark(&socket)
}

fn message(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    Message::to(&to).send(&wire::socket_to(&to, SOCK_DGRAM)?, 0)
}

/// Where it may and where it may not, in one call.
fn second(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    let messages = [Message::to(&field.noted_bytes("friend")), Message::to(&to)];
    many(wire::raw(&socket), &messages)
}

fn repeated(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    many(wire::raw(&socket), &[Message::to(&to), Message::to(&to)])
}

/// Sends them; if some were sent, the error of the next is told by sending it alone.
fn many(socket: i32, messages: &[Message]) -> Try {
    let sent = wire::send_many(socket, messages)? as usize;
    if let Some(rest) = messages.get(sent..).filter(|rest| !rest.is_empty()) {
        wire::send_many(socket, rest)?;
    }
    sys::done()
}

fn connected_elsewhere(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    wire::connect(&socket, &field.noted_bytes("friend"))?;
    sys::mark(&socket)?;
    Message::to(&to).send(&socket, 0)
}

/// Without an address, to where the socket is connected, and then elsewhere.
fn connected_many(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    wire::connect(&socket, &field.noted_bytes("friend"))?;
    many(wire::raw(&socket), &[Message::to(&[]), Message::to(&to)])
}

fn connect_race(field: &Field) -> Try {
    let address = super::race::Address::turning(field)?;
    let mut refused = None;
    for _ in 0..ROUNDS {
        let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
        let outcome = call!(SYS_connect, &socket, address.pointer()?, 16)
            .and_then(|_| call!(SYS_write, &socket, MARK, MARK.len()));
        refused = refusal(outcome).or(refused);
    }
    address.stop()?;
    refused.map_or_else(sys::done, Err)
}

fn send_race(field: &Field) -> Try {
    let address = super::race::Address::turning(field)?;
    let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
    let mut refused = None;
    for _ in 0..ROUNDS {
        let (to, length) = (address.pointer()?, MARK.len());
        let outcome = call!(SYS_sendto, &socket, MARK, length, 0, to, 16);
        refused = refusal(outcome).or(refused);
    }
    address.stop()?;
    refused.map_or_else(sys::done, Err)
}

/// Several messages in one call whose addresses are the same memory.
fn message_race(field: &Field) -> Try {
    let address = super::race::Address::turning(field)?;
    let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
    let iov = sys::iovec(MARK);
    let mut refused = None;
    for _ in 0..ROUNDS / 4 {
        let (to, data) = (address.pointer()?, iov.as_ptr() as u64);
        let vector = sys::words(&[to, 16, data, 1, 0, 0, 0, 0]).repeat(8);
        let outcome = call!(SYS_sendmmsg, &socket, &vector[..], 8, 0);
        refused = refusal(outcome).or(refused);
    }
    address.stop()?;
    refused.map_or_else(sys::done, Err)
}

fn lite_socket(to: &[u8]) -> Try<std::os::fd::OwnedFd> {
    wire::socket(wire::family(to), SOCK_DGRAM, libc::IPPROTO_UDPLITE)
}

fn lite_connect(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = lite_socket(&to)?;
    wire::connect(&socket, &to)?;
    sys::mark(&socket)
}

fn lite_send(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    wire::send_to(&lite_socket(&to)?, &to, 0)
}

//! Questions for names that no rule allows, by every way to ask, of every type: what is in
//! the name must not leave the host.

use std::os::fd::OwnedFd;

use anyhow::Result;
use nix::libc::{self, SOCK_DGRAM, SOCK_STREAM};
use serde_json::json;

use super::{
    Family, Ground, ask, ask_by_tcp, asking_socket, exchange, exchange_by_tcp, look, question,
    received, received_framed, told, wait_long,
};
use crate::attempt::{Attempt, write};
use crate::field::{Field, Side};
use crate::network::dns::{self, kind};
use crate::network::ground::{self, Place};
use crate::network::nameserver;
use crate::network::wire::{self, Message};
use crate::ring::{Entry, LACKS, op};
use crate::sys::{self, Fail, Try, call};

const UDP_SEGMENT: i32 = 103;

/// Why some kernels cannot send to an address by io_uring.
const NO_ADDRESS: &[(i32, &str)] = &[
    (libc::ENOSYS, "the kernel has no such io_uring operation"),
    (libc::EINVAL, "the kernel's io_uring sends to no address"),
    (
        libc::EDESTADDRREQ,
        "the kernel's io_uring sends to no address",
    ),
];

/// The name that is asked for: below one that is allowed, or below one that is not.
pub fn below(side: Side) -> &'static [&'static [u8]] {
    match side {
        Side::Allowed => &[b"@", b"ok", b"test"],
        Side::Denied => &[b"@", b"evil", b"test"],
    }
}

const fn v4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| Ground::asking(Family::V4, below(field.side)).lay(field))
        .look(look)
}

const fn v6(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| Ground::asking(Family::V6, below(field.side)).lay(field))
        .look(look)
}

pub const ATTEMPTS: &[Attempt] = &[
    v4("net-dns-ask-sendto-v4", ask),
    v6("net-dns-ask-sendto-v6", ask),
    v4("net-dns-ask-connected-v4", connected),
    v6("net-dns-ask-connected-v6", connected),
    v4("net-dns-ask-sendmsg-v4", message),
    v6("net-dns-ask-sendmsg-v6", message),
    v4("net-dns-ask-sendmmsg-v4", many),
    v6("net-dns-ask-sendmmsg-v6", many),
    v4("net-dns-ask-segments-v4", segments),
    v4("net-dns-ask-corked-v4", corked),
    v4("net-dns-ask-corked-again-v4", corked_again),
    v4("net-dns-ask-unspecified-v4", unspecified),
    v4("net-dns-ask-mapped-v6", mapped),
    v4("net-dns-ask-mapped-connected-v6", mapped_connected),
    v4("net-dns-ask-v4-by-v6-socket", by_other_socket),
    v4("net-dns-ask-reconnected-v4", reconnected),
    v4("net-dns-ask-tcp-v4", ask_by_tcp),
    v6("net-dns-ask-tcp-v6", ask_by_tcp),
    v4("net-dns-ask-tcp-mapped-v6", tcp_mapped),
    v4("net-dns-ask-tcp-fastopen-v4", fast_open),
    v6("net-dns-ask-tcp-fastopen-v6", fast_open),
    v4("net-dns-ask-tcp-twice-v4", tcp_twice),
    v6("net-dns-ask-tcp-twice-v6", tcp_twice),
    v4("net-dns-ask-tcp-second-v4", tcp_second),
    v4("net-dns-ask-tcp-bytes-v4", tcp_bytes),
    v4("net-dns-ask-uring-sendto-v4", uring_send).lacks(NO_ADDRESS),
    v6("net-dns-ask-uring-sendto-v6", uring_send).lacks(NO_ADDRESS),
    v4("net-dns-ask-uring-sendmsg-v4", uring_message).lacks(LACKS),
    v6("net-dns-ask-uring-sendmsg-v6", uring_message).lacks(LACKS),
    v4("net-dns-ask-uring-connect-v4", uring_connect).lacks(LACKS),
    v6("net-dns-ask-uring-connect-v6", uring_connect).lacks(LACKS),
    v4("net-dns-ask-aaaa", |field| typed(field, kind::AAAA)),
    v4("net-dns-ask-txt", |field| typed(field, kind::TXT)),
    v4("net-dns-ask-null", |field| typed(field, kind::NULL)),
    v4("net-dns-ask-cname", |field| typed(field, kind::CNAME)),
    v4("net-dns-ask-ptr", |field| typed(field, kind::PTR)),
    v4("net-dns-ask-https", |field| typed(field, kind::HTTPS)),
    v4("net-dns-ask-txt-tcp", |field| {
        let message = dns::query(&field.noted_bytes("name"), kind::TXT);
        told(&exchange_by_tcp(field, &message)?)
    }),
    // What is answered to nobody is asked by nobody but processes without a tag.
    v4("net-dns-ask-any", |field| typed(field, kind::ANY)).never(),
    v4("net-dns-ask-transfer-tcp", |field| {
        let message = dns::query(&field.noted_bytes("name"), kind::AXFR);
        told(&exchange_by_tcp(field, &message)?)
    })
    .never(),
    v4("net-dns-ask-listed-server-v4", ask).prepare(ask_listed),
    v4("net-dns-ask-unlisted-server-v4", ask).prepare(|field| ask_unlisted(field, Place::V4)),
    v6("net-dns-ask-unlisted-server-v6", ask).prepare(|field| ask_unlisted(field, Place::V6)),
    v4("net-dns-ask-unlisted-server-tcp-v4", ask_by_tcp)
        .prepare(|field| ask_unlisted(field, Place::V4)),
];

fn typed(field: &Field, kind: u16) -> Try {
    let message = dns::query(&field.noted_bytes("name"), kind);
    told(&exchange(field, &message)?)
}

fn server(field: &Field) -> Vec<u8> {
    field.noted_bytes("server")
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> Try {
    call!(SYS_write, socket, bytes, bytes.len())?;
    sys::done()
}

fn connected(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_DGRAM)?;
    wire::connect(&socket, &server(field))?;
    send(&socket, &question(field))?;
    told(&received(&socket)?)
}

fn message(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_DGRAM)?;
    Message::new(&server(field), &[&question(field)], &[]).send(&socket, 0)?;
    told(&received(&socket)?)
}

/// Several in one call: the second goes by the second line.
fn many(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_DGRAM)?;
    let one = || Message::new(&server(field), &[&question(field)], &[]);
    wire::send_many(wire::raw(&socket), &[one(), one()])?;
    told(&received(&socket)?)?;
    told(&received(&socket)?)
}

/// One call that the kernel cuts into two questions.
fn segments(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_DGRAM)?;
    let question = question(field);
    let length = question.len() as i32;
    wire::set_number(&socket, libc::IPPROTO_UDP, UDP_SEGMENT, length)?;
    wire::send_bytes_to(&socket, &question.repeat(2), &server(field), 0)?;
    told(&received(&socket)?)?;
    told(&received(&socket)?)
}

/// A datagram in two pieces.
fn corked(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_DGRAM)?;
    let question = question(field);
    let (head, rest) = question.split_at(dns::HEADER);
    wire::send_bytes_to(&socket, head, &server(field), libc::MSG_MORE)?;
    send(&socket, rest)?;
    told(&received(&socket)?)
}

fn corked_again(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_DGRAM)?;
    let question = question(field);
    let (head, rest) = question.split_at(dns::HEADER);
    wire::send_bytes_to(&socket, head, &server(field), libc::MSG_MORE)?;
    wire::send_bytes_to(&socket, rest, &server(field), 0)?;
    told(&received(&socket)?)
}

/// UDP over IPv4 takes an address of no family for its own.
fn unspecified(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_DGRAM)?;
    let to = wire::with_family(&server(field), libc::AF_UNSPEC);
    wire::send_bytes_to(&socket, &question(field), &to, 0)?;
    told(&received(&socket)?)
}

fn mapped(field: &Field) -> Try {
    let to = wire::mapped(&server(field));
    let socket = asking_socket(&to, SOCK_DGRAM)?;
    wire::send_bytes_to(&socket, &question(field), &to, 0)?;
    told(&received(&socket)?)
}

fn mapped_connected(field: &Field) -> Try {
    let to = wire::mapped(&server(field));
    let socket = asking_socket(&to, SOCK_DGRAM)?;
    wire::connect(&socket, &to)?;
    send(&socket, &question(field))?;
    told(&received(&socket)?)
}

fn by_other_socket(field: &Field) -> Try {
    let socket = wire::socket(libc::AF_INET6, SOCK_DGRAM, 0)?;
    wait_long(&socket)?;
    wire::send_bytes_to(&socket, &question(field), &server(field), 0)?;
    told(&received(&socket)?)
}

/// A socket that was connected elsewhere before.
fn reconnected(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_DGRAM)?;
    let elsewhere = ground::address(Place::V4, Side::Allowed);
    wire::connect(&socket, &wire::with_port(&elsewhere, 9))?;
    wire::connect(&socket, &server(field))?;
    send(&socket, &question(field))?;
    told(&received(&socket)?)
}

fn tcp_mapped(field: &Field) -> Try {
    let to = wire::mapped(&server(field));
    let socket = asking_socket(&to, SOCK_STREAM)?;
    wire::connect(&socket, &to)?;
    send(&socket, &dns::framed(&question(field)))?;
    told(&received_framed(&socket)?)
}

fn fast_open(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_STREAM)?;
    let framed = dns::framed(&question(field));
    wire::send_bytes_to(&socket, &framed, &server(field), wire::FAST_OPEN)?;
    told(&received_framed(&socket)?)
}

/// Connects again while it is connected, as programs do that do not wait for the first.
fn tcp_twice(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_STREAM)?;
    wire::connect(&socket, &server(field))?;
    match wire::connect(&socket, &server(field)) {
        Err(fail) if fail.errno != libc::EISCONN => return Err(fail),
        _ => {}
    }
    send(&socket, &dns::framed(&question(field)))?;
    told(&received_framed(&socket)?)
}

/// A name that is allowed, and then another, in one piece.
fn tcp_second(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_STREAM)?;
    wire::connect(&socket, &server(field))?;
    let first = dns::query(&dns::dotted("first.ok.test"), kind::A);
    let both = [dns::framed(&first), dns::framed(&question(field))].concat();
    send(&socket, &both)?;
    let mut bytes = Vec::new();
    // Both replies may come in one piece.
    loop {
        let first = 2 + usize::from(dns::number_at(&bytes, 0));
        if bytes.len() > first + 2 {
            return told(&bytes[first + 2..]);
        }
        let some = received(&socket)?;
        if some.is_empty() {
            return Err(Fail::new("the connection ends", libc::ECONNRESET));
        }
        bytes.extend(some);
    }
}

/// Byte by byte.
fn tcp_bytes(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_STREAM)?;
    wire::connect(&socket, &server(field))?;
    wire::set_number(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    for byte in dns::framed(&question(field)) {
        send(&socket, &[byte])?;
    }
    told(&received_framed(&socket)?)
}

fn uring_send(field: &Field) -> Try {
    let (to, question) = (server(field), question(field));
    let socket = asking_socket(&to, SOCK_DGRAM)?;
    let entry = Entry {
        code: op::SEND,
        fd: wire::raw(&socket),
        address: question.as_ptr() as u64,
        length: question.len() as u32,
        offset: to.as_ptr() as u64,
        second: to.len() as u32,
        ..Entry::default()
    };
    entry.alone("IORING_OP_SEND", 0)?;
    told(&received(&socket)?)
}

fn uring_message(field: &Field) -> Try {
    let socket = asking_socket(&server(field), SOCK_DGRAM)?;
    let message = Message::new(&server(field), &[&question(field)], &[]);
    let entry = Entry {
        code: op::SENDMSG,
        fd: wire::raw(&socket),
        address: message.header().as_ptr() as u64,
        length: 1,
        ..Entry::default()
    };
    entry.alone("IORING_OP_SENDMSG", 0)?;
    told(&received(&socket)?)
}

fn uring_connect(field: &Field) -> Try {
    let to = server(field);
    let socket = asking_socket(&to, SOCK_STREAM)?;
    let entry = Entry {
        code: op::CONNECT,
        fd: wire::raw(&socket),
        address: to.as_ptr() as u64,
        offset: to.len() as u64,
        ..Entry::default()
    };
    entry.alone("IORING_OP_CONNECT", 0)?;
    send(&socket, &dns::framed(&question(field)))?;
    told(&received_framed(&socket)?)
}

/// Asks a server that a rule allows: the resolver answers in its place, and asks the host's.
fn ask_listed(field: &Field) -> Result<()> {
    foreign(field, Place::V4, Side::Allowed, below(field.side))
}

/// Asks a server that no rule allows, for a name that is allowed.
fn ask_unlisted(field: &Field, place: Place) -> Result<()> {
    foreign(field, place, field.side, below(Side::Allowed))
}

/// A server that is none of the host's, at an address of this machine.
fn foreign(field: &Field, place: Place, side: Side, name: &[&[u8]]) -> Result<()> {
    const PORT: u16 = 53;
    let server = wire::with_port(&ground::address(place, side), PORT);
    let facts = json!({ "server": server });
    Ground::asking(Family::V4, name).lay_with(field, nameserver::fresh_label(), facts)
}

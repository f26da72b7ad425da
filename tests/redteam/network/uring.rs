//! io_uring: connecting and sending without a system call for each.

use nix::libc::{self, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM};

use super::ground::{self, DATAGRAM, Place, STREAM};
use super::listener;
use super::wire::{self, Message};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::ring::{ASYNC, Entry, FIXED_FILE, LACKS, Ring, SQPOLL, op};
use crate::sys::{self, Fail, MARK, Try};
use crate::victim::PROOF;

const NO_ADDRESS: &[(i32, &str)] = &[
    (libc::ENOSYS, "the kernel has no such io_uring operation"),
    (
        libc::EDESTADDRREQ,
        "the kernel's io_uring sends to no address",
    ),
    (libc::EINVAL, "the kernel's io_uring sends to no address"),
];

const fn tcp4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V4, STREAM))
        .look(listener::look)
        .lacks(LACKS)
}

const fn tcp6(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V6, STREAM))
        .look(listener::look)
        .lacks(LACKS)
}

const fn udp4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V4, DATAGRAM))
        .look(listener::look)
        .lacks(NO_ADDRESS)
}

const fn udp6(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V6, DATAGRAM))
        .look(listener::look)
        .lacks(NO_ADDRESS)
}

pub const ATTEMPTS: &[Attempt] = &[
    tcp4("net-uring-connect-v4", |field| connect(field, 0, 0)),
    tcp6("net-uring-connect-v6", |field| connect(field, 0, 0)),
    tcp4("net-uring-connect-async-v4", |field| {
        connect(field, 0, ASYNC)
    }),
    tcp6("net-uring-connect-async-v6", |field| {
        connect(field, 0, ASYNC)
    }),
    tcp4("net-uring-connect-sqpoll-v4", |field| {
        connect(field, SQPOLL, 0)
    }),
    tcp6("net-uring-connect-sqpoll-v6", |field| {
        connect(field, SQPOLL, 0)
    }),
    tcp4("net-uring-connect-fixed-v4", fixed),
    tcp4("net-uring-fastopen-v4", |field| fast_open(field, 0)),
    tcp6("net-uring-fastopen-v6", |field| fast_open(field, 0)),
    tcp4("net-uring-fastopen-async-v4", |field| {
        fast_open(field, ASYNC)
    }),
    udp4("net-uring-sendmsg-v4", |field| {
        message(field, op::SENDMSG, 0)
    }),
    udp6("net-uring-sendmsg-v6", |field| {
        message(field, op::SENDMSG, 0)
    }),
    udp4("net-uring-sendmsg-async-v4", |field| {
        message(field, op::SENDMSG, ASYNC)
    }),
    udp4("net-uring-sendto-v4", |field| send(field, op::SEND)),
    udp6("net-uring-sendto-v6", |field| send(field, op::SEND)),
    udp4("net-uring-sendto-zero-copy-v4", |field| {
        send(field, op::SEND_ZC)
    }),
    udp6("net-uring-sendto-zero-copy-v6", |field| {
        send(field, op::SEND_ZC)
    }),
    udp4("net-uring-sendmsg-zero-copy-v4", |field| {
        message(field, op::SENDMSG_ZC, 0)
    }),
    udp6("net-uring-sendmsg-zero-copy-v6", |field| {
        message(field, op::SENDMSG_ZC, 0)
    }),
    write("net-uring-socket-raw", |_| {
        socket(libc::AF_INET, SOCK_RAW, libc::IPPROTO_ICMP)
    })
    .lifted()
    .root_only(super::ROOT_ONLY)
    .lacks(LACKS),
    write("net-uring-socket-sctp", |_| {
        socket(libc::AF_INET, SOCK_STREAM, libc::IPPROTO_SCTP)
    })
    .lifted()
    .lacks(&[
        (libc::ENOSYS, "the kernel has no such io_uring operation"),
        (libc::EPROTONOSUPPORT, "the kernel has no SCTP"),
    ]),
];

/// One request in a ring of its own.
pub fn alone(entry: &Entry, name: &str) -> Try {
    entry.alone(name, 0)?;
    sys::done()
}

fn connecting(fd: i32, to: &[u8]) -> Entry {
    Entry {
        code: op::CONNECT,
        fd,
        address: to.as_ptr() as u64,
        offset: to.len() as u64,
        ..Entry::default()
    }
}

fn connect(field: &Field, setup: u32, flags: u8) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    let entry = Entry {
        flags,
        ..connecting(wire::raw(&socket), &to)
    };
    entry.alone("IORING_OP_CONNECT", setup)?;
    sys::mark(&socket)
}

fn fixed(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    let ring = Ring::new(0, op::CONNECT)?;
    ring.register(wire::raw(&socket))?;
    let entry = Entry {
        flags: FIXED_FILE,
        ..connecting(0, &to)
    };
    ring.run("IORING_OP_CONNECT", &entry)?;
    sys::mark(&socket)
}

fn fast_open(field: &Field, flags: u8) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    let message = Message::to(&to);
    let entry = Entry {
        code: op::SENDMSG,
        flags,
        fd: wire::raw(&socket),
        address: message.header().as_ptr() as u64,
        length: 1,
        operation_flags: wire::FAST_OPEN as u32,
        ..Entry::default()
    };
    match entry.alone("IORING_OP_SENDMSG", 0) {
        // What is on its way is not waited for.
        Err(Fail { errno, .. }) if errno == libc::EINPROGRESS => sys::done(),
        Err(fail) => Err(fail),
        Ok(_) => sys::done(),
    }
}

fn message(field: &Field, code: u8, flags: u8) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    let message = Message::to(&to);
    let entry = Entry {
        code,
        flags,
        fd: wire::raw(&socket),
        address: message.header().as_ptr() as u64,
        length: 1,
        ..Entry::default()
    };
    alone(&entry, "io_uring sendmsg")
}

/// The data and, as in `sendto`, the address.
fn send(field: &Field, code: u8) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    let entry = Entry {
        code,
        fd: wire::raw(&socket),
        address: MARK.as_ptr() as u64,
        length: MARK.len() as u32,
        offset: to.as_ptr() as u64,
        second: to.len() as u32,
        ..Entry::default()
    };
    alone(&entry, "io_uring send")
}

fn socket(family: i32, kind: i32, protocol: i32) -> Try {
    let entry = Entry {
        code: op::SOCKET,
        fd: family,
        offset: kind as u64,
        length: protocol as u32,
        ..Entry::default()
    };
    alone(&entry, "IORING_OP_SOCKET")?;
    Ok(PROOF.to_vec())
}

//! Sockets that somebody else connected: inherited, sent over a unix socket, taken from
//! another process.

use std::os::fd::OwnedFd;

use anyhow::Result;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc::{self, O_RDONLY, SOCK_STREAM};
use serde_json::json;

use super::ground::{self, DATAGRAM, Place, STREAM, Service};
use super::listener;
use super::wire::{self, Message};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::ring::{Entry, FIXED_FILE, LACKS, Ring, op};
use crate::stage::receive;
use crate::sys::{self, Child, Fail, MARK, Try, call};
use crate::victim;

const fn tcp4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V4, STREAM))
        .look(listener::look)
}

const fn tcp6(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V6, STREAM))
        .look(listener::look)
}

const fn udp4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V4, DATAGRAM))
        .look(listener::look)
}

const fn udp6(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| ground::listen(field, Place::V6, DATAGRAM))
        .look(listener::look)
}

pub const ATTEMPTS: &[Attempt] = &[
    tcp4("net-inherited-write-v4", |field| {
        sys::mark_raw(mine(field)?)
    })
    .inherits(stream),
    tcp6("net-inherited-write-v6", |field| {
        sys::mark_raw(mine(field)?)
    })
    .inherits(stream),
    tcp4("net-inherited-writev-v4", |field| {
        call!(SYS_writev, mine(field)?, &sys::iovec(MARK)[..], 1)?;
        sys::done()
    })
    .inherits(stream),
    tcp4("net-inherited-send-v4", |field| {
        wire::send_raw(mine(field)?, 0)
    })
    .inherits(stream),
    tcp4("net-inherited-send-out-of-band-v4", |field| {
        wire::send_raw(mine(field)?, libc::MSG_OOB)
    })
    .inherits(stream),
    tcp4("net-inherited-sendmsg-v4", sendmsg).inherits(stream),
    tcp6("net-inherited-sendmsg-v6", sendmsg).inherits(stream),
    tcp4("net-inherited-sendmmsg-v4", |field| {
        wire::send_many(mine(field)?, &[Message::to(&[]), Message::to(&[])])?;
        sys::done()
    })
    .inherits(stream),
    tcp4("net-inherited-sendfile-v4", sendfile).inherits(stream),
    tcp6("net-inherited-sendfile-v6", sendfile).inherits(stream),
    tcp4("net-inherited-splice-v4", splice).inherits(stream),
    tcp6("net-inherited-splice-v6", splice).inherits(stream),
    tcp4("net-inherited-vmsplice-v4", vmsplice).inherits(stream),
    tcp4("net-inherited-duplicate-v4", |field| {
        sys::mark(&sys::owned(call!(SYS_dup, mine(field)?)?))
    })
    .inherits(stream),
    tcp4("net-inherited-own-pidfd-v4", |field| {
        let me = sys::owned(call!(SYS_pidfd_open, std::process::id(), 0)?);
        let fd = call!(SYS_pidfd_getfd, &me, mine(field)?, 0)?;
        sys::mark(&sys::owned(fd))
    })
    .inherits(stream),
    tcp4("net-inherited-aio-v4", aio).inherits(stream),
    tcp4("net-inherited-standard-output-v4", after_exec).inherits(stream),
    tcp4("net-inherited-uring-send-v4", |field| {
        uring(field, op::SEND)
    })
    .inherits(stream)
    .lacks(LACKS),
    tcp4("net-inherited-uring-write-v4", |field| {
        uring(field, op::WRITE)
    })
    .inherits(stream)
    .lacks(LACKS),
    tcp4("net-inherited-uring-fixed-v4", |field| {
        let ring = Ring::new(0, op::WRITE)?;
        ring.register(mine(field)?)?;
        let entry = Entry {
            flags: FIXED_FILE,
            ..request(0, op::WRITE)
        };
        ring.run("IORING_OP_WRITE", &entry)?;
        sys::done()
    })
    .inherits(stream)
    .lacks(LACKS),
    tcp4("net-inherited-uring-splice-v4", uring_splice)
        .inherits(stream)
        .lacks(LACKS),
    udp4("net-inherited-datagram-write-v4", |field| {
        sys::mark_raw(mine(field)?)
    })
    .inherits(datagram),
    udp6("net-inherited-datagram-write-v6", |field| {
        sys::mark_raw(mine(field)?)
    })
    .inherits(datagram),
    udp6("net-inherited-datagram-unspecified-v6", |field| {
        // An address of no family is none for UDP over IPv6: it goes where it is connected.
        let none = wire::with_family(&[0; 28], libc::AF_UNSPEC);
        let fd = mine(field)?;
        call!(SYS_sendto, fd, MARK, MARK.len(), 0, &none[..], none.len())?;
        sys::done()
    })
    .inherits(datagram),
    udp4("net-inherited-datagram-sendmmsg-v4", |field| {
        wire::send_many(mine(field)?, &[Message::to(&[]), Message::to(&[])])?;
        sys::done()
    })
    .inherits(datagram),
    udp4("net-inherited-datagram-splice-v4", splice).inherits(datagram),
    tcp4("net-received-write-v4", |_| sys::mark(&receive()?)).receives(stream),
    tcp6("net-received-write-v6", |_| sys::mark(&receive()?)).receives(stream),
    tcp4("net-received-send-v4", |_| {
        wire::send_raw(wire::raw(&receive()?), 0)
    })
    .receives(stream),
    udp4("net-received-datagram-write-v4", |_| sys::mark(&receive()?)).receives(datagram),
    udp6("net-received-datagram-write-v6", |_| sys::mark(&receive()?)).receives(datagram),
    udp4("net-received-unconnected-sendto-v4", |field| {
        wire::send_to(&receive()?, &field.noted_bytes("to"), 0)
    })
    .receives(|_| Ok(wire::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?)),
    tcp4("net-received-unconnected-connect-v4", |field| {
        let socket = receive()?;
        wire::connect(&socket, &field.noted_bytes("to"))?;
        sys::mark(&socket)
    })
    .receives(|_| Ok(wire::socket(libc::AF_INET, SOCK_STREAM, 0)?)),
    tcp4("net-pidfd-getfd-v4", taken).prepare(|field| {
        ground::listen(field, Place::V4, STREAM)?;
        place(field)
    }),
    tcp6("net-pidfd-getfd-v6", taken).prepare(|field| {
        ground::listen(field, Place::V6, STREAM)?;
        place(field)
    }),
];

fn opened(field: &Field, service: Service) -> Result<OwnedFd> {
    ground::connected(field, service)
}

fn stream(field: &Field) -> Result<OwnedFd> {
    opened(field, STREAM)
}

fn datagram(field: &Field) -> Result<OwnedFd> {
    opened(field, DATAGRAM)
}

fn mine(field: &Field) -> Try<i32> {
    wire::need(field.inherited)
}

fn sendmsg(field: &Field) -> Try {
    let message = Message::to(&[]);
    call!(SYS_sendmsg, mine(field)?, message.header(), 0)?;
    sys::done()
}

/// A file of the agent's own with the mark.
fn marked(field: &Field) -> Try<OwnedFd> {
    let path = field.scratch("marked");
    std::fs::write(&path, MARK)?;
    sys::open(&path, O_RDONLY)
}

fn sendfile(field: &Field) -> Try {
    call!(SYS_sendfile, mine(field)?, &marked(field)?, 0, MARK.len())?;
    sys::done()
}

fn splice(field: &Field) -> Try {
    let (from, to) = sys::pipe()?;
    sys::mark(&to)?;
    call!(SYS_splice, &from, 0, mine(field)?, 0, MARK.len(), 0)?;
    sys::done()
}

fn vmsplice(field: &Field) -> Try {
    let (from, to) = sys::pipe()?;
    call!(SYS_vmsplice, &to, &sys::iovec(MARK)[..], 1, 0)?;
    call!(SYS_splice, &from, 0, mine(field)?, 0, MARK.len(), 0)?;
    sys::done()
}

/// The old asynchronous interface: `io_submit`.
fn aio(field: &Field) -> Try {
    const WRITE: u64 = 1;
    let mut context = [0; 8];
    call!(SYS_io_setup, 1, &mut context[..])?;
    let context = u64::from_ne_bytes(context);
    // The descriptor is the upper half of the third word.
    let third = WRITE | u64::from(mine(field)?.cast_unsigned()) << 32;
    let (address, length) = (MARK.as_ptr() as u64, MARK.len() as u64);
    let request = sys::words(&[0, 0, third, address, length, 0, 0, 0]);
    let requests = sys::words(&[request.as_ptr() as u64]);
    call!(SYS_io_submit, context, 1, &requests[..])?;
    let mut event = [0; 32];
    call!(SYS_io_getevents, context, 1, 1, &mut event[..], 0)?;
    let mut result = [0; 8];
    result.copy_from_slice(&event[16..24]);
    match i64::from_ne_bytes(result) {
        result if result < 0 => Err(Fail::new("IOCB_CMD_PWRITE", -result as i32)),
        _ => sys::done(),
    }
}

/// Another program gets the socket as its standard output.
fn after_exec(field: &Field) -> Try {
    let fd = mine(field)?;
    let copy = sys::owned(call!(SYS_dup, fd)?);
    let text = String::from_utf8_lossy(MARK).into_owned();
    let output = std::process::Command::new("printf")
        .arg(text.trim_end())
        .stdout(copy)
        .output()?;
    if output.status.success() {
        return sys::done();
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let errno = match said.contains("Operation not permitted") {
        true => libc::EPERM,
        false => 0,
    };
    Err(Fail::new(format!("printf: {}", said.trim()), errno))
}

fn request(fd: i32, code: u8) -> Entry {
    Entry {
        code,
        fd,
        address: MARK.as_ptr() as u64,
        length: MARK.len() as u32,
        ..Entry::default()
    }
}

fn uring(field: &Field, code: u8) -> Try {
    super::uring::alone(&request(mine(field)?, code), "io_uring send or write")
}

fn uring_splice(field: &Field) -> Try {
    let (from, to) = sys::pipe()?;
    sys::mark(&to)?;
    let entry = Entry {
        code: op::SPLICE,
        fd: mine(field)?,
        offset: u64::MAX,
        address: u64::MAX,
        length: MARK.len() as u32,
        second: wire::raw(&from).cast_unsigned(),
        ..Entry::default()
    };
    super::uring::alone(&entry, "IORING_OP_SPLICE")
}

/// For the denied side an untagged process that has a connected socket.
fn place(field: &Field) -> Result<()> {
    if field.is_control() {
        return Ok(());
    }
    let socket = ground::connected(field, STREAM)?;
    let (to, friend) = (field.noted_bytes("to"), field.noted_bytes("friend"));
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
    victim::place(field, O_RDONLY)?;
    let more = json!({ "pid": field.noted("pid"), "socket": wire::raw(&socket) });
    ground::note(field, &to, &friend, more)
}

/// Its socket; for the control that of a child.
fn taken(field: &Field) -> Try {
    let (pid, fd) = if field.is_control() {
        let (child, fd) = child(field)?;
        (child.pid as u64, fd)
    } else {
        (field.noted("pid"), field.noted("socket"))
    };
    let process = sys::owned(call!(SYS_pidfd_open, pid, 0)?);
    sys::mark(&sys::owned(call!(SYS_pidfd_getfd, &process, fd, 0)?))
}

/// A child that connects a socket, tells its number and stays.
fn child(field: &Field) -> Try<(Child, u64)> {
    let (from, to) = sys::pipe()?;
    let child = sys::fork(|| {
        let address = field.noted_bytes("to");
        let socket = wire::socket_to(&address, SOCK_STREAM)?;
        wire::connect(&socket, &address)?;
        let number = wire::raw(&socket).to_ne_bytes();
        call!(SYS_write, &to, &number[..], number.len())?;
        // The executor ends it with the attempt.
        call!(SYS_pause)?;
        sys::done()
    })?;
    drop(to);
    match sys::read(&from)?[..] {
        [a, b, c, d] => Ok((child, u64::from(u32::from_ne_bytes([a, b, c, d])))),
        _ => Err(Fail::new("the control's child tells no socket", 0)),
    }
}

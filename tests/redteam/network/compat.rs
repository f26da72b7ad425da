//! The other system call tables: 32 bits by `int 0x80`, and x32.

use nix::libc::{self, SOCK_DGRAM, SOCK_STREAM};

use super::ground::{self, DATAGRAM, Place, STREAM};
use super::listener;
use super::wire;
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::files::compat::{Low, x32};
use crate::sys::{self, MARK, Try};
use crate::victim::PROOF;

/// Numbers of the 32-bit table.
mod i386 {
    pub const SOCKETCALL: u32 = 102;
    pub const CONNECT: u32 = 362;
    pub const SENDMSG: u32 = 370;
    pub const SENDMMSG: u32 = 345;
    pub const SOCKET: u32 = 359;
}

/// What `socketcall` does.
mod multiplexed {
    pub const SOCKET: u32 = 1;
    pub const CONNECT: u32 = 3;
    pub const SENDTO: u32 = 11;
    pub const SENDMSG: u32 = 16;
}

/// Numbers that the x32 table has of its own.
mod x32_table {
    pub const SENDMSG: i64 = 518;
    pub const SENDMMSG: i64 = 538;
}

const LACKS: &[(i32, &str)] = &[(libc::ENOSYS, "the kernel does not offer this table")];

const fn tcp(id: &'static str, place: Place, attack: fn(&Field) -> Try) -> Attempt {
    let attempt = write(id, attack).look(listener::look).lacks(LACKS);
    match place {
        Place::V6 => attempt.prepare(|field| ground::listen(field, Place::V6, STREAM)),
        _ => attempt.prepare(|field| ground::listen(field, Place::V4, STREAM)),
    }
}

const fn udp(id: &'static str, place: Place, attack: fn(&Field) -> Try) -> Attempt {
    let attempt = write(id, attack).look(listener::look).lacks(LACKS);
    match place {
        Place::V6 => attempt.prepare(|field| ground::listen(field, Place::V6, DATAGRAM)),
        _ => attempt.prepare(|field| ground::listen(field, Place::V4, DATAGRAM)),
    }
}

pub const ATTEMPTS: &[Attempt] = &[
    tcp(
        "net-int80-socketcall-connect-v4",
        Place::V4,
        multiplexed_connect,
    ),
    tcp(
        "net-int80-socketcall-connect-v6",
        Place::V6,
        multiplexed_connect,
    ),
    udp(
        "net-int80-socketcall-sendto-v4",
        Place::V4,
        multiplexed_send,
    ),
    udp(
        "net-int80-socketcall-sendto-v6",
        Place::V6,
        multiplexed_send,
    ),
    udp("net-int80-socketcall-sendmsg-v4", Place::V4, |field| {
        let (socket, low, header) = message(field)?;
        let fd = wire::raw(&socket).cast_unsigned();
        let arguments = low.bytes(0, &sys::halves(&[fd, header, 0]));
        multiplexed(&low, multiplexed::SENDMSG, arguments)
    }),
    tcp("net-int80-socketcall-fastopen-v4", Place::V4, |field| {
        sent(field, SOCK_STREAM, wire::FAST_OPEN)
    }),
    tcp("net-int80-connect-v4", Place::V4, |field| {
        let to = field.noted_bytes("to");
        let socket = wire::socket_to(&to, SOCK_STREAM)?;
        let low = Low::new()?;
        let address = low.bytes(0, &to);
        let fd = wire::raw(&socket).cast_unsigned();
        low.call(
            "connect",
            i386::CONNECT,
            [fd, address, to.len() as u32, 0, 0],
        )?;
        sys::mark(&socket)
    }),
    udp("net-int80-sendmsg-v4", Place::V4, |field| {
        let (socket, low, header) = message(field)?;
        let fd = wire::raw(&socket).cast_unsigned();
        low.call("sendmsg", i386::SENDMSG, [fd, header, 0, 0, 0])?;
        sys::done()
    }),
    udp("net-int80-sendmmsg-v4", Place::V4, |field| {
        let (socket, low, header) = message(field)?;
        let fd = wire::raw(&socket).cast_unsigned();
        low.call("sendmmsg", i386::SENDMMSG, [fd, header, 1, 0, 0])?;
        sys::done()
    }),
    write("net-int80-socket-alg", |_| {
        let kind = libc::SOCK_SEQPACKET as u32;
        Low::new()?.call("socket", i386::SOCKET, [libc::AF_ALG as u32, kind, 0, 0, 0])?;
        Ok(PROOF.to_vec())
    })
    .lifted()
    .lacks(LACKS),
    write("net-int80-socketcall-socket-alg", |_| {
        let low = Low::new()?;
        let kind = libc::SOCK_SEQPACKET as u32;
        let arguments = low.bytes(0, &sys::halves(&[libc::AF_ALG as u32, kind, 0]));
        multiplexed(&low, multiplexed::SOCKET, arguments)?;
        Ok(PROOF.to_vec())
    })
    .lifted()
    .lacks(LACKS),
    tcp("net-x32-connect-v4", Place::V4, |field| {
        let to = field.noted_bytes("to");
        let socket = wire::socket_to(&to, SOCK_STREAM)?;
        let mut arguments = [(&socket).into(), (&to[..]).into(), to.len().into()];
        x32("connect", libc::SYS_connect, &mut arguments)?;
        sys::mark(&socket)
    }),
    udp("net-x32-sendto-v4", Place::V4, |field| {
        let to = field.noted_bytes("to");
        let socket = wire::socket_to(&to, SOCK_DGRAM)?;
        let mut arguments = [
            (&socket).into(),
            MARK.into(),
            MARK.len().into(),
            0.into(),
            (&to[..]).into(),
            to.len().into(),
        ];
        x32("sendto", libc::SYS_sendto, &mut arguments)?;
        sys::done()
    }),
    udp("net-x32-sendmsg-v4", Place::V4, |field| {
        let (socket, _low, header) = message(field)?;
        let mut arguments = [(&socket).into(), header.into(), 0.into()];
        x32("sendmsg", x32_table::SENDMSG, &mut arguments)?;
        sys::done()
    }),
    udp("net-x32-sendmmsg-v4", Place::V4, |field| {
        let (socket, _low, header) = message(field)?;
        let mut arguments = [(&socket).into(), header.into(), 1.into(), 0.into()];
        x32("sendmmsg", x32_table::SENDMMSG, &mut arguments)?;
        sys::done()
    }),
];

fn multiplexed(low: &Low, what: u32, arguments: u32) -> Try {
    low.call("socketcall", i386::SOCKETCALL, [what, arguments, 0, 0, 0])?;
    sys::done()
}

fn multiplexed_connect(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    let low = Low::new()?;
    let fd = wire::raw(&socket).cast_unsigned();
    let address = low.bytes(1, &to);
    let arguments = low.bytes(0, &sys::halves(&[fd, address, to.len() as u32]));
    multiplexed(&low, multiplexed::CONNECT, arguments)?;
    sys::mark(&socket)
}

fn multiplexed_send(field: &Field) -> Try {
    sent(field, SOCK_DGRAM, 0)
}

fn sent(field: &Field, kind: i32, flags: i32) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, kind)?;
    let low = Low::new()?;
    let words = [
        wire::raw(&socket).cast_unsigned(),
        low.bytes(1, MARK),
        MARK.len() as u32,
        flags.cast_unsigned(),
        low.bytes(2, &to),
        to.len() as u32,
    ];
    let arguments = low.bytes(0, &sys::halves(&words));
    multiplexed(&low, multiplexed::SENDTO, arguments)
}

/// A socket, and where the header of a message of 32 bits is, which is one of several too.
fn message(field: &Field) -> Try<(std::os::fd::OwnedFd, Low, u32)> {
    // Within a slot: the data, the vector, the header.
    const DATA: usize = 256;
    const VECTOR: usize = 512;
    let to = field.noted_bytes("to");
    let socket = wire::socket_to(&to, SOCK_DGRAM)?;
    let low = Low::new()?;
    let base = low.bytes(1, &[]);
    let mut bytes = to.clone();
    bytes.resize(DATA, 0);
    bytes.extend(MARK);
    bytes.resize(VECTOR, 0);
    bytes.extend(sys::halves(&[base + DATA as u32, MARK.len() as u32]));
    low.bytes(1, &bytes);
    let vector = base + VECTOR as u32;
    let header = low.bytes(
        2,
        &sys::halves(&[base, to.len() as u32, vector, 1, 0, 0, 0, 0]),
    );
    Ok((socket, low, header))
}

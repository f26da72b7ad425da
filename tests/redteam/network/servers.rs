//! Servers that share an address: it is open because a name that is allowed leads there, and
//! attempts have what they send name another server that is there as well.
//!
//! Each field has a listener at an address of its own, to which an allowed name leads on both
//! sides. What differs is the server that is named: connecting is no effect, and what counts
//! is that the name of the server arrives, or what follows it.

mod cut;
mod hello;
mod hellos;
mod requests;
mod sending;
mod unread;

use std::os::fd::OwnedFd;

use anyhow::Result;
use nix::libc::{self, SOCK_STREAM};
use serde_json::json;

use super::listener::{self, Listener};
use super::names::{self, Family, Ground};
use super::nameserver::{self, Needle};
use super::{dns, wire};
use crate::attempt::Attempt;
use crate::field::{Field, Side};
use crate::sys::{self, Child, Fail, MARK, Try, call};

const TCP_FASTOPEN: i32 = 23;
/// Milliseconds between two looks at whether something has arrived, and how many.
const LOOK_MILLISECONDS: i32 = 20;
const LOOKS: usize = 200;

/// Every attempt.
pub fn all() -> Vec<Attempt> {
    [
        hellos::ATTEMPTS,
        requests::ATTEMPTS,
        sending::ATTEMPTS,
        cut::ATTEMPTS,
        unread::ATTEMPTS,
    ]
    .concat()
}

/// What shows that a server was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    /// Its name, or the mark behind it.
    Name,
    /// The mark behind a request: what was sent before the end of a name may have arrived.
    Mark,
}

/// A listener to which an allowed name leads.
fn lay(field: &Field, family: Family, counts: Counts) -> Result<()> {
    let address = names::fresh(family)?;
    let socket = wire::socket_to(&address, SOCK_STREAM)?;
    wire::set_number(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN, 16)?;
    wire::bind(&socket, &address)?;
    call!(SYS_listen, &socket, 16)?;
    let to = wire::name(&socket)?;
    let label = nameserver::fresh_label();
    let below = |zone: &[u8]| [&label[..], b".", zone].concat();
    let said = match field.side {
        Side::Allowed => below(b"ok.test"),
        Side::Denied => below(b"evil.test"),
    };
    let mut listener = Listener::new(socket, true)?;
    listener.wants = match counts {
        Counts::Name => vec![said.clone(), MARK.to_vec()],
        Counts::Mark => vec![MARK.to_vec()],
    };
    listener::keep(field.work.clone(), listener)?;
    let facts = json!({ "said": said, "allowed": below(b"ok.test") });
    leading(family, to).lay_with(field, label, facts)
}

/// The name that leads to an address, whatever the side.
fn leading(family: Family, to: Vec<u8>) -> Ground<'static> {
    Ground {
        needle: Needle::Flags(0),
        script: |asked, given| {
            let record = dns::address(&dns::ASKED, dns::TTL, given.to());
            vec![asked.reply().answer(record).into()]
        },
        to,
        ..Ground::asking(family, &[b"@", b"ok", b"test"])
    }
}

/// The server that the attempt names.
fn said(field: &Field) -> Vec<u8> {
    field.noted_bytes("said")
}

/// One that is allowed on both sides: its name led there.
fn allowed(field: &Field) -> Vec<u8> {
    field.noted_bytes("allowed")
}

/// Asks for the allowed name, so that its address is open.
fn ask(field: &Field) -> Try {
    names::told(&names::exchange(field, &names::question(field))?)
}

/// A socket that sends each write as it comes.
fn prompt(to: &[u8]) -> Try<OwnedFd> {
    let socket = wire::socket_to(to, SOCK_STREAM)?;
    wire::set_number(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    Ok(socket)
}

/// Asks, and connects to where the answer leads.
fn connected(field: &Field) -> Try<OwnedFd> {
    ask(field)?;
    let to = field.noted_bytes("to");
    let socket = prompt(&to)?;
    wire::connect(&socket, &to)?;
    Ok(socket)
}

/// Writes all of it.
fn tell(socket: &OwnedFd, bytes: &[u8]) -> Try {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = call!(SYS_write, socket, rest, rest.len())?;
        rest = &rest[written as usize..];
    }
    sys::done()
}

/// Waits for a child, and fails as it did.
fn ended(child: &Child) -> Try {
    match child.wait()? >> 8 {
        0 => sys::done(),
        errno => Err(Fail::new("in a child", errno)),
    }
}

/// Writes this on a new connection, and the mark behind it.
fn say(field: &Field, bytes: &[u8]) -> Try {
    say_on(&connected(field)?, bytes)
}

/// The same on a connection that there is.
fn say_on(socket: &OwnedFd, bytes: &[u8]) -> Try {
    tell(socket, bytes)?;
    sys::mark(socket)?;
    arrived(socket)
}

/// Waits until the other end has everything. What is cut never arrives, and the socket says so.
fn arrived(socket: &OwnedFd) -> Try {
    const SYN_SENT: u8 = 2;
    for _ in 0..LOOKS {
        let failed = wire::number(socket, libc::SOL_SOCKET, libc::SO_ERROR)?;
        if failed != 0 {
            return Err(Fail::new("the connection", failed));
        }
        let state = wire::tcp_info(socket)?[0];
        if state != SYN_SENT && waiting(socket)? == 0 {
            return sys::done();
        }
        // Errors are told without being asked for.
        let mut wanted = sys::halves(&[wire::raw(socket).cast_unsigned(), 0]);
        call!(SYS_poll, &mut wanted[..], 1, LOOK_MILLISECONDS)?;
    }
    Err(Fail::new("what was sent does not arrive", libc::ETIMEDOUT))
}

/// Bytes that were sent and not acknowledged.
fn waiting(socket: &OwnedFd) -> Try<i32> {
    let mut room = [0; 4];
    call!(SYS_ioctl, socket, libc::TIOCOUTQ, &mut room[..])?;
    Ok(i32::from_ne_bytes(room))
}

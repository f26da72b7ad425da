//! Unix sockets: whom they reach. A socket is known by the name that it was bound to, not by
//! the path that somebody took to it.

use agentguard_common::identity::Tag;
use agentguard_common::verb::Verb;
use agentguard_common::verdict::Reason;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::kernel::{Argument, Sock, Socket, Task};
use crate::{enforce, socket};

/// `int unix_stream_connect(struct sock *sock, struct sock *other, struct sock *newsk)`
#[lsm(hook = "unix_stream_connect")]
pub fn unix_stream_connect(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(3);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    reaches(tag, Sock::from_argument(ctx.arg(1)), true)
}

/// `int unix_may_send(struct socket *sock, struct socket *other)`: connecting datagram
/// sockets, and each datagram.
#[lsm(hook = "unix_may_send")]
pub fn unix_may_send(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let made_here = match Socket::from_argument(ctx.arg(0)).sock() {
        Some(sock) => socket::own(tag, socket::of(sock)).is_some(),
        None => true,
    };
    match Socket::from_argument(ctx.arg(1)).sock() {
        Some(other) => reaches(tag, other, made_here),
        None => enforce::net::unreadable(tag, Verb::Connect),
    }
}

/// Decides about the receipt of a descriptor of a connected unix socket, as about connecting
/// to its peer.
#[inline(always)]
pub fn received(tag: &Tag, sock: Sock) -> i32 {
    match sock.unix().and_then(|unix| unix.peer()) {
        Some(peer) => reaches(tag, peer, true),
        None => 0,
    }
}

/// Decides whether a unix socket may be talked to. `of_the_run`: by a socket that the run made
/// or wants to receive; those that it was started with may be connected to what has no name.
#[inline(always)]
fn reaches(tag: &Tag, other: Sock, of_the_run: bool) -> i32 {
    if socket::own(tag, socket::of(other)).is_some() {
        return enforce::net::alive(tag, other);
    }
    let Some(unix) = other.unix() else {
        return enforce::net::unreadable(tag, Verb::Connect);
    };
    let dentry = unix.dentry();
    if !dentry.is_none() {
        return enforce::net::socket_file(tag, dentry);
    }
    match unix.abstract_name() {
        Some(name) => enforce::net::abstract_name(tag, Verb::Connect, name),
        None if of_the_run => {
            enforce::refused_as(tag, Task::current().program().dentry(), Verb::Connect, Reason::OutsideRun)
        }
        None => enforce::net::alive(tag, other),
    }
}

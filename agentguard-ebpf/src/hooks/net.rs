//! Network: what is sent to IPv4 and IPv6 addresses.

use agentguard_common::verb::Verb;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::address::{self, Destination, Given};
use crate::enforce;
use crate::kernel::{Argument, Message, Sock, Socket};
use crate::socket;

/// `IPPROTO_TCP`
const TCP: u16 = 6;

/// `int socket_connect(struct socket *sock, struct sockaddr *address, int addrlen)`
#[lsm(hook = "socket_connect")]
pub fn socket_connect(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(3);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let Some(sock) = Socket::from_argument(ctx.arg(0)).sock() else {
        return enforce::net::unreadable(tag, Verb::Connect);
    };
    let (family, protocol) = (sock.family(), sock.protocol());
    if family == address::UNIX {
        return 0;
    }
    let name: *const core::ffi::c_void = ctx.arg(1);
    match address::read(name as u64, protocol) {
        Given::Destination(to) => {
            enforce::net::connect(tag, &to, socket::own(tag, socket::of(sock)), false)
        }
        // Disconnecting sends nothing.
        Given::Unspecified => 0,
        Given::Other => enforce::net::raw(tag, &Destination::nowhere(family, protocol)),
        Given::Unreadable => enforce::net::unreadable(tag, Verb::Connect),
    }
}

/// `int socket_sendmsg(struct socket *sock, struct msghdr *msg, int size)`: data, with a
/// destination (which is also how TCP fast open connects) or without.
#[lsm(hook = "socket_sendmsg")]
pub fn socket_sendmsg(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(3);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let Some(sock) = Socket::from_argument(ctx.arg(0)).sock() else {
        return enforce::net::unreadable(tag, Verb::Connect);
    };
    match sock.family() {
        address::INET | address::INET6 => {}
        // `unix_may_send` and `netlink_send` see what these send.
        address::UNIX | address::NETLINK => return enforce::net::alive(tag, sock),
        family => {
            return enforce::net::raw(tag, &Destination::nowhere(family, sock.protocol()));
        }
    }
    let name = Message::from_argument(ctx.arg(1)).name();
    let own = socket::own(tag, socket::of(sock));
    if name == 0 {
        return enforce::net::through(tag, sock, own);
    }
    let protocol = sock.protocol();
    // A connection goes to its peer, whatever name comes with the data.
    if protocol == TCP {
        let refused = enforce::net::through(tag, sock, own);
        if refused != 0 {
            return refused;
        }
    }
    let given = match address::read(name, protocol) {
        // UDP takes an unspecified family for no name over IPv6, for its own over IPv4.
        Given::Unspecified if sock.family() == address::INET6 => {
            return enforce::net::through(tag, sock, own);
        }
        Given::Unspecified => address::read_as_v4(name, protocol),
        given => given,
    };
    match given {
        Given::Destination(to) => enforce::net::connect(tag, &to, own, true),
        Given::Unspecified | Given::Other => {
            enforce::net::raw(tag, &Destination::nowhere(sock.family(), protocol))
        }
        Given::Unreadable => enforce::net::unreadable(tag, Verb::Connect),
    }
}

/// `int socket_recvmsg(struct socket *sock, struct msghdr *msg, int size, int flags)`
#[lsm(hook = "socket_recvmsg")]
pub fn socket_recvmsg(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(4);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let Some(sock) = Socket::from_argument(ctx.arg(0)).sock() else {
        return enforce::net::unreadable(tag, Verb::Connect);
    };
    match socket::own(tag, socket::of(sock)) {
        // Nothing will come: what it asks did not leave.
        Some(own) if socket::is_cut(own) => enforce::net::cut(tag, sock),
        _ => enforce::net::alive(tag, sock),
    }
}

/// What goes through a descriptor of a socket where the kernel has no hook for that: before
/// 6.5, `sendfile` and `splice` do not ask `socket_sendmsg`.
#[inline(always)]
pub fn through_descriptor(tag: &agentguard_common::identity::Tag, sock: Sock) -> i32 {
    match sock.family() {
        address::INET | address::INET6 => {
            enforce::net::through(tag, sock, socket::own(tag, socket::of(sock)))
        }
        _ => 0,
    }
}

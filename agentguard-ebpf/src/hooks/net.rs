//! Network: connections and datagrams to IPv4 and IPv6 addresses.

use agentguard_common::verb::Verb;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::address::{self, Given};
use crate::enforce;
use crate::kernel::{Argument, Message, Socket};

/// `int socket_connect(struct socket *sock, struct sockaddr *address, int addrlen)`
#[lsm(hook = "socket_connect")]
pub fn socket_connect(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(3);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let Some(sock) = Socket::from_argument(ctx.arg(0)).sock() else {
        return enforce::net_unreadable(tag);
    };
    let address: *const core::ffi::c_void = ctx.arg(1);
    match address::read(address as u64, sock.protocol()) {
        Given::Destination(to) => enforce::net(tag, Verb::Connect, &to),
        // Disconnecting sends nothing.
        Given::Unspecified | Given::Other => 0,
        Given::Unreadable => enforce::net_unreadable(tag),
    }
}

/// `int socket_sendmsg(struct socket *sock, struct msghdr *msg, int size)`:
/// a destination given with the data, which is also how TCP fast open connects.
#[lsm(hook = "socket_sendmsg")]
pub fn socket_sendmsg(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(3);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let Some(sock) = Socket::from_argument(ctx.arg(0)).sock() else {
        return enforce::net_unreadable(tag);
    };
    let family = sock.family();
    let name = Message::from_argument(ctx.arg(1)).name();
    if name == 0 || (family != address::INET && family != address::INET6) {
        return 0;
    }
    let protocol = sock.protocol();
    let given = match address::read(name, protocol) {
        // UDP over IPv4 takes an unspecified family for its own.
        Given::Unspecified => address::read_as_v4(name, protocol),
        given => given,
    };
    match given {
        Given::Destination(to) => enforce::net(tag, Verb::Connect, &to),
        Given::Unspecified | Given::Other => 0,
        Given::Unreadable => enforce::net_unreadable(tag),
    }
}

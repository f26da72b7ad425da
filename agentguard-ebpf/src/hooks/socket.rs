//! Sockets: which are made, what is set on them, where they can be reached, and what netlink
//! is told.

use agentguard_common::counter::Counter;
use agentguard_common::net::Transport;
use agentguard_common::socket::{self as kinds, socket_flag};
use agentguard_common::verb::Verb;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::address::{self, Destination, Given};
use crate::kernel::{self, Argument, Packet, Sock, Socket};
use crate::{emit, enforce, flow, socket, verifier};

const ENOMEM: i32 = 12;
const SOCK_STREAM: u16 = 1;

/// `int socket_create(int family, int type, int protocol, int kern)`
#[lsm(hook = "socket_create")]
pub fn socket_create(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(4);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let (family, kind, protocol, by_kernel): (i32, i32, i32, i32) =
        (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    if by_kernel != 0 || kinds::is_ordinary(family as u16, kind as u32, protocol as u32) {
        return 0;
    }
    enforce::net::raw(tag, &Destination::nowhere(family as u16, protocol as u16))
}

/// `int socket_post_create(struct socket *sock, int family, int type, int protocol, int kern)`
#[lsm(hook = "socket_post_create")]
pub fn socket_post_create(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(5);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let by_kernel: i32 = ctx.arg(4);
    if by_kernel != 0 {
        return 0;
    }
    if let Some(sock) = Socket::from_argument(ctx.arg(0)).sock()
        && socket::make(tag, socket::of(sock), 0)
    {
        return 0;
    }
    // Without its record the second line would not know it.
    emit::count(Counter::SocketUntagged);
    -ENOMEM
}

/// `int socket_setsockopt(struct socket *sock, int level, int optname)`
#[lsm(hook = "socket_setsockopt")]
pub fn socket_setsockopt(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(3);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let (level, option): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if !kinds::leads_elsewhere(level as u32, option as u32) {
        return 0;
    }
    match Socket::from_argument(ctx.arg(0)).sock() {
        // Of unix and netlink sockets none of these does anything.
        Some(sock) if matches!(sock.family(), address::UNIX | address::NETLINK) => 0,
        Some(sock) => {
            enforce::net::raw(tag, &Destination::nowhere(sock.family(), sock.protocol()))
        }
        None => enforce::net::unreadable(tag, Verb::Connect),
    }
}

/// `int socket_bind(struct socket *sock, struct sockaddr *address, int addrlen)`
#[lsm(hook = "socket_bind")]
pub fn socket_bind(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(3);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let Some(sock) = Socket::from_argument(ctx.arg(0)).sock() else {
        return enforce::net::unreadable(tag, Verb::Listen);
    };
    let name: *const core::ffi::c_void = ctx.arg(1);
    let len: i32 = ctx.arg(2);
    match sock.family() {
        address::INET | address::INET6 => {}
        // Paths are made: `path_mknod`.
        address::UNIX => {
            let name = verifier::number(name as u64);
            return match kernel::abstract_name(name, len as u32) {
                Some(name) => enforce::net::abstract_name(tag, Verb::Listen, name),
                None => 0,
            };
        }
        // Of others only who has the privilege has one, or netlink, which chooses a number.
        _ => return 0,
    }
    let given = match address::read(name as u64, sock.protocol()) {
        // IPv4 takes an unspecified family for its own.
        Given::Unspecified => address::read_as_v4(name as u64, sock.protocol()),
        given => given,
    };
    match given {
        // It only chooses the address to send from.
        Given::Destination(at) if at.port == 0 => 0,
        Given::Destination(at) => enforce::net::listen(tag, &at, None),
        Given::Unspecified | Given::Other => 0,
        Given::Unreadable => enforce::net::unreadable(tag, Verb::Listen),
    }
}

/// `int socket_listen(struct socket *sock, int backlog)`
#[lsm(hook = "socket_listen")]
pub fn socket_listen(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    match Socket::from_argument(ctx.arg(0)).sock() {
        Some(sock) => opens(tag, sock),
        None => enforce::net::unreadable(tag, Verb::Listen),
    }
}

/// `int socket_accept(struct socket *sock, struct socket *newsock)`: as listening there, which
/// may have been decided under another policy, or not at all.
#[lsm(hook = "socket_accept")]
pub fn socket_accept(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let Some(sock) = Socket::from_argument(ctx.arg(0)).sock() else {
        return enforce::net::unreadable(tag, Verb::Listen);
    };
    opens(tag, sock)
}

/// `void sock_graft(struct sock *sk, struct socket *parent)`: a connection is accepted. It is
/// the run's from here on, also when the listening socket is not.
#[lsm(hook = "sock_graft")]
pub fn sock_graft(ctx: LsmContext) -> i32 {
    let Some(tag) = enforce::tagged(0) else {
        return 0;
    };
    let sock = Sock::from_argument(ctx.arg(0));
    let inet = matches!(sock.family(), address::INET | address::INET6);
    if !inet {
        return 0;
    }
    if !socket::make(tag, socket::of(sock), socket_flag::INBOUND) {
        // It is then decided at each use.
        emit::count(Counter::SocketUntagged);
    } else if let Some(own) = socket::record(socket::of(sock))
        && own.began_ns == 0
    {
        // Nobody's socket was listening.
        flow::began(own);
    }
    0
}

/// Decides whether a socket may be connected to.
#[inline(always)]
fn opens(tag: &agentguard_common::identity::Tag, sock: Sock) -> i32 {
    if !matches!(sock.family(), address::INET | address::INET6) {
        return enforce::net::alive(tag, sock);
    }
    let Some(at) = sock.own() else {
        return enforce::net::unreadable(tag, Verb::Listen);
    };
    // Of datagrams nobody is let in: each answer has an address. Nor by a socket that is
    // connected: the kernel will not let it listen, and its peer was decided.
    let lets_in = sock.kind() == SOCK_STREAM
        && matches!(at.transport, Transport::Tcp)
        && !sock.is_connected();
    let own = if lets_in { socket::own(tag, socket::of(sock)) } else { None };
    enforce::net::listen(tag, &at, own)
}

/// `int netlink_send(struct sock *sk, struct sk_buff *skb)`
#[lsm(hook = "netlink_send")]
pub fn netlink_send(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let sock = Sock::from_argument(ctx.arg(0));
    let (start, len) = Packet::from_argument(ctx.arg(1)).bytes();
    let mut messages = Messages {
        at: start,
        end: start.wrapping_add(u64::from(len)),
        protocol: u32::from(sock.protocol()),
        verdict: Messages::MORE,
    };
    // What it changes there changes nothing here: a sandbox switches its loopback on.
    if sock.has_a_network_of_its_own() {
        return enforce::net::alive(tag, sock);
    }
    let looked = verifier::repeat(MOST_MESSAGES, look_at_message, &mut messages);
    if looked && messages.verdict == Messages::ASKS {
        return 0;
    }
    enforce::net::raw(tag, &Destination::nowhere(sock.family(), sock.protocol()))
}

/// Messages in one datagram: programs put one, seldom two into one.
const MOST_MESSAGES: u32 = 16;

/// The messages of a netlink datagram.
struct Messages {
    at: u64,
    end: u64,
    protocol: u32,
    verdict: u32,
}

impl Messages {
    /// There may be more.
    const MORE: u32 = 0;
    /// All of them only ask.
    const ASKS: u32 = 1;
    /// One does not, or cannot be read.
    const CHANGES: u32 = 2;
}

unsafe extern "C" fn look_at_message(_: u64, messages: *mut Messages) -> u64 {
    const HEADER: u64 = 16;
    // SAFETY: the state that `netlink_send` gave.
    let messages = unsafe { &mut *messages };
    // Less than a header is left: the kernel does not read it either.
    if messages.at.wrapping_add(HEADER) > messages.end {
        messages.verdict = Messages::ASKS;
        return 1;
    }
    let Some(word) = kernel::probe::<u64>(messages.at) else {
        messages.verdict = Messages::CHANGES;
        return 1;
    };
    let (len, kind) = (u64::from(word as u32), (word >> 32) as u16);
    if len < HEADER || !kinds::only_asks(messages.protocol, kind) {
        messages.verdict = Messages::CHANGES;
        return 1;
    }
    messages.at = verifier::forget_wide(messages.at.wrapping_add((len + 3) & !3));
    0
}

//! Flows: when connections begin and end, and those that go on.

use core::ffi::c_void;

use aya_ebpf::macros::{btf_tracepoint, fentry};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext};

use crate::kernel::{Argument, Packet, Sock};
use crate::{flow, socket};

const TCP: u16 = 6;
/// States of TCP (include/net/tcp_states.h).
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;

/// `void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn flow_state(ctx: BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let begins = new == SYN_SENT || new == ESTABLISHED && old == SYN_RECV;
    if !begins && new != CLOSE {
        return 0;
    }
    let sock = Sock::from_argument(ctx.arg(0));
    let Some(own) = socket::record(socket::of(sock)) else {
        return 0;
    };
    if sock.protocol() != TCP {
        return 0;
    }
    if begins {
        flow::began(own);
    } else {
        flow::ended(own, sock, old == SYN_SENT);
    }
    0
}

/// `void skb_consume_udp(struct sock *sk, struct sk_buff *skb, int len)`: somebody takes a
/// datagram from a socket (which a packet's program would tell as well, at the price of
/// looking at every packet of the host).
#[fentry(function = "skb_consume_udp")]
pub fn datagram_taken(ctx: FEntryContext) -> i32 {
    let len: i32 = ctx.arg(2);
    let sock = Sock::from_argument(ctx.arg(0));
    // It is only looked at.
    if len < 0 {
        return 0;
    }
    if let Some(own) = socket::record(socket::of(sock))
        && let Some((from, bytes)) = Packet::from_argument(ctx.arg(1)).datagram(sock)
    {
        flow::datagram(own, &from, bytes, false);
    }
    0
}

/// `struct bpf_iter__bpf_sk_storage_map`: what the iterator hands over.
#[repr(C)]
struct IterContext {
    meta: *const c_void,
    map: *const c_void,
    sock: *const c_void,
    value: *mut c_void,
}

/// Tells of each connection that goes on and is due.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub fn flows(ctx: *mut c_void) -> i32 {
    let ctx: *const IterContext = ctx.cast();
    // SAFETY: the context of an iterator program; the socket is null at the end.
    let sock = Sock::from_argument(unsafe { (*ctx).sock });
    if sock.is_none() {
        return 0;
    }
    if let Some(own) = socket::record(socket::of(sock))
        && sock.protocol() == TCP
    {
        flow::goes_on(own, sock);
    }
    0
}

//! The network without LSM programs: the same decisions in cgroup programs at
//! the root of the hierarchy, by the task's tag. 1 lets through, 0 is EPERM.

use agentguard_common::net::{Address, Transport};
use agentguard_common::verb::Verb;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::address::{self, Destination};
use crate::enforce;

/// `connect` to IPv4
#[cgroup_sock_addr(connect4)]
pub fn cgroup_connect4(ctx: SockAddrContext) -> i32 {
    decide_v4(ctx.sock_addr)
}

/// `connect` to IPv6, also to IPv4-mapped addresses
#[cgroup_sock_addr(connect6)]
pub fn cgroup_connect6(ctx: SockAddrContext) -> i32 {
    decide_v6(ctx.sock_addr)
}

/// `sendto`, `sendmsg` to IPv4
#[cgroup_sock_addr(sendmsg4)]
pub fn cgroup_sendmsg4(ctx: SockAddrContext) -> i32 {
    decide_v4(ctx.sock_addr)
}

/// `sendto`, `sendmsg` to IPv6
#[cgroup_sock_addr(sendmsg6)]
pub fn cgroup_sendmsg6(ctx: SockAddrContext) -> i32 {
    decide_v6(ctx.sock_addr)
}

#[inline(always)]
fn decide_v4(ctx: *mut bpf_sock_addr) -> i32 {
    let Some(tag) = enforce::tagged_without_storage() else {
        return 1;
    };
    // SAFETY: the context; the verifier rewrites each access.
    let (ip, port, protocol) =
        unsafe { ((*ctx).user_ip4, (*ctx).user_port, (*ctx).protocol) };
    let to = destination(Address::v4(u32::from_be(ip)), port, protocol, address::INET);
    (enforce::net(tag, Verb::Connect, &to) == 0) as i32
}

#[inline(always)]
fn decide_v6(ctx: *mut bpf_sock_addr) -> i32 {
    let Some(tag) = enforce::tagged_without_storage() else {
        return 1;
    };
    // SAFETY: the context; four single loads, because the verifier refuses wider ones
    // on older kernels and a loop over the context anywhere.
    let (a, b, c, d, port, protocol) = unsafe {
        (
            (&raw const (*ctx).user_ip6[0]).read_volatile(),
            (&raw const (*ctx).user_ip6[1]).read_volatile(),
            (&raw const (*ctx).user_ip6[2]).read_volatile(),
            (&raw const (*ctx).user_ip6[3]).read_volatile(),
            (*ctx).user_port,
            (*ctx).protocol,
        )
    };
    let words = [u32::from_be(a), u32::from_be(b), u32::from_be(c), u32::from_be(d)];
    let to = destination(Address::v6(words), port, protocol, address::INET6);
    (enforce::net(tag, Verb::Connect, &to) == 0) as i32
}

#[inline(always)]
fn destination(address: Address, port: u32, protocol: u32, family: u16) -> Destination {
    Destination {
        address,
        port: u16::from_be(port as u16),
        family,
        transport: Transport::from_ip_protocol(protocol as u16),
        protocol: protocol as u16,
    }
}

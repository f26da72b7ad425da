//! Cgroup programs at the root of the hierarchy; 1 lets through, 0 is EPERM. On every host
//! they are the second line (the packets of agents' sockets), and take questions of the DNS
//! to the daemon's resolver. Where LSM programs are refused they decide connections,
//! datagrams and binding as well, by the task's tag.

use agentguard_common::counter::Counter;
use agentguard_common::identity::Tag;
use agentguard_common::net::{Address, Transport};
use agentguard_common::resolver::{AskerKey, DNS_PORT};
use agentguard_common::socket::{self as kinds, SocketRecord};
use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use aya_ebpf::macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SkBuffContext, SockAddrContext, SockContext};

use crate::address::{self, Destination};
use crate::enforce::net::Answerer;
use crate::kernel::LSM_ATTACHED;
use crate::{emit, enforce, flow, resolver, server_name, socket};

/// 127.0.0.1
const LOCALHOST: u32 = 0x7f00_0001;

/// A packet on its way out
#[cgroup_skb(egress)]
pub fn cgroup_egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the context; the verifier rewrites the access.
    let sock = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sock.is_null() {
        return 1;
    }
    let Some(own) = socket::record(sock.cast()) else {
        return 1;
    };
    let detours = detours(&ctx);
    if !detours && enforce::net::goes_on(own) {
        return 1;
    }
    // The kernel runs these programs for whole sockets only.
    // SAFETY: helper on a socket that was checked for null.
    let sock = unsafe { bpf_sk_fullsock(sock) };
    if sock.is_null() {
        return 0;
    }
    let to = peer(sock);
    if !enforce::net::packet(own, to, detours) {
        return 0;
    }
    if socket::is_read(own) {
        return server_name::packet(ctx.skb.skb, sock, own, to) as i32;
    }
    if socket::is_asking(own) {
        asks(&ctx, own);
    }
    // SAFETY: a socket that was checked for null.
    if is_datagram(unsafe { (*sock).protocol }) {
        counts::<true>(&ctx, own, to);
    }
    1
}

/// A packet on its way in: only datagrams are counted here, and nothing is decided.
#[cgroup_skb(ingress)]
pub fn cgroup_ingress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the context; the verifier rewrites the access.
    let sock = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sock.is_null() {
        return 1;
    }
    // SAFETY: helper on a socket that was checked for null.
    let sock = unsafe { bpf_sk_fullsock(sock) };
    // SAFETY: checked for null.
    if sock.is_null() || !is_datagram(unsafe { (*sock).protocol }) {
        return 1;
    }
    if let Some(own) = socket::record(sock.cast()) {
        counts::<false>(&ctx, own, None);
    }
    1
}

/// UDP and UDP-Lite.
#[inline(always)]
fn is_datagram(protocol: u32) -> bool {
    matches!(protocol, 17 | 136)
}

/// Counts a datagram, to `with` or to where its head says. (On its own, for the stack's sake.)
#[inline(never)]
fn counts<const SENT: bool>(ctx: &SkBuffContext, own: &SocketRecord, with: Option<Destination>) {
    const HEAD: u32 = 8;
    let Some(ends) = ends(ctx) else {
        return;
    };
    // SAFETY: the context; the verifier rewrites the access.
    let all = unsafe { (*ctx.skb.skb).len };
    let (address, port) = if SENT { (ends.to, ends.to_port) } else { (ends.from, ends.from_port) };
    let there = Destination {
        address,
        port,
        family: if address.is_v4 { address::INET } else { address::INET6 },
        transport: Transport::from_ip_protocol(u16::from(ends.protocol)),
        protocol: u16::from(ends.protocol),
    };
    let bytes = all.saturating_sub(ends.behind as u32 + HEAD);
    flow::datagram(own, &with.unwrap_or(there), bytes, SENT);
}

/// Notes who asks the daemon's resolver. (On its own, for the stack's sake.)
#[inline(never)]
fn asks(ctx: &SkBuffContext, own: &SocketRecord) {
    if let Some(key) = asks_here(ctx) {
        resolver::note(own, &key);
    }
}

/// Where a packet comes from, if it goes to the daemon's resolver.
#[inline(always)]
fn asks_here(ctx: &SkBuffContext) -> Option<AskerKey> {
    let Ends { from, to, from_port, to_port, protocol, .. } = ends(ctx)?;
    if !matches!(protocol, 6 | 17) || !resolver::is_here(&to, to_port) {
        return None;
    }
    let is_v4 = u8::from(from.is_v4);
    Some(AskerKey { address: from.words, port: from_port, protocol, is_v4 })
}

/// From where to where a packet goes.
struct Ends {
    from: Address,
    to: Address,
    from_port: u16,
    to_port: u16,
    protocol: u8,
    /// Where its transport's head is.
    behind: usize,
}

#[inline(always)]
fn ends(ctx: &SkBuffContext) -> Option<Ends> {
    let head = ctx.load::<[u8; 20]>(0).ok()?;
    let is_v4 = head[0] >> 4 == 4;
    let (protocol, behind) = if is_v4 { (head[9], 20) } else { (head[6], 40) };
    let (from, to) = if is_v4 {
        let [from, to] = ctx.load::<[u32; 2]>(12).ok()?;
        (Address::v4(u32::from_be(from)), Address::v4(u32::from_be(to)))
    } else {
        (v6_at(ctx, 8)?, v6_at(ctx, 24)?)
    };
    let ports = ctx.load::<[u8; 4]>(behind).ok()?;
    let from_port = u16::from_be_bytes([ports[0], ports[1]]);
    let to_port = u16::from_be_bytes([ports[2], ports[3]]);
    Some(Ends { from, to, from_port, to_port, protocol, behind })
}

#[inline(always)]
fn v6_at(ctx: &SkBuffContext, offset: usize) -> Option<Address> {
    let [a, b, c, d] = ctx.load::<[u32; 4]>(offset).ok()?;
    Some(Address::v6([u32::from_be(a), u32::from_be(b), u32::from_be(c), u32::from_be(d)]))
}

/// Where a socket is connected to.
#[inline(always)]
fn peer(sock: *mut bpf_sock) -> Option<Destination> {
    // SAFETY: a socket that was checked for null; single loads, which the verifier rewrites.
    unsafe {
        let port = (&raw const (*sock).dst_port).read_volatile();
        if port == 0 {
            return None;
        }
        let (family, protocol) = ((*sock).family as u16, (*sock).protocol as u16);
        let address = if family == address::INET6 {
            let a = (&raw const (*sock).dst_ip6[0]).read_volatile();
            let b = (&raw const (*sock).dst_ip6[1]).read_volatile();
            let c = (&raw const (*sock).dst_ip6[2]).read_volatile();
            let d = (&raw const (*sock).dst_ip6[3]).read_volatile();
            Address::v6([u32::from_be(a), u32::from_be(b), u32::from_be(c), u32::from_be(d)])
        } else {
            Address::v4(u32::from_be((&raw const (*sock).dst_ip4).read_volatile()))
        };
        Some(destination(address, u32::from(port), u32::from(protocol), family))
    }
}

/// Whether a packet has IPv4 options, or IPv6 headers that say by which way it goes. What
/// cannot be read has.
#[inline(always)]
fn detours(ctx: &SkBuffContext) -> bool {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    // SAFETY: the context; the verifier rewrites the accesses.
    let (at, end) = unsafe {
        let skb = ctx.skb.skb;
        ((*skb).data as usize, (*skb).data_end as usize)
    };
    if at + 8 > end {
        return true;
    }
    let head = at as *const u8;
    // SAFETY: bytes of the packet, whose end was compared.
    let (first, next) = unsafe { (*head, *head.add(6)) };
    first != 0x45 && (first >> 4 != 6 || matches!(next, HOP_BY_HOP | ROUTING | DESTINATION))
}

/// `socket`
#[cgroup_sock(sock_create)]
pub fn cgroup_sock_create(ctx: SockContext) -> i32 {
    let Some(tag) = enforce::tagged_without_storage() else {
        return 1;
    };
    // SAFETY: the context; the verifier rewrites each access.
    let (family, kind, protocol) =
        unsafe { ((*ctx.sock).family as u16, (*ctx.sock).type_, (*ctx.sock).protocol) };
    if !kinds::is_ordinary(family, kind, protocol) {
        let what = Destination::nowhere(family, protocol as u16);
        return (enforce::net::raw(tag, &what) == 0) as i32;
    }
    if socket::make(tag, ctx.sock.cast(), 0) {
        return 1;
    }
    emit::count(Counter::SocketUntagged);
    0
}

/// `bind` to IPv4
#[cgroup_sock_addr(bind4)]
pub fn cgroup_bind4(ctx: SockAddrContext) -> i32 {
    bind(ctx.sock_addr, v4(ctx.sock_addr))
}

/// `bind` to IPv6
#[cgroup_sock_addr(bind6)]
pub fn cgroup_bind6(ctx: SockAddrContext) -> i32 {
    bind(ctx.sock_addr, v6(ctx.sock_addr))
}

/// Nothing else sees a socket beginning to listen here, so that peers are let in from then on.
#[inline(always)]
fn bind(ctx: *mut bpf_sock_addr, at: Destination) -> i32 {
    let Some(tag) = enforce::tagged_without_storage() else {
        return 1;
    };
    if at.port == 0 {
        return 1;
    }
    let own = if matches!(at.transport, Transport::Tcp) { record(tag, ctx) } else { None };
    (enforce::net::listen(tag, &at, own) == 0) as i32
}

#[inline(always)]
fn record(tag: &Tag, ctx: *mut bpf_sock_addr) -> Option<&'static SocketRecord> {
    // SAFETY: the context; the verifier rewrites the access.
    let sock = unsafe { (*ctx).__bindgen_anon_1.sk };
    if sock.is_null() { None } else { socket::own(tag, sock.cast()) }
}

/// `recvmsg` from IPv4
#[cgroup_sock_addr(recvmsg4)]
pub fn cgroup_recvmsg4(ctx: SockAddrContext) -> i32 {
    shown_v4(ctx.sock_addr)
}

/// `recvmsg` from IPv6
#[cgroup_sock_addr(recvmsg6)]
pub fn cgroup_recvmsg6(ctx: SockAddrContext) -> i32 {
    shown_v6(ctx.sock_addr)
}

/// `getpeername` of IPv4
#[cgroup_sock_addr(getpeername4)]
pub fn cgroup_getpeername4(ctx: SockAddrContext) -> i32 {
    shown_v4(ctx.sock_addr)
}

/// `getpeername` of IPv6
#[cgroup_sock_addr(getpeername6)]
pub fn cgroup_getpeername6(ctx: SockAddrContext) -> i32 {
    shown_v6(ctx.sock_addr)
}

/// `connect` to IPv4
#[cgroup_sock_addr(connect4)]
pub fn cgroup_connect4(ctx: SockAddrContext) -> i32 {
    goes_v4::<false>(ctx.sock_addr)
}

/// `connect` to IPv6, also to IPv4-mapped addresses
#[cgroup_sock_addr(connect6)]
pub fn cgroup_connect6(ctx: SockAddrContext) -> i32 {
    goes_v6::<false>(ctx.sock_addr)
}

/// `sendto`, `sendmsg` to IPv4
#[cgroup_sock_addr(sendmsg4)]
pub fn cgroup_sendmsg4(ctx: SockAddrContext) -> i32 {
    goes_v4::<true>(ctx.sock_addr)
}

/// `sendto`, `sendmsg` to IPv6
#[cgroup_sock_addr(sendmsg6)]
pub fn cgroup_sendmsg6(ctx: SockAddrContext) -> i32 {
    goes_v6::<true>(ctx.sock_addr)
}

/// Something goes to an IPv4 address: it is decided where nothing else did, and questions go
/// to the daemon's resolver.
#[inline(always)]
fn goes_v4<const SENDS: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    let to = v4(ctx);
    let Some(answerer) = goes::<SENDS>(ctx, &to) else {
        return 0;
    };
    if answerer.found == Answerer::FOUND {
        // SAFETY: the context; the verifier rewrites each access.
        unsafe {
            (*ctx).user_ip4 = LOCALHOST.to_be();
            (*ctx).user_port = u32::from(answerer.port.to_be());
        }
    }
    1
}

/// The same to an IPv6 address, which may stand for one of IPv4.
#[inline(always)]
fn goes_v6<const SENDS: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    let to = v6(ctx);
    let Some(answerer) = goes::<SENDS>(ctx, &to) else {
        return 0;
    };
    if answerer.found == Answerer::FOUND {
        let words = if answerer.is_v4 != 0 { [0, 0, 0xffff, LOCALHOST] } else { [0, 0, 0, 1] };
        show_v6(ctx, words, answerer.port);
    }
    1
}

/// `None`: it may not.
#[inline(always)]
fn goes<const SENDS: bool>(ctx: *mut bpf_sock_addr, to: &Destination) -> Option<Answerer> {
    if LSM_ATTACHED.load() == 0
        && let Some(tag) = enforce::tagged_without_storage()
        && enforce::net::connect(tag, to, record(tag, ctx), SENDS) != 0
    {
        return None;
    }
    if to.port != DNS_PORT {
        return Some(Answerer::NONE);
    }
    let Some(own) = of_an_agent(ctx) else {
        return Some(Answerer::NONE);
    };
    let answerer = enforce::net::question(own, to);
    if answerer.found == Answerer::ABSENT { None } else { Some(answerer) }
}

/// What is shown of where something came from: the server that was asked, not the resolver.
#[inline(always)]
fn shown_v4(ctx: *mut bpf_sock_addr) -> i32 {
    if let Some(own) = of_an_agent(ctx) {
        let from = v4(ctx);
        if socket::is_asking(own) && resolver::is_here(&from.address, from.port) {
            // SAFETY: the context; the verifier rewrites each access.
            unsafe {
                (*ctx).user_ip4 = own.asked[0].to_be();
                (*ctx).user_port = u32::from(DNS_PORT.to_be());
            }
        }
    }
    1
}

#[inline(always)]
fn shown_v6(ctx: *mut bpf_sock_addr) -> i32 {
    if let Some(own) = of_an_agent(ctx) {
        let from = v6(ctx);
        if socket::is_asking(own) && resolver::is_here(&from.address, from.port) {
            let words =
                if own.asked_is_v4 != 0 { [0, 0, 0xffff, own.asked[0]] } else { own.asked };
            show_v6(ctx, words, DNS_PORT);
        }
    }
    1
}

#[inline(always)]
fn show_v6(ctx: *mut bpf_sock_addr, words: [u32; 4], port: u16) {
    // SAFETY: the context; single stores, which the verifier rewrites.
    unsafe {
        (&raw mut (*ctx).user_ip6[0]).write_volatile(words[0].to_be());
        (&raw mut (*ctx).user_ip6[1]).write_volatile(words[1].to_be());
        (&raw mut (*ctx).user_ip6[2]).write_volatile(words[2].to_be());
        (&raw mut (*ctx).user_ip6[3]).write_volatile(words[3].to_be());
        (*ctx).user_port = u32::from(port.to_be());
    }
}

/// The record of the socket, if an agent made it.
#[inline(always)]
fn of_an_agent(ctx: *mut bpf_sock_addr) -> Option<&'static SocketRecord> {
    // SAFETY: the context; the verifier rewrites the access.
    let sock = unsafe { (*ctx).__bindgen_anon_1.sk };
    if sock.is_null() { None } else { socket::record(sock.cast()) }
}

#[inline(always)]
fn v4(ctx: *mut bpf_sock_addr) -> Destination {
    // SAFETY: the context; the verifier rewrites each access.
    let (ip, port, protocol) = unsafe { ((*ctx).user_ip4, (*ctx).user_port, (*ctx).protocol) };
    destination(Address::v4(u32::from_be(ip)), port, protocol, address::INET)
}

#[inline(always)]
fn v6(ctx: *mut bpf_sock_addr) -> Destination {
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
    destination(Address::v6(words), port, protocol, address::INET6)
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

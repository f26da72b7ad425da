//! Socket addresses and the address tries: the only reader of `sockaddr`.

use agentguard_common::net::{
    self, Address, NetMatch, NetTables, PortInterval, PortSet, Transport,
};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::maps::{NET_NODES, NET_PORTS, NET_SETS};

pub use agentguard_common::socket::{
    AF_INET as INET, AF_INET6 as INET6, AF_NETLINK as NETLINK, AF_UNIX as UNIX,
    AF_UNSPEC as UNSPEC,
};

/// Where an operation goes to.
#[derive(Clone, Copy)]
pub struct Destination {
    /// Address; IPv4-mapped IPv6 is already IPv4.
    pub address: Address,
    /// Port.
    pub port: u16,
    /// Family as the program gave it.
    pub family: u16,
    /// Transport.
    pub transport: Transport,
    /// IP protocol number.
    pub protocol: u16,
}

impl Destination {
    /// Stands in an event for an address that could not be read.
    pub const UNKNOWN: Self = Self {
        address: Address::v4(0),
        port: 0,
        family: UNSPEC,
        transport: Transport::Other,
        protocol: 0,
    };

    /// Stands in an event for what has no address: a socket, an option, a message.
    #[inline(always)]
    pub fn nowhere(family: u16, protocol: u16) -> Self {
        let address = Address { words: [0; 4], is_v4: false };
        Self { address, family, protocol, ..Self::UNKNOWN }
    }
}

/// What an address argument holds.
pub enum Given {
    /// An IPv4 or IPv6 destination.
    Destination(Destination),
    /// `AF_UNSPEC`, which disconnects.
    Unspecified,
    /// Another family.
    Other,
    /// It cannot be read.
    Unreadable,
}

/// Reads a kernel copy of a `sockaddr`.
#[inline(always)]
pub fn read(address: u64, protocol: u16) -> Given {
    let mut words = [0u64; 3];
    let from = address as *const core::ffi::c_void;
    let to: *mut core::ffi::c_void = (&raw mut words).cast();
    // SAFETY: 8 bytes fit; every address that is used below has at least that many.
    if unsafe { bpf_probe_read_kernel(to, 8, from) } != 0 {
        return Given::Unreadable;
    }
    // Both forms begin with the family, then the port; then comes the IPv4 address,
    // or the flow label and behind it the IPv6 address.
    let family = words[0] as u16;
    let port = u16::from_be((words[0] >> 16) as u16);
    let address = match family {
        INET => Address::v4(u32::from_be((words[0] >> 32) as u32)),
        INET6 => {
            // SAFETY: 24 bytes are the whole of `words`.
            if unsafe { bpf_probe_read_kernel(to, 24, from) } != 0 {
                return Given::Unreadable;
            }
            let (high, low) = (u64::from_be(words[1]), u64::from_be(words[2]));
            Address::v6([(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32])
        }
        UNSPEC => return Given::Unspecified,
        _ => return Given::Other,
    };
    Given::Destination(Destination {
        address,
        port,
        family,
        transport: Transport::from_ip_protocol(protocol),
        protocol,
    })
}

/// Reads an address whose family says nothing, as the UDP of IPv4 does.
#[inline(always)]
pub fn read_as_v4(address: u64, protocol: u16) -> Given {
    let mut word = 0u64;
    let to: *mut core::ffi::c_void = (&raw mut word).cast();
    // SAFETY: 8 bytes are the whole of `word`.
    if unsafe { bpf_probe_read_kernel(to, 8, address as *const core::ffi::c_void) } != 0 {
        return Given::Unreadable;
    }
    Given::Destination(Destination {
        address: Address::v4(u32::from_be((word >> 32) as u32)),
        port: u16::from_be((word >> 16) as u16),
        family: UNSPEC,
        transport: Transport::from_ip_protocol(protocol),
        protocol,
    })
}

/// What the tables say; `None` if they are broken.
#[inline(always)]
pub fn lookup(root: u32, address: &Address, transport: Transport, port: u16) -> Option<NetMatch> {
    let [w0, w1, w2, w3] = address.words;
    let high = u64::from(w0) << 32 | u64::from(w1);
    let low = u64::from(w2) << 32 | u64::from(w3);
    let key = net::port_key(transport, port);
    let found = agentguard_net_lookup(root, high, low, key);
    if found > u64::from(u32::MAX) {
        return None;
    }
    Some(NetMatch { verdict: (found >> 16) as u8 & 3, rule: found as u16 })
}

/// Address and port to verdict bits and rule. A global function with scalar
/// arguments, so that the verifier checks it once. More than 32 bits: broken tables.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_net_lookup(root: u32, high: u64, low: u64, key: u32) -> u64 {
    let transport = match key >> 16 {
        0 => Transport::Tcp,
        1 => Transport::Udp,
        _ => Transport::Other,
    };
    let address = Address {
        words: [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32],
        // The root says which trie it is; the walk does not ask.
        is_v4: false,
    };
    match net::lookup(&KernelTables, root, &address, transport, key as u16) {
        Ok(found) => u64::from(found.verdict) << 16 | u64::from(found.rule),
        Err(net::Broken) => u64::MAX,
    }
}

struct KernelTables;

impl NetTables for KernelTables {
    #[inline(always)]
    fn branch(&self, node: u32, nibble: u32) -> Option<u32> {
        NET_NODES.get(node).map(|node| node.next[nibble as usize & 15])
    }

    #[inline(always)]
    fn set(&self, set: u32) -> Option<PortSet> {
        NET_SETS.get(set).copied()
    }

    #[inline(always)]
    fn interval(&self, interval: u32) -> Option<PortInterval> {
        NET_PORTS.get(interval).copied()
    }
}

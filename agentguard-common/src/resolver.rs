//! Names: which addresses a run was given for a name that its policy allows, who asks the
//! daemon's resolver, and where that is.

use crate::identity::Tag;
use crate::net::{Address, NetMatch};
use crate::verdict::Verdict;

/// Port of the DNS.
pub const DNS_PORT: u16 = 53;

/// Key of an address that a run was given for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct GrantKey {
    /// The run.
    pub run_serial: u64,
    /// Address, big-endian words; IPv4 in the first.
    pub address: [u32; 4],
    /// 1 if the address is IPv4.
    pub is_v4: u32,
    /// Zero.
    pub reserved: u32,
}

impl GrantKey {
    /// The key of a run and an address.
    #[must_use]
    #[inline(always)]
    pub const fn new(run_serial: u64, address: &Address) -> Self {
        Self {
            run_serial,
            address: address.words,
            is_v4: address.is_v4 as u32,
            reserved: 0,
        }
    }
}

/// Ports of one transport, and what a rule about a name says of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct PortRange {
    /// [`port_key`](crate::net::port_key) of the first port.
    pub low: u32,
    /// [`port_key`](crate::net::port_key) of the last port.
    pub high: u32,
    /// Two bits.
    pub verdict: u16,
    /// Rule index.
    pub rule: u16,
}

/// Port ranges of the rules about one name. More: the strictest are kept, the rest admit
/// nothing, which the log says.
pub const RANGES: usize = 12;

/// What one policy generation says of the names that an address was given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct GrantRanges {
    /// The generation; 0: none.
    pub generation: u32,
    /// How many of `ranges` are in use.
    pub count: u32,
    /// The ranges.
    pub ranges: [PortRange; RANGES],
}

impl GrantRanges {
    /// What is said of a port ([`port_key`](crate::net::port_key)), by the strictest range.
    #[must_use]
    #[inline(always)]
    pub fn lookup(&self, key: u32) -> NetMatch {
        let mut found = NetMatch::NONE;
        let mut index = 0;
        // Counted to a constant: the verifier walks through each turn.
        while index < RANGES {
            let range = &self.ranges[index];
            let hit = (index as u32) < self.count && range.low <= key && key <= range.high;
            if hit && range.verdict as u8 > found.verdict {
                found = NetMatch {
                    verdict: range.verdict as u8 & 3,
                    rule: range.rule,
                };
            }
            index += 1;
        }
        found
    }

    /// Whether some port is allowed.
    #[inline(always)]
    fn open_some(&self) -> bool {
        let mut index = 0;
        while index < RANGES {
            let used = (index as u32) < self.count;
            if used && self.ranges[index].verdict == Verdict::Allow as u16 {
                return true;
            }
            index += 1;
        }
        false
    }
}

/// An address that a run was given. It stays known after its time, for connections that
/// were made before: new ones are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Grant {
    /// `CLOCK_BOOTTIME` in nanoseconds until which it can be connected to.
    pub until_ns: u64,
    /// For the generation in force and for the next, in either order.
    pub banks: [GrantRanges; 2],
}

impl Grant {
    /// What a generation says of a port ([`port_key`](crate::net::port_key));
    /// [`NetMatch::NONE`] if nothing.
    #[must_use]
    #[inline(always)]
    pub fn lookup(&self, generation: u32, key: u32) -> NetMatch {
        match self.ranges(generation) {
            Some(ranges) => ranges.lookup(key),
            None => NetMatch::NONE,
        }
    }

    /// Whether a generation allows some port.
    #[must_use]
    #[inline(always)]
    pub fn opens(&self, generation: u32) -> bool {
        match self.ranges(generation) {
            Some(ranges) => ranges.open_some(),
            None => false,
        }
    }

    #[inline(always)]
    fn ranges(&self, generation: u32) -> Option<&GrantRanges> {
        let [first, second] = &self.banks;
        if first.generation == generation {
            Some(first)
        } else if second.generation == generation {
            Some(second)
        } else {
            None
        }
    }
}

/// Key of who asks the resolver: the source of its packets on the loopback interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct AskerKey {
    /// Source address, big-endian words; IPv4 in the first.
    pub address: [u32; 4],
    /// Source port, host order.
    pub port: u16,
    /// IP protocol number: 6 or 17.
    pub protocol: u8,
    /// 1 for IPv4.
    pub is_v4: u8,
}

/// Who asks the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Asker {
    /// The run.
    pub tag: Tag,
    /// `CLOCK_BOOTTIME` of its last packet, nanoseconds.
    pub boot_ns: u64,
    /// The server that it asked, big-endian words; IPv4 in the first.
    pub address: [u32; 4],
    /// 1 if that address is IPv4.
    pub is_v4: u32,
    /// Zero.
    pub reserved: u32,
}

/// The most servers of `resolv.conf(5)` that the kernel knows; glibc takes three.
pub const SERVERS: usize = 8;

/// A server of the host's `resolv.conf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Server {
    /// Address, big-endian words; IPv4 in the first.
    pub address: [u32; 4],
    /// 1 if the address is IPv4.
    pub is_v4: u32,
}

/// Where the daemon's resolver listens on the loopback interface, and whom the host asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ResolverRecord {
    /// Port at 127.0.0.1, UDP and TCP, host order; 0: it does not listen, and questions are
    /// refused.
    pub port_v4: u16,
    /// Port at `::1`; 0: as above.
    pub port_v6: u16,
    /// How many of `servers` are in use.
    pub count: u32,
    /// The host's servers: runs whose policies have names may ask them.
    pub servers: [Server; SERVERS],
}

impl ResolverRecord {
    /// Whether an address is one of the host's servers.
    #[must_use]
    #[inline(always)]
    pub fn is_server(&self, address: &Address) -> bool {
        let mut found = false;
        let mut index = 0;
        while index < SERVERS {
            let server = &self.servers[index];
            let [a, b, c, d] = server.address;
            let [e, f, g, h] = address.words;
            let same = (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0;
            found |= (index as u32) < self.count && same && server.is_v4 == address.is_v4 as u32;
            index += 1;
        }
        found
    }
}

const _: () = assert!(size_of::<GrantKey>() == 32);
const _: () = assert!(size_of::<Grant>() == 312);
const _: () = assert!(size_of::<AskerKey>() == 20);
const _: () = assert!(size_of::<Asker>() == 48);
const _: () = assert!(size_of::<ResolverRecord>() == 168);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Transport, port_key};

    fn range(transport: Transport, ports: (u16, u16), verdict: u16, rule: u16) -> PortRange {
        PortRange {
            low: port_key(transport, ports.0),
            high: port_key(transport, ports.1),
            verdict,
            rule,
        }
    }

    #[test]
    fn the_strictest_range_of_the_right_generation_decides() {
        let mut grant = Grant::default();
        grant.banks[1].generation = 7;
        grant.banks[1].count = 2;
        grant.banks[1].ranges[0] = range(Transport::Tcp, (0, 65_535), 1, 3);
        grant.banks[1].ranges[1] = range(Transport::Tcp, (22, 22), 3, 4);
        // Not in use.
        grant.banks[1].ranges[2] = range(Transport::Udp, (0, 65_535), 1, 5);
        let found = |generation, transport, port| {
            let found = grant.lookup(generation, port_key(transport, port));
            (found.verdict, found.rule)
        };
        assert_eq!(found(7, Transport::Tcp, 443), (1, 3));
        assert_eq!(found(7, Transport::Tcp, 22), (3, 4));
        assert_eq!(found(7, Transport::Udp, 443), (0, 0));
        assert_eq!(found(8, Transport::Tcp, 443), (0, 0));
    }

    #[test]
    fn servers_are_told_by_address_and_family() {
        let mut record = ResolverRecord {
            count: 1,
            ..ResolverRecord::default()
        };
        record.servers[0] = Server {
            address: [0x7f00_0035, 0, 0, 0],
            is_v4: 1,
        };
        assert!(record.is_server(&Address::v4(0x7f00_0035)));
        assert!(!record.is_server(&Address::v6([0x7f00_0035, 0, 0, 0])));
        assert!(!record.is_server(&Address::v4(0)));
    }
}

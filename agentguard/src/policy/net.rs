//! Network rules: which addresses, ports and sockets a rule is about.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use super::path::{PathObject, PathPattern, write_literal};

pub use parse::{MAX_ABSTRACT_BYTES, parse_rule};

mod parse;

/// What a rule without a port covers. Port 0 is in it: a send to port 0 is a
/// send, and a bind to port 0 asks for any port.
pub const ALL_PORTS: RangeInclusive<u16> = 0..=u16::MAX;

/// A rule of `connect` or `listen`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetRule {
    /// Which hosts or sockets.
    pub target: NetTarget,
    /// Which ports; all of them where the rule names none and for unix sockets.
    pub ports: RangeInclusive<u16>,
    /// Which protocols; both for unix sockets.
    pub protocol: Protocol,
}

/// What a network rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetTarget {
    /// Every IPv4 and IPv6 address.
    Any,
    /// The addresses of one network. The bits after the prefix are zero, and
    /// an address of the IPv4-mapped range is held as IPv4.
    Cidr(IpAddr, u8),
    /// The addresses that the run was given for this name. Lower case, no trailing dot.
    Name(String),
    /// The addresses that the run was given for a name below this one; `*.example.com`
    /// is held as `example.com` and does not cover `example.com` itself.
    NameSuffix(String),
    /// Unix sockets at a path.
    UnixPath(PathPattern),
    /// The unix socket with this abstract name (without the leading NUL).
    UnixAbstract(Vec<u8>),
}

/// The protocols that a rule covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP and UDP.
    Both,
    /// TCP alone.
    Tcp,
    /// UDP alone.
    Udp,
}

/// The protocol of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One place that a task connects to or listens on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NetObject {
    /// An internet socket.
    Inet {
        /// The host.
        host: NetHost,
        /// The port.
        port: u16,
        /// The protocol.
        transport: Transport,
    },
    /// A unix socket at a path.
    UnixPath(PathObject),
    /// A unix socket with an abstract name (without the leading NUL).
    UnixAbstract(Vec<u8>),
}

/// The host of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NetHost {
    /// An address; never of the IPv4-mapped range.
    Address(IpAddr),
    /// Some address that the run was given for this name.
    Name(String),
}

impl Protocol {
    /// Whether the rule covers a connection of this protocol.
    #[must_use]
    pub const fn covers(self, transport: Transport) -> bool {
        matches!(
            (self, transport),
            (Self::Both, _) | (Self::Tcp, Transport::Tcp) | (Self::Udp, Transport::Udp)
        )
    }
}

impl NetRule {
    /// Whether the rule matches an object. An address is matched by networks, a
    /// name by names: which addresses a name stands for is known only at run time.
    #[must_use]
    pub fn matches(&self, object: &NetObject) -> bool {
        match (&self.target, object) {
            (NetTarget::UnixPath(pattern), NetObject::UnixPath(path)) => {
                pattern.matches(path.components())
            }
            (NetTarget::UnixAbstract(name), NetObject::UnixAbstract(asked)) => name == asked,
            (
                target,
                NetObject::Inet {
                    host,
                    port,
                    transport,
                },
            ) => {
                target.covers_host(host)
                    && self.ports.contains(port)
                    && self.protocol.covers(*transport)
            }
            _ => false,
        }
    }
}

impl NetTarget {
    fn covers_host(&self, host: &NetHost) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Cidr(network, prefix), NetHost::Address(address)) => {
                network.is_ipv4() == address.is_ipv4() && masked(*address, *prefix) == *network
            }
            (Self::Name(name), NetHost::Name(asked)) => name == asked,
            (Self::NameSuffix(suffix), NetHost::Name(asked)) => asked
                .strip_suffix(suffix.as_str())
                .is_some_and(|rest| rest.ends_with('.')),
            _ => false,
        }
    }
}

/// How many bits an address of this family has.
#[must_use]
pub const fn address_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address with all bits after the prefix cleared.
#[must_use]
pub fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// An IPv4-mapped address as the IPv4 address that it stands for.
#[must_use]
pub fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

impl fmt::Display for NetRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all_ports = self.ports == ALL_PORTS;
        let is_bare = all_ports && self.protocol == Protocol::Both;
        match &self.target {
            NetTarget::Cidr(address, prefix) => {
                if address.is_ipv6() && !is_bare {
                    write!(f, "[{address}]")?;
                } else {
                    write!(f, "{address}")?;
                }
                if *prefix != address_bits(*address) {
                    write!(f, "/{prefix}")?;
                }
            }
            target => write!(f, "{target}")?,
        }
        if !all_ports {
            write!(f, ":{}", self.ports.start())?;
            if self.ports.start() != self.ports.end() {
                write!(f, "-{}", self.ports.end())?;
            }
        }
        f.write_str(match self.protocol {
            Protocol::Both => "",
            Protocol::Tcp => "/tcp",
            Protocol::Udp => "/udp",
        })
    }
}

impl fmt::Display for NetTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Cidr(address, prefix) => write!(f, "{address}/{prefix}"),
            Self::Name(name) => f.write_str(name),
            Self::NameSuffix(suffix) => write!(f, "*.{suffix}"),
            Self::UnixPath(pattern) => write!(f, "unix:{pattern}"),
            Self::UnixAbstract(name) => {
                f.write_str("unix:@")?;
                write_literal(f, name)
            }
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for NetObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet {
                host,
                port,
                transport,
            } => match host {
                NetHost::Address(address @ IpAddr::V6(_)) => {
                    write!(f, "[{address}]:{port}/{transport}")
                }
                NetHost::Address(address) => write!(f, "{address}:{port}/{transport}"),
                NetHost::Name(name) => write!(f, "{name}:{port}/{transport}"),
            },
            Self::UnixPath(path) => write!(f, "unix:{path}"),
            Self::UnixAbstract(name) => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
        }
    }
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;

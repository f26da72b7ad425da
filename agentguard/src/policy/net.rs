//! Network rules: which addresses, ports and sockets a rule is about.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::path::{PathObject, PathPattern};

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

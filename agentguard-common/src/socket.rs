//! What the kernel keeps about sockets that agents make, and which kinds of sockets,
//! messages and options there are to be decided about.

use crate::identity::Tag;

/// The record of an agent's socket, in its socket storage. Sockets accepted from it have a
/// copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SocketRecord {
    /// Whose socket it is.
    pub tag: Tag,
    /// A keyed hash of the destination, agent and policy generation that were last decided
    /// and allowed; 0: none. What it is compared with goes there as well.
    pub decided: u64,
    /// See [`socket_flag`].
    pub flags: u32,
    /// The policy generation in it, once more.
    pub generation: u32,
    /// The server of the DNS that was asked through it, in whose place the daemon's resolver
    /// answers: big-endian words; IPv4 in the first.
    pub asked: [u32; 4],
    /// 1 if that address is IPv4.
    pub asked_is_v4: u32,
    /// Process that made or connected it last, in the initial PID namespace; 0: not known.
    pub pid: u32,
    /// `CLOCK_BOOTTIME` of the first packet of its connection, nanoseconds; 0: it has none that
    /// is to be told of (see [`crate::flow`]).
    pub began_ns: u64,
    /// When something was told of that last; zero: not yet.
    pub told_ns: u64,
    /// Bytes that were told to be sent.
    pub told_sent: u64,
    /// Bytes that were told to have arrived.
    pub told_received: u64,
    /// The policy generation under which a packet of its connection was let through: until
    /// there is another connection, the others go where that went. 0: none was.
    pub settled: u32,
    /// Zero.
    pub reserved: u32,
}

impl SocketRecord {
    /// Nobody's.
    pub const NONE: Self = Self {
        tag: Tag {
            agent: 0,
            run: 0,
            run_serial: 0,
        },
        decided: 0,
        flags: 0,
        generation: 0,
        asked: [0; 4],
        asked_is_v4: 0,
        pid: 0,
        began_ns: 0,
        told_ns: 0,
        told_sent: 0,
        told_received: 0,
        settled: 0,
        reserved: 0,
    };
}

/// Bits of [`SocketRecord::flags`].
pub mod socket_flag {
    /// It listens, or was accepted from one that does: its peers were let in.
    pub const INBOUND: u32 = 1;
    /// It asks the daemon's resolver.
    pub const ASKING: u32 = 2;
    /// What it says of the server that it is for is being read (see
    /// [`crate::server_name`]).
    pub const READING: u32 = 4;
    /// It named a server that is not allowed: nothing more of it leaves.
    pub const CUT: u32 = 8;
}

/// `AF_UNSPEC`
pub const AF_UNSPEC: u16 = 0;
/// `AF_UNIX`
pub const AF_UNIX: u16 = 1;
/// `AF_INET`
pub const AF_INET: u16 = 2;
/// `AF_INET6`
pub const AF_INET6: u16 = 10;
/// `AF_NETLINK`
pub const AF_NETLINK: u16 = 16;

/// Whether a socket of this kind may be made without the privilege `raw-sockets`: what is
/// sent through it is decided by its address. Everything that is not named here is not.
#[must_use]
#[inline(always)]
pub const fn is_ordinary(family: u16, kind: u32, protocol: u32) -> bool {
    const STREAM: u32 = 1;
    const DATAGRAM: u32 = 2;
    const TCP: u32 = 6;
    const UDP: u32 = 17;
    const UDPLITE: u32 = 136;
    const ROUTE: u32 = 0;
    const SOCK_DIAG: u32 = 4;
    match family {
        AF_UNIX => true,
        AF_INET | AF_INET6 => match kind {
            STREAM => matches!(protocol, 0 | TCP),
            DATAGRAM => matches!(protocol, 0 | UDP | UDPLITE),
            _ => false,
        },
        AF_NETLINK => matches!(protocol, ROUTE | SOCK_DIAG),
        _ => false,
    }
}

/// Whether a netlink message only asks (`rtnetlink(7)`, `sock_diag(7)`).
#[must_use]
#[inline(always)]
pub const fn only_asks(protocol: u32, message: u16) -> bool {
    /// Below: control messages (`NLMSG_NOOP`, `NLMSG_DONE`).
    const FIRST: u16 = 16;
    const TCPDIAG_GETSOCK: u16 = 18;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    if message < FIRST {
        return true;
    }
    match protocol {
        // Message types come in fours: new, delete, get, set.
        0 => (message - FIRST) & 3 == 2,
        4 => matches!(message, TCPDIAG_GETSOCK | SOCK_DIAG_BY_FAMILY),
        _ => false,
    }
}

/// Whether a socket option can make packets go elsewhere than the address says, or send some
/// by itself: it needs the privilege `raw-sockets`.
#[must_use]
#[inline(always)]
pub const fn leads_elsewhere(level: u32, option: u32) -> bool {
    match level {
        // SOL_SOCKET: SO_BINDTODEVICE, SO_MARK, SO_BINDTOIFINDEX
        1 => matches!(option, 25 | 36 | 62),
        // IPPROTO_IP: IP_OPTIONS, IP_HDRINCL, IP_IPSEC_POLICY, IP_XFRM_POLICY, IP_TRANSPARENT,
        // IP_ADD_MEMBERSHIP, IP_ADD_SOURCE_MEMBERSHIP, MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP,
        // IP_UNICAST_IF, and from 200 on what multicast routers set
        0 => matches!(option, 3 | 4 | 16 | 17 | 19 | 35 | 39 | 42 | 46 | 50) || option >= 200,
        // IPPROTO_IPV6: IPV6_2292PKTOPTIONS, IPV6_ADD_MEMBERSHIP, IPV6_JOIN_ANYCAST,
        // IPV6_IPSEC_POLICY, IPV6_XFRM_POLICY, IPV6_HDRINCL, MCAST_JOIN_GROUP,
        // MCAST_JOIN_SOURCE_GROUP, IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_DSTOPTS,
        // IPV6_TRANSPARENT, IPV6_UNICAST_IF, and what multicast routers set
        41 => {
            matches!(
                option,
                6 | 20 | 27 | 34 | 35 | 36 | 42 | 46 | 54 | 55 | 57 | 59 | 75 | 76
            ) || option >= 200
        }
        _ => false,
    }
}

const _: () = assert!(size_of::<SocketRecord>() == 96);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tcp_udp_unix_and_asking_netlink_are_ordinary() {
        assert!(is_ordinary(AF_INET, 1, 0) && is_ordinary(AF_INET6, 2, 17));
        assert!(is_ordinary(AF_INET, 2, 136) && is_ordinary(AF_UNIX, 5, 0));
        assert!(is_ordinary(AF_NETLINK, 3, 0) && is_ordinary(AF_NETLINK, 2, 4));
        for (family, kind, protocol) in [
            (AF_INET, 3, 1),
            (AF_INET, 2, 1),
            (AF_INET, 1, 262),
            (AF_INET, 5, 132),
            (AF_NETLINK, 3, 12),
            (AF_NETLINK, 3, 16),
            (17, 3, 0),
            (38, 5, 0),
            (40, 1, 0),
            (0, 1, 0),
        ] {
            assert!(
                !is_ordinary(family, kind, protocol),
                "{family} {kind} {protocol}"
            );
        }
    }

    #[test]
    fn netlink_may_ask_and_not_change() {
        // RTM_GETLINK, RTM_GETROUTE; RTM_NEWADDR, RTM_DELROUTE, RTM_SETLINK
        assert!(only_asks(0, 18) && only_asks(0, 26));
        assert!(!only_asks(0, 20) && !only_asks(0, 25) && !only_asks(0, 19));
        // SOCK_DESTROY
        assert!(only_asks(4, 20) && !only_asks(4, 21));
        assert!(!only_asks(16, 20));
    }

    #[test]
    fn options_that_lead_elsewhere() {
        assert!(leads_elsewhere(0, 4) && leads_elsewhere(41, 57) && leads_elsewhere(1, 25));
        // SO_REUSEADDR, TCP_NODELAY, IP_TOS, IPV6_V6ONLY
        assert!(!leads_elsewhere(1, 2) && !leads_elsewhere(6, 1));
        assert!(!leads_elsewhere(0, 1) && !leads_elsewhere(41, 26));
    }
}

//! Sockets.

use agentguard_common::net::{Address, Transport};
use agentguard_common::socket::{AF_INET, AF_INET6, AF_UNIX};
use aya_ebpf::helpers::generated::{bpf_skc_to_unix_sock, bpf_sock_from_file};

use super::*;
use crate::address::Destination;
use crate::verifier;

impl Socket {
    /// Its protocol state; `None` before it has one.
    #[inline(always)]
    pub fn sock(self) -> Option<Sock> {
        let sock: *const u8 = self.load::<SOCKET_SK, _>();
        if Sock(sock).is_none() { None } else { Some(Sock(sock)) }
    }
}

impl File {
    /// The socket that it is a descriptor of.
    #[inline(always)]
    pub fn socket(self) -> Option<Socket> {
        // SAFETY: helper on a file that the verifier checks.
        let socket = unsafe { bpf_sock_from_file(self.0.cast_mut().cast()) };
        if socket.is_null() { None } else { Some(Socket(socket as *const u8)) }
    }
}

/// Bit of `sk_flags`: the peer has ended its side (include/net/sock.h).
const SOCK_DONE: u32 = 1;

impl Sock {
    /// IP protocol number.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        self.load::<SK_PROTOCOL, _>()
    }

    /// `SOCK_*`
    #[inline(always)]
    pub fn kind(self) -> u16 {
        self.load::<SK_TYPE, _>()
    }

    /// Address family.
    #[inline(always)]
    pub fn family(self) -> u16 {
        self.load::<SK_FAMILY, _>()
    }

    /// Whether its network namespace belongs to a user namespace that somebody made: then it
    /// is not the host's network.
    #[inline(always)]
    pub fn has_a_network_of_its_own(self) -> bool {
        let net: *const u8 = self.load::<SK_NET, _>();
        !UserNamespace(Memory(net).load::<NET_OWNER, _>()).is_initial()
    }

    /// Whether it is connected.
    #[inline(always)]
    pub fn is_connected(self) -> bool {
        self.load::<SK_DPORT, u16>() != 0
    }

    /// Where it is connected to; `None` if nowhere, or if that cannot be read.
    #[inline(always)]
    pub fn peer(self) -> Option<Destination> {
        let port: u16 = self.load::<SK_DPORT, _>();
        if port == 0 {
            return None;
        }
        let v4: u32 = self.load::<SK_DADDR, _>();
        self.place(u16::from_be(port), v4, offset::<SK_V6_DADDR>())
    }

    /// The address and port that it is bound to.
    #[inline(always)]
    pub fn own(self) -> Option<Destination> {
        let port: u16 = self.load::<SK_NUM, _>();
        let v4: u32 = self.load::<SK_RCV_SADDR, _>();
        self.place(port, v4, offset::<SK_V6_RCV_SADDR>())
    }

    #[inline(always)]
    fn place(self, port: u16, v4: u32, v6: u64) -> Option<Destination> {
        let (family, protocol) = (self.family(), self.protocol());
        let address = if family == AF_INET6 {
            let [high, low] = probe::<[u64; 2]>(verifier::number(self.0 as u64).wrapping_add(v6))?;
            let (high, low) = (u64::from_be(high), u64::from_be(low));
            Address::v6([(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32])
        } else {
            Address::v4(u32::from_be(v4))
        };
        Some(Destination {
            address,
            port,
            family,
            transport: Transport::from_ip_protocol(protocol),
            protocol,
        })
    }

    /// Bytes of a connection of TCP that it sent, each once, and that it received.
    #[inline(always)]
    pub fn exchanged(self) -> Option<(u64, u64)> {
        let tcp = verifier::number(self.0 as u64);
        let sent: u64 = probe(tcp.wrapping_add(offset::<TCP_BYTES_SENT>()))?;
        let again: u64 = probe(tcp.wrapping_add(offset::<TCP_BYTES_AGAIN>()))?;
        let received: u64 = probe(tcp.wrapping_add(offset::<TCP_BYTES_RECEIVED>()))?;
        // The peer's end has a number, and the kernel counts it as a byte.
        let end = self.load::<SK_FLAGS, u64>() >> SOCK_DONE & 1;
        Some((sent.saturating_sub(again), received.saturating_sub(end)))
    }

    /// As a unix socket, if it is one.
    #[inline(always)]
    pub fn unix(self) -> Option<UnixSock> {
        if self.family() != AF_UNIX {
            return None;
        }
        // SAFETY: helper on a socket that the verifier checks.
        let unix = unsafe { bpf_skc_to_unix_sock(self.0.cast_mut().cast()) };
        if unix.is_null() { None } else { Some(UnixSock(unix as *const u8)) }
    }
}

/// Where the name of a unix socket that has no file is: its bytes, and how many they are.
#[derive(Clone, Copy)]
pub struct AbstractName {
    /// Kernel address of its first byte, behind the zero that marks it.
    pub address: u64,
    /// Bytes.
    pub len: u32,
}

impl UnixSock {
    /// The name of the file that it is bound to; null if to none.
    #[inline(always)]
    pub fn dentry(self) -> Dentry {
        Dentry(self.load::<UNIX_DENTRY, _>())
    }

    /// The socket that it is connected to.
    #[inline(always)]
    pub fn peer(self) -> Option<Sock> {
        let peer: *const u8 = self.load::<UNIX_PEER, _>();
        if Sock(peer).is_none() { None } else { Some(Sock(peer)) }
    }

    /// The abstract name that it is bound to. Of a path it is the first byte that tells.
    #[inline(always)]
    pub fn abstract_name(self) -> Option<AbstractName> {
        let address: *const u8 = self.load::<UNIX_ADDR, _>();
        if address.is_null() {
            return None;
        }
        let address = verifier::number(address as u64);
        let len = probe::<u32>(address.wrapping_add(offset::<UNIX_ADDRESS_LEN>()))?;
        abstract_name(address.wrapping_add(offset::<UNIX_ADDRESS_NAME>()), len)
    }
}

/// The abstract name in a `sockaddr_un` of so many bytes in kernel memory.
#[inline(always)]
pub fn abstract_name(address: u64, len: u32) -> Option<AbstractName> {
    /// The family, and the zero byte.
    const HEAD: u32 = 3;
    if len <= HEAD || probe::<u8>(address.wrapping_add(2))? != 0 {
        return None;
    }
    Some(AbstractName { address: address.wrapping_add(u64::from(HEAD)), len: len - HEAD })
}

impl Message {
    /// Kernel address of the destination's address; zero if none was given.
    #[inline(always)]
    pub fn name(self) -> u64 {
        verifier::number(self.load::<MSG_NAME, _>())
    }
}

impl Packet {
    /// Kernel address of its first byte, and the number of bytes.
    #[inline(always)]
    pub fn bytes(self) -> (u64, u32) {
        (verifier::number(self.load::<SKB_DATA, _>()), self.load::<SKB_LEN, _>())
    }

    /// Where a datagram in a socket's queue comes from, and its bytes.
    #[inline(always)]
    pub fn datagram(self, of: Sock) -> Option<(Destination, u32)> {
        let head = verifier::number(self.load::<SKB_HEAD, _>());
        let network = head.wrapping_add(u64::from(self.load::<SKB_NETWORK, u16>()));
        let transport = head.wrapping_add(u64::from(self.load::<SKB_TRANSPORT, u16>()));
        let is_v4 = probe::<u8>(network)? >> 4 == 4;
        let address = if is_v4 {
            Address::v4(u32::from_be(probe(network.wrapping_add(12))?))
        } else {
            let [high, low] = probe::<[u64; 2]>(network.wrapping_add(8))?;
            let (high, low) = (u64::from_be(high), u64::from_be(low));
            Address::v6([(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32])
        };
        let protocol = of.protocol();
        let from = Destination {
            address,
            port: u16::from_be(probe(transport)?),
            family: if is_v4 { AF_INET } else { AF_INET6 },
            transport: Transport::from_ip_protocol(protocol),
            protocol,
        };
        Some((from, self.load::<SKB_LEN, _>()))
    }
}

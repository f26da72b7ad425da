//! The resolver's sockets: UDP and TCP at 127.0.0.1 and `::1`, on one port where that is
//! free. The service manager keeps them for the next daemon, so that what is asked meanwhile
//! waits for it; where there is none, the port is kept, so that sockets that runs have
//! connected go on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::SockType as SockKind;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::SockType;

use super::super::DaemonError;
use crate::files::{self, Durability};
use crate::notify::{self, Notifier};

/// Tries to find a port that is free for UDP and TCP.
const TRIES: usize = 16;

pub(super) struct Sockets {
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
    pub v4: u16,
    /// Zero: the host has no `::1`.
    pub v6: u16,
}

/// Under which name the service manager keeps them.
const STORE: &str = "resolver";

impl Sockets {
    /// Takes over those of the last daemon if they are whole and at the wanted port, or
    /// binds others, and has them kept for the next.
    pub fn open(fixed: Option<u16>, file: &Path) -> Result<Self, DaemonError> {
        if let Some(sockets) = Self::take_over(notify::kept(STORE), fixed) {
            tracing::info!("resolver: took over the sockets of the daemon before");
            return Ok(sockets);
        }
        let sockets = Self::bind(fixed, file)?;
        let udp = sockets.udp.iter().map(AsFd::as_fd);
        let all: Vec<BorrowedFd<'_>> = udp.chain(sockets.tcp.iter().map(AsFd::as_fd)).collect();
        Notifier::from_environment().keep(STORE, &all);
        Ok(sockets)
    }

    /// `None`, and what was kept is closed, if it is not a pair for IPv4 and one or none for
    /// IPv6.
    fn take_over(kept: Vec<OwnedFd>, fixed: Option<u16>) -> Option<Self> {
        let mut sockets = Self {
            udp: Vec::new(),
            tcp: Vec::new(),
            v4: 0,
            v6: 0,
        };
        for descriptor in kept {
            match getsockopt(&descriptor, SockType).ok()? {
                SockKind::Datagram => sockets.udp.push(descriptor.into()),
                SockKind::Stream => sockets.tcp.push(descriptor.into()),
                _ => return None,
            }
        }
        let port = |ip: IpAddr| {
            let is_there = |at: &SocketAddr| at.ip() == ip;
            let udp = sockets
                .udp
                .iter()
                .find_map(|udp| udp.local_addr().ok().filter(is_there));
            let tcp = sockets
                .tcp
                .iter()
                .find_map(|tcp| tcp.local_addr().ok().filter(is_there));
            (udp == tcp).then_some(udp.map_or(0, |at| at.port()))
        };
        let (v4, v6) = (
            port(Ipv4Addr::LOCALHOST.into())?,
            port(Ipv6Addr::LOCALHOST.into())?,
        );
        let pairs = 1 + usize::from(v6 != 0);
        let is_whole = v4 != 0 && (sockets.udp.len(), sockets.tcp.len()) == (pairs, pairs);
        let is_wanted = fixed.is_none_or(|fixed| v4 == fixed && (v6 == 0 || v6 == fixed));
        (sockets.v4, sockets.v6) = (v4, v6);
        (is_whole && is_wanted).then_some(sockets)
    }

    /// Binds them: at `fixed` or not at all, or else at the ports of the last daemon, or
    /// at others.
    fn bind(fixed: Option<u16>, file: &Path) -> Result<Self, DaemonError> {
        let last = if fixed.is_some() { None } else { read(file) };
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (udp, tcp) = pair(v4, fixed, last.map(|(v4, _)| v4))?;
        let port = udp.local_addr().map_or(0, |address| address.port());
        let mut sockets = Self {
            udp: vec![udp],
            tcp: vec![tcp],
            v4: port,
            v6: 0,
        };
        let wanted = last.map(|(_, v6)| v6).filter(|v6| *v6 != 0);
        match pair(Ipv6Addr::LOCALHOST.into(), fixed, wanted.or(Some(port))) {
            Ok((udp, tcp)) => {
                sockets.v6 = udp.local_addr().map_or(0, |address| address.port());
                sockets.udp.push(udp);
                sockets.tcp.push(tcp);
            }
            Err(DaemonError::Resolver { source, .. }) if is_absent(&source) => {
                tracing::info!("resolver: this host has no ::1 ({source}); 127.0.0.1 alone");
            }
            Err(error) => return Err(error),
        }
        if last != Some((sockets.v4, sockets.v6)) {
            let text = format!("{} {}\n", sockets.v4, sockets.v6);
            files::replace(file, text.as_bytes(), Durability::Process)?;
        }
        Ok(sockets)
    }
}

/// The ports of the last daemon; none if that cannot be read, for then new ones do.
fn read(file: &Path) -> Option<(u16, u16)> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut ports = text.split_ascii_whitespace().map(str::parse);
    Some((ports.next()?.ok()?, ports.next()?.ok()?))
}

fn pair(
    ip: IpAddr,
    fixed: Option<u16>,
    wanted: Option<u16>,
) -> Result<(UdpSocket, TcpListener), DaemonError> {
    let refused = |port| {
        let address = SocketAddr::new(ip, port);
        move |source| DaemonError::Resolver { address, source }
    };
    if let Some(port) = fixed {
        return at(ip, port).map_err(refused(port));
    }
    if let Some(port) = wanted.filter(|port| *port != 0) {
        match at(ip, port) {
            Ok(sockets) => return Ok(sockets),
            Err(error) if is_absent(&error) => return Err(refused(port)(error)),
            Err(error) => tracing::info!(
                "resolver: port {port} of {ip} is taken ({error}); agents' sockets that were connected to it ask in vain"
            ),
        }
    }
    // The port that is free for one may be taken for the other: again then.
    let mut result = at(ip, 0);
    for _ in 1..TRIES {
        match &result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => result = at(ip, 0),
            _ => break,
        }
    }
    result.map_err(refused(0))
}

fn at(ip: IpAddr, port: u16) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind((ip, port))?;
    let tcp = TcpListener::bind(udp.local_addr()?)?;
    Ok((udp, tcp))
}

/// Whether the host does not have the address, or its family.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(sockets: Sockets) -> Vec<OwnedFd> {
        let udp = sockets.udp.into_iter().map(OwnedFd::from);
        udp.chain(sockets.tcp.into_iter().map(OwnedFd::from))
            .collect()
    }

    #[test]
    fn what_is_kept_is_taken_over_if_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolver");
        let first = Sockets::bind(None, &file).unwrap();
        let (v4, v6) = (first.v4, first.v6);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"question", ("127.0.0.1", v4)).unwrap();
        // Nobody listens any more but the manager.
        let again = Sockets::take_over(kept(first), None).unwrap();
        assert_eq!((again.v4, again.v6), (v4, v6));
        let mut question = [0; 16];
        let length = again.udp[0].recv(&mut question).unwrap();
        assert_eq!(&question[..length], b"question");
        assert!(Sockets::take_over(kept(again), Some(v4 ^ 1)).is_none());
        assert!(Sockets::take_over(Vec::new(), None).is_none());
        let mut half = Sockets::bind(None, &file).unwrap();
        half.tcp.pop();
        assert!(Sockets::take_over(kept(half), None).is_none());
    }
}

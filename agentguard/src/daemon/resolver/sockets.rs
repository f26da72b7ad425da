//! The resolver's sockets: UDP and TCP at 127.0.0.1 and `::1`, on one port where that is
//! free. The port is kept for the next daemon, so that sockets that runs have connected
//! go on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use super::super::DaemonError;
use crate::files::{self, Durability};

/// Tries to find a port that is free for UDP and TCP.
const TRIES: usize = 16;

pub(super) struct Sockets {
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
    pub v4: u16,
    /// Zero: the host has no `::1`.
    pub v6: u16,
}

impl Sockets {
    /// Binds them: at `fixed` or not at all, or else at the ports of the last daemon, or
    /// at others.
    pub fn bind(fixed: Option<u16>, file: &Path) -> Result<Self, DaemonError> {
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

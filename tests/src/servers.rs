//! Servers that agents try to reach. They count who came.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};

/// A server on the loopback interface: one address, TCP and UDP.
#[derive(Debug)]
pub struct Server {
    /// TCP's address.
    pub tcp: SocketAddr,
    /// UDP's address.
    pub udp: SocketAddr,
    connections: Arc<AtomicU64>,
    datagrams: Arc<AtomicU64>,
}

impl Server {
    /// Starts one on this address.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(address: &str) -> Result<Self> {
        let at = |what| format!("cannot listen on {address} ({what})");
        let tcp = TcpListener::bind((address, 0)).with_context(|| at("TCP"))?;
        let udp = UdpSocket::bind((address, 0)).with_context(|| at("UDP"))?;
        let server = Self {
            tcp: tcp.local_addr()?,
            udp: udp.local_addr()?,
            connections: Arc::default(),
            datagrams: Arc::default(),
        };
        let connections = Arc::clone(&server.connections);
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || answer(stream));
            }
        });
        let datagrams = Arc::clone(&server.datagrams);
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while udp.recv_from(&mut buffer).is_ok() {
                datagrams.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(server)
    }

    /// Connections and datagrams that arrived.
    #[must_use]
    pub fn visits(&self) -> (u64, u64) {
        let connections = self.connections.load(Ordering::Relaxed);
        (connections, self.datagrams.load(Ordering::Relaxed))
    }

    /// Both as rules of a manifest.
    #[must_use]
    pub fn rules(&self) -> [String; 2] {
        [format!("{}/tcp", self.tcp), format!("{}/udp", self.udp)]
    }
}

/// The answer that satisfies curl, and anything else that reads a little.
fn answer(mut stream: TcpStream) {
    let mut request = [0; 1024];
    if matches!(stream.read(&mut request), Ok(count) if count > 0) {
        let _ = stream
            .write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n");
    }
}

/// An address more on the loopback interface, for as long as this lives.
#[derive(Debug)]
pub struct Own(&'static str);

impl Own {
    /// Takes it; nobody else should use it.
    ///
    /// # Errors
    /// `ip` is not there, or refuses.
    pub fn take(address: &'static str) -> Result<Self> {
        let added = Self::ip("replace", address)?;
        ensure!(added.success(), "`ip address replace {address}` failed");
        Ok(Self(address))
    }

    fn ip(what: &str, address: &str) -> Result<ExitStatus> {
        Command::new("ip")
            .args(["address", what, &format!("{address}/32"), "dev", "lo"])
            .status()
            .context("cannot start `ip` (Debian package iproute2)")
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // It is gone with the machine in any case.
        let _ = Self::ip("delete", self.0);
    }
}

/// The servers of a suite: each reachable for everyone, and two of them allowed.
#[derive(Debug)]
pub struct Servers {
    /// Allowed, IPv4.
    pub listed_v4: Server,
    /// Allowed, IPv6.
    pub listed_v6: Server,
    /// Not allowed, IPv4.
    pub unlisted_v4: Server,
    /// Not allowed, IPv6.
    pub unlisted_v6: Server,
}

impl Servers {
    /// Starts them.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub fn start() -> Result<Self> {
        Ok(Self {
            listed_v4: Server::start("127.0.0.1")?,
            listed_v6: Server::start("::1")?,
            unlisted_v4: Server::start("127.0.0.1")?,
            unlisted_v6: Server::start("::1")?,
        })
    }

    /// The rules that allow the listed ones.
    #[must_use]
    pub fn rules(&self) -> Vec<String> {
        [self.listed_v4.rules(), self.listed_v6.rules()].concat()
    }
}

//! The servers that the demonstration's agent talks to, or is kept from; each counts who came.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Longest wait for a request.
const REQUEST: Duration = Duration::from_secs(20);

/// A server, alive as long as this process.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    visits: Arc<AtomicUsize>,
}

impl Server {
    /// An HTTP server that answers every request.
    pub fn http(address: IpAddr) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))
            .with_context(|| format!("cannot listen on {address}"))?;
        let server = Self::new(listener.local_addr()?);
        let visits = Arc::clone(&server.visits);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Counted before it is answered: whoever has an answer has been counted.
                visits.fetch_add(1, Ordering::SeqCst);
                // A client that only connects is none to wait for, and its end is no error.
                thread::spawn(move || answer(&client));
            }
        });
        Ok(server)
    }

    /// A receiver of datagrams.
    pub fn datagrams(address: IpAddr) -> Result<Self> {
        let socket = UdpSocket::bind((address, 0))
            .with_context(|| format!("cannot receive datagrams on {address}"))?;
        let server = Self::new(socket.local_addr()?);
        let visits = Arc::clone(&server.visits);
        thread::spawn(move || {
            while socket.recv_from(&mut [0; 64]).is_ok() {
                visits.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(server)
    }

    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            visits: Arc::default(),
        }
    }

    /// How many came since this was asked last.
    pub fn take_visits(&self) -> usize {
        self.visits.swap(0, Ordering::SeqCst)
    }

    /// Where HTTP clients find it.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

fn answer(mut client: &TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(REQUEST))?;
    let head = BufReader::new(client).lines();
    for line in head {
        if line?.is_empty() {
            break;
        }
    }
    client.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n",
    )
}

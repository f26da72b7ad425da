//! The server that is played: UDP and TCP on one loopback port.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::super::Protocol;
use super::super::upstream::framed;

/// What it sends for a query, in this order.
type Play = dyn Fn(Protocol, &[u8]) -> Vec<Vec<u8>> + Send + Sync;

/// What was asked of it.
type Queries = Arc<Mutex<Vec<(Protocol, Vec<u8>)>>>;

pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    queries: Queries,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Upstream {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Upstream {
    pub(super) async fn start(
        play: impl Fn(Protocol, &[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0", play)
            .await
            .expect("loopback is there")
    }

    /// At an address that the host may not have.
    pub(super) async fn start_at(
        address: &str,
        play: impl Fn(Protocol, &[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Option<Self> {
        let play: Arc<Play> = Arc::new(play);
        let (udp, tcp) = sockets(address).await?;
        let queries = Arc::default();
        Some(Self {
            address: udp.local_addr().expect("an address"),
            tasks: [
                tokio::spawn(datagrams(udp, Arc::clone(&play), Arc::clone(&queries))),
                tokio::spawn(connections(tcp, play, Arc::clone(&queries))),
            ],
            queries,
        })
    }

    pub(super) fn queries(&self) -> Vec<(Protocol, Vec<u8>)> {
        self.queries.lock().expect("unpoisoned").clone()
    }
}

/// The port that the kernel chose for one may be taken for the other: again then.
async fn sockets(address: &str) -> Option<(UdpSocket, TcpListener)> {
    loop {
        let udp = UdpSocket::bind(address).await.ok()?;
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("an address")).await {
            return Some((udp, tcp));
        }
    }
}

async fn datagrams(socket: UdpSocket, play: Arc<Play>, queries: Queries) {
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.expect("received");
        let query = buffer[..length].to_vec();
        let replies = play(Protocol::Udp, &query);
        queries
            .lock()
            .expect("unpoisoned")
            .push((Protocol::Udp, query));
        for reply in replies {
            // A client that has gone is its own business.
            let _ = socket.send_to(&reply, peer).await;
        }
    }
}

async fn connections(listener: TcpListener, play: Arc<Play>, queries: Queries) {
    loop {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let Ok(length) = stream.read_u16().await else {
            continue;
        };
        let mut query = vec![0; length.into()];
        stream.read_exact(&mut query).await.expect("a query");
        let replies = play(Protocol::Tcp, &query);
        queries
            .lock()
            .expect("unpoisoned")
            .push((Protocol::Tcp, query));
        for reply in replies {
            let _ = stream.write_all(&framed(&reply)).await;
        }
    }
}

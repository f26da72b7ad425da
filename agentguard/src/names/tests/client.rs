//! The program that asks, and the resolver under test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::upstream::framed;
use super::super::{Count, Counters, Server};
use super::{Fake, Seen, seen};

/// Longer than anything takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running resolver.
pub(super) struct Running {
    pub(super) udp: SocketAddr,
    pub(super) tcp: SocketAddr,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn start(authority: &Fake) -> Running {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let addresses = (udp.local_addr(), tcp.local_addr());
    let server = Server::new(vec![udp], vec![tcp], authority.clone());
    let counters = server.counters();
    let task = tokio::spawn(async move {
        server
            .run(std::future::pending())
            .await
            .expect("sockets work");
    });
    Running {
        udp: addresses.0.expect("an address"),
        tcp: addresses.1.expect("an address"),
        counters,
        task,
    }
}

impl Running {
    pub(super) fn count(&self, count: Count) -> u64 {
        self.counters.get(count)
    }

    /// One question over UDP.
    pub(super) async fn ask(&self, question: &[u8]) -> Seen {
        let socket = self.socket().await;
        socket.send(question).await.expect("sent");
        seen(&receive(&socket).await)
    }

    /// A client's socket.
    pub(super) async fn socket(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        socket.connect(self.udp).await.expect("connected");
        socket
    }

    /// Questions over one TCP connection, one after the other.
    pub(super) async fn ask_tcp(&self, questions: &[&[u8]]) -> Vec<Seen> {
        let mut stream = TcpStream::connect(self.tcp).await.expect("connected");
        let mut replies = Vec::new();
        for question in questions {
            replies.push(exchange(&mut stream, question).await.expect("a reply"));
        }
        replies
    }

    /// One question over TCP; `None` if the connection was closed.
    pub(super) async fn try_tcp(&self, question: &[u8]) -> Option<Seen> {
        let mut stream = TcpStream::connect(self.tcp).await.expect("connected");
        exchange(&mut stream, question).await.ok()
    }
}

pub(super) async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let length = timeout(PATIENCE, socket.recv(&mut buffer))
        .await
        .expect("a reply in time")
        .expect("a reply");
    buffer.truncate(length);
    buffer
}

async fn exchange(stream: &mut TcpStream, question: &[u8]) -> std::io::Result<Seen> {
    stream.write_all(&framed(question)).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await?;
    Ok(seen(&reply))
}

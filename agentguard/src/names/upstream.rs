//! One try at one server.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer;
use super::counters::{Count, Counters};
use super::limits::{DATAGRAM_BYTES, TRY_TIME, UPSTREAM_CONNECTIONS};
use super::question::Question;

/// Why a try brought no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TryError {
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("no answer in time")]
    Silent,
    #[error("an answer to something else over TCP")]
    NotOurs,
    #[error("no random numbers")]
    Random,
    #[error("the question cannot be built")]
    Build,
}

/// What the tries of all questions share.
pub(super) struct Upstream {
    connections: Semaphore,
}

impl Upstream {
    pub(super) fn new() -> Self {
        Self {
            connections: Semaphore::new(UPSTREAM_CONNECTIONS),
        }
    }

    /// Asks one server, over TCP when its answer is truncated. The answer has our
    /// number and our question; no more of it is read.
    pub(super) async fn ask(
        &self,
        server: SocketAddr,
        question: &Question,
        counters: &Counters,
    ) -> Result<Vec<u8>, TryError> {
        let by_udp = timeout(TRY_TIME, ask_udp(server, question, counters));
        let message = by_udp.await.map_err(|_| TryError::Silent)??;
        if !is_truncated(&message) {
            return Ok(message);
        }
        let by_tcp = timeout(TRY_TIME, self.ask_tcp(server, question));
        by_tcp.await.map_err(|_| TryError::Silent)?
    }

    async fn ask_tcp(&self, server: SocketAddr, question: &Question) -> Result<Vec<u8>, TryError> {
        // Never closed, so an error cannot happen; it would be silence.
        let _permit = self
            .connections
            .acquire()
            .await
            .map_err(|_| TryError::Silent)?;
        let (id, query) = query(question)?;
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(&framed(&query)).await?;
        let length = stream.read_u16().await?;
        let mut message = vec![0; length.into()];
        stream.read_exact(&mut message).await?;
        if answer::is_for(&message, id, question) {
            Ok(message)
        } else {
            Err(TryError::NotOurs)
        }
    }
}

/// A fresh socket for each try: its port, which the kernel chooses at random, and
/// the number are what a forger has to guess.
async fn ask_udp(
    server: SocketAddr,
    question: &Question,
    counters: &Counters,
) -> Result<Vec<u8>, TryError> {
    let (id, query) = query(question)?;
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // Connected: the kernel drops what comes from elsewhere, and tells of ICMP errors.
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut message = vec![0; DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut message).await?;
        let received = message.get(..length).unwrap_or_default();
        if answer::is_for(received, id, question) {
            message.truncate(length);
            return Ok(message);
        }
        counters.add(Count::Ignored);
    }
}

fn query(question: &Question) -> Result<(u16, Vec<u8>), TryError> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|_| TryError::Random)?;
    let id = u16::from_ne_bytes(id);
    let query = question.query(id).map_err(|_| TryError::Build)?;
    Ok((id, query))
}

fn is_truncated(message: &[u8]) -> bool {
    const TC: u8 = 0x02;
    message.get(2).is_some_and(|flags| flags & TC != 0)
}

/// A message with its length before it, as TCP carries it (RFC 1035, 4.2.2). In one
/// piece, so that it leaves in one segment. A message of ours is never longer than
/// 65,535 bytes; were it, it would be cut, and malformed.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut framed = Vec::with_capacity(2 + usize::from(length));
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message.get(..length.into()).unwrap_or_default());
    framed
}

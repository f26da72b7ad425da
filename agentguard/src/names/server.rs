//! The sockets: datagrams and connections of clients.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::counters::{Count, Counters};
use super::limits::{ALL_CONNECTIONS, IDLE_TIME, InHand, QUESTION_BYTES, RUN_CONNECTIONS};
use super::resolve::{Next, Resolver};
use super::upstream::framed;
use super::{Authority, Protocol};

/// After an error of a socket, so that one that stays does not take a processor.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// The resolver, with the sockets that the kernel sends questions to.
pub struct Server<A> {
    udp: Vec<std::net::UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
    resolver: Arc<Resolver<A>>,
    connections: Arc<InHand>,
}

impl<A: Authority> Server<A> {
    /// A resolver on bound sockets. They should be bound to loopback addresses, so
    /// that a reply comes from where the question went.
    #[must_use]
    pub fn new(
        udp: Vec<std::net::UdpSocket>,
        tcp: Vec<std::net::TcpListener>,
        authority: A,
    ) -> Self {
        Self {
            udp,
            tcp,
            resolver: Arc::new(Resolver::new(authority)),
            connections: InHand::new(RUN_CONNECTIONS, ALL_CONNECTIONS),
        }
    }

    /// What it counts, also after it was started.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.resolver.counters)
    }

    /// Answers until `shutdown` is ready. Questions in hand are then dropped: their
    /// programs ask again, or fail.
    ///
    /// # Errors
    /// A socket cannot be used at all. Later errors are counted, and it goes on.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        // Dropped at the end, which ends the loops, and with each loop its tasks.
        let mut loops = JoinSet::new();
        for socket in self.udp {
            socket.set_nonblocking(true)?;
            let socket = UdpSocket::from_std(socket)?;
            loops.spawn(datagrams(socket, Arc::clone(&self.resolver)));
        }
        for listener in self.tcp {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let resolver = Arc::clone(&self.resolver);
            loops.spawn(connections(
                listener,
                resolver,
                Arc::clone(&self.connections),
            ));
        }
        shutdown.await;
        Ok(())
    }
}

async fn datagrams<A: Authority>(socket: UdpSocket, resolver: Arc<Resolver<A>>) {
    let socket = Arc::new(socket);
    let mut tasks = JoinSet::new();
    // One byte more than a question may have, so that a longer one is noticed.
    let mut buffer = vec![0; QUESTION_BYTES + 1];
    loop {
        while tasks.try_join_next().is_some() {}
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                trouble(&resolver.counters, "receiving DNS questions", &error).await;
                continue;
            }
        };
        let message = buffer.get(..length).unwrap_or_default();
        match resolver.begin(Protocol::Udp, peer, message) {
            Next::Nothing => {}
            // Not waited for: a full buffer drops the reply, as networks do.
            Next::Reply(reply) => note(&resolver.counters, socket.try_send_to(&reply, peer)),
            Next::Ask(pending) => {
                let socket = Arc::clone(&socket);
                let resolver = Arc::clone(&resolver);
                // Bounded: each holds one of the questions that are counted.
                tasks.spawn(async move {
                    let reply = resolver.finish(pending).await;
                    note(&resolver.counters, socket.send_to(&reply, peer).await);
                });
            }
        }
    }
}

async fn connections<A: Authority>(
    listener: TcpListener,
    resolver: Arc<Resolver<A>>,
    in_hand: Arc<InHand>,
) {
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                trouble(&resolver.counters, "accepting DNS connections", &error).await;
                continue;
            }
        };
        let Some(asker) = resolver.authority.asker(Protocol::Tcp, peer) else {
            resolver.counters.add(Count::Strangers);
            continue;
        };
        let Some(held) = in_hand.take(&asker) else {
            resolver.counters.add(Count::TooManyConnections);
            continue;
        };
        let resolver = Arc::clone(&resolver);
        tasks.spawn(async move {
            if let Err(error) = connection(stream, peer, &resolver).await {
                resolver.counters.add(Count::Sockets);
                debug!(%peer, %error, "a DNS connection ended");
            }
            drop(held);
        });
    }
}

/// One connection: questions one after the other, each answered before the next is
/// read. So a connection never has more than one question in hand.
async fn connection<A: Authority>(
    mut stream: TcpStream,
    peer: SocketAddr,
    resolver: &Resolver<A>,
) -> io::Result<()> {
    let mut message = Vec::new();
    loop {
        match timeout(IDLE_TIME, read(&mut stream, &mut message)).await {
            Ok(Ok(true)) => {}
            // The client's end, or nothing for a while: both are usual.
            Ok(Ok(false)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        }
        // The run is looked up anew for each question: it may have ended.
        let reply = match resolver.begin(Protocol::Tcp, peer, &message) {
            Next::Nothing => return Ok(()),
            Next::Reply(reply) => reply,
            Next::Ask(pending) => resolver.finish(pending).await,
        };
        timeout(IDLE_TIME, stream.write_all(&framed(&reply))).await??;
        if message.len() > QUESTION_BYTES {
            // The rest of it was not read, so what follows is no message.
            return Ok(());
        }
    }
}

/// Reads one message, or of one that is too long the beginning; `false` at the end.
async fn read(stream: &mut TcpStream, message: &mut Vec<u8>) -> io::Result<bool> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    message.resize(length.min(QUESTION_BYTES + 1), 0);
    stream.read_exact(message).await?;
    Ok(true)
}

fn note(counters: &Counters, sent: io::Result<usize>) {
    if let Err(error) = sent {
        counters.add(Count::Sockets);
        debug!(%error, "a DNS reply was not sent");
    }
}

async fn trouble(counters: &Counters, what: &str, error: &io::Error) {
    counters.add(Count::Sockets);
    warn!(%error, "{what}");
    sleep(ERROR_PAUSE).await;
}

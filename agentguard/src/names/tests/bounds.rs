//! What a run can take of the resolver.

use domain::base::iana::{Rcode, Rtype};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::limits::InHand;
use super::super::upstream::framed;
use super::super::{Asker, Count, Protocol};
use super::client::start;
use super::server::{NAME, honest};
use super::upstream::Upstream;
use super::{Fake, ask, seen, until};

#[test]
fn what_is_in_hand_is_limited_per_run_and_in_all() {
    let asker = |run, serial| Asker {
        run,
        serial,
        protocol: Protocol::Udp,
        server: ([127, 0, 0, 1], 53).into(),
    };
    let in_hand = InHand::new(2, 5);
    let one = [in_hand.take(&asker(1, 1)), in_hand.take(&asker(1, 1))];
    assert!(one.iter().all(Option::is_some));
    assert!(in_hand.take(&asker(1, 1)).is_none());
    // A later run in the same slot is another run.
    let two = [in_hand.take(&asker(1, 2)), in_hand.take(&asker(1, 2))];
    let three = in_hand.take(&asker(2, 1));
    assert!(two.iter().all(Option::is_some) && three.is_some());
    assert!(in_hand.take(&asker(3, 1)).is_none());
    drop(one);
    assert!(in_hand.take(&asker(3, 1)).is_some());
    assert!(in_hand.take(&asker(1, 1)).is_some());
}

#[tokio::test]
async fn questions_of_a_run_are_limited() {
    let silent = Upstream::start(|_, _| Vec::new()).await;
    let authority = Fake::new(&[NAME], &[silent.address]);
    let running = start(&authority);
    let socket = running.socket().await;
    for _ in 0..64 {
        socket.send(&ask(NAME, Rtype::A)).await.expect("sent");
    }
    until(|| running.count(Count::Messages) == 64).await;
    let reply = running.ask(&ask(NAME, Rtype::A)).await;
    assert_eq!(reply.rcode, Rcode::SERVFAIL);
    assert_eq!(running.count(Count::TooManyQuestions), 1);
    assert_eq!(authority.lines(), ["refused api.example.com: TooMany"]);
}

#[tokio::test]
async fn connections_of_a_run_are_limited() {
    let upstream = honest().await;
    let authority = Fake::new(&[NAME], &[upstream.address]);
    let running = start(&authority);
    let mut open = Vec::new();
    for _ in 0..65 {
        open.push(TcpStream::connect(running.tcp).await.expect("connected"));
    }
    until(|| running.count(Count::TooManyConnections) == 1).await;
    // One that ends makes room.
    open.remove(0);
    let question = ask(NAME, Rtype::A);
    until(|| running.count(Count::TooManyConnections) == 1).await;
    loop {
        let refused = running.count(Count::TooManyConnections);
        let reply = running.try_tcp(&question).await;
        if let Some(reply) = reply {
            assert_eq!(reply.rcode, Rcode::NOERROR);
            break;
        }
        until(|| running.count(Count::TooManyConnections) > refused).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let authority = Fake::new(&[NAME], &[]);
    let running = start(&authority);
    let mut stream = TcpStream::connect(running.tcp).await.expect("connected");
    tokio::time::pause();
    let started = Instant::now();
    assert_eq!(stream.read(&mut [0; 1]).await.expect("closed in order"), 0);
    // The clock stands still but for timers, so this does not depend on speed.
    assert!((9..12).contains(&started.elapsed().as_secs()));
}

#[tokio::test]
async fn a_question_over_tcp_that_is_too_long_ends_the_connection() {
    let authority = Fake::new(&[NAME], &[]);
    let running = start(&authority);
    let mut stream = TcpStream::connect(running.tcp).await.expect("connected");
    let mut question = ask(NAME, Rtype::A);
    question.resize(5000, 0);
    stream.write_all(&framed(&question)).await.expect("written");
    let mut reply = Vec::new();
    // The end may come as a reset, because not all was read.
    let _ = stream.read_to_end(&mut reply).await;
    assert!(reply.is_empty() || seen(&reply[2..]).rcode == Rcode::FORMERR);
}

//! The desk over a whole daemon, with a server that is played.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agentguard_common::identity::Tag;
use agentguard_common::net::Address;
use agentguard_common::resolver::{Asker as KernelAsker, AskerKey, GrantKey};
use tokio::net::UdpSocket;

use super::super::tests::{Host, launch};
use super::{Desk, Hosts};
use crate::clock::boot_ns;
use crate::kernel::Askers;
use crate::names::resolv::Resolvers;
use crate::names::{AdmitError, Asker, Authority, Grant, Protocol, Refusal, Server};

const MANIFEST: &str = "\
apiVersion: agentguard/v1
kind: Agent
metadata: { name: coder }
spec:
  owner: team@example.com
  environment: production
  authority: service
  mode: enforce
  permissions:
    connect: { allow: ['api.example.com:443'] }
";

/// Longer than anything takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The desk, with a server that is not on port 53.
struct Elsewhere(Desk, SocketAddr);

impl Authority for Elsewhere {
    fn asker(&self, protocol: Protocol, peer: SocketAddr) -> Option<Asker> {
        self.0.asker(protocol, peer)
    }

    fn may_ask(&self, asker: &Asker, name: &str) -> bool {
        self.0.may_ask(asker, name)
    }

    fn upstreams(&self, _: &Asker) -> Vec<SocketAddr> {
        vec![self.1]
    }

    async fn admit(&self, asker: &Asker, grant: &Grant) -> Result<(), AdmitError> {
        self.0.admit(asker, grant).await
    }

    fn refused(&self, asker: &Asker, name: &str, why: Refusal) {
        self.0.refused(asker, name, why);
    }
}

fn hosts(text: &str) -> (tempfile::TempDir, Arc<Hosts>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    std::fs::write(&path, text).unwrap();
    (directory, Arc::new(Hosts::new(Resolvers::new(path))))
}

async fn desk(daemon: &super::super::Daemon, hosts: &Arc<Hosts>) -> Desk {
    let engine = daemon.base.engine.clone();
    let parts = engine.call(|engine| (engine.view(), engine.port().askers()));
    let (view, askers) = parts.await.unwrap();
    Desk {
        engine,
        view,
        askers: askers.unwrap(),
        hosts: Arc::clone(hosts),
    }
}

/// A question for the address of a name, with this number.
fn question(id: u8, name: &str) -> Vec<u8> {
    let mut message = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Answers every question with one address.
async fn play(socket: UdpSocket, address: [u8; 4]) {
    let mut buffer = [0; 512];
    loop {
        let (_, peer) = socket.recv_from(&mut buffer).await.unwrap();
        let name = buffer[12..].iter().position(|byte| *byte == 0).unwrap();
        let end = 12 + name + 5;
        let mut answer = buffer[..end].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4]);
        answer.extend(address);
        socket.send_to(&answer, peer).await.unwrap();
    }
}

fn note(host: &Host, client: &UdpSocket, tag: Tag, age: Duration) {
    let key = AskerKey {
        address: [0x7f00_0001, 0, 0, 0],
        port: client.local_addr().unwrap().port(),
        protocol: 17,
        is_v4: 1,
    };
    let asker = KernelAsker {
        tag,
        boot_ns: boot_ns().saturating_sub(age.as_nanos() as u64),
        address: [0xc000_0235, 0, 0, 0],
        is_v4: 1,
        reserved: 0,
    };
    host.port.state().askers.insert(key, asker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_asks_and_the_kernel_has_the_address_before_it_is_answered() {
    let host = Host::new();
    host.write_manifest(MANIFEST);
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    let tag = started.run.tag();
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = upstream.local_addr().unwrap();
    let played = tokio::spawn(play(upstream, [192, 0, 2, 7]));
    let (_directory, hosts) = hosts("nameserver 192.0.2.53\n");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = udp.local_addr().unwrap();
    let desk = Elsewhere(desk(&daemon, &hosts).await, server);
    let serving =
        tokio::spawn(Server::new(vec![udp], Vec::new(), desk).run(std::future::pending()));

    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(resolver).await.unwrap();
    let ask = async |id, name: &str| {
        client.send(&question(id, name)).await.unwrap();
        let mut buffer = vec![0; 512];
        let received = tokio::time::timeout(PATIENCE, client.recv(&mut buffer));
        let length = received.await.unwrap().unwrap();
        assert_eq!(buffer[1], id);
        (buffer[3] & 15, buffer[..length].ends_with(&[192, 0, 2, 7]))
    };
    // Nobody whom the kernel sent here.
    assert_eq!(ask(1, "api.example.com").await, (5, false));
    note(&host, &client, tag, Duration::ZERO);
    assert_eq!(ask(2, "API.example.com").await, (0, true));
    let key = GrantKey::new(
        tag.run_serial,
        &Address::v4(Ipv4Addr::new(192, 0, 2, 7).to_bits()),
    );
    assert!(host.port.state().grants.contains_key(&key));
    assert_eq!(ask(3, "evil.net").await, (3, false));
    // The kernel's word is old, and then about another run.
    note(&host, &client, tag, Duration::from_secs(60));
    assert_eq!(ask(4, "api.example.com").await, (5, false));
    let ended = Tag {
        run_serial: tag.run_serial + 1,
        ..tag
    };
    note(&host, &client, ended, Duration::ZERO);
    assert_eq!(ask(5, "api.example.com").await, (5, false));
    serving.abort();
    played.abort();
    daemon.stop().await;
}

struct Nobody;

impl Askers for Nobody {
    fn get(&self, _: &AskerKey) -> Option<KernelAsker> {
        None
    }

    fn is_live(&self, _tag: Tag) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_servers_that_a_run_cannot_be_are_asked() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let (_directory, hosts) = hosts("nameserver 192.0.2.53\nnameserver 127.0.0.53\n");
    let desk = Desk {
        askers: Arc::new(Nobody),
        ..desk(&daemon, &hosts).await
    };
    let of = |server: &str| {
        let asker = Asker {
            run: 1,
            serial: 1,
            protocol: Protocol::Udp,
            server: SocketAddr::new(server.parse().unwrap(), 53),
        };
        let servers = desk.upstreams(&asker).into_iter();
        servers
            .map(|server| server.ip().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("192.0.2.53"), ["192.0.2.53", "127.0.0.53"]);
    // The one that was asked first.
    assert_eq!(of("127.0.0.53"), ["127.0.0.53", "192.0.2.53"]);
    // One that an address rule of the policy allows.
    assert_eq!(
        of("198.51.100.53"),
        ["198.51.100.53", "192.0.2.53", "127.0.0.53"]
    );
    // At an address of this host, or its link.
    for own in [
        "127.0.0.1",
        "127.0.0.10",
        "::1",
        "0.0.0.0",
        "fe80::1",
        "224.0.0.251",
    ] {
        assert_eq!(of(own), ["192.0.2.53", "127.0.0.53"], "{own}");
    }
    std::fs::remove_file(_directory.path().join("resolv.conf")).unwrap();
    std::fs::create_dir(_directory.path().join("resolv.conf")).unwrap();
    assert_eq!(
        of("192.0.2.53"),
        ["192.0.2.53", "127.0.0.53"],
        "those that were read last"
    );
    daemon.stop().await;
}

//! What the resolver asks the rest of the daemon.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use agentguard_common::resolver::{AskerKey, DNS_PORT};

use super::Hosts;
use crate::clock;
use crate::engine::{Handle, View, address_of, ip_of};
use crate::kernel::Askers;
use crate::names::address::admissible;
use crate::names::{AdmitError, Asker, Authority, Grant, Protocol, Refusal};

/// How long the kernel's word about a source of datagrams counts. Its port may then be
/// another program's.
const UDP_AGE: Duration = Duration::from_secs(30);

/// The same for a connection, whose packets renew it.
const TCP_AGE: Duration = Duration::from_secs(600);

/// See the module.
pub(super) struct Desk {
    pub engine: Handle,
    pub view: Arc<View>,
    pub askers: Arc<dyn Askers>,
    pub hosts: Arc<Hosts>,
}

impl Authority for Desk {
    fn asker(&self, protocol: Protocol, peer: SocketAddr) -> Option<Asker> {
        let (number, age) = match protocol {
            Protocol::Udp => (17, UDP_AGE),
            Protocol::Tcp => (6, TCP_AGE),
        };
        let found = self.askers.get(&AskerKey {
            address: address_of(peer.ip()).words,
            port: peer.port(),
            protocol: number,
            is_v4: u8::from(peer.is_ipv4()),
        })?;
        let passed = clock::boot_ns().saturating_sub(found.boot_ns);
        if Duration::from_nanos(passed) > age {
            return None;
        }
        if !self.view.is_live(found.tag) {
            // A run that the kernel has just begun by itself: the engine will hear of it.
            if !self.askers.is_live(found.tag) {
                return None;
            }
            self.view.run_started(found.tag);
        }
        Some(Asker {
            run: found.tag.run,
            serial: found.tag.run_serial,
            protocol,
            server: (ip_of(found.address, found.is_v4 != 0), DNS_PORT).into(),
        })
    }

    fn may_ask(&self, asker: &Asker, name: &str) -> bool {
        self.view.may_ask(asker, name)
    }

    fn upstreams(&self, asker: &Asker) -> Vec<SocketAddr> {
        let mut servers = self.hosts.now();
        if servers.contains(&asker.server) {
            // The one that the program chose, then the others.
            servers.sort_by_key(|server| *server != asker.server);
        } else if is_elsewhere(asker.server.ip()) {
            servers.insert(0, asker.server);
        }
        servers
    }

    async fn admit(&self, asker: &Asker, grant: &Grant) -> Result<(), AdmitError> {
        let (run, serial, grant) = (asker.run, asker.serial, grant.clone());
        let admitted = self
            .engine
            .call(move |engine| engine.admit(run, serial, &grant));
        admitted
            .await
            .unwrap_or_else(|stopped| Err(AdmitError(stopped.to_string())))
    }

    fn refused(&self, asker: &Asker, name: &str, why: Refusal) {
        self.view.refused(asker, name, why);
    }
}

/// Whether a server is on another host. One at an address of this host may be the run
/// itself, which would then say which addresses its names stand for.
fn is_elsewhere(server: IpAddr) -> bool {
    // Only addresses of this host can be bound to; where all can (ip_nonlocal_bind), none
    // is taken to be elsewhere.
    admissible(server) == Some(server) && UdpSocket::bind((server, 0)).is_err()
}

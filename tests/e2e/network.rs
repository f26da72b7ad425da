//! Every way to an address: IPv4, IPv6, mapped; TCP and UDP.

use std::net::SocketAddr;

use agentguard_tests::runner::Test;
use agentguard_tests::servers::Server;
use agentguard_tests::suite::Suite;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::any;

pub const TESTS: &[Test] = &[
    any("network::ways_to_an_address", ways_to_an_address),
    any("network::protocol_and_port_count", protocol_and_port_count),
];

const TCP: [&str; 2] = ["tcp", "tcp_fast_open"];
const UDP: [&str; 3] = ["udp_connect", "udp_sendto", "udp_sendmsg"];

/// The requests that reach a server; an IPv4 server by its mapped address too.
fn ways(server: &Server) -> Vec<Value> {
    let mut ways = Vec::new();
    for (operations, to) in [(&TCP[..], server.tcp), (&UDP[..], server.udp)] {
        for operation in operations {
            ways.push(way(operation, &to.ip().to_string(), to.port()));
            if let SocketAddr::V4(v4) = to {
                let mapped = v4.ip().to_ipv6_mapped().to_string();
                ways.push(way(operation, &mapped, to.port()));
            }
        }
    }
    ways
}

fn way(operation: &str, address: &str, port: u16) -> Value {
    json!({ "op": operation, "address": address, "port": port })
}

fn ways_to_an_address(suite: &mut Suite) -> Result<()> {
    let mut tagged = suite.tagged("worker")?;
    let mut free = suite.untagged()?;
    let servers = &suite.servers;
    for server in [&servers.listed_v4, &servers.listed_v6] {
        for way in ways(server) {
            tagged.may(&way)?;
        }
    }
    for server in [&servers.unlisted_v4, &servers.unlisted_v6] {
        let before = server.visits();
        for way in ways(server) {
            tagged.must_not(&way)?;
        }
        ensure!(server.visits() == before, "{server:?} was reached");
        for way in ways(server) {
            free.may(&way)?;
        }
    }
    Ok(())
}

/// A rule for one protocol and port is not one for the others.
fn protocol_and_port_count(suite: &mut Suite) -> Result<()> {
    let mut tagged = suite.tagged("worker")?;
    let listed = &suite.servers.listed_v4;
    let address = listed.tcp.ip().to_string();
    tagged.must_not(&way("udp_sendto", &address, listed.tcp.port()))?;
    tagged.must_not(&way("tcp", &address, listed.udp.port()))?;
    tagged.must_not(&way("tcp", "127.0.0.2", listed.tcp.port()))?;
    tagged.may(&way("tcp", &address, listed.tcp.port()))?;
    Ok(())
}

//! Flows: what went to and fro, with whom, is told when a connection ends and when its run does.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use agentguard_tests::agent::Agent;
use agentguard_tests::ports;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::any;

pub const TESTS: &[Test] = &[
    any("flows::connections_are_told_when_they_end", connections),
    any("flows::what_comes_in_is_told", inbound),
    any("flows::datagrams_are_told_when_the_run_ends", datagrams),
    any(
        "flows::an_open_connection_is_told_when_the_run_ends",
        left_open,
    ),
    any("flows::observed_connections_say_their_server", servers),
];

/// Sends back what comes.
fn echo(address: &str) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0))?;
    let at = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(at)
}

fn say(to: SocketAddr, what: &Value) -> Value {
    json!({ "op": "say", "address": to.ip().to_string(), "port": to.port(), "what": what, "cuts": [] })
}

fn at(operation: &str, to: SocketAddr) -> Value {
    json!({ "op": operation, "address": to.ip().to_string(), "port": to.port() })
}

/// Starts an agent with these rules in this mode.
fn start(suite: &Suite, mode: &str, connect: &[String], listen: &[String]) -> Result<Agent> {
    let manifest = suite
        .ruled("flowing", mode)
        .rules("connect", "allow", connect)
        .rules("listen", "allow", listen);
    suite.install(&manifest)?;
    suite.reload()?;
    suite.tagged("flowing")
}

/// Ends the agent, and returns its flows: the run's record must be complete.
fn flows_of(suite: &Suite, agent: Agent) -> Result<Vec<Value>> {
    let run = agent.run()?.to_owned();
    agent.end()?;
    let shown = until("the run is recorded as ended", || {
        let shown = suite.daemon.json(&["runs", "show", &run, "--json"])?;
        Ok((shown["state"] == "ended").then_some(shown))
    })?;
    let events = suite.daemon.events(&run)?;
    let end = events
        .iter()
        .find(|event| event["kind"] == "run-ended")
        .with_context(|| format!("no event of its end; the run: {shown}"))?;
    ensure!(end["complete"] == true, "the record is incomplete: {end}");
    Ok(flows(events))
}

fn flows(events: Vec<Value>) -> Vec<Value> {
    let is_flow = |event: &Value| event["kind"] == "flow";
    events.into_iter().filter(is_flow).collect()
}

/// The flows with a place, together: how many in each state, bytes sent, bytes received.
fn sums(flows: &[Value], with: SocketAddr, protocol: &str) -> (u64, u64, u64, u64, u64) {
    let mut sums = (0, 0, 0, 0, 0);
    for flow in flows {
        let object = &flow["object"];
        let address = object["address"]
            .as_str()
            .and_then(|address| address.parse().ok());
        if address != Some(with.ip())
            || object["port"] != with.port()
            || object["protocol"] != protocol
        {
            continue;
        }
        let number = |name: &str| flow[name].as_u64().unwrap_or_default();
        match flow["state"].as_str() {
            Some("closed") => sums.0 += number("count"),
            Some("failed") => sums.1 += number("count"),
            _ => sums.2 += number("count"),
        }
        sums.3 += number("sent_bytes");
        sums.4 += number("received_bytes");
    }
    sums
}

fn connections(suite: &mut Suite) -> Result<()> {
    let (v4, v6) = (echo("127.0.0.1")?, echo("::1")?);
    let nobody = SocketAddr::new(v4.ip(), ports::unused()?);
    let rules = [v4, v6, nobody].map(|at| format!("{at}/tcp"));
    let mut agent = start(suite, "enforce", &rules, &[])?;
    let text = json!({ "text": "x".repeat(3_000) });
    for to in [v4, v4, v6] {
        agent.may(&say(to, &text))?;
    }
    let refused = agent.ask(&at("tcp", nobody))?;
    ensure!(refused["errno"] == "ECONNREFUSED", "{refused}");
    let run = agent.run()?.to_owned();
    // Told while the run goes on.
    until("events of all flows", || {
        let flows = flows(suite.daemon.events(&run)?);
        let told = sums(&flows, v4, "tcp") == (2, 0, 0, 6_000, 6_000)
            && sums(&flows, v6, "tcp") == (1, 0, 0, 3_000, 3_000)
            && sums(&flows, nobody, "tcp") == (0, 1, 0, 0, 0);
        Ok(told.then_some(()))
    })?;
    let flows = flows_of(suite, agent)?;
    for flow in &flows {
        ensure!(flow["direction"] == "outbound", "{flow}");
        ensure!(
            flow["agent"] == "flowing" && flow["run"] == run.as_str(),
            "{flow}"
        );
        ensure!(flow["pid"].as_u64().is_some_and(|pid| pid > 1), "{flow}");
        let exe = flow["exe"].as_str().unwrap_or_default();
        ensure!(exe.contains("python"), "{flow}");
        ensure!(
            flow["duration_seconds"]
                .as_f64()
                .is_some_and(|time| time >= 0.0),
            "{flow}"
        );
        ensure!(flow["started"].as_str() <= flow["time"].as_str(), "{flow}");
    }
    // Nothing is told twice.
    ensure!(
        sums(&flows, v4, "tcp") == (2, 0, 0, 6_000, 6_000),
        "{flows:?}"
    );
    ensure!(
        sums(&flows, v6, "tcp") == (1, 0, 0, 3_000, 3_000),
        "{flows:?}"
    );
    let labels = [
        ("agent", "flowing"),
        ("direction", "sent"),
        ("protocol", "tcp"),
    ];
    let sent = suite
        .daemon
        .sample("agentguard_flow_bytes_total", &labels)?;
    ensure!(sent >= 9_000.0, "{sent} bytes sent in the metrics");
    suite.remove("flowing")
}

fn inbound(suite: &mut Suite) -> Result<()> {
    let port = ports::unused()?;
    let mut agent = start(suite, "enforce", &[], &[format!("127.0.0.1:{port}/tcp")])?;
    agent.may(&json!({ "op": "listen", "address": "127.0.0.1", "port": port }))?;
    let mut client = TcpStream::connect(("127.0.0.1", port))?;
    client.write_all(b"question")?;
    agent.may(&json!({ "op": "answer_one" }))?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    ensure!(answer == "question", "{answer}");
    let from = client.local_addr()?;
    drop(client);
    let flows = flows_of(suite, agent)?;
    let told = sums(&flows, from, "tcp");
    // Without BPF LSM a run can end before its last socket has.
    ensure!(
        told.0 + told.2 >= 1 && (told.3, told.4) == (8, 8),
        "{flows:?}"
    );
    let inbound = flows.iter().all(|flow| flow["direction"] == "inbound");
    ensure!(inbound, "{flows:?}");
    suite.remove("flowing")
}

fn datagrams(suite: &mut Suite) -> Result<()> {
    for address in ["127.0.0.1", "::1"] {
        let (named, connected) = (
            UdpSocket::bind((address, 0))?,
            UdpSocket::bind((address, 0))?,
        );
        let rules = [&named, &connected]
            .into_iter()
            .map(|socket| Ok(format!("{}/udp", socket.local_addr()?)))
            .collect::<Result<Vec<_>>>()?;
        let mut agent = start(suite, "enforce", &rules, &[])?;
        let (to, other) = (named.local_addr()?, connected.local_addr()?);
        for _ in 0..3 {
            agent.may(&at("udp_sendto", to))?;
        }
        agent.may(&at("udp_connect", other))?;
        let elsewhere = UdpSocket::bind((address, 0))?.local_addr()?;
        agent.must_not(&at("udp_sendto", elsewhere))?;
        let flows = flows_of(suite, agent)?;
        // `probe` has five bytes.
        let (_, _, count, sent, received) = sums(&flows, to, "udp");
        ensure!(count >= 1 && (sent, received) == (15, 0), "{flows:?}");
        let (_, _, _, sent, _) = sums(&flows, other, "udp");
        ensure!(sent == 5, "{flows:?}");
        ensure!(sums(&flows, elsewhere, "udp").3 == 0, "{flows:?}");
        let sided = flows.iter().any(|flow| !flow["direction"].is_null());
        ensure!(!sided, "datagrams have no direction: {flows:?}");
    }
    // An answer counts as well: the resolver's, told as that of the server that was asked.
    let mut agent = start(suite, "enforce", &["any.example:443".to_owned()], &[])?;
    let server = SocketAddr::new(IpAddr::from(agentguard_tests::dns::ADDRESS), 53);
    agent.ask(&json!({
        "op": "resolve", "server": server.ip().to_string(), "name": "any.example", "over": "udp",
    }))?;
    let flows = flows_of(suite, agent)?;
    let (_, _, _, sent, received) = sums(&flows, server, "udp");
    ensure!(sent > 20 && received >= sent, "{flows:?}");
    suite.remove("flowing")
}

fn left_open(suite: &mut Suite) -> Result<()> {
    let to = echo("127.0.0.1")?;
    let mut agent = start(suite, "enforce", &[format!("{to}/tcp")], &[])?;
    agent.may(&at("hold", to))?;
    agent.may(&json!({ "op": "send_held" }))?;
    let flows = flows_of(suite, agent)?;
    let (closed, failed, open, sent, _) = sums(&flows, to, "tcp");
    ensure!(closed + open >= 1 && failed == 0 && sent == 5, "{flows:?}");
    suite.remove("flowing")
}

fn servers(suite: &mut Suite) -> Result<()> {
    let to = echo("127.0.0.1")?;
    for mode in ["observe", "enforce"] {
        let mut agent = start(suite, mode, &[format!("{to}/tcp")], &[])?;
        agent.may(&say(to, &json!({ "hello": "Shop.Example" })))?;
        let host = "GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n";
        agent.may(&say(to, &json!({ "text": host })))?;
        agent.may(&say(to, &json!({ "text": "EHLO other.example\r\n" })))?;
        let flows = flows_of(suite, agent)?;
        let mut said: Vec<&str> = flows
            .iter()
            .filter_map(|flow| flow["object"]["server_name"].as_str())
            .collect();
        said.sort_unstable();
        // Under enforcement they are read where rules about names ask for it.
        let expected: &[&str] = match mode {
            "observe" => &["plain.example", "shop.example"],
            _ => &[],
        };
        ensure!(said == expected, "{mode}: {said:?} in {flows:?}");
        ensure!(sums(&flows, to, "tcp").0 == 3, "{mode}: {flows:?}");
    }
    suite.remove("flowing")
}

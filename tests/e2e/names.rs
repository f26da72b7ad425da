//! Names: who may ask for which, and what an answer opens.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use agentguard_tests::dns::{ADDRESS, Record};
use agentguard_tests::manifest::Manifest;
use agentguard_tests::runner::Test;
use agentguard_tests::servers::{Own, Server};
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::sockets::hand_over;
use crate::{any, lsm};

pub const TESTS: &[Test] = &[
    any("names::an_answer_opens_its_address_for_that_run", opens),
    any("names::what_no_rule_names_is_not_asked", not_asked),
    lsm("names::a_socket_from_elsewhere_asks_nobody", elsewhere),
    any(
        "names::an_answer_follows_aliases_and_keeps_its_ports",
        aliases,
    ),
    any(
        "names::a_local_address_is_never_opened_by_a_name",
        rebinding,
    ),
    any("names::an_address_of_a_name_can_be_looked_at", looked_at),
    any("names::a_reload_keeps_and_takes", reload),
    any("names::a_refusal_says_the_name", explained),
    any("names::a_killed_daemon_leaves_what_was_given", killed),
];

/// Addresses of servers that only names lead to: of a range for documentation, which the
/// test gives to its own loopback interface.
const NAMED: &str = "198.51.100.7";
const OTHER: &str = "198.51.100.8";

fn ask(name: &str, over: &str) -> Value {
    json!({ "op": "resolve", "server": ADDRESS.to_string(), "name": name, "over": over })
}

fn connect(to: SocketAddr) -> Value {
    json!({ "op": "tcp", "address": to.ip().to_string(), "port": to.port() })
}

fn address(text: &str, ttl: u32) -> Record {
    Record::Address(text.parse::<IpAddr>().unwrap_or(IpAddr::V4(ADDRESS)), ttl)
}

/// An agent with a rule about a name and a port.
fn named(suite: &Suite, rules: &[String]) -> Manifest {
    suite
        .ruled("named", "enforce")
        .rules("connect", "allow", rules)
}

/// Servers at both, for as long as they are held.
fn servers() -> Result<(Server, Server, [Own; 2])> {
    let own = [Own::take(NAMED)?, Own::take(OTHER)?];
    Ok((Server::start(NAMED)?, Server::start(OTHER)?, own))
}

fn opens(suite: &mut Suite) -> Result<()> {
    let (server, other, _own) = servers()?;
    suite.dns.set("api.example", &[address(NAMED, 60)]);
    let rule = format!("api.example:{}", server.tcp.port());
    suite.install(&named(suite, &[rule]))?;
    suite.reload()?;
    for over in ["udp", "udp_connected", "tcp"] {
        let mut tagged = suite.tagged("named")?;
        let mut beside = suite.tagged("named")?;
        // Nobody has asked yet.
        tagged.must_not(&connect(server.tcp))?;
        let answer = tagged.may(&ask("API.Example.", over))?;
        ensure!(answer["addresses"] == json!([NAMED]), "{over}: {answer}");
        tagged.may(&connect(server.tcp))?;
        // For that run, that address, that port.
        beside.must_not(&connect(server.tcp))?;
        tagged.must_not(&connect(other.tcp))?;
        tagged.must_not(&connect(SocketAddr::new(
            server.tcp.ip(),
            server.tcp.port() ^ 1,
        )))?;
    }
    suite.remove("named")
}

/// Libraries connect datagram sockets to the addresses of an answer, to any port, to sort them.
fn looked_at(suite: &mut Suite) -> Result<()> {
    let (server, other, _own) = servers()?;
    suite.dns.set("api.example", &[address(NAMED, 60)]);
    let allow = [format!("api.example:{}/tcp", server.tcp.port())];
    let manifest = named(suite, &allow).rules("connect", "deny", &["*.example:7/udp".to_owned()]);
    suite.install(&manifest)?;
    suite.reload()?;
    let at = |operation: &str, to: SocketAddr| json!({ "op": operation, "address": to.ip().to_string(), "port": to.port() });
    let port = |to: SocketAddr, port| SocketAddr::new(to.ip(), port);
    let mut tagged = suite.tagged("named")?;
    // Not before it was given.
    tagged.must_not(&at("udp_look", port(server.udp, 9)))?;
    tagged.may(&ask("api.example", "udp"))?;
    for looked in [0, 9, server.tcp.port(), server.udp.port()] {
        tagged.may(&at("udp_look", port(server.udp, looked)))?;
    }
    // Nothing is sent, there or elsewhere.
    tagged.must_not(&at("udp_connect", server.udp))?;
    tagged.must_not(&at("udp_sendto", server.udp))?;
    tagged.must_not(&at("udp_look", port(server.udp, 7)))?;
    tagged.must_not(&at("udp_look", port(other.udp, 9)))?;
    let mut free = suite.untagged()?;
    free.may(&at("udp_connect", server.udp))?;
    until("what was sent without a tag", || {
        Ok((server.visits().1 >= 1).then_some(()))
    })?;
    ensure!(server.visits().1 == 1, "an agent's datagram came");
    let run = tagged.run()?.to_owned();
    tagged.end()?;
    until("the run is recorded as ended", || {
        let shown = suite.daemon.json(&["runs", "show", &run, "--json"])?;
        Ok((shown["state"] == "ended").then_some(()))
    })?;
    // What passed was nothing to be told.
    let denied = |event: &Value| event["verdict"] == "deny" && event["object"]["port"] == 9;
    let events = suite.daemon.events(&run)?;
    let addresses: Vec<&Value> = events
        .iter()
        .filter(|event| denied(event))
        .map(|event| &event["object"]["address"])
        .collect();
    ensure!(addresses == [&json!(NAMED), &json!(OTHER)], "{addresses:?}");
    suite.remove("named")
}

fn not_asked(suite: &mut Suite) -> Result<()> {
    let names = ["secret.evil.example", "api.example.evil.example", "example"];
    suite.dns.set("api.example", &[address(NAMED, 60)]);
    for name in names {
        suite.dns.set(name, &[address(OTHER, 60)]);
    }
    let rules = ["api.example:443".to_owned(), "*.ok.example".to_owned()];
    suite.install(&named(suite, &rules))?;
    suite.reload()?;
    let mut tagged = suite.tagged("named")?;
    let mut free = suite.untagged()?;
    let _ = suite.dns.take_asked();
    for name in names {
        let answer = tagged.may(&ask(name, "udp"))?;
        ensure!(answer["code"] == 3, "{name}: {answer}");
        ensure!(suite.dns.take_asked().is_empty(), "{name} left the host");
        // Whoever is no agent asks as before.
        let answer = free.may(&ask(name, "udp"))?;
        ensure!(answer["addresses"] == json!([OTHER]), "{name}: {answer}");
        ensure!(suite.dns.take_asked() == [name], "{name} was not asked");
    }
    // Servers that the policy does not name are not asked at all.
    let elsewhere =
        json!({ "op": "resolve", "server": "127.0.0.10", "name": "api.example", "over": "udp" });
    tagged.must_not(&elsewhere)?;
    // An agent without rules about names has no DNS.
    let mut worker = suite.tagged("worker")?;
    worker.must_not(&ask("api.example", "udp"))?;
    suite.remove("named")
}

/// The resolver would not know whose question it is.
fn elsewhere(suite: &mut Suite) -> Result<()> {
    suite.dns.set("api.example", &[address(NAMED, 60)]);
    suite.install(&named(suite, &["api.example:443".to_owned()]))?;
    suite.reload()?;
    let at = suite.places.at("ok/questions");
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect((ADDRESS, 53))?;
    let mut tagged = suite.tagged("named")?;
    let (to, descriptor) = (at.clone(), socket.as_raw_fd());
    let giver = std::thread::spawn(move || hand_over(&to, &[descriptor]));
    tagged.may(&json!({ "op": "receive", "name": at }))?;
    giver.join().ok().context("the giver ended early")??;
    tagged.must_not(&json!({ "op": "send_received" }))?;
    // Its own asks.
    tagged.may(&ask("api.example", "udp"))?;
    suite.remove("named")
}

fn aliases(suite: &mut Suite) -> Result<()> {
    let (server, _other, _own) = servers()?;
    suite
        .dns
        .set("www.example", &[Record::Alias("a.cdn.example".to_owned())]);
    suite
        .dns
        .set("a.cdn.example", &[address(NAMED, 60), address(OTHER, 60)]);
    let rule = format!("*.example:{}/tcp", server.tcp.port());
    let rules = Manifest::new("named", "enforce")
        .rules("connect", "allow", &[rule])
        .rules("connect", "deny", &["bad.example".to_owned()]);
    suite.install(&rules)?;
    suite.reload()?;
    let mut tagged = suite.tagged("named")?;
    let answer = tagged.may(&ask("www.example", "udp"))?;
    ensure!(answer["addresses"] == json!([NAMED, OTHER]), "{answer}");
    tagged.may(&connect(server.tcp))?;
    tagged.must_not(&json!({ "op": "udp_sendto", "address": NAMED, "port": server.tcp.port() }))?;
    // Allowed by one pattern and denied by another.
    suite.dns.set("bad.example", &[address(OTHER, 60)]);
    let answer = tagged.may(&ask("bad.example", "udp"))?;
    ensure!(answer["code"] == 3, "{answer}");
    suite.remove("named")
}

fn rebinding(suite: &mut Suite) -> Result<()> {
    let local = suite.servers.unlisted_v4.tcp;
    let ip = local.ip().to_string();
    suite.dns.set(
        "api.example",
        &[address(&ip, 60), address("169.254.169.254", 60)],
    );
    suite.install(&named(suite, &["api.example".to_owned()]))?;
    suite.reload()?;
    let mut tagged = suite.tagged("named")?;
    let before = suite.servers.unlisted_v4.visits();
    tagged.may(&ask("api.example", "udp"))?;
    tagged.must_not(&connect(local))?;
    tagged.must_not(&json!({ "op": "tcp", "address": "169.254.169.254", "port": 80 }))?;
    ensure!(
        suite.servers.unlisted_v4.visits() == before,
        "the local server was reached"
    );
    suite.remove("named")
}

fn reload(suite: &mut Suite) -> Result<()> {
    let (server, _other, _own) = servers()?;
    suite.dns.set("api.example", &[address(NAMED, 60)]);
    let rule = format!("api.example:{}", server.tcp.port());
    suite.install(&named(suite, std::slice::from_ref(&rule)))?;
    suite.reload()?;
    let mut tagged = suite.tagged("named")?;
    tagged.may(&ask("api.example", "udp"))?;
    tagged.may(&connect(server.tcp))?;
    // The same rule in another policy.
    suite.install(&named(suite, &[rule, "more.example:1".to_owned()]))?;
    suite.reload()?;
    tagged.may(&connect(server.tcp))?;
    suite.install(&named(suite, &["more.example:1".to_owned()]))?;
    suite.reload()?;
    tagged.must_not(&connect(server.tcp))?;
    suite.remove("named")
}

fn explained(suite: &mut Suite) -> Result<()> {
    let (server, _other, _own) = servers()?;
    suite.dns.set("api.example", &[address(NAMED, 60)]);
    suite.install(&named(suite, &["api.example:1".to_owned()]))?;
    suite.reload()?;
    let mut tagged = suite.tagged("named")?;
    tagged.may(&ask("api.example", "udp"))?;
    tagged.must_not(&connect(server.tcp))?;
    let answer = tagged.may(&ask("evil.example", "udp"))?;
    ensure!(answer["code"] == 3, "{answer}");
    let run = tagged.run()?.to_owned();
    until("events that say the names", || {
        let events = suite.daemon.events(&run)?;
        let denied = |name: &str, address: Value| {
            events.iter().any(|event| {
                event["verdict"] == "deny"
                    && event["object"]["name"] == name
                    && event["object"]["address"] == address
            })
        };
        let told = denied("api.example", json!(NAMED)) && denied("evil.example", Value::Null);
        Ok(told.then_some(()))
    })
    .context("no event says which name it was")?;
    suite.remove("named")
}

fn killed(suite: &mut Suite) -> Result<()> {
    let (server, _other, _own) = servers()?;
    suite.dns.set("api.example", &[address(NAMED, 60)]);
    let rule = format!("api.example:{}", server.tcp.port());
    suite.install(&named(suite, &[rule]))?;
    suite.reload()?;
    let mut tagged = suite.tagged("named")?;
    tagged.may(&ask("api.example", "udp"))?;
    suite.daemon.kill()?;
    // What was given holds; what has to be asked fails.
    tagged.may(&connect(server.tcp))?;
    let unheard = json!({ "op": "resolve", "server": ADDRESS.to_string(), "name": "api.example", "over": "udp", "patience": 1 });
    ensure!(tagged.ask(&unheard)?["ok"] != true, "somebody answered");
    suite.daemon.start()?;
    tagged.may(&ask("api.example", "udp"))?;
    tagged.may(&connect(server.tcp))?;
    suite.remove("named")
}

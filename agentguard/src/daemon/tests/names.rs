//! Names: from an answer to the kernel's table, over reloads, restarts and ends.

use std::net::IpAddr;
use std::time::Duration;

use agentguard_common::net::{Address, Transport, port_key};
use agentguard_common::resolver::GrantKey;

use super::*;
use crate::names::{AdmitError, Asker, Grant, Protocol, Refusal};

const NAME: &str = "api.example.com";
const ADDRESS: &str = "192.0.2.7";

fn named(connect: &str) -> String {
    format!("{MANIFEST}    connect: {connect}\n")
}

fn allowed() -> String {
    named("{ allow: ['api.example.com:443', '*.example.org'], deny: ['bad.example.org'] }")
}

fn grant(name: &str, address: &str) -> Grant {
    Grant {
        name: name.to_owned(),
        addresses: vec![(address.parse().unwrap(), Duration::from_secs(90))],
        unusable: Vec::new(),
    }
}

async fn admit(daemon: &Daemon, tag: Tag, given: Grant) -> Result<(), AdmitError> {
    let engine = &daemon.base.engine;
    engine
        .call(move |engine| engine.admit(tag.run, tag.run_serial, &given))
        .await
        .unwrap()
}

/// What the kernel says of a TCP port of an address that a run was given.
fn says(host: &Host, tag: Tag, generation: u32, port: u16) -> Option<u8> {
    let IpAddr::V4(address) = ADDRESS.parse().unwrap() else {
        panic!("not IPv4");
    };
    let key = GrantKey::new(tag.run_serial, &Address::v4(address.to_bits()));
    let grant = *host.port.state().grants.get(&key)?;
    Some(
        grant
            .lookup(generation, port_key(Transport::Tcp, port))
            .verdict,
    )
}

async fn reload(host: &Host, daemon: &Daemon, text: &str) {
    host.write_manifest(text);
    daemon.loader.load(Trigger::Api).await.unwrap();
}

fn asker(tag: Tag) -> Asker {
    Asker {
        run: tag.run,
        serial: tag.run_serial,
        protocol: Protocol::Udp,
        server: ([192, 0, 2, 53], 53).into(),
    }
}

async fn started(host: &Host, text: &str) -> (Daemon, Tag) {
    host.write_manifest(text);
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    (daemon, started.run.tag())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_in_the_kernel_until_its_run_ends() {
    let host = Host::new();
    let (daemon, tag) = started(&host, &allowed()).await;
    admit(&daemon, tag, grant(NAME, ADDRESS)).await.unwrap();
    assert_eq!(says(&host, tag, 1, 443), Some(1));
    assert_eq!(says(&host, tag, 1, 80), Some(0));
    let refused = admit(&daemon, tag, grant("bad.example.org", ADDRESS)).await;
    assert!(refused.is_err(), "deny is stricter than allow");
    let stale = Tag {
        run_serial: tag.run_serial + 1,
        ..tag
    };
    assert!(admit(&daemon, stale, grant(NAME, ADDRESS)).await.is_err());
    assert_eq!(host.port.state().grants.len(), 1);
    let runs: api::Runs = get(host.socket(), "/v1/runs").await;
    host.port.exit_all(tag.run_serial);
    ended(&host.socket(), runs.runs[0].identity.run.unwrap()).await;
    assert!(host.port.state().grants.is_empty());
    assert!(admit(&daemon, tag, grant(NAME, ADDRESS)).await.is_err());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_what_is_still_allowed_without_a_moment_between() {
    let host = Host::new();
    let (daemon, tag) = started(&host, &allowed()).await;
    admit(&daemon, tag, grant(NAME, ADDRESS)).await.unwrap();
    // The same meaning, another one, and one that no longer has the name.
    reload(&host, &daemon, &allowed()).await;
    let other = named("{ allow: ['*.example.com:444'], deny: ['*.example.com:22'] }");
    reload(&host, &daemon, &other).await;
    reload(&host, &daemon, &named("{ allow: ['other.net'] }")).await;
    {
        let state = host.port.state();
        assert_eq!(state.generations, [1, 2, 3, 4]);
        let at = |switch: usize, generation, port| {
            let grant = state.grants_at[switch].values().next().unwrap();
            let key = port_key(Transport::Tcp, port);
            grant.lookup(generation, key).verdict
        };
        // At each switch, both generations were there.
        assert_eq!((at(1, 1, 443), at(1, 2, 443)), (1, 1));
        assert_eq!((at(2, 2, 443), at(2, 3, 443)), (1, 0));
        assert_eq!((at(2, 3, 444), at(2, 3, 22)), (1, 3));
        assert_eq!((at(3, 3, 444), at(3, 4, 444)), (1, 0));
    }
    assert!(admit(&daemon, tag, grant(NAME, ADDRESS)).await.is_err());
    // The name is remembered: when it is allowed again, so is the address.
    reload(&host, &daemon, &allowed()).await;
    assert_eq!(says(&host, tag, 5, 443), Some(1));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_kernel_refuses_is_not_admitted_and_stops_a_reload() {
    let host = Host::new();
    let (daemon, tag) = started(&host, &allowed()).await;
    admit(&daemon, tag, grant(NAME, ADDRESS)).await.unwrap();
    host.port.state().refuse_grants = Some("no memory".to_owned());
    let refused = admit(&daemon, tag, grant(NAME, "192.0.2.8")).await;
    assert!(refused.unwrap_err().to_string().contains("no memory"));
    assert!(daemon.loader.load(Trigger::Api).await.is_err());
    assert_eq!(host.port.state().generations, [1]);
    host.port.state().refuse_grants = None;
    assert_eq!(
        daemon.loader.load(Trigger::Api).await.unwrap().generation,
        2
    );
    assert_eq!(says(&host, tag, 2, 443), Some(1));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_daemon_keeps_what_live_runs_were_given_under_the_same_manifest() {
    let host = Host::new();
    let (daemon, tag) = started(&host, &allowed()).await;
    admit(&daemon, tag, grant(NAME, ADDRESS)).await.unwrap();
    daemon.stop().await;
    let of_nobody = GrantKey::new(999, &Address::v4(1));
    let left = *host.port.state().grants.values().next().unwrap();
    host.port.state().grants.insert(of_nobody, left);
    // A line more moves the rules in the file.
    let moved = allowed().replace("    connect:", "    # A comment.\n    connect:");
    host.write_manifest(&moved);
    let daemon = host.start().await.unwrap();
    assert!(!host.port.state().grants.contains_key(&of_nobody));
    assert_eq!(says(&host, tag, 1, 443), Some(1));
    assert_eq!(says(&host, tag, 2, 443), Some(1));
    reload(&host, &daemon, &moved).await;
    assert_eq!(says(&host, tag, 3, 443), Some(1));
    // Under another manifest it is not known for which name it was.
    reload(&host, &daemon, &named("{ allow: ['api.example.com'] }")).await;
    assert_eq!(says(&host, tag, 4, 443), Some(0));
    admit(&daemon, tag, grant(NAME, ADDRESS)).await.unwrap();
    assert_eq!(says(&host, tag, 4, 443), Some(1));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_names_are_told_once_with_their_rule_and_number() {
    let host = Host::new();
    let (daemon, tag) = started(&host, &allowed()).await;
    let view = daemon
        .base
        .engine
        .call(|engine| engine.view())
        .await
        .unwrap();
    let asker = asker(tag);
    for name in ["bad.example.org", "evil.net", "evil.net", "evil.net"] {
        assert!(!view.may_ask(&asker, name));
        view.refused(&asker, name, Refusal::NotAllowed);
    }
    view.refused(&asker, "busy.net", Refusal::TooMany);
    assert!(view.may_ask(&asker, NAME));
    daemon.stop().await;
    let events = host.ledger();
    let event = |name: &str| {
        let mut found = events
            .iter()
            .filter(|event| event["object"]["name"] == name);
        let event = found.next().cloned();
        assert!(found.next().is_none(), "{name} is told twice");
        event
    };
    let bad = event("bad.example.org").unwrap();
    assert_eq!(bad["verb"], "connect");
    assert_eq!(bad["verdict"], "deny");
    assert_eq!(bad["blocked"], true);
    assert_eq!(
        (&bad["reason"], &bad["rule_text"]),
        (&"rule".into(), &"bad.example.org".into())
    );
    assert_eq!(bad["object"]["address"], Value::Null);
    assert_eq!(
        (&bad["object"]["port"], &bad["object"]["protocol"]),
        (&53.into(), &"udp".into())
    );
    let evil = event("evil.net").unwrap();
    assert_eq!(
        (&evil["reason"], &evil["count"]),
        (&"default".into(), &3.into())
    );
    assert_eq!(evil["agent"], "coder");
    assert!(event("busy.net").is_none(), "no decision of the policy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_observe_mode_every_name_may_be_asked_for_and_it_is_told() {
    let host = Host::new();
    let text = allowed().replace("mode: enforce", "mode: observe");
    let (daemon, tag) = started(&host, &text).await;
    let view = daemon
        .base
        .engine
        .call(|engine| engine.view())
        .await
        .unwrap();
    assert!(view.may_ask(&asker(tag), "evil.net"));
    admit(&daemon, tag, grant("evil.net", ADDRESS))
        .await
        .unwrap();
    assert!(host.port.state().grants.is_empty());
    daemon.stop().await;
    let told = |event: &Value| event["object"]["name"] == "evil.net" && event["blocked"] == false;
    assert!(host.ledger().iter().any(told));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_resolver_refuses_does_not_hide_a_lost_record() {
    let host = Host::new();
    let (daemon, tag) = started(&host, &allowed()).await;
    let view = daemon
        .base
        .engine
        .call(|engine| engine.view())
        .await
        .unwrap();
    view.refused(&asker(tag), "evil.net", Refusal::NotAllowed);
    daemon.stop().await;
    host.port.emit([denied(tag, "/x")]);
    host.port.state().ring.clear();
    let daemon = host.start().await.unwrap();
    view.refused(&asker(tag), "evil.net", Refusal::NotAllowed);
    let runs: api::Runs = get(host.socket(), "/v1/runs").await;
    host.port.exit_all(tag.run_serial);
    let run = ended(&host.socket(), runs.runs[0].identity.run.unwrap()).await;
    let end = run.end.unwrap();
    assert_eq!((end.lost.daemon, end.complete), (1, false));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_say_the_name_that_an_address_was_given_for() {
    let host = Host::new();
    let (daemon, tag) = started(&host, &allowed()).await;
    admit(&daemon, tag, grant(NAME, ADDRESS)).await.unwrap();
    let mut record = crate::testing::net_record(Verb::Connect, Verdict::Deny, ADDRESS, 80);
    record.header.tag = tag;
    let mut other = crate::testing::net_record(Verb::Connect, Verdict::Deny, "192.0.2.9", 80);
    other.header.tag = tag;
    host.port.emit([record, other]);
    daemon.stop().await;
    let name = |address: &str| {
        let events = host.ledger();
        let found = events
            .iter()
            .find(|event| event["object"]["address"] == address);
        found.unwrap()["object"]["name"].clone()
    };
    assert_eq!(name(ADDRESS), NAME);
    assert_eq!(name("192.0.2.9"), Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_knows_where_the_resolver_listens_and_the_port_is_kept() {
    let host = Host::new();
    fs::write(host.path("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
    let config = || Config {
        resolver: crate::config::Resolver {
            resolv_conf: host.path("resolv.conf"),
            ..Default::default()
        },
        ..host.config()
    };
    host.write_manifest(&allowed());
    let daemon = start::start(config(), Box::new(host.port.clone()))
        .await
        .unwrap();
    let record = host.port.state().resolver;
    assert_ne!(record.port_v4, 0);
    assert!(record.is_server(&Address::v4(0xc000_0235)));
    let status: api::Status = get(host.socket(), "/v1/status").await;
    assert_eq!(
        status.resolver.listening[0],
        format!("127.0.0.1:{}", record.port_v4)
    );
    assert_eq!(status.resolver.agents, ["coder"]);
    assert!(!status.resolver.is_missed());
    fs::write(host.path("resolv.conf"), "nameserver 192.0.2.54\n# other\n").unwrap();
    while !host
        .port
        .state()
        .resolver
        .is_server(&Address::v4(0xc000_0236))
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon.stop().await;
    assert_eq!(host.port.state().resolver.port_v4, 0);
    let daemon = start::start(config(), Box::new(host.port.clone()))
        .await
        .unwrap();
    let again = host.port.state().resolver;
    assert_eq!(
        (again.port_v4, again.port_v6),
        (record.port_v4, record.port_v6)
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_resolver_status_says_who_misses_it() {
    let host = Host::new();
    host.write_manifest(&allowed());
    let config = Config {
        resolver: crate::config::Resolver {
            enabled: false,
            ..Default::default()
        },
        ..host.config()
    };
    let daemon = start::start(config, Box::new(host.port.clone()))
        .await
        .unwrap();
    let status: api::Status = get(host.socket(), "/v1/status").await;
    assert!(status.resolver.is_missed());
    daemon.stop().await;
}

//! `observe` decides and records the same, and blocks nothing.

use std::fs;

use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{any, lsm};

pub const TESTS: &[Test] = &[
    lsm("observe::files_same_verdicts_nothing_blocked", files),
    any("observe::network_same_verdicts_nothing_blocked", network),
];

/// Runs a script as an agent; returns how each request ended and the decisions
/// that were recorded, as far as both modes must have them in common.
fn script(suite: &Suite, agent: &str, requests: &[Value]) -> Result<(Vec<bool>, Vec<Value>)> {
    let mut probe = suite.tagged(agent)?;
    let mut ended = Vec::new();
    for request in requests {
        ended.push(probe.ask(request)?["ok"] == true);
    }
    let run = probe.run()?.to_owned();
    probe.end()?;
    until("the run is recorded as ended", || {
        let shown = suite.daemon.json(&["runs", "show", &run, "--json"])?;
        Ok((shown["state"] == "ended").then_some(()))
    })?;
    let root = suite.places.at("");
    let decisions = suite
        .daemon
        .events(&run)?
        .into_iter()
        .filter(|event| event["kind"] == "decision")
        // What Python itself reads and writes elsewhere is not part of the script.
        .filter(|event| {
            let path = event["object"]["path"].as_str();
            path.is_none_or(|path| path.starts_with(&root)) && event["verb"] != "exec"
        })
        .collect();
    Ok((ended, decisions))
}

fn essence(decision: &Value) -> Value {
    let object = &decision["object"];
    json!([
        decision["verb"],
        decision["verdict"],
        decision["reason"],
        decision["rule_text"],
        object["path"],
        object["address"],
        object["port"],
        object["protocol"],
    ])
}

/// The same script under both modes, each on what `prepare` makes anew. `refused` says which requests enforcement refuses.
fn compare(
    suite: &Suite,
    prepare: &dyn Fn() -> Result<Vec<Value>>,
    refused: &[bool],
) -> Result<()> {
    let (ended, under_enforce) = script(suite, "worker", &prepare()?)?;
    let let_through: Vec<bool> = refused.iter().map(|refused| !refused).collect();
    ensure!(
        ended == let_through,
        "enforced: {ended:?}, not {let_through:?}"
    );
    let (ended, under_observe) = script(suite, "watcher", &prepare()?)?;
    ensure!(ended.iter().all(|ok| *ok), "observed: {ended:?}");
    // Denials have a ring of their own: between the two rings there is no order.
    let sorted = |decisions: &[Value]| {
        // Repeats are told with their number, every second.
        let mut all: Vec<String> = decisions
            .iter()
            .flat_map(|event| {
                let count = event["count"].as_u64().unwrap_or(0);
                std::iter::repeat_n(essence(event).to_string(), count as usize)
            })
            .collect();
        all.sort();
        all
    };
    let (one, other) = (sorted(&under_enforce), sorted(&under_observe));
    ensure!(one == other, "enforced {one:#?}\nobserved {other:#?}");
    let denied = under_enforce
        .iter()
        .filter(|event| event["verdict"] == "deny");
    ensure!(
        denied.clone().count() == refused.iter().filter(|refused| **refused).count(),
        "{under_enforce:#?}"
    );
    for event in denied {
        ensure!(
            event["blocked"] == true && event["mode"] == "enforce",
            "{event}"
        );
    }
    for event in &under_observe {
        ensure!(
            event["blocked"] == false && event["mode"] == "observe",
            "{event}"
        );
    }
    Ok(())
}

fn files(suite: &mut Suite) -> Result<()> {
    let prepare = || -> Result<Vec<Value>> {
        let ok = suite.places.fresh("ok/observe")?;
        let no = suite.places.fresh("no/observe")?;
        for directory in [&ok, &no] {
            fs::write(directory.join("file"), "content\n")?;
            fs::write(directory.join("gone"), "content\n")?;
            fs::create_dir(directory.join("empty"))?;
        }
        let secret = suite.places.file("secret/observe")?;
        // Each is one decision under both modes; allowed reads are not recorded.
        let mut requests = Vec::new();
        for directory in [&ok, &no] {
            let at = |name: &str| directory.join(name);
            requests.extend([
                json!({ "op": "open_write", "path": at("file") }),
                json!({ "op": "mkdir", "path": at("new") }),
                json!({ "op": "unlink", "path": at("gone") }),
                json!({ "op": "rmdir", "path": at("empty") }),
                json!({ "op": "chmod", "path": at("file"), "mode": 0o600 }),
                json!({ "op": "symlink", "path": "file", "to": at("link") }),
            ]);
        }
        requests.push(json!({ "op": "open_read", "path": secret }));
        Ok(requests)
    };
    let refused: Vec<bool> = (0..13).map(|index| index >= 6).collect();
    compare(suite, &prepare, &refused)
}

fn network(suite: &mut Suite) -> Result<()> {
    let mut requests = Vec::new();
    let servers = &suite.servers;
    let all = [
        &servers.listed_v4,
        &servers.listed_v6,
        &servers.unlisted_v4,
        &servers.unlisted_v6,
    ];
    for server in all {
        for (operation, to) in [("tcp", server.tcp), ("udp_sendto", server.udp)] {
            requests.push(json!({ "op": operation, "address": to.ip(), "port": to.port() }));
        }
    }
    let refused: Vec<bool> = (0..requests.len()).map(|index| index >= 4).collect();
    compare(suite, &|| Ok(requests.clone()), &refused)
}

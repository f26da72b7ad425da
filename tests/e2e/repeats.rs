//! What is repeated is counted, not told again and again, and nothing is lost by that.

use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{any, lsm};

pub const TESTS: &[Test] = &[
    lsm("repeats::of_files_are_counted", files),
    any("repeats::of_addresses_are_counted", addresses),
];

const TIMES: u64 = 300;

fn files(suite: &mut Suite) -> Result<()> {
    suite.places.fresh("no/repeats")?;
    let one = suite.places.file("no/repeats/one")?;
    let other = suite.places.file("no/repeats/other")?;
    let request = |path: &str| json!({ "op": "open_write", "path": path });
    repeated(suite, &[request(&one), request(&other)])
}

fn addresses(suite: &mut Suite) -> Result<()> {
    let to = suite.servers.unlisted_v4.udp;
    let request = json!({ "op": "udp_sendto", "address": to.ip(), "port": to.port() });
    repeated(suite, &[request])
}

/// Has an agent make refused requests many times over, and looks at the record.
fn repeated(suite: &Suite, requests: &[Value]) -> Result<()> {
    let mut tagged = suite.tagged("worker")?;
    for _ in 0..TIMES {
        for request in requests {
            tagged.must_not(request)?;
        }
    }
    let run = tagged.run()?.to_owned();
    tagged.end()?;
    let ended = until("the run is recorded as ended", || {
        let events = suite.daemon.events(&run)?;
        Ok(events
            .into_iter()
            .find(|event| event["kind"] == "run-ended"))
    })?;
    let events = suite.daemon.events(&run)?;
    let denials: Vec<&Value> = events
        .iter()
        .filter(|event| event["verdict"] == "deny")
        .collect();
    let count = |event: &Value| event["count"].as_u64().unwrap_or(0);
    let all: u64 = denials.iter().map(|event| count(event)).sum();
    let expected = TIMES * requests.len() as u64;
    ensure!(all == expected, "{all} are told, {expected} were made");
    ensure!(ended["denials"] == expected, "{ended}");
    ensure!(ended["complete"] == true, "{ended}");
    ensure!(
        (denials.len() as u64) < expected / 2,
        "{} events for {expected} denials",
        denials.len()
    );
    for event in &denials {
        // Told by itself and numbered, or counted.
        let numbered = event["run_seq"].is_u64();
        ensure!(numbered == (event.get("run_seq").is_some()), "{event}");
        ensure!(!numbered || count(event) == 1, "{event}");
        ensure!(!event["object"].is_null(), "{event}");
    }
    Ok(())
}

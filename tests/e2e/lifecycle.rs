//! Runs end with a complete record; the daemon is killed, comes back, and goes.

use agentguard_tests::agent::Agent;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::any;

pub const TESTS: &[Test] = &[
    any(
        "lifecycle::a_run_ends_with_a_complete_record",
        complete_record,
    ),
    any("lifecycle::enforcement_outlives_a_killed_daemon", killed),
    any("lifecycle::enforcement_outlives_a_stopped_daemon", stopped),
    any("lifecycle::a_second_daemon_is_refused", second_daemon),
    any("lifecycle::unload_removes_everything", unload),
];

fn tcp(to: std::net::SocketAddr) -> Value {
    json!({ "op": "tcp", "address": to.ip(), "port": to.port() })
}

/// A denied and an allowed request of this suite, of a kind that every host decides.
fn twins(suite: &Suite) -> (Value, Value) {
    (
        tcp(suite.servers.unlisted_v4.tcp),
        tcp(suite.servers.listed_v4.tcp),
    )
}

fn denials(suite: &Suite) -> Result<f64> {
    let labels = [
        ("agent", "worker"),
        ("verb", "connect"),
        ("verdict", "deny"),
    ];
    suite.daemon.sample("agentguard_decisions_total", &labels)
}

fn shown(suite: &Suite, run: &str) -> Result<Value> {
    suite.daemon.json(&["runs", "show", run, "--json"])
}

fn ended(suite: &Suite, run: &str) -> Result<Value> {
    until("the run ends", || {
        let shown = shown(suite, run)?;
        Ok((shown["state"] == "ended").then_some(shown))
    })
}

/// Denied connections that the ledger has of a run.
fn recorded(suite: &Suite, run: &str) -> Result<u64> {
    let events = suite.daemon.events(run)?;
    let denied = events
        .iter()
        .filter(|event| event["kind"] == "decision" && event["verb"] == "connect")
        .filter(|event| event["verdict"] == "deny");
    Ok(denied.filter_map(|event| event["count"].as_u64()).sum())
}

fn complete_record(suite: &mut Suite) -> Result<()> {
    let slots = |suite: &Suite| -> Result<u64> {
        let doctor = suite.daemon.json(&["doctor", "--json"])?;
        let tables = doctor["tables"].as_array().context("no tables")?;
        let runs = tables.iter().find(|table| table["map"] == "RUNS");
        runs.and_then(|table| table["used"].as_u64())
            .with_context(|| format!("no table RUNS: {doctor}"))
    };
    let (denied, allowed) = twins(suite);
    let before = until("earlier runs are gone", || {
        let live = suite
            .daemon
            .json(&["runs", "list", "--json", "--ended", "0"])?;
        let none = live["runs"].as_array().is_some_and(Vec::is_empty);
        if none {
            slots(suite).map(Some)
        } else {
            Ok(None)
        }
    })?;
    let mut tagged = suite.tagged("worker")?;
    let run = tagged.run()?.to_owned();
    for _ in 0..5 {
        tagged.must_not(&denied)?;
        tagged.may(&allowed)?;
    }
    tagged.may(&json!({ "op": "child_start" }))?;
    let live = shown(suite, &run)?;
    ensure!(
        live["state"] == "active" && live["tasks"].as_i64() >= Some(2),
        "{live}"
    );
    ensure!(slots(suite)? == before + 1, "one slot more is in use");
    tagged.may(&json!({ "op": "child_end" }))?;
    let status = tagged.end()?;
    ensure!(status.success(), "{status}");
    let end = ended(suite, &run)?;
    ensure!(end["tasks"] == 0, "{end}");
    ensure!(end["end"]["complete"] == true && end["lost"] == 0, "{end}");
    ensure!(end["end"]["denials"] == 5, "{end}");
    ensure!(end["end"]["events"] == end["end"]["recorded"], "{end}");
    ensure!(recorded(suite, &run)? == 5, "the ledger has other denials");
    let exits = suite.daemon.events(&run)?;
    ensure!(
        exits.iter().any(|event| event["kind"] == "run-ended"),
        "{exits:?}"
    );
    ensure!(
        exits.iter().any(|event| event["kind"] == "exec"),
        "{exits:?}"
    );
    until("the slot is free", || {
        Ok((slots(suite)? == before).then_some(()))
    })
}

/// What is denied while no daemon runs is denied, and counted and recorded later.
fn without_daemon(suite: &mut Suite, end: fn(&mut Suite) -> Result<()>) -> Result<()> {
    let (denied, allowed) = twins(suite);
    let mut tagged = suite.tagged("worker")?;
    let run = tagged.run()?.to_owned();
    tagged.must_not(&denied)?;
    let before = denials(suite)?;
    // A daemon that is killed loses what it read and did not write yet: the run's
    // record says so. This is about what nobody has read.
    until("the first denial is in the ledger", || {
        Ok((recorded(suite, &run)? == 1).then_some(()))
    })?;
    end(suite)?;
    for lineage in [&["fork"][..], &["thread"], &["spawn", "orphan"]] {
        let via = |request: &Value| {
            let mut request = request.clone();
            request["via"] = json!(lineage);
            request
        };
        tagged.must_not(&via(&denied))?;
        tagged.may(&via(&allowed))?;
    }
    suite.untagged()?.may(&denied)?;
    suite
        .daemon
        .cli_ends(&["run", "--agent", "worker", "--", "true"], 4)?;
    suite.daemon.start()?;
    ensure!(
        (denials(suite)? - before - 3.0).abs() < f64::EPSILON,
        "{before} denials before, {} after, and three meanwhile",
        denials(suite)?
    );
    let live = shown(suite, &run)?;
    ensure!(live["state"] == "active" && live["denials"] == 4, "{live}");
    tagged.must_not(&denied)?;
    tagged.may(&allowed)?;
    fresh(suite)?;
    until("the denials made meanwhile are in the ledger", || {
        Ok((recorded(suite, &run)? == 5).then_some(()))
    })?;
    tagged.end()?;
    let end = ended(suite, &run)?;
    ensure!(end["end"]["denials"] == 5 && end["lost"] == 0, "{end}");
    Ok(())
}

/// A new run under the daemon that came back.
fn fresh(suite: &Suite) -> Result<()> {
    let (denied, allowed) = twins(suite);
    let mut tagged: Agent = suite.tagged("worker")?;
    tagged.must_not(&denied)?;
    tagged.may(&allowed)?;
    Ok(())
}

fn killed(suite: &mut Suite) -> Result<()> {
    without_daemon(suite, |suite| suite.daemon.kill())
}

fn stopped(suite: &mut Suite) -> Result<()> {
    without_daemon(suite, |suite| suite.daemon.stop())?;
    let log = suite.daemon.log_text();
    ensure!(log.contains("enforcement stays in place"), "{log}");
    Ok(())
}

fn second_daemon(suite: &mut Suite) -> Result<()> {
    let config = suite.places.at("agentguard.yaml");
    suite.daemon.cli_ends(&["daemon", "--config", &config], 1)?;
    suite
        .daemon
        .cli_ends(&["daemon", "--unload", "--config", &config], 1)?;
    fresh(suite)
}

/// After it nobody is denied anything, and nothing of AgentGuard is left.
fn unload(suite: &mut Suite) -> Result<()> {
    let (denied, _) = twins(suite);
    let mut tagged = suite.tagged("worker")?;
    tagged.must_not(&denied)?;
    ensure!(
        suite.daemon.pins.is_dir(),
        "{} is not there",
        suite.daemon.pins.display()
    );
    let said = suite.daemon.unload()?;
    ensure!(said.contains("removed"), "{said}");
    let pins = &suite.daemon.pins;
    let left: Vec<_> = std::fs::read_dir(pins)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    ensure!(left.is_empty(), "left in {}: {left:?}", pins.display());
    tagged.may(&denied)?;
    suite.untagged()?.may(&denied)?;
    let again = suite.daemon.unload()?;
    ensure!(again.contains("nothing"), "{again}");
    Ok(())
}

//! What Prometheus reads.

use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use anyhow::{Result, ensure};
use serde_json::json;

use crate::any;

pub const TESTS: &[Test] = &[any("metrics::denials_are_counted", denials_are_counted)];

fn denials_are_counted(suite: &mut Suite) -> Result<()> {
    let count = |suite: &Suite, agent: &str, mode: &str, verdict: &str| {
        let labels = [
            ("agent", agent),
            ("mode", mode),
            ("verb", "connect"),
            ("verdict", verdict),
        ];
        suite.daemon.sample("agentguard_decisions_total", &labels)
    };
    let (listed, unlisted) = (&suite.servers.listed_v4, &suite.servers.unlisted_v4);
    let tcp =
        |to: std::net::SocketAddr| json!({ "op": "tcp", "address": to.ip(), "port": to.port() });
    for (agent, mode) in [("worker", "enforce"), ("watcher", "observe")] {
        let before = (
            count(suite, agent, mode, "deny")?,
            count(suite, agent, mode, "allow")?,
        );
        let mut tagged = suite.tagged(agent)?;
        for _ in 0..3 {
            tagged.ask(&tcp(unlisted.tcp))?;
        }
        for _ in 0..2 {
            tagged.may(&tcp(listed.tcp))?;
        }
        let after = (
            count(suite, agent, mode, "deny")?,
            count(suite, agent, mode, "allow")?,
        );
        ensure!(
            after == (before.0 + 3.0, before.1 + 2.0),
            "{agent}: {before:?} {after:?}"
        );
    }
    let network = suite.daemon.sample(
        "agentguard_protection_enforcing",
        &[("protection", "network")],
    )?;
    // Without LSM, some of the ways out are not decided, and the metric says so.
    let expected = f64::from(suite.without_lsm.is_none());
    ensure!(
        (network - expected).abs() < f64::EPSILON,
        "network: {network}, not {expected}"
    );
    let page = suite.daemon.metrics()?;
    for text in [
        "# HELP agentguard_decisions_total ",
        "# TYPE agentguard_decisions_total counter",
    ] {
        ensure!(page.contains(text), "{text} is missing");
    }
    for label in ["run=", "pid=", "path=", "address="] {
        ensure!(!page.contains(label), "a label {label} has no bound");
    }
    Ok(())
}

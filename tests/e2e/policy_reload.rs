//! A changed manifest takes effect at the next call of a running process; a broken
//! one does not.

use std::fs;

use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use anyhow::{Result, ensure};
use serde_json::json;

use crate::{any, lsm};

pub const TESTS: &[Test] = &[
    lsm("policy_reload::the_next_open_is_judged_anew", next_open),
    any(
        "policy_reload::the_next_connect_is_judged_anew",
        next_connect,
    ),
    any("policy_reload::a_broken_manifest_changes_nothing", broken),
];

fn next_open(suite: &mut Suite) -> Result<()> {
    let path = suite.places.file("elsewhere/file")?;
    let request = json!({ "op": "open_write", "path": path });
    let before = suite.ruled("worker", "enforce");
    let wider = before
        .clone()
        .rules("write", "allow", &[suite.places.at("elsewhere/**")]);
    let inside = json!({ "op": "open_write", "path": suite.places.file("ok/reload")? });
    let mut tagged = suite.tagged("worker")?;
    for _ in 0..2 {
        tagged.must_not(&request)?;
        tagged.may(&inside)?;
        suite.install(&wider)?;
        suite.reload()?;
        tagged.may(&request)?;
        tagged.must_not(&inside)?;
        suite.install(&before)?;
        suite.reload()?;
    }
    tagged.must_not(&request)
}

fn next_connect(suite: &mut Suite) -> Result<()> {
    let (listed, unlisted) = (&suite.servers.listed_v4, &suite.servers.unlisted_v4);
    let tcp =
        |to: std::net::SocketAddr| json!({ "op": "tcp", "address": to.ip(), "port": to.port() });
    let before = suite.ruled("worker", "enforce");
    let other = before.clone().rules("connect", "allow", &unlisted.rules());
    let mut tagged = suite.tagged("worker")?;
    tagged.must_not(&tcp(unlisted.tcp))?;
    tagged.may(&tcp(listed.tcp))?;
    suite.install(&other)?;
    suite.reload()?;
    tagged.may(&tcp(unlisted.tcp))?;
    tagged.must_not(&tcp(listed.tcp))?;
    suite.install(&before)?;
    suite.reload()?;
    tagged.must_not(&tcp(unlisted.tcp))
}

fn broken(suite: &mut Suite) -> Result<()> {
    let (listed, unlisted) = (&suite.servers.listed_v4, &suite.servers.unlisted_v4);
    let tcp =
        |to: std::net::SocketAddr| json!({ "op": "tcp", "address": to.ip(), "port": to.port() });
    let generation = |suite: &Suite| -> Result<_> {
        Ok(suite.daemon.json(&["status", "--json"])?["policy"]["generation"].clone())
    };
    let before = generation(suite)?;
    let good = suite.ruled("worker", "enforce");
    // Wider, so that a half-made load would show, and broken at its end.
    let text = good
        .clone()
        .rules(
            "connect",
            "allow",
            &["*".to_owned(), "127.0.0.1:70000".to_owned()],
        )
        .text();
    let line = 1 + text
        .lines()
        .take_while(|line| !line.contains("70000"))
        .count();
    let file = suite.places.at("agents/worker.yaml");
    fs::write(&file, text)?;
    let mut tagged = suite.tagged("worker")?;
    let said = suite.daemon.cli_ends(&["policy", "reload"], 1)?;
    ensure!(
        said.contains(&format!("{file}:{line}:")),
        "no place: {said}"
    );
    suite.daemon.cli_ends(&["policy", "check", &file], 5)?;
    tagged.must_not(&tcp(unlisted.tcp))?;
    tagged.may(&tcp(listed.tcp))?;
    ensure!(generation(suite)? == before, "the generation changed");
    suite.install(&good)?;
    suite.reload()?;
    tagged.must_not(&tcp(unlisted.tcp))
}

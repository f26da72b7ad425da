//! The life of an agent: changed, absent, retired, and a lease that ends with nobody there.

use std::fs;

use agentguard_tests::agent::Agent;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::any;

pub const TESTS: &[Test] = &[
    any("agents::a_change_is_told_by_what_it_means", changed),
    any("agents::an_absent_agent_keeps_its_policy", absent),
    any("agents::a_retired_agent_runs_no_more", retired),
    any("agents::no_agent_decides_about_agents", not_by_agents),
    any("agents::a_lease_ends_without_a_daemon", lease),
];

fn allowed(suite: &Suite) -> Value {
    tcp(suite.servers.listed_v4.tcp)
}

fn denied(suite: &Suite) -> Value {
    tcp(suite.servers.unlisted_v4.tcp)
}

fn tcp(to: std::net::SocketAddr) -> Value {
    json!({ "op": "tcp", "address": to.ip(), "port": to.port() })
}

fn shown(suite: &Suite, agent: &str) -> Result<Value> {
    suite.daemon.json(&["agents", "show", agent, "--json"])
}

/// The newest event of this kind about this agent.
fn told(suite: &Suite, agent: &str, kind: &str) -> Result<Value> {
    until(&format!("{kind} of {agent} is in the ledger"), || {
        let arguments = ["events", "--json", "--last", "10000", "--agent", agent];
        let out = suite.daemon.cli(&arguments)?;
        let lines = String::from_utf8(out.stdout)?;
        let mut events = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(events.rfind(|event| event["kind"] == kind))
    })
}

fn gauge(suite: &Suite, state: &str) -> Result<f64> {
    suite
        .daemon
        .sample("agentguard_agents", &[("state", state)])
}

fn changed(suite: &mut Suite) -> Result<()> {
    let before = suite.ruled("living", "enforce");
    suite.install(&before)?;
    suite.reload()?;
    let first = told(suite, "living", "agent-registered")?;
    ensure!(
        first["by"] == "root (uid 0)" && first["trigger"] == "api",
        "{first}"
    );
    ensure!(first["manifest_owner"] == "root", "{first}");
    let wider = before.clone().rules("connect", "allow", &["*".to_owned()]);
    suite.install(&wider)?;
    suite.reload()?;
    let event = told(suite, "living", "agent-changed")?;
    ensure!(event["effect"] == "both", "{event}");
    let changes = event["changes"].as_array().context("no changes")?;
    ensure!(
        changes[0]
            == json!({ "field": "permissions.connect", "before": null, "after": "allow *", "effect": "wider" }),
        "{event}"
    );
    // The same in other words is the same version.
    fs::write(
        suite.places.at("agents/living.yaml"),
        format!("# said anew\n{}", wider.text()),
    )?;
    suite.reload()?;
    let shown = shown(suite, "living")?;
    ensure!(
        shown["versions"].as_array().map(Vec::len) == Some(2),
        "{shown}"
    );
    ensure!(shown["agent_version"] == event["agent_version"], "{shown}");
    suite.remove("living")
}

/// Whose file is gone is held to its last policy, and begins nothing.
fn absent(suite: &mut Suite) -> Result<()> {
    let (allowed, denied) = (allowed(suite), denied(suite));
    suite.install(&suite.ruled("passing", "enforce"))?;
    suite.reload()?;
    let mut tagged = suite.tagged("passing")?;
    tagged.may(&allowed)?;
    let file = suite.places.at("agents/passing.yaml");
    let text = fs::read_to_string(&file)?;
    fs::remove_file(&file)?;
    suite.reload()?;
    tagged.may(&allowed)?;
    tagged.must_not(&denied)?;
    ensure!(shown(suite, "passing")?["state"] == "absent");
    ensure!(gauge(suite, "absent")? >= 1.0);
    let run = ["run", "--agent", "passing", "--", "true"];
    let said = suite.daemon.cli_ends(&run, 3)?;
    ensure!(said.contains("passing.yaml"), "{said}");
    let list = suite.daemon.cli_ends(&["agents", "list"], 0)?;
    ensure!(
        list.contains("confirm with `agentguard agents retire`"),
        "{list}"
    );
    // The last manifest is in force over a restart too.
    suite.daemon.kill()?;
    suite.daemon.start()?;
    tagged.may(&allowed)?;
    tagged.must_not(&denied)?;
    ensure!(shown(suite, "passing")?["state"] == "absent");
    fs::write(&file, text)?;
    suite.reload()?;
    told(suite, "passing", "agent-returned")?;
    suite.tagged("passing")?.may(&allowed)?;
    tagged.may(&allowed)?;
    tagged.end()?;
    suite.remove("passing")
}

fn retired(suite: &mut Suite) -> Result<()> {
    let allowed = allowed(suite);
    suite.install(&suite.ruled("leaving", "enforce"))?;
    suite.reload()?;
    let mut tagged = suite.tagged("leaving")?;
    let mut other = suite.tagged("worker")?;
    tagged.may(&allowed)?;
    let run = tagged.run()?.to_owned();
    let retire = ["agents", "retire", "leaving", "--reason", "OPS-7", "--json"];
    let said: Value = suite.daemon.json(&retire)?;
    ensure!(
        said["runs_revoked"] == 1 && said["processes_killed"] == 1,
        "{said}"
    );
    let status = tagged.end()?;
    ensure!(!status.success(), "it was killed, and ended with {status}");
    other.may(&allowed)?;
    let end = until("the run ends", || {
        let shown = suite.daemon.json(&["runs", "show", &run, "--json"])?;
        Ok((shown["state"] == "ended").then_some(shown))
    })?;
    ensure!(end["end"]["ended_by"] == "revoked", "{end}");
    // Its file is still there; neither that nor a restart brings it back.
    suite.reload()?;
    suite.daemon.stop()?;
    suite.daemon.start()?;
    let begin = ["run", "--agent", "leaving", "--", "true"];
    let refused = suite.daemon.cli_ends(&begin, 3)?;
    ensure!(
        refused.contains("root (uid 0)") && refused.contains("OPS-7"),
        "{refused}"
    );
    ensure!(gauge(suite, "retired")? >= 1.0);
    suite.daemon.cli_ends(&retire, 1)?;
    suite
        .daemon
        .cli_ends(&["agents", "retire", "nobody-has-it", "--reason", "x"], 1)?;
    suite
        .daemon
        .cli_ends(&["agents", "retire", "worker", "--reason", " "], 2)?;
    let back = ["agents", "reinstate", "leaving", "--reason", "OPS-9"];
    suite.daemon.cli_ends(&back, 0)?;
    suite.daemon.cli_ends(&begin, 0)?;
    let event = told(suite, "leaving", "agent-reinstated")?;
    ensure!(event["reason"] == "OPS-9", "{event}");
    suite.remove("leaving")
}

/// Root as an agent is an agent.
fn not_by_agents(suite: &mut Suite) -> Result<()> {
    for arguments in [
        &["agents", "retire", "worker", "--reason", "me"][..],
        &["agents", "reinstate", "worker", "--reason", "me"],
        &["agents", "list"],
        &["agents", "show", "worker"],
    ] {
        let inner = suite.daemon.command(arguments);
        let mut words = vec![
            "run".to_owned(),
            "--agent".into(),
            "worker".into(),
            "--".into(),
        ];
        words.push(inner.get_program().to_string_lossy().into_owned());
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = suite.daemon.cli(&words)?;
        // Where it may not even reach the socket it is unreachable.
        ensure!(
            matches!(done.status.code(), Some(3 | 4)),
            "{arguments:?}: {done:?}"
        );
    }
    ensure!(shown(suite, "worker")?["state"] != "retired");
    suite.daemon.cli_ends(&["agents", "show", "worker"], 0)?;
    Ok(())
}

/// With the daemon stopped, the kernel alone ends what the lease ends.
fn lease(suite: &mut Suite) -> Result<()> {
    let allowed = allowed(suite);
    let mut leased = leased(suite, "3s")?;
    let mut longer = leased_or_not(suite, &[])?;
    let run = leased.run()?.to_owned();
    leased.may(&allowed)?;
    let daemon = suite.daemon.pid().context("no daemon")?;
    let daemon = Pid::from_raw(daemon.cast_signed());
    kill(daemon, Signal::SIGSTOP)?;
    let outcome = until("the lease ends", || {
        let answer = leased.ask(&allowed)?;
        Ok((answer["ok"] == false).then_some(answer))
    });
    let twin = longer.may(&allowed);
    kill(daemon, Signal::SIGCONT)?;
    let answer = outcome?;
    ensure!(answer["errno"] == "EPERM", "{answer}");
    twin?;
    leased.must_not(&allowed)?;
    let live = suite.daemon.json(&["runs", "show", &run, "--json"])?;
    ensure!(live["state"] == "lease-expired", "{live}");
    leased.end()?;
    longer.end()?;
    let end = until("the run ends", || {
        let shown = suite.daemon.json(&["runs", "show", &run, "--json"])?;
        Ok((shown["state"] == "ended").then_some(shown))
    })?;
    ensure!(end["end"]["ended_by"] == "lease-expired", "{end}");
    Ok(())
}

fn leased(suite: &Suite, lease: &str) -> Result<Agent> {
    leased_or_not(suite, &["--lease", lease])
}

fn leased_or_not(suite: &Suite, with: &[&str]) -> Result<Agent> {
    let mut arguments = vec!["run", "--agent", "worker"];
    arguments.extend(with);
    arguments.extend(["--", "python3"]);
    let mut command = suite.daemon.command(&arguments);
    command.arg(suite.places.root().join("probe.py"));
    Agent::start("the agent with a lease", command)
}

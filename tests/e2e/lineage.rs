//! Agents that agents start: below them in every respect.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use agentguard_tests::agent::Agent;
use agentguard_tests::manifest::Manifest;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{PROBE, any, lsm};

pub const TESTS: &[Test] = &[
    any(
        "lineage::a_launched_sub_agent_has_the_rights_of_both",
        launched,
    ),
    any(
        "lineage::a_matched_sub_agent_has_the_rights_of_both",
        matched,
    ),
    lsm("lineage::files_need_the_leave_of_both", files),
    any("lineage::only_delegates_are_started", only_delegates),
    any("lineage::lineages_have_a_limit", has_a_limit),
    any("lineage::a_run_lasts_as_long_as_those_below_it", lasts),
    any(
        "lineage::what_the_one_above_loses_is_lost_below",
        reload_reaches_below,
    ),
    any(
        "lineage::retiring_an_agent_ends_those_below_it",
        retired_with_it,
    ),
];

/// `lead` may reach one listed server and starts `helper`, which may reach everything.
fn install(suite: &Suite) -> Result<()> {
    let servers = &suite.servers;
    let lead = suite
        .ruled("lead", "enforce")
        .delegates(&["helper", "matched-helper"]);
    suite.install(&lead)?;
    suite.install(&helper("helper"))?;
    let program = suite.places.at("match/helper");
    fs::create_dir_all(suite.places.at("match"))?;
    fs::copy(fs::canonicalize("/usr/bin/python3")?, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    suite.install(&helper("matched-helper").matches(&json!([{ "exe": program }])))?;
    suite.install(&helper("stranger"))?;
    ensure!(
        servers.listed_v4.tcp != servers.unlisted_v4.tcp,
        "the twins are one"
    );
    suite.reload()
}

/// An agent that may do everything but read secrets.
fn helper(name: &str) -> Manifest {
    Manifest::new(name, "enforce")
        .default("connect", "allow")
        .default("listen", "allow")
        .default("write", "allow")
}

fn remove(suite: &Suite) -> Result<()> {
    for agent in ["lead", "helper", "matched-helper", "stranger"] {
        suite.remove(agent)?;
    }
    Ok(())
}

/// A command line that runs as these agents, each started by the one before.
fn line(suite: &Suite, agents: &[&str]) -> Command {
    let mut command = suite.daemon.command(&[]);
    let binary = command.get_program().to_owned();
    for (at, agent) in agents.iter().enumerate() {
        if at > 0 {
            command.arg(&binary);
        }
        command.args(["run", "--agent", agent, "--"]);
    }
    command
}

/// A probe at the end of such a line.
fn probe(suite: &Suite, agents: &[&str]) -> Result<Agent> {
    let script = suite.places.root().join("lineage-probe.py");
    fs::write(&script, PROBE)?;
    let mut command = line(suite, agents);
    command.arg("python3").arg(script);
    Agent::start(&agents.join(" > "), command)
}

fn tcp(to: std::net::SocketAddr) -> Value {
    json!({ "op": "tcp", "address": to.ip(), "port": to.port() })
}

fn shown(suite: &Suite, run: &str) -> Result<Value> {
    suite.daemon.json(&["runs", "show", run, "--json"])
}

fn launched(suite: &mut Suite) -> Result<()> {
    install(suite)?;
    let (listed, unlisted) = (
        tcp(suite.servers.listed_v4.tcp),
        tcp(suite.servers.unlisted_v4.tcp),
    );
    // The helper by itself may: what follows is the lead's doing.
    let mut alone = probe(suite, &["helper"])?;
    alone.may(&listed)?;
    alone.may(&unlisted)?;
    let mut below = probe(suite, &["lead", "helper"])?;
    below.may(&listed)?;
    below.must_not(&unlisted)?;
    below.must_not(
        &json!({ "op": "tcp", "address": suite.servers.unlisted_v6.tcp.ip(),
        "port": suite.servers.unlisted_v6.tcp.port(), "via": ["fork", "spawn", "thread"] }),
    )?;
    let run = shown(suite, below.run()?)?;
    let parent = run["parent_run"]
        .as_str()
        .context("no parent run")?
        .to_owned();
    let above = shown(suite, &parent)?;
    ensure!(
        run["agent"] == "helper" && above["agent"] == "lead" && above["parent_run"].is_null(),
        "{run} is below {above}"
    );
    let run = below.run()?.to_owned();
    until("the refusal is told of the right run", || {
        let events = suite.daemon.events(&run)?;
        let denied = events
            .iter()
            .find(|event| event["verdict"] == "deny")
            .cloned();
        if let Some(denied) = &denied {
            ensure!(
                denied["agent"] == "helper" && denied["parent_run"] == parent.as_str(),
                "{denied}"
            );
        }
        Ok(denied)
    })?;
    remove(suite)
}

fn matched(suite: &mut Suite) -> Result<()> {
    install(suite)?;
    let script = suite.places.root().join("lineage-probe.py");
    fs::write(&script, PROBE)?;
    let program = suite.places.at("match/helper");
    let (listed, unlisted) = (
        tcp(suite.servers.listed_v4.tcp),
        tcp(suite.servers.unlisted_v4.tcp),
    );
    let ask = |request: &Value| {
        json!({ "op": "command", "env": {}, "via": ["fork"],
            "argv": [program, script, "--one", request.to_string()] })
    };
    let answer = |agent: &mut Agent, request: &Value| -> Result<Value> {
        let done = agent.may(&ask(request))?;
        ensure!(done["code"] == 0, "the helper failed: {done}");
        Ok(serde_json::from_str(
            done["output"].as_str().unwrap_or_default(),
        )?)
    };
    let mut free = suite.untagged()?;
    for request in [&listed, &unlisted] {
        let answer = answer(&mut free, request)?;
        ensure!(
            answer["ok"] == true,
            "by itself it may {request}, and got {answer}"
        );
    }
    let mut lead = probe(suite, &["lead"])?;
    let may = answer(&mut lead, &listed)?;
    ensure!(
        may["ok"] == true,
        "below the lead it may {listed}, and got {may}"
    );
    let refused = answer(&mut lead, &unlisted)?;
    ensure!(
        refused["errno"] == "EPERM",
        "below the lead it got {refused} for {unlisted}"
    );
    let parent = lead.run()?.to_owned();
    let below = until("the runs below are recorded", || {
        let all = suite.daemon.json(&[
            "runs",
            "list",
            "--agent",
            "matched-helper",
            "--ended",
            "100",
            "--json",
        ])?;
        let all = all["runs"].as_array().cloned().unwrap_or_default();
        let below: Vec<Value> = all
            .into_iter()
            .filter(|run| run["parent_run"] == parent.as_str())
            .collect();
        Ok((below.len() == 2).then_some(below))
    })?;
    ensure!(
        below.iter().all(|run| run["origin"] == "matched"),
        "{below:?}"
    );
    // The lead itself goes on as it was.
    lead.may(&listed)?;
    lead.must_not(&unlisted)?;
    remove(suite)
}

fn files(suite: &mut Suite) -> Result<()> {
    install(suite)?;
    let write = |path: &str| -> Result<Value> {
        Ok(json!({ "op": "open_write", "path": suite.places.file(path)? }))
    };
    let (ok, no) = (write("ok/lineage")?, write("no/lineage")?);
    let secret = json!({ "op": "open_read", "path": suite.places.file("secret/lineage")? });
    let mut alone = probe(suite, &["helper"])?;
    let mut below = probe(suite, &["lead", "helper"])?;
    for request in [&ok, &no, &secret] {
        alone.may(request)?;
    }
    below.may(&ok)?;
    below.must_not(&no)?;
    below.must_not(&secret)?;
    below.must_not(
        &json!({ "op": "rename", "path": suite.places.file("ok/moved")?,
        "to": suite.places.at("no/moved") }),
    )?;
    remove(suite)
}

fn only_delegates(suite: &mut Suite) -> Result<()> {
    install(suite)?;
    let mut stranger = line(suite, &["lead", "stranger"]);
    let done = stranger.arg("true").output()?;
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(
        done.status.code() == Some(3) && text.contains("may not start agent `stranger`"),
        "{done:?}"
    );
    // One that anybody may start is no exception, and below the helper nobody is.
    let done = line(suite, &["lead", "helper", "lead"])
        .arg("true")
        .output()?;
    ensure!(done.status.code() == Some(3), "{done:?}");
    let mut helper = line(suite, &["lead", "helper"]);
    ensure!(
        helper.arg("true").status()?.success(),
        "the delegate was not started"
    );
    // What a match would make another agent stays what it is.
    let program = suite.places.at("match/helper");
    let mut stranger = line(suite, &["stranger"]);
    let script = "import json,os; print(json.dumps({'pid': os.getpid()}), flush=True); input()";
    let started = Agent::start("the program below a stranger", {
        stranger.args([&program, "-c", script]);
        stranger
    })?;
    let pid = started.pid;
    let process = until("it is listed", || {
        let all = suite.daemon.json(&["ps", "--json"])?;
        let all = all["processes"].as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().find(|process| process["pid"] == pid))
    })?;
    ensure!(process["agent"] == "stranger", "it runs as {process}");
    drop(started);
    remove(suite)
}

fn has_a_limit(suite: &mut Suite) -> Result<()> {
    const ABOVE: usize = 8;
    suite.install(&helper("nested").delegates(&["nested"]))?;
    suite.reload()?;
    let line_of = |runs: usize| line(suite, &vec!["nested"; runs]).arg("true").output();
    let done = line_of(ABOVE + 1)?;
    ensure!(done.status.success(), "{} runs above: {done:?}", ABOVE);
    let done = line_of(ABOVE + 2)?;
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(
        done.status.code() == Some(3) && text.contains("which is the limit"),
        "{} runs above: {done:?}",
        ABOVE + 1
    );
    suite.remove("nested")
}

fn lasts(suite: &mut Suite) -> Result<()> {
    install(suite)?;
    // The lead's only process becomes the helper.
    let below = probe(suite, &["lead", "helper"])?;
    let run = below.run()?.to_owned();
    let parent = shown(suite, &run)?["parent_run"]
        .as_str()
        .context("no parent")?
        .to_owned();
    ensure!(
        shown(suite, &parent)?["state"] == "active",
        "the run above has ended"
    );
    below.end()?;
    for run in [&run, &parent] {
        let ended = until("both have ended", || {
            Ok(Some(shown(suite, run)?).filter(|run| run["state"] == "ended"))
        })?;
        ensure!(
            ended["end"]["ended_by"] == "exited" && ended["end"]["complete"] == true,
            "{ended}"
        );
    }
    remove(suite)
}

fn reload_reaches_below(suite: &mut Suite) -> Result<()> {
    install(suite)?;
    let listed = tcp(suite.servers.listed_v4.tcp);
    let mut below = probe(suite, &["lead", "helper"])?;
    below.may(&listed)?;
    // The lead may nothing any more: nor may those below it.
    suite.install(&Manifest::new("lead", "enforce").delegates(&["helper"]))?;
    suite.reload()?;
    below.must_not(&listed)?;
    // It may again, but does not start the helper any more.
    suite.install(&suite.ruled("lead", "enforce"))?;
    suite.reload()?;
    below.must_not(&listed)?;
    install(suite)?;
    below.may(&listed)?;
    remove(suite)
}

fn retired_with_it(suite: &mut Suite) -> Result<()> {
    install(suite)?;
    let below = probe(suite, &["lead", "helper"])?;
    let mut alone = probe(suite, &["helper"])?;
    let run = below.run()?.to_owned();
    let retire = ["agents", "retire", "lead", "--reason", "a test of lineages"];
    suite.daemon.cli_ends(&retire, 0)?;
    ensure!(
        !below.end()?.success(),
        "the process below a retired agent ended well"
    );
    let ended = until("the run below has ended", || {
        Ok(Some(shown(suite, &run)?).filter(|run| run["state"] == "ended"))
    })?;
    ensure!(ended["end"]["ended_by"] == "revoked", "{ended}");
    alone.may(&tcp(suite.servers.unlisted_v4.tcp))?;
    let reinstate = [
        "agents",
        "reinstate",
        "lead",
        "--reason",
        "the test goes on",
    ];
    suite.daemon.cli_ends(&reinstate, 0)?;
    remove(suite)
}

//! Who may start an agent, what `run` passes on, and what an agent may ask for.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Output, Stdio};

use agentguard_tests::daemon::both;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::any;

pub const TESTS: &[Test] = &[
    any("launch::only_listed_users", only_listed_users),
    any("launch::exit_codes_are_the_commands_own", exit_codes),
    any("launch::signals_reach_the_command", signals),
    any(
        "launch::an_agent_operates_nothing",
        an_agent_operates_nothing,
    ),
    any("launch::an_agent_starts_no_other", an_agent_starts_no_other),
];

const NOBODY: u32 = 65_534;

fn as_nobody(suite: &Suite, arguments: &[&str]) -> Result<Output> {
    Ok(suite
        .daemon
        .command(arguments)
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()?)
}

fn only_listed_users(suite: &mut Suite) -> Result<()> {
    let run = |agent| {
        as_nobody(
            suite,
            &["run", "--agent", agent, "--", "sh", "-c", "exit 9"],
        )
    };
    let refused = run("worker")?;
    ensure!(refused.status.code() == Some(3), "{}", both(&refused));
    ensure!(
        both(&refused).contains("worker.yaml"),
        "names no manifest: {}",
        both(&refused)
    );
    let allowed = run("listed")?;
    ensure!(allowed.status.code() == Some(9), "{}", both(&allowed));
    let reload = as_nobody(suite, &["policy", "reload"])?;
    ensure!(reload.status.code() == Some(3), "{}", both(&reload));
    Ok(())
}

fn exit_codes(suite: &mut Suite) -> Result<()> {
    let run = |agent: &str, command: &[&str], code| {
        let arguments = [&["run", "--agent", agent, "--"], command].concat();
        suite.daemon.cli_ends(&arguments, code)
    };
    run("worker", &["sh", "-c", "exit 7"], 7)?;
    run("worker", &["true"], 0)?;
    run("worker", &["no-such-command-here"], 127)?;
    run("worker", &[&suite.places.file("ok/no-program")?], 126)?;
    let said = run("worked", &["true"], 1)?;
    ensure!(said.contains("did you mean `worker`"), "{said}");
    let mut command = suite
        .daemon
        .command(&["run", "--agent", "worker", "--", "true"]);
    let unreachable = command
        .env("AGENTGUARD_SOCKET", suite.places.at("runtime/none"))
        .output()?;
    ensure!(
        unreachable.status.code() == Some(4),
        "{}",
        both(&unreachable)
    );
    Ok(())
}

fn signals(suite: &mut Suite) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGUSR1] {
        let mut command = suite
            .daemon
            .command(&["run", "--agent", "worker", "--", "sh", "-c"]);
        let mut child = command
            // Says that it is the command, and waits.
            .arg("echo ready; exec sleep 600")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut out = std::io::BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line)?;
        ensure!(line == "ready\n", "{line}");
        kill(Pid::from_raw(child.id().cast_signed()), signal)?;
        let status = until("the signal ends the command", || Ok(child.try_wait()?));
        if status.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let status = status?;
        ensure!(status.signal() == Some(signal as i32), "{signal}: {status}");
    }
    Ok(())
}

/// Root inside an agent is still an agent.
fn an_agent_operates_nothing(suite: &mut Suite) -> Result<()> {
    let mut tagged = suite.tagged("worker")?;
    let mut ask = |arguments: &[&str]| -> Result<(i64, String)> {
        let command = suite.daemon.command(arguments);
        let program = command.get_program().to_string_lossy().into_owned();
        let socket = suite.places.at("runtime/agentguard.sock");
        let argv = [&[program.as_str(), "--socket", &socket], arguments].concat();
        let done = tagged.may(&json!({
            "op": "command", "argv": argv, "env": {}, "via": ["orphan"],
        }))?;
        let output = done["output"].as_str().unwrap_or_default().to_owned();
        Ok((done["code"].as_i64().context("no code")?, output))
    };
    for arguments in [&["policy", "reload"][..], &["status"]] {
        let (code, output) = ask(arguments)?;
        ensure!(code == 3, "{arguments:?}: {code} {output}");
    }
    // It may see itself.
    let (code, output) = ask(&["runs", "list", "--json"])?;
    ensure!(code == 0, "{code} {output}");
    Ok(())
}

fn an_agent_starts_no_other(suite: &mut Suite) -> Result<()> {
    for inner in ["watcher", "worker"] {
        let program = suite
            .daemon
            .command(&[])
            .get_program()
            .to_string_lossy()
            .into_owned();
        let arguments = [
            "run", "--agent", "worker", "--", &program, "run", "--agent", inner, "--",
        ];
        suite
            .daemon
            .cli_ends(&[&arguments[..], &["true"]].concat(), 3)?;
    }
    Ok(())
}

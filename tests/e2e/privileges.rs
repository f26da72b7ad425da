//! What needs a privilege is refused without it, and nothing that root agents do all day does.

use std::fs;

use agentguard_tests::daemon::both;
use agentguard_tests::manifest::Manifest;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Result, ensure};
use serde_json::Value;

use crate::lsm;

pub const TESTS: &[Test] = &[
    lsm("privileges::ordinary_work_needs_none", ordinary_work),
    lsm(
        "privileges::a_whole_system_is_signalled_in_vain",
        all_processes,
    ),
];

const ORDINARY: &str = include_str!("ordinary.py");
const AGENT: &str = "unprivileged";

fn install(suite: &Suite) -> Result<()> {
    let written = [
        "/dev/null",
        "/proc/*/comm",
        "/proc/*/oom_score_adj",
        "/proc/sys/**",
    ];
    let mut written: Vec<String> = written.map(str::to_owned).into();
    written.extend(["/sys/**".to_owned(), suite.places.at("ok/**")]);
    suite.install(
        &Manifest::new(AGENT, "enforce")
            .rules("write", "allow", &written)
            .rules("listen", "allow", &["127.0.0.1:81".to_owned()])
            .privileges(&[]),
    )?;
    suite.reload()
}

fn ordinary_work(suite: &mut Suite) -> Result<()> {
    install(suite)?;
    let directory = suite.places.fresh("ok/ordinary")?;
    let script = suite.places.at("ordinary.py");
    fs::write(&script, ORDINARY)?;
    // Its end is told to this process, which has no tag.
    let output = suite
        .daemon
        .command(&["run", "--agent", AGENT, "--", "python3", &script])
        .arg(&directory)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.trim() == "as expected", "{}", both(&output));
    Ok(())
}

/// One record for each process, however often, and none of them gets it.
fn all_processes(suite: &mut Suite) -> Result<()> {
    install(suite)?;
    let mut free = suite.untagged()?;
    let script = "import os, signal\nfor _ in range(50):\n try: os.kill(-1, signal.SIGTERM)\n \
                  except PermissionError: pass\nprint(os.environ['AGENTGUARD_RUN_ID'])";
    let output = suite
        .daemon
        .command(&["run", "--agent", AGENT, "--", "python3", "-c", script])
        .output()?;
    ensure!(output.status.success(), "{}", both(&output));
    let run = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let ended = until("the run is recorded as ended", || {
        let events = suite.daemon.events(&run)?;
        Ok(events
            .into_iter()
            .find(|event| event["kind"] == "run-ended"))
    })?;
    ensure!(ended["complete"] == true, "{ended}");
    let events = suite.daemon.events(&run)?;
    let outside = |event: &&Value| event["reason"] == "outside-run";
    ensure!(events.iter().filter(outside).count() > 0, "nothing is told");
    // Both are still there.
    free.may(&serde_json::json!({ "op": "open_read", "path": "/dev/null" }))?;
    suite.daemon.cli_ends(&["status"], 0)?;
    Ok(())
}

//! Whatever an agent starts is bound by its rules, and nobody else is.

use agentguard_tests::agent::Agent;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{any, lsm};

pub const TESTS: &[Test] = &[
    lsm(
        "identity::descendants_write_where_they_may",
        descendants_write,
    ),
    any(
        "identity::descendants_connect_where_they_may",
        descendants_connect,
    ),
    lsm("identity::curl_writes_where_it_may", curl_writes),
    any("identity::curl_connects_where_it_may", curl_connects),
    lsm("identity::git_writes_where_it_may", git_writes),
    any("identity::git_connects_where_it_may", git_connects),
    any("identity::descendants_are_listed", descendants_are_listed),
];

/// Ways from the agent to the task that acts.
const LINEAGES: [&[&str]; 9] = [
    &["thread"],
    &["fork", "fork"],
    &["orphan", "setsid"],
    &["setsid", "orphan", "thread"],
    &["spawn", "fork"],
    &["posix_spawn", "thread"],
    &["shell", "orphan"],
    &["thread", "fork", "thread"],
    &["nobody", "setsid", "thread"],
];

/// All requests in one task by every lineage, tagged and untagged at the same time.
fn twins(suite: &Suite, allowed: &[Value], refused: &[Value]) -> Result<()> {
    let requests = [allowed, refused].concat();
    let mut tagged = suite.tagged("worker")?;
    let mut free = suite.untagged()?;
    for lineage in LINEAGES {
        let batch = json!({ "op": "batch", "requests": requests, "via": lineage });
        let answers = tagged.may(&batch)?;
        for (index, request) in requests.iter().enumerate() {
            let answer = &answers[index];
            let expected = if index < allowed.len() {
                answer["ok"] == true
            } else {
                answer["errno"] == "EPERM"
            };
            ensure!(expected, "tagged, by {lineage:?}: {request} got {answer}");
        }
        let answers = free.may(&batch)?;
        let all = answers.as_array().context("no answers")?;
        ensure!(
            all.iter().all(|answer| answer["ok"] == true),
            "untagged: {answers}"
        );
    }
    Ok(())
}

fn descendants_write(suite: &mut Suite) -> Result<()> {
    let open = |path| json!({ "op": "open_write", "path": path });
    let allowed = open(suite.places.file("ok/lineage")?);
    let refused = open(suite.places.file("no/lineage")?);
    twins(suite, &[allowed], &[refused])
}

fn descendants_connect(suite: &mut Suite) -> Result<()> {
    let servers = &suite.servers;
    let tcp =
        |to: std::net::SocketAddr| json!({ "op": "tcp", "address": to.ip(), "port": to.port() });
    let udp = |to: std::net::SocketAddr| json!({ "op": "udp_sendto", "address": to.ip(), "port": to.port() });
    let allowed = [tcp(servers.listed_v4.tcp), udp(servers.listed_v6.udp)];
    let refused = [tcp(servers.unlisted_v6.tcp), udp(servers.unlisted_v4.udp)];
    twins(suite, &allowed, &refused)
}

fn command(agent: &mut Agent, argv: &[&str], home: &str) -> Result<(i64, String)> {
    let env = json!({
        "HOME": home, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com",
    });
    let done = agent.may(&json!({ "op": "command", "argv": argv, "env": env, "via": ["fork"] }))?;
    let code = done["code"].as_i64().context("no exit code")?;
    let output = done["output"].as_str().unwrap_or_default().to_owned();
    Ok((code, output))
}

const CURL: [&str; 5] = ["curl", "--silent", "--show-error", "--max-time", "60"];

fn curl(agent: &mut Agent, home: &str, more: &[&str]) -> Result<(i64, String)> {
    command(agent, &[&CURL[..], more].concat(), home)
}

fn curl_writes(suite: &mut Suite) -> Result<()> {
    let home = suite.places.at("ok");
    let url = format!("http://{}/", suite.servers.listed_v4.tcp);
    let (ok, no) = (suite.places.at("ok/page"), suite.places.at("no/page"));
    let mut tagged = suite.tagged("worker")?;
    let (code, output) = curl(&mut tagged, &home, &["-o", &ok, &url])?;
    ensure!(code == 0, "curl to {ok}: {code} {output}");
    let (code, output) = curl(&mut tagged, &home, &["-o", &no, &url])?;
    ensure!(
        code == 23,
        "curl to {no} must fail to write: {code} {output}"
    );
    ensure!(!std::path::Path::new(&no).exists(), "{no} was made");
    let (code, output) = curl(&mut suite.untagged()?, &home, &["-o", &no, &url])?;
    ensure!(code == 0, "untagged curl: {code} {output}");
    Ok(())
}

fn curl_connects(suite: &mut Suite) -> Result<()> {
    let home = suite.places.at("ok");
    let servers = &suite.servers;
    let url = |to: std::net::SocketAddr| format!("http://{to}/");
    let mut tagged = suite.tagged("worker")?;
    for listed in [servers.listed_v4.tcp, servers.listed_v6.tcp] {
        let (code, output) = curl(&mut tagged, &home, &[&url(listed)])?;
        ensure!(
            code == 0 && output == "hello\n",
            "curl {listed}: {code} {output}"
        );
    }
    for unlisted in [&servers.unlisted_v4, &servers.unlisted_v6] {
        let before = unlisted.visits();
        let (code, output) = curl(&mut tagged, &home, &[&url(unlisted.tcp)])?;
        ensure!(code == 7, "curl {}: {code} {output}", unlisted.tcp);
        ensure!(unlisted.visits() == before, "{} was reached", unlisted.tcp);
        let (code, output) = curl(&mut suite.untagged()?, &home, &[&url(unlisted.tcp)])?;
        ensure!(code == 0, "untagged curl {}: {code} {output}", unlisted.tcp);
    }
    Ok(())
}

fn git_writes(suite: &mut Suite) -> Result<()> {
    let home = suite.places.at("ok");
    let (ok, no) = (
        suite.places.fresh("ok/repository")?,
        suite.places.fresh("no/repository")?,
    );
    let (ok, no) = (ok.to_string_lossy(), no.to_string_lossy());
    let mut tagged = suite.tagged("worker")?;
    for arguments in [
        &["init", "--quiet"][..],
        &["commit", "--quiet", "--allow-empty", "--message", "one"],
        &["gc", "--quiet"],
    ] {
        let (code, output) = command(
            &mut tagged,
            &[&["git", "-C", &ok], arguments].concat(),
            &home,
        )?;
        ensure!(code == 0, "git {arguments:?} in {ok}: {code} {output}");
    }
    let (code, output) = command(&mut tagged, &["git", "-C", &no, "init", "--quiet"], &home)?;
    ensure!(
        code != 0 && output.contains("Operation not permitted"),
        "git init in {no} must be refused: {code} {output}"
    );
    ensure!(
        std::fs::read_dir(&*no)?.next().is_none(),
        "git wrote to {no}"
    );
    let mut free = suite.untagged()?;
    let (code, output) = command(&mut free, &["git", "-C", &no, "init", "--quiet"], &home)?;
    ensure!(code == 0, "untagged git: {code} {output}");
    Ok(())
}

fn git_connects(suite: &mut Suite) -> Result<()> {
    let home = suite.places.at("ok");
    let url = |to: std::net::SocketAddr| format!("git://{to}/repository");
    let mut tagged = suite.tagged("worker")?;
    let (listed, unlisted) = (&suite.servers.listed_v4, &suite.servers.unlisted_v4);
    // Neither speaks git: what counts is who is reached.
    let before = listed.visits().0;
    command(&mut tagged, &["git", "ls-remote", &url(listed.tcp)], &home)?;
    until("git reaches the listed server", || {
        Ok((listed.visits().0 > before).then_some(()))
    })?;
    let before = unlisted.visits().0;
    let (code, output) = command(
        &mut tagged,
        &["git", "ls-remote", &url(unlisted.tcp)],
        &home,
    )?;
    ensure!(
        code != 0 && output.contains("Operation not permitted"),
        "git ls-remote {}: {code} {output}",
        unlisted.tcp
    );
    ensure!(
        unlisted.visits().0 == before,
        "git reached {}",
        unlisted.tcp
    );
    let mut free = suite.untagged()?;
    command(&mut free, &["git", "ls-remote", &url(unlisted.tcp)], &home)?;
    until("untagged git reaches the unlisted server", || {
        Ok((unlisted.visits().0 > before).then_some(()))
    })
}

fn descendants_are_listed(suite: &mut Suite) -> Result<()> {
    let mut tagged = suite.tagged("worker")?;
    let child = tagged.may(&json!({ "op": "child_start" }))?;
    let listed = suite.daemon.json(&["ps", "--json"])?;
    let processes = listed["processes"].as_array().context("no processes")?;
    for pid in [tagged.pid, child.as_u64().context("no pid")?] {
        let process = processes
            .iter()
            .find(|process| process["pid"] == pid)
            .with_context(|| format!("ps does not list {pid}: {listed}"))?;
        ensure!(
            process["agent"] == "worker" && process["run"] == tagged.run()?,
            "{process}"
        );
    }
    let own = u64::from(std::process::id());
    ensure!(
        processes.iter().all(|process| process["pid"] != own),
        "ps lists the suite itself"
    );
    tagged.may(&json!({ "op": "child_end" }))?;
    Ok(())
}

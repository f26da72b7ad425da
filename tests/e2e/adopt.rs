//! Trees of processes that run already become an agent's, whole.

use std::fs;
use std::process::{Child, Command, Stdio};

use agentguard_tests::agent::Agent;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::any;

pub const TESTS: &[Test] = &[
    any(
        "adopt::a_running_process_is_bound_from_now_on",
        bound_from_now_on,
    ),
    any("adopt::a_tree_that_grows_is_adopted_whole", whole_trees),
    any("adopt::what_was_open_is_listed", open_is_listed),
    any("adopt::agents_and_the_dead_are_not_adopted", not_adopted),
];

fn adopt(suite: &Suite, pid: u64) -> Result<Value> {
    suite
        .daemon
        .json(&["adopt", &pid.to_string(), "--agent", "worker", "--json"])
}

fn tcp(to: std::net::SocketAddr) -> Value {
    json!({ "op": "tcp", "address": to.ip(), "port": to.port() })
}

fn bound_from_now_on(suite: &mut Suite) -> Result<()> {
    let (listed, unlisted) = (
        tcp(suite.servers.listed_v4.tcp),
        tcp(suite.servers.unlisted_v4.tcp),
    );
    let mut adopted = suite.untagged()?;
    let mut other = suite.untagged()?;
    adopted.may(&unlisted)?;
    let answer = adopt(suite, adopted.pid)?;
    adopted.may(&listed)?;
    adopted.must_not(&unlisted)?;
    let mut descendant = unlisted.clone();
    descendant["via"] = json!(["fork", "thread"]);
    adopted.must_not(&descendant)?;
    other.may(&unlisted)?;
    let run = answer["run"].as_str().context("no run")?;
    let shown = suite.daemon.json(&["runs", "show", run, "--json"])?;
    ensure!(
        shown["origin"] == "adopted" && shown["pid"] == adopted.pid && shown["agent"] == "worker",
        "{shown}"
    );
    Ok(())
}

/// A tree that never stops making processes, and ends with its input.
const GROWING: &str = r#"
import os, sys, threading, time
def grow(depth):
    while True:
        pid = os.fork()
        if pid == 0:
            if depth < 3:
                inner = os.fork()
                if inner == 0:
                    os._exit(0)
                os.waitpid(inner, 0)
            os._exit(0)
        os.waitpid(pid, 0)
children = []
for branch in range(8):
    pid = os.fork()
    if pid == 0:
        for _ in range(3):
            threading.Thread(target=grow, args=(branch % 4,), daemon=True).start()
        grow(branch % 4)
    children.append(pid)
print('{"pid": %d}' % os.getpid(), flush=True)
sys.stdin.read()
for pid in children:
    os.kill(pid, 9)
"#;

/// The processes of a tree, by their parents.
fn tree(root: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| pid),
        );
        at += 1;
    }
    Ok(found)
}

fn whole_trees(suite: &mut Suite) -> Result<()> {
    for _ in 0..5 {
        let mut command = Command::new("python3");
        command.args(["-c", GROWING]);
        let growing = Agent::start("a tree that grows", command)?;
        let root = u32::try_from(growing.pid)?;
        let answer = adopt(suite, growing.pid)?;
        let run = answer["run"].as_str().context("no run")?.to_owned();
        // Stopped one after the other, so that the tree is the same for both.
        let mut stopped: Vec<u32> = Vec::new();
        until("the tree stands still", || {
            let now = tree(root)?;
            let new: Vec<u32> = now
                .iter()
                .filter(|pid| !stopped.contains(pid))
                .copied()
                .collect();
            for pid in &new {
                let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP);
            }
            stopped.extend(&new);
            Ok(new.is_empty().then_some(()))
        })?;
        let listed = suite.daemon.json(&["ps", "--json"])?;
        let listed = listed["processes"].as_array().cloned().unwrap_or_default();
        let of_run = |pid: &u32| {
            listed
                .iter()
                .any(|process| process["pid"] == *pid && process["run"] == run.as_str())
        };
        let missing: Vec<u32> = tree(root)?.into_iter().filter(|pid| !of_run(pid)).collect();
        let alive = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let missing: Vec<u32> = missing.into_iter().filter(alive).collect();
        for pid in &stopped {
            let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        ensure!(missing.is_empty(), "{missing:?} of the tree have no tag");
        drop(growing);
    }
    // Whoever was dying while it was looked at is counted out as well.
    until("no task of them is left", || {
        let all = suite.daemon.json(&[
            "runs", "list", "--agent", "worker", "--ended", "0", "--json",
        ])?;
        let adopted = all["runs"].as_array().cloned().unwrap_or_default();
        Ok((!adopted.iter().any(|run| run["origin"] == "adopted")).then_some(()))
    })
}

fn open_is_listed(suite: &mut Suite) -> Result<()> {
    let path = suite.places.file("no/open-before")?;
    let script = format!(
        "import mmap,os,socket,sys\n\
         f = open({path:?}, 'r+b'); f.truncate(4096); m = mmap.mmap(f.fileno(), 4096)\n\
         s = socket.create_connection(('{}', {}))\n\
         print('{{\"pid\": %d}}' % os.getpid(), flush=True)\n\
         sys.stdin.read()",
        suite.servers.unlisted_v4.tcp.ip(),
        suite.servers.unlisted_v4.tcp.port()
    );
    let mut command = Command::new("python3");
    command.args(["-c", &script]);
    let open = Agent::start("a process with things open", command)?;
    let answer = adopt(suite, open.pid)?;
    let residual = &answer["residual"];
    let has = |kind: &str, what: &str| {
        let wanted = format!("{}: {what}", open.pid);
        residual[kind]
            .as_array()
            .is_some_and(|list| list.iter().any(|item| *item == wanted.as_str()))
    };
    let peer = format!("{}/tcp", suite.servers.unlisted_v4.tcp);
    ensure!(
        has("files", &path) && has("mappings", &path) && has("sockets", &peer),
        "{residual}"
    );
    Ok(())
}

fn not_adopted(suite: &mut Suite) -> Result<()> {
    let agent = suite.tagged("worker")?;
    let told = suite
        .daemon
        .cli_ends(&["adopt", &agent.pid.to_string(), "--agent", "watcher"], 1)?;
    ensure!(told.contains("already belongs to a run"), "{told}");
    let mut child: Child = Command::new("true").stdin(Stdio::null()).spawn()?;
    let pid = child.id().to_string();
    child.wait()?;
    let told = suite
        .daemon
        .cli_ends(&["adopt", &pid, "--agent", "worker"], 2)?;
    ensure!(told.contains("cannot be adopted"), "{told}");
    let mut free = suite.untagged()?;
    let told = suite.daemon.cli_ends(
        &["adopt", &free.pid.to_string(), "--agent", "nobody-here"],
        1,
    )?;
    ensure!(told.contains("no agent `nobody-here`"), "{told}");
    free.may(&tcp(suite.servers.unlisted_v4.tcp))?;
    Ok(())
}

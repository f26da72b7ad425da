//! Processes become agents by what they execute, and by nothing that they say of themselves.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentguard_tests::agent::Agent;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{PROBE, any, lsm};

pub const TESTS: &[Test] = &[
    any("matching::by_program", by_program),
    any("matching::by_program_and_user", by_user),
    lsm("matching::by_script", by_script),
    any("matching::by_cgroup_and_unit", by_cgroup),
    any("matching::by_nothing_that_it_says", by_nothing_it_says),
    any("matching::without_a_daemon", without_a_daemon),
    any("matching::short_runs_are_recorded", short_runs),
];

const NOBODY: u32 = 65_534;

/// An agent `matched` with these entries.
fn install(suite: &Suite, entries: &Value) -> Result<()> {
    let manifest = suite.ruled("matched", "enforce").matches(entries);
    suite.install(&manifest)?;
    suite.reload()
}

/// A copy of the interpreter, at this place in the suite's directories.
fn program(suite: &Suite, name: &str) -> Result<String> {
    let path = suite.places.at(name);
    let directory = Path::new(&path).parent().context("no directory")?;
    fs::create_dir_all(directory)?;
    fs::copy(fs::canonicalize("/usr/bin/python3")?, &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// A probe that this program interprets.
fn probe(suite: &Suite, program: &str) -> Result<Command> {
    let script = suite.places.root().join("matched-probe.py");
    fs::write(&script, PROBE)?;
    let mut command = Command::new(program);
    command.arg(script);
    Ok(command)
}

/// The process's line in `agentguard ps`.
fn listed(suite: &Suite, pid: u64) -> Result<Option<Value>> {
    let all = suite.daemon.json(&["ps", "--json"])?;
    let processes = all["processes"].as_array().context("no processes")?;
    Ok(processes
        .iter()
        .find(|process| process["pid"] == pid)
        .cloned())
}

/// It runs as the agent: listed, told apart by its address rules.
fn is_matched(suite: &Suite, agent: &mut Agent) -> Result<String> {
    let (allowed, refused) = twins(suite);
    agent.may(&allowed)?;
    agent.must_not(&refused)?;
    // The same of whatever it starts.
    agent.must_not(&with(&refused, json!({ "via": ["fork", "thread"] })))?;
    let pid = agent.pid;
    let process = until("the run is known", || {
        Ok(listed(suite, pid)?.filter(|process| process["run"].is_string()))
    })?;
    ensure!(process["agent"] == "matched", "it runs as {process}");
    let run = process["run"].as_str().context("no run")?.to_owned();
    let shown = suite.daemon.json(&["runs", "show", &run, "--json"])?;
    ensure!(
        shown["origin"] == "matched" && shown["pid"] == pid,
        "the run is recorded as {shown}"
    );
    Ok(run)
}

/// It runs as nobody's.
fn is_free(suite: &Suite, agent: &mut Agent) -> Result<()> {
    let (allowed, refused) = twins(suite);
    agent.may(&allowed)?;
    agent.may(&refused)?;
    let found = listed(suite, agent.pid)?;
    ensure!(found.is_none(), "it runs as {found:?}");
    Ok(())
}

fn twins(suite: &Suite) -> (Value, Value) {
    let tcp =
        |to: std::net::SocketAddr| json!({ "op": "tcp", "address": to.ip(), "port": to.port() });
    (
        tcp(suite.servers.listed_v4.tcp),
        tcp(suite.servers.unlisted_v4.tcp),
    )
}

fn with(request: &Value, more: Value) -> Value {
    let mut all = request.clone();
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    all
}

fn by_program(suite: &mut Suite) -> Result<()> {
    let (agent, other) = (
        program(suite, "match/agent")?,
        program(suite, "match/other")?,
    );
    install(suite, &json!([{ "exe": agent }]))?;
    let mut matched = Agent::start("the matched program", probe(suite, &agent)?)?;
    is_matched(suite, &mut matched)?;
    let link = suite.places.at("match/link");
    symlink(&agent, &link)?;
    let mut linked = Agent::start("the program by a link", probe(suite, &link)?)?;
    is_matched(suite, &mut linked)?;
    let mut free = Agent::start("another program", probe(suite, &other)?)?;
    is_free(suite, &mut free)?;
    // What runs already becomes nothing, whatever is loaded later.
    install(suite, &json!([{ "exe": other }]))?;
    is_free(suite, &mut free)?;
    suite.remove("matched")
}

fn by_user(suite: &mut Suite) -> Result<()> {
    let agent = program(suite, "match/of-user")?;
    install(
        suite,
        &json!([{ "exe": agent, "user": NOBODY.to_string() }]),
    )?;
    let mut of_nobody = probe(suite, &agent)?;
    of_nobody.uid(NOBODY);
    let mut matched = Agent::start("the user's program", of_nobody)?;
    let run = is_matched(suite, &mut matched)?;
    let shown = suite.daemon.json(&["runs", "show", &run, "--json"])?;
    ensure!(shown["uid"] == NOBODY, "the run is recorded as {shown}");
    let mut free = Agent::start("root's program", probe(suite, &agent)?)?;
    is_free(suite, &mut free)?;
    suite.remove("matched")
}

fn by_script(suite: &mut Suite) -> Result<()> {
    let interpreter = program(suite, "match/interpreter")?;
    let script = |name: &str| -> Result<String> {
        let path = suite.places.at(&format!("match/{name}"));
        fs::write(&path, format!("#!{interpreter}\n{PROBE}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    let (agent, other) = (script("agent.py")?, script("other.py")?);
    install(suite, &json!([{ "exe": agent }]))?;
    let mut matched = Agent::start("the matched script", Command::new(&agent))?;
    is_matched(suite, &mut matched)?;
    let mut free = Agent::start("another script", Command::new(&other))?;
    is_free(suite, &mut free)?;
    let mut command = Command::new(&interpreter);
    command.arg(&agent);
    let mut read = Agent::start("the script, not executed", command)?;
    is_free(suite, &mut read)?;
    // By the interpreter both are.
    install(suite, &json!([{ "exe": interpreter }]))?;
    let mut matched = Agent::start("the interpreter's script", Command::new(&other))?;
    is_matched(suite, &mut matched)?;
    suite.remove("matched")
}

/// A cgroup of the test's own, removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Has a command start in it.
    fn hold(&self, command: &mut Command) {
        let procs = self.0.join("cgroup.procs");
        // SAFETY: opens and writes a file between fork and exec, and nothing else.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn hierarchy() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    });
    found.context("no cgroup v2 hierarchy is mounted: the suite makes cgroups of its own")
}

fn by_cgroup(suite: &mut Suite) -> Result<()> {
    let root = hierarchy()?;
    let id = std::process::id();
    let unit = format!("agentguard-test-{id}.service");
    let slice = Cgroup::make(root.join(format!("agentguardtest{id}.slice")))?;
    let service = Cgroup::make(slice.0.join(&unit))?;
    let below = Cgroup::make(service.0.join("below"))?;
    let manager = Cgroup::make(slice.0.join("user@1.service"))?;
    let spoof = Cgroup::make(manager.0.join(&unit))?;
    let plain = Cgroup::make(slice.0.join("plain"))?;
    let in_cgroup = |cgroup: &Cgroup, what: &str| {
        let mut command = probe(suite, "/usr/bin/python3")?;
        cgroup.hold(&mut command);
        Agent::start(what, command)
    };
    install(suite, &json!([{ "systemd_unit": unit }]))?;
    for (cgroup, what) in [
        (&service, "the unit's program"),
        (&below, "a program below the unit"),
    ] {
        is_matched(suite, &mut in_cgroup(cgroup, what)?)?;
    }
    for (cgroup, what) in [
        (&spoof, "a cgroup of that name below a service"),
        (&plain, "no unit"),
    ] {
        is_free(suite, &mut in_cgroup(cgroup, what)?)?;
    }
    let path = format!("/agentguardtest{id}.slice/plain");
    install(suite, &json!([{ "cgroup": path, "exe": "/usr/bin/**" }]))?;
    is_matched(suite, &mut in_cgroup(&plain, "the cgroup's program")?)?;
    is_free(suite, &mut in_cgroup(&service, "another cgroup's program")?)?;
    is_free(suite, &mut in_cgroup(&slice, "the cgroup above")?)?;
    until("the cgroups are empty", || {
        let empty = |cgroup: &&Cgroup| {
            fs::read_to_string(cgroup.0.join("cgroup.procs")).is_ok_and(|pids| pids.is_empty())
        };
        let all = [&slice, &service, &below, &manager, &spoof, &plain];
        Ok(all.iter().all(empty).then_some(()))
    })?;
    drop((below, spoof, service, manager, plain, slice));
    suite.remove("matched")
}

fn by_nothing_it_says(suite: &mut Suite) -> Result<()> {
    let agent = program(suite, "match/true-one")?;
    install(suite, &json!([{ "exe": agent }]))?;
    let mut matched = Agent::start("the matched program", probe(suite, &agent)?)?;
    let run = is_matched(suite, &mut matched)?;
    // Another program with its name, its arguments, and its environment.
    let copy = program(suite, "elsewhere/true-one")?;
    let mut command = probe(suite, &copy)?;
    command
        .arg0(&agent)
        .env("AGENTGUARD_RUN_ID", &run)
        .env("_", &agent);
    let mut free = Agent::start("an impostor", command)?;
    free.may(&json!({ "op": "write_text", "path": "/proc/self/comm", "text": "true-one" }))?;
    is_free(suite, &mut free)?;
    // It is not less the agent for calling itself something else.
    let mut command = probe(suite, &agent)?;
    command.arg0("/usr/bin/python3").env_clear();
    let mut disguised = Agent::start("the program in disguise", command)?;
    is_matched(suite, &mut disguised)?;
    suite.remove("matched")
}

fn without_a_daemon(suite: &mut Suite) -> Result<()> {
    let agent = program(suite, "match/lonely")?;
    install(suite, &json!([{ "exe": agent }]))?;
    suite.daemon.kill()?;
    let started = Agent::start("the matched program", probe(suite, &agent)?);
    let answers = started.and_then(|mut matched| {
        let (allowed, refused) = twins(suite);
        matched.may(&allowed)?;
        matched.must_not(&refused)?;
        Ok(matched)
    });
    suite.daemon.start()?;
    let run = is_matched(suite, &mut answers?)?;
    let events = until("what it did is told", || {
        let events = suite.daemon.events(&run)?;
        let denied = events.iter().any(|event| event["verdict"] == "deny");
        Ok(denied.then_some(events))
    })?;
    let starts = events.iter().filter(|event| event["kind"] == "run-started");
    ensure!(
        starts.count() == 1,
        "one start must be recorded: {events:?}"
    );
    suite.remove("matched")
}

/// Runs that are over before anybody looks at them have a record all the same.
fn short_runs(suite: &mut Suite) -> Result<()> {
    const RUNS: usize = 100;
    let agent = suite.places.at("match/short");
    fs::copy(fs::canonicalize("/bin/true")?, &agent)?;
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))?;
    install(suite, &json!([{ "exe": agent }]))?;
    let ended = || -> Result<usize> {
        let all = suite.daemon.json(&[
            "runs", "list", "--agent", "matched", "--ended", "1000", "--json",
        ])?;
        let runs = all["runs"].as_array().context("no runs")?;
        Ok(runs
            .iter()
            .filter(|run| run["state"] == "ended" && run["origin"] == "matched")
            .count())
    };
    let before = ended()?;
    for _ in 0..RUNS {
        ensure!(Command::new(&agent).status()?.success(), "{agent} failed");
    }
    until("all are recorded", || {
        Ok((ended()? >= before + RUNS).then_some(()))
    })?;
    ensure!(
        ended()? == before + RUNS,
        "there are more runs than there were"
    );
    suite.remove("matched")
}

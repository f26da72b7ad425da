//! The daemon is killed at random moments, and comes back, under a load that never rests.
//! The load says what it was let do; the kernel's counts, the runs and the tags are compared
//! with that and with `/proc`.
//!
//! `AGENTGUARD_RESTART_KILLS` says how often, `AGENTGUARD_RESTART_SEED` repeats the moments
//! of another time, `AGENTGUARD_UPGRADE_TO` names a build that takes over in the middle.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use agentguard_tests::agent::Agent;
use agentguard_tests::load::{Settings, Try};
use agentguard_tests::runner::Test;
use agentguard_tests::session;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::any;

pub const TESTS: &[Test] = &[any("restart::nothing_is_undecided_or_lost", restart)];

/// Kills, unless `AGENTGUARD_RESTART_KILLS` says otherwise.
const KILLS: u64 = 30;

/// Runs of the load.
const RUNS: usize = 3;

/// Kernel counters that may rise: a full ring is counted as lost, the others are made good.
const HARMLESS: [&str; 5] = [
    "denial_dropped",
    "audit_dropped",
    "storage_missed",
    "link_untold",
    "flow_untold",
];

/// Moments, the same for the same seed.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }

    /// Not to wait for something: the moment is what the test is about.
    fn pass(&mut self, up_to: Duration) {
        let micros = u64::try_from(up_to.as_micros()).unwrap_or(u64::MAX);
        std::thread::sleep(Duration::from_micros(self.next(micros)));
    }
}

/// A number that the environment gives.
fn given(name: &str) -> Result<Option<u64>> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text.parse().with_context(|| name.to_owned())?)),
        Err(_) => Ok(None),
    }
}

fn restart(suite: &mut Suite) -> Result<()> {
    let kills = given("AGENTGUARD_RESTART_KILLS")?.unwrap_or(KILLS);
    let seed = match given("AGENTGUARD_RESTART_SEED")? {
        Some(seed) => seed,
        None => u64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_nanos() & 0xffff_ffff)?,
    };
    println!("# {kills} kills, AGENTGUARD_RESTART_SEED={seed}");
    let errors = errors(suite)?;
    let before = denied_connects(suite)?;
    let mut loads = Vec::new();
    for _ in 0..RUNS {
        loads.push(load(suite)?);
    }
    let begun = Instant::now();
    let mut short = kill_again_and_again(suite, kills, &mut Moments(seed | 1))?;
    suite.daemon.start()?;
    println!("# {kills} kills in {:.1} s", begun.elapsed().as_secs_f64());
    for load in &mut loads {
        // The last daemon has to have seen some of it.
        let enough = tally(load, "go")?.refused() + 100;
        until("the load goes on", || {
            Ok((tally(load, "go")?.refused() >= enough).then_some(()))
        })?;
    }
    for load in &mut loads {
        tally(load, "pause")?;
    }
    short.retain_mut(|run| run.is_alive());
    ensure!(
        short.is_empty(),
        "runs of `true` are alive: {}",
        short.len()
    );
    agree(suite, &loads)?;
    let mut total = Tally::default();
    let mut runs = Vec::new();
    for load in loads {
        let run = load.run()?.to_owned();
        let tally = Tally::of(&load.finish()?)?;
        total.add(&tally);
        runs.push((run, tally));
    }
    println!("# {total:?}");
    total.nothing_wrong()?;
    ended_whole(suite, &runs)?;
    let counted = denied_connects(suite)? - before;
    let seen = total.refused_by_address();
    println!("# denied connections: {seen} seen, {counted} counted in the kernel");
    ensure!(counted >= seen as f64, "{seen} seen, {counted} counted");
    no_errors(suite, &errors)?;
    each_run_once(suite)
}

/// Starts one run of the load.
fn load(suite: &Suite) -> Result<Agent> {
    let servers = &suite.servers;
    let settings = Settings {
        processes: 2,
        threads: 2,
        pause: 2_000,
        files: [
            suite.places.file("ok/restart")?,
            suite.places.file("no/restart")?,
        ],
        ports: [
            servers.listed_v4.udp.port(),
            servers.unlisted_v4.udp.port(),
            servers.listed_v4.tcp.port(),
            servers.unlisted_v4.tcp.port(),
        ],
    };
    let mut command = suite.daemon.command(&["run", "--agent", "worker", "--"]);
    command
        .arg(std::env::current_exe()?)
        .args(settings.arguments());
    Agent::start("the load", command)
}

/// A short run, whose launcher may meet a daemon that is being killed.
struct Short(Child);

impl Short {
    fn start(suite: &Suite) -> Result<Self> {
        let mut command = suite
            .daemon
            .command(&["run", "--agent", "worker", "--", "true"]);
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self(quiet.spawn()?))
    }

    fn is_alive(&mut self) -> bool {
        // Of a launcher: it ends when its request is answered, or the daemon is gone.
        self.0.wait().is_err()
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills the daemon so often: while it starts, while it works, while it starts runs, while it
/// loads policies. Returns the runs that were started meanwhile.
fn kill_again_and_again(
    suite: &mut Suite,
    kills: u64,
    moments: &mut Moments,
) -> Result<Vec<Short>> {
    let mut short: Vec<Short> = Vec::new();
    let begun = Instant::now();
    suite.daemon.kill()?;
    suite.daemon.start()?;
    let start = begun.elapsed();
    let upgrade = std::env::var_os("AGENTGUARD_UPGRADE_TO");
    // A kill more was made above, to see how long a start takes.
    for kill in 1..kills {
        if kill == kills / 2
            && let Some(build) = &upgrade
        {
            suite.daemon.become_build(build.into());
        }
        match moments.next(4) {
            0 => moments.pass(start),
            1 => {
                suite.daemon.answers()?;
                moments.pass(start / 8);
            }
            2 => {
                suite.daemon.answers()?;
                for _ in 0..3 {
                    short.push(Short::start(suite)?);
                }
                moments.pass(start / 16);
            }
            _ => {
                suite.daemon.answers()?;
                let mut reload = suite.daemon.command(&["policy", "reload"]);
                let quiet = reload.stdout(Stdio::null()).stderr(Stdio::null());
                let mut reload = quiet.spawn()?;
                moments.pass(start / 4);
                suite.daemon.kill()?;
                reload.wait()?;
                suite.daemon.spawn()?;
                continue;
            }
        }
        suite.daemon.kill()?;
        for mut run in short.drain(..) {
            run.0.wait()?;
        }
        suite.daemon.spawn()?;
    }
    suite.daemon.kill()?;
    Ok(short)
}

/// What a load counted: right and wrong outcomes by kind, and the first wrong one's error.
#[derive(Debug, Default)]
struct Tally(BTreeMap<&'static str, (u64, u64, i64)>);

impl Tally {
    fn of(value: &Value) -> Result<Self> {
        let mut tally = Self::default();
        for kind in Try::ALL.map(Try::name) {
            let of = &value[kind];
            let number = |what: &str| of[what].as_i64().with_context(|| value.to_string());
            let (right, wrong) = (number("right")?, number("wrong")?);
            let counts = (right.try_into()?, wrong.try_into()?, number("error")?);
            tally.0.insert(kind, counts);
        }
        Ok(tally)
    }

    fn add(&mut self, other: &Self) {
        for (kind, (right, wrong, error)) in &other.0 {
            let sum = self.0.entry(kind).or_default();
            sum.0 += right;
            sum.1 += wrong;
            if sum.2 == 0 {
                sum.2 = *error;
            }
        }
    }

    fn right(&self, kind: Try) -> u64 {
        self.0.get(kind.name()).map_or(0, |counts| counts.0)
    }

    fn refused_by_address(&self) -> u64 {
        self.right(Try::SendDenied) + self.right(Try::ConnectDenied)
    }

    fn refused(&self) -> u64 {
        self.refused_by_address() + self.right(Try::OpenDenied)
    }

    fn nothing_wrong(&self) -> Result<()> {
        for (kind, (right, wrong, error)) in &self.0 {
            ensure!(
                *wrong == 0,
                "{kind}: {wrong} of {} came out wrong; the first with error {error} (-1: it succeeded)",
                right + wrong
            );
            ensure!(*right > 0, "{kind} was never tried");
        }
        Ok(())
    }
}

fn tally(load: &mut Agent, what: &str) -> Result<Tally> {
    Tally::of(&load.may(&json!({ "op": what }))?)
}

/// Runs, processes and tags are those that `/proc` has.
fn agree(suite: &Suite, loads: &[Agent]) -> Result<()> {
    let mut processes = BTreeMap::new();
    let mut threads = BTreeMap::new();
    for load in loads {
        let run = load.run()?;
        let found = session::processes(load.pid)?;
        ensure!(found.len() == 3, "the load has processes {found:?}");
        threads.insert(run.to_owned(), found.values().sum::<u64>());
        processes.extend(found.keys().map(|pid| (*pid, run.to_owned())));
    }
    // A task is counted out when the kernel frees it, a moment after its parent read it.
    let looked = until("runs and tasks are those of /proc", || {
        let looked = Looked::at(suite)?;
        let same = looked.runs == threads && looked.tagged == threads.values().sum::<u64>();
        Ok((same && looked.processes == processes).then_some(()))
    });
    if looked.is_err() {
        let looked = Looked::at(suite)?;
        anyhow::bail!("/proc has {processes:?} with {threads:?} threads, AgentGuard {looked:?}");
    }
    println!(
        "# {} processes, {threads:?} threads in /proc and in AgentGuard",
        processes.len()
    );
    Ok(())
}

/// What AgentGuard says is alive.
#[derive(Debug)]
struct Looked {
    /// Process ids with their runs.
    processes: BTreeMap<u64, String>,
    /// Live runs with their tasks.
    runs: BTreeMap<String, u64>,
    /// All tagged tasks.
    tagged: u64,
}

impl Looked {
    fn at(suite: &Suite) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
        let ps = suite.daemon.json(&["ps", "--json"])?;
        let processes = ps["processes"].as_array().context("no processes")?;
        let live = ["runs", "list", "--json", "--ended", "0"];
        let list = suite.daemon.json(&live)?;
        let runs = list["runs"].as_array().context("no runs")?;
        let status = suite.daemon.json(&["status", "--json"])?;
        Ok(Self {
            processes: processes
                .iter()
                .map(|it| (it["pid"].as_u64().unwrap_or(0), text(&it["run"])))
                .collect(),
            runs: runs
                .iter()
                .map(|it| (text(&it["run"]), it["tasks"].as_u64().unwrap_or(0)))
                .collect(),
            tagged: status["tagged_tasks"].as_u64().context("no tagged_tasks")?,
        })
    }
}

/// The runs of the load are over, with every record or the number of those that are lost.
fn ended_whole(suite: &Suite, runs: &[(String, Tally)]) -> Result<()> {
    for (run, tally) in runs {
        let shown = until("the run ends", || {
            let shown = suite.daemon.json(&["runs", "show", run, "--json"])?;
            Ok((shown["state"] == "ended").then_some(shown))
        })?;
        let end = &shown["end"];
        let number = |value: &Value| value.as_u64().with_context(|| end.to_string());
        let lost = &end["lost"];
        let lost = number(&lost["kernel"])? + number(&lost["ledger"])? + number(&lost["daemon"])?;
        let (events, recorded) = (number(&end["events"])?, number(&end["recorded"])?);
        println!("# {run}: {events} events, {recorded} recorded, {lost} lost");
        ensure!(end["ended_by"] == "exited", "{end}");
        ensure!(events == recorded + lost, "{end}");
        ensure!(end["complete"] == (lost == 0), "{end}");
        let by_lsm = if suite.without_lsm.is_none() {
            tally.right(Try::OpenDenied)
        } else {
            0
        };
        let seen = tally.refused_by_address() + by_lsm;
        let counted = number(&end["denials"])?;
        ensure!(
            counted >= seen,
            "{seen} denials seen, {counted} counted: {end}"
        );
    }
    Ok(())
}

/// Each run has one beginning and one end in the ledger, and one record.
fn each_run_once(suite: &Suite) -> Result<()> {
    until("no run is alive", || {
        let live = ["runs", "list", "--json", "--ended", "0"];
        let list = suite.daemon.json(&live)?;
        Ok(list["runs"]
            .as_array()
            .is_some_and(Vec::is_empty)
            .then_some(()))
    })?;
    let list = ["runs", "list", "--json", "--ended", "1000"];
    let list = suite.daemon.json(&list)?;
    let runs = list["runs"].as_array().context("no runs")?;
    let mut told: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let ledger = suite.places.at("state/ledger");
    for file in std::fs::read_dir(ledger)? {
        let path = file?.path();
        if path
            .extension()
            .is_none_or(|extension| extension != "jsonl")
        {
            continue;
        }
        for line in std::fs::read_to_string(&path)?.lines() {
            // Only these lines are looked at more closely: there are many.
            if !line.contains("\"run-started\"") && !line.contains("\"run-ended\"") {
                continue;
            }
            let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let run = event["run"].as_str().unwrap_or_default().to_owned();
            let counts = told.entry(run).or_default();
            counts.0 += u64::from(event["kind"] == "run-started");
            counts.1 += u64::from(event["kind"] == "run-ended");
        }
    }
    for (run, counts) in &told {
        ensure!(
            *counts == (1, 1),
            "run {run} began and ended {counts:?} times in the ledger"
        );
    }
    for run in runs {
        let run = run["run"].as_str().unwrap_or_default();
        ensure!(told.contains_key(run), "run {run} is not in the ledger");
    }
    println!("# {} runs, each with one beginning and one end", told.len());
    Ok(())
}

fn denied_connects(suite: &Suite) -> Result<f64> {
    let labels = [
        ("agent", "worker"),
        ("verb", "connect"),
        ("verdict", "deny"),
    ];
    suite.daemon.sample("agentguard_decisions_total", &labels)
}

fn errors(suite: &Suite) -> Result<BTreeMap<String, u64>> {
    let doctor = suite.daemon.json(&["doctor", "--json"])?;
    let errors = doctor["errors"].as_object().context("no errors")?;
    let one = |(name, count): (&String, &Value)| Some((name.clone(), count.as_u64()?));
    Ok(errors.iter().filter_map(one).collect())
}

/// No program met an error: an error denies, but what it denies is undecided.
fn no_errors(suite: &Suite, before: &BTreeMap<String, u64>) -> Result<()> {
    let after = errors(suite)?;
    println!("# kernel errors: {after:?}");
    for (name, count) in &after {
        let harmless = HARMLESS.contains(&name.as_str());
        let risen = before.get(name).copied().unwrap_or(0) < *count;
        ensure!(harmless || !risen, "{name} rose to {count}");
    }
    Ok(())
}

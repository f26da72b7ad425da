//! What AgentGuard says, beside what the load counted and what `/proc` has.

use std::collections::BTreeMap;

use agentguard_tests::agent::Agent;
use agentguard_tests::load::Try;
use agentguard_tests::session;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::tally::Tally;

/// Kernel counters that may rise: a full ring is counted as lost, the others are made good.
const HARMLESS: [&str; 5] = [
    "denial_dropped",
    "audit_dropped",
    "storage_missed",
    "link_untold",
    "flow_untold",
];

/// Runs, processes and tags are those that `/proc` has.
pub fn agree(suite: &Suite, loads: &[Agent]) -> Result<()> {
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
pub fn ended_whole(suite: &Suite, runs: &[(String, Tally)]) -> Result<()> {
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
pub fn each_run_once(suite: &Suite) -> Result<()> {
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
    let wrong: Vec<_> = told.iter().filter(|told| *told.1 != (1, 1)).collect();
    // An older build may have told less of a run than this one does.
    if is_upgrade() {
        println!("# told otherwise than once, under an older build: {wrong:?}");
    } else {
        ensure!(
            wrong.is_empty(),
            "runs that began and ended so many times in the ledger: {wrong:?}"
        );
    }
    for run in runs {
        let run = run["run"].as_str().unwrap_or_default();
        ensure!(told.contains_key(run), "run {run} is not in the ledger");
    }
    println!("# {} runs, each with one beginning and one end", told.len());
    Ok(())
}

pub fn denied_connects(suite: &Suite) -> Result<f64> {
    let labels = [
        ("agent", "worker"),
        ("verb", "connect"),
        ("verdict", "deny"),
    ];
    suite.daemon.sample("agentguard_decisions_total", &labels)
}

pub fn errors(suite: &Suite) -> Result<BTreeMap<String, u64>> {
    let doctor = suite.daemon.json(&["doctor", "--json"])?;
    let errors = doctor["errors"].as_object().context("no errors")?;
    let one = |(name, count): (&String, &Value)| Some((name.clone(), count.as_u64()?));
    Ok(errors.iter().filter_map(one).collect())
}

/// Whether an older build, with its own mistakes, was killed too.
fn is_upgrade() -> bool {
    std::env::var_os("AGENTGUARD_UPGRADE_TO").is_some()
}

/// No program met an error: an error denies, but what it denies is undecided.
pub fn no_errors(suite: &Suite, before: &BTreeMap<String, u64>) -> Result<()> {
    let after = errors(suite)?;
    println!("# kernel errors: {after:?}");
    for (name, count) in &after {
        // Builds up to November 2026 counted an error, which was none, when two of their
        // programs were attached at once.
        let of_old = name == "untag_failed" && is_upgrade();
        // Beside LSM programs, tracing programs only tell: what they miss is counted, and no
        // task of a run and no decision is among it.
        let only_told = name == "program_missed" && suite.without_lsm.is_none();
        let harmless = of_old || only_told || HARMLESS.contains(&name.as_str());
        let risen = before.get(name).copied().unwrap_or(0) < *count;
        ensure!(harmless || !risen, "{name} rose to {count}");
    }
    Ok(())
}

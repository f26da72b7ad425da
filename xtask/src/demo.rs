//! `cargo xtask demo`: the main job on real input, with everything set up first.

mod daemon;
mod places;
mod scene;
mod servers;
mod show;
mod steps;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::host::{Host, Need, cargo_build, is_root};
use crate::vm::cli::{Flavour, Series};
use crate::vm::{self, Guest, Machine, System};
use daemon::Daemon;
use places::Places;
use scene::{AGENT, Scene};
use steps::Outcome;

/// What the agent's script calls.
const NEEDS: &[Need] = &[("python3", "python3"), ("git", "git"), ("curl", "curl")];
/// The target of programs that run in a machine with other libraries.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Where the demonstration appears in a test machine.
const GUEST_DIR: &str = "/demo";
/// Longest wait for a run's end to be on record.
const RECORDED: Duration = Duration::from_secs(60);

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show it in a test machine, whose kernel has every protection
    #[arg(long)]
    vm: bool,
    /// Kernel series of the test machine; can be repeated [default: 6.12]
    #[arg(long = "kernel", value_name = "SERIES", requires = "vm")]
    kernels: Vec<Series>,
    /// Keep the directories, and the daemon running
    #[arg(long, conflicts_with = "vm")]
    keep: bool,
    /// No progress on standard error
    #[arg(long, short)]
    quiet: bool,
    /// Built agentguard to show, without any set-up: what runs in a test machine
    #[arg(long, value_name = "FILE", hide = true, conflicts_with = "vm")]
    program: Option<PathBuf>,
}

/// Runs the command.
pub fn main(args: &Args) -> Result<ExitCode> {
    if args.vm {
        return in_machine(args);
    }
    if !is_root() {
        bail!(
            "the demonstration loads programs into the kernel: run it as root, or with --vm in a test machine"
        );
    }
    let program = match &args.program {
        Some(program) => program.clone(),
        None => {
            let host = Host::find(args.quiet)?;
            host.need(NEEDS)?;
            build(&host)?
        }
    };
    let base = tempfile::Builder::new()
        .prefix("agentguard-demo-")
        .tempdir()
        .context("cannot make a temporary directory")?;
    let is_right = demonstrate(&program, base.path(), args.keep);
    if args.keep {
        println!("directories kept: {}", base.keep().display());
    }
    Ok(if is_right? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn build(host: &Host) -> Result<PathBuf> {
    host.timed("building agentguard", || {
        cargo_build()
            .args(["--quiet", "--release", "--package", "agentguard"])
            .dir(&host.repo)
            .run()
    })?;
    Ok(host.target.join("release/agentguard"))
}

/// The same in a test machine: static programs, because its libraries are others.
fn in_machine(args: &Args) -> Result<ExitCode> {
    let host = Host::find(args.quiet)?;
    host.timed(
        "building agentguard and the demonstration, statically",
        || {
            cargo_build()
                .args(["--quiet", "--release", "--target", TARGET])
                .args(["--package", "agentguard", "--package", "xtask"])
                .env("RUSTFLAGS", "-C target-feature=+crt-static")
                .dir(&host.repo)
                .run()
        },
    )?;
    let built = host.target.join(TARGET).join("release");
    let scratch = host.scratch()?;
    install(&built.join("agentguard"), &host.dir("guest")?)?;
    install(&built.join("xtask"), scratch.path())?;
    let command = [
        &format!("{GUEST_DIR}/xtask"),
        "demo",
        "--program",
        "/usr/local/bin/agentguard",
    ];
    let machine = Machine {
        add: vec![(scratch.path().to_owned(), GUEST_DIR.to_owned())],
        ..Machine::new(Guest::Command(command.map(OsString::from).into()))
    };
    let system = System {
        series: match args.kernels.as_slice() {
            [] => vec![Series::V6_12],
            kernels => kernels.to_vec(),
        },
        flavour: Flavour::Cloud,
        with: Vec::new(),
        refresh: false,
    };
    vm::run_all(&host, &system, &machine).map(ExitCode::from)
}

/// Puts a program into a directory, whole or not at all: a machine may be made from it now.
fn install(program: &Path, dir: &Path) -> Result<()> {
    let name = program.file_name().context("a program without a name")?;
    let new = dir.join(format!(".{}-{}", name.display(), process::id()));
    fs::copy(program, &new).with_context(|| format!("cannot copy {}", program.display()))?;
    fs::rename(&new, dir.join(name)).with_context(|| format!("cannot write to {}", dir.display()))
}

/// Runs everything and prints it; tells whether all came out as it must.
fn demonstrate(program: &Path, base: &Path, keep: bool) -> Result<bool> {
    let places = Places::make(base)?;
    let degraded = degraded(&Daemon::survey(program, &places)?);
    let scene = Scene::set(places, &degraded)?;
    let daemon = Daemon::start(program, &scene.places)?;
    let result = show_all(&scene, &daemon, &degraded, keep);
    scene.places.clear_etc();
    if keep {
        daemon.keep();
    } else {
        daemon.remove()?;
        println!("\nThe daemon is stopped and nothing of it is left in the kernel.");
    }
    result
}

/// The protections that are not there in full.
fn degraded(doctor: &Value) -> Vec<String> {
    let protections = doctor["protections"].as_array().into_iter().flatten();
    protections
        .filter(|protection| protection["status"] != "enforcing")
        .filter_map(|protection| protection["name"].as_str())
        .map(str::to_owned)
        .collect()
}

fn show_all(scene: &Scene, daemon: &Daemon, degraded: &[String], keep: bool) -> Result<bool> {
    let twin = play_untagged(scene)?;
    let before = daemon.metrics()?;
    let mut launch = daemon.client();
    launch.args(["run", "--agent", AGENT, "--task", "DEMO-1"]);
    launch.args(["--on-behalf-of", "you@example.com"]);
    let reports = scene.play(Some(launch))?;
    let (run, events) = recorded(daemon)?;
    let id = run["run"].as_str().context("a run without an id")?;
    let outcomes: Vec<Outcome> = steps::all(scene)?
        .iter()
        .map(|step| step.judge(scene, &reports, &events))
        .collect::<Result<_>>()?;
    show::heading(&format!(
        "Run {id} of agent {AGENT}, for you@example.com, task DEMO-1"
    ));
    println!("policy: {}", scene.manifest.display());
    show::outcomes(&outcomes);
    let mut is_right = verdict(&outcomes);
    is_right &= witnesses(scene)?;
    println!("{twin}");
    show::heading("What protects this host");
    show::protections(&daemon.doctor()?);
    if !degraded.is_empty() {
        println!(
            "accepted for this demonstration (accept_degraded): {}",
            degraded.join(", ")
        );
    }
    show::heading("Metrics that moved");
    show::metrics(&before, &daemon.metrics()?);
    show::heading("The ledger");
    show::ledger(&scene.places)?;
    show::heading("To look further");
    if keep {
        show::kept(daemon, &scene.places, id);
    } else {
        println!("`cargo xtask demo --keep` leaves the daemon running, and says how to ask it.");
        if !degraded.is_empty() {
            println!("`cargo xtask demo --vm` shows the same on a kernel with every protection.");
        }
    }
    Ok(is_right)
}

/// The same script, not as an agent, beside the running daemon: all of it must work, else a
/// refusal would prove nothing.
fn play_untagged(scene: &Scene) -> Result<String> {
    let reports = scene.play(None)?;
    scene.places.clear_etc();
    if let Some(report) = reports.iter().find(|report| report["outcome"] != "ok") {
        bail!(
            "the script does not work here even without a policy: {} gave {}",
            report["id"],
            report["outcome"]
        );
    }
    // The script without a policy leaves one attempt out: see `Scene::play`.
    let wanted = steps::all(scene)?.len() - 1;
    if reports.len() != wanted {
        bail!("the script reported {} attempts of {wanted}", reports.len());
    }
    let visits = scene.unlisted_visits();
    scene.model.take_visits();
    scene.mirror.take_visits();
    Ok(format!(
        "The same script, not as an agent, on the same host: all {} attempts worked ({visits} of them at unlisted servers).",
        reports.len()
    ))
}

/// The run and its events, once its end is among them.
fn recorded(daemon: &Daemon) -> Result<(Value, Vec<Value>)> {
    let start = Instant::now();
    loop {
        let runs = daemon.ask(&["runs", "list", "--agent", AGENT])?;
        let run = runs["runs"][0].clone();
        let id = run["run"].as_str().context("the daemon knows no run")?;
        let events = daemon.ask_lines(&["events", "--run", id, "--last", "10000"])?;
        if events.iter().any(|event| event["kind"] == "run-ended") {
            return Ok((run, events));
        }
        if start.elapsed() > RECORDED {
            bail!(
                "the end of run {id} is not on record after {} s",
                RECORDED.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn verdict(outcomes: &[Outcome]) -> bool {
    let wrong = outcomes.iter().filter(|outcome| !outcome.is_right).count();
    let allowed = outcomes.iter().filter(|outcome| outcome.is_allowed).count();
    let blocked = outcomes.len() - allowed;
    if wrong == 0 {
        println!("\nAs it must be: {allowed} allowed, {blocked} blocked.");
    } else {
        println!(
            "\nNOT as it must be: {wrong} of {} came out wrong.",
            outcomes.len()
        );
    }
    wrong == 0
}

/// What the world says, whatever the agent and the kernel reported.
fn witnesses(scene: &Scene) -> Result<bool> {
    let places = &scene.places;
    let (model, mirror) = (scene.model.take_visits(), scene.mirror.take_visits());
    let unlisted = scene.unlisted_visits();
    let commit = scene.git(&["log", "-1", "--format=%h %s"])?;
    let commits = scene.git(&["rev-list", "--count", "HEAD"])?;
    let made = [&places.etc, &places.second_etc()]
        .iter()
        .filter(|path| path.exists())
        .count();
    println!(
        "Witnesses: the model's server was visited {model} times, the mirror {mirror}, unlisted servers {unlisted}; files made in /etc: {made}; newest commit: {}.",
        commit.trim()
    );
    // One commit before the daemon, one by the script without it, one by the agent.
    Ok(model == 1 && mirror == 1 && unlisted == 0 && made == 0 && commits.trim() == "3")
}

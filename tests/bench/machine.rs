//! One test machine: the same measurements in each state, from "no AgentGuard" to
//! "tagged, with many rules", and under what else the kernel offers for comparison.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use agentguard_tests::agent::Agent;
use agentguard_tests::binary;
use agentguard_tests::daemon::Daemon;
use agentguard_tests::held::{Figures, Held};
use agentguard_tests::places::Places;
use agentguard_tests::ports;
use agentguard_tests::servers::Server;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use serde_json::{Map, Value, json};

use crate::measure::{self, ALL, HELD, OPENS};
use crate::policy::{FEW, MANY, POLICIES, Policy, THOUSAND};
use crate::{deep, empty, held, others, tree};

/// Name of the AppArmor profile.
const PROFILE: &str = "agentguard-bench";

/// Where a tree is worked on.
const WORK: &str = "tree/work";

/// What the calls may cost more with AgentGuard loaded.
const COSTS: Held = Held {
    file: "tests/bench/costs.json",
    text: include_str!("costs.json"),
    renew: "cargo xtask bench --check --renew",
    noise,
};

/// Instructions by which two measurements of the same differ, seen over many runs.
fn noise(name: &str) -> f64 {
    match name.rsplit_once('/') {
        Some((_, "exec")) => 2_500.0,
        Some((_, "connect_udp")) => 20.0,
        _ => 5.0,
    }
}

/// What every state measures on.
pub struct Bench {
    pub places: Places,
    pub this: String,
    file: String,
    server: Server,
    /// Where the measured process connects to itself.
    own: SocketAddr,
    /// Programs that were loaded before.
    before: BTreeSet<u32>,
    /// What is unpacked, searched and removed, where that is measured.
    archive: Option<String>,
    pub states: Map<String, Value>,
}

/// Measures all states; prints one JSON object.
///
/// # Errors
/// A state cannot be made, or a measurement fails.
pub fn main(empty_object: &Path, archive: &str) -> Result<()> {
    let mut bench = Bench::make(Some(archive))?;
    bench.measure("none", Command::new("env"), ALL)?;
    // The first time the file system is new: the figure is the second one's.
    for _ in 0..2 {
        bench.tree("none", Command::new("env"))?;
    }
    let programs = empty::attach(empty_object)?;
    bench.measure("empty", Command::new("env"), ALL)?;
    drop(programs);
    bench.unloaded()?;
    bench.agentguard(&POLICIES, ALL)?;
    // What the first state is by now: how far the figures can be trusted.
    bench.measure("none_again", Command::new("env"), ALL)?;
    bench.tree("none_again", Command::new("env"))?;
    bench.others()?;
    bench.print()
}

/// Measures the few states whose costs a committed file holds: see [`held::report`].
///
/// # Errors
/// A state cannot be made, a measurement fails, or one costs too much.
pub fn check(compare: bool) -> Result<()> {
    let mut bench = Bench::make(None)?;
    bench.measure("none", Command::new("env"), HELD)?;
    bench.agentguard(&[FEW], HELD)?;
    let cost = |state: &str, call: &str| {
        let figure = bench.states.get(state).map(|state| &state[call]["median"]);
        figure.and_then(Value::as_f64).context("no figure")
    };
    let mut added = Figures::new();
    for state in bench.states.keys().filter(|state| *state != "none") {
        for call in HELD.split_whitespace() {
            let figure = cost(state, call)? - cost("none", call)?;
            added.insert(format!("{state}/{call}"), figure);
        }
    }
    held::report(&COSTS, &added, compare)
}

/// The ids of the programs in the kernel.
pub fn loaded() -> BTreeSet<u32> {
    // One that cannot be asked about has just gone.
    loaded_programs()
        .filter_map(Result::ok)
        .map(|program| program.id())
        .collect()
}

impl Bench {
    pub fn make(archive: Option<&str>) -> Result<Self> {
        let places = Places::make()?;
        deep::make()?;
        if archive.is_some() {
            tree::mount(&places.at(WORK))?;
        }
        Ok(Self {
            this: std::env::current_exe()?.to_string_lossy().into_owned(),
            // Six names deep.
            file: places.file("tree/deep/file")?,
            server: Server::start("127.0.0.1")?,
            own: (Ipv4Addr::LOCALHOST, ports::unused()?).into(),
            before: loaded(),
            archive: archive.map(str::to_owned),
            states: Map::new(),
            places,
        })
    }

    fn agentguard(&mut self, policies: &[Policy], calls: &str) -> Result<()> {
        let mut daemon = Daemon::configure(binary::agentguard()?, &self.places, &[])?;
        for policy in policies {
            let manifest = policy.manifest(&self.places.at("tree"), &self.own_net());
            let path = self.places.at(&format!("agents/{}.yaml", policy.agent()));
            fs::write(path, manifest.text())?;
        }
        daemon.start()?;
        self.measure("idle", Command::new("env"), calls)?;
        let mut command = launch(&daemon, FEW);
        command.args([&self.this, "wait"]);
        let live = Agent::start("a live agent", command)?;
        self.measure("live", Command::new("env"), calls)?;
        self.tree("live", Command::new("env"))?;
        live.end()?;
        for &policy in policies {
            let state = format!("tagged_{}", policy.name);
            self.measure(&state, launch(&daemon, policy), calls)?;
        }
        self.tree("tagged_few", launch(&daemon, FEW))?;
        daemon.unload()?;
        self.unloaded()
    }

    /// The addresses that are connected to.
    pub fn own_net(&self) -> Vec<String> {
        let mut own = self.server.rules().to_vec();
        own.push(format!("{}/tcp", self.own));
        own
    }

    /// Waits until the kernel has no program that was not there at the beginning: it
    /// detaches them after their owner is gone, and each still costs until then.
    pub fn unloaded(&self) -> Result<()> {
        until("the kernel is rid of the programs", || {
            Ok(loaded().is_subset(&self.before).then_some(()))
        })
    }

    /// The same paths ruled by others. Audit comes last: tasks that began while it was
    /// enabled pay for it until they end.
    fn others(&mut self) -> Result<()> {
        let (tree, own) = (self.places.at("tree"), self.own_net().len());
        let this = self.this.clone();
        let rules = |policy: Policy| (policy.name, policy.paths(&tree, own));
        for (name, paths) in [FEW, THOUSAND].map(rules) {
            others::apparmor(PROFILE, &paths)?;
            let state = format!("apparmor_{name}");
            self.measure(&state, others::under_apparmor(PROFILE), ALL)?;
        }
        self.tree("apparmor_thousand", others::under_apparmor(PROFILE))?;
        for (name, paths) in [FEW, MANY].map(rules) {
            let made = others::make(&paths)?;
            let state = format!("landlock_{name}");
            self.measure(&state, others::landlock(&this, &made)?, OPENS)?;
        }
        // Each call asks all of audit's rules in turn: more would take minutes and say no more.
        for (name, paths) in [FEW, THOUSAND].map(rules) {
            others::audit(&others::make(&paths)?)?;
            let state = format!("audit_{name}");
            self.measure(&state, Command::new("env"), OPENS)?;
        }
        Ok(())
    }

    /// Prints everything.
    ///
    /// # Errors
    /// The kernel does not say its release.
    pub fn print(&self) -> Result<()> {
        let kernel = nix::sys::utsname::uname()?;
        let kernel = kernel.release().to_string_lossy();
        println!("{}", json!({ "kernel": kernel, "states": self.states }));
        Ok(())
    }

    /// Runs the measurements of calls behind `command`.
    pub fn measure(&mut self, state: &str, mut command: Command, calls: &str) -> Result<()> {
        let servers = [self.server.udp, self.server.tcp, self.own];
        command
            // Random layouts of memory cost differently.
            .args(["setarch", "--addr-no-randomize"])
            .args([&self.this, measure::FLAG, calls, &self.file])
            .args(servers.map(|address| address.to_string()));
        let costs = figures(state, command)?;
        self.states.insert(state.to_owned(), costs);
        Ok(())
    }

    /// Runs the work on a tree behind `command`, where it is measured.
    fn tree(&mut self, state: &str, mut command: Command) -> Result<()> {
        let Some(archive) = &self.archive else {
            return Ok(());
        };
        command
            .args(["setarch", "--addr-no-randomize"])
            .args([&self.this, tree::FLAG, archive])
            .arg(self.places.at(WORK));
        self.states[state]["tree"] = figures(state, command)?;
        Ok(())
    }
}

/// What the measuring process printed.
fn figures(state: &str, mut command: Command) -> Result<Value> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot measure {state}"))?;
    ensure!(
        output.status.success(),
        "measuring {state}: {}",
        output.status
    );
    let figures: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("measuring {state} printed no JSON"))?;
    eprintln!("agentguard-bench: {state}: {figures}");
    Ok(figures)
}

/// The beginning of a command line that runs as the agent with this policy.
fn launch(daemon: &Daemon, policy: Policy) -> Command {
    daemon.command(&["run", "--agent", &policy.agent(), "--"])
}

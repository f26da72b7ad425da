//! One test machine: the same measurements in each state, from "no AgentGuard" to
//! "tagged, with many rules", and under AppArmor for comparison.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use agentguard_tests::agent::Agent;
use agentguard_tests::binary;
use agentguard_tests::daemon::Daemon;
use agentguard_tests::places::Places;
use agentguard_tests::servers::Server;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use serde_json::{Map, Value, json};

use crate::policy::{self, POLICIES, Policy};
use crate::{empty, measure};

/// Name of the AppArmor profile.
const PROFILE: &str = "agentguard-bench";

/// What every state measures on.
struct Bench {
    places: Places,
    this: String,
    file: String,
    server: Server,
    /// Where the measured process connects to itself.
    own: SocketAddr,
    /// Programs that were loaded before.
    before: BTreeSet<u32>,
    states: Map<String, Value>,
}

/// Measures all states; prints one JSON object.
///
/// # Errors
/// A state cannot be made, or a measurement fails.
pub fn main(empty_object: &Path) -> Result<()> {
    let places = Places::make()?;
    let mut bench = Bench {
        this: std::env::current_exe()?.to_string_lossy().into_owned(),
        // Six names deep.
        file: places.file("tree/deep/file")?,
        server: Server::start("127.0.0.1")?,
        own: free_port()?,
        before: loaded(),
        states: Map::new(),
        places,
    };
    bench.untagged("none")?;
    let programs = empty::attach(empty_object)?;
    bench.untagged("empty")?;
    drop(programs);
    bench.unloaded()?;
    bench.agentguard()?;
    // What the first state is by now: how far the figures can be trusted.
    bench.untagged("none_again")?;
    bench.apparmor()?;
    let kernel = nix::sys::utsname::uname()?;
    let kernel = kernel.release().to_string_lossy();
    println!("{}", json!({ "kernel": kernel, "states": bench.states }));
    Ok(())
}

/// The ids of the programs in the kernel.
fn loaded() -> BTreeSet<u32> {
    // One that cannot be asked about has just gone.
    loaded_programs()
        .filter_map(Result::ok)
        .map(|program| program.id())
        .collect()
}

/// A port that nothing listens on.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Bench {
    fn agentguard(&mut self) -> Result<()> {
        let mut daemon = Daemon::configure(binary::agentguard()?, &self.places, &[])?;
        let mut own_net = self.server.rules().to_vec();
        own_net.push(format!("{}/tcp", self.own));
        for policy in POLICIES {
            let manifest = policy.manifest(&self.places.at("tree"), &own_net);
            let path = self.places.at(&format!("agents/{}.yaml", policy.agent()));
            fs::write(path, manifest.text())?;
        }
        daemon.start()?;
        self.untagged("idle")?;
        let mut command = launch(&daemon, policy::FEW);
        command.args([&self.this, "wait"]);
        let live = Agent::start("a live agent", command)?;
        self.untagged("live")?;
        live.end()?;
        for policy in POLICIES {
            self.measure(&format!("tagged_{}", policy.name), launch(&daemon, policy))?;
        }
        daemon.unload()?;
        self.unloaded()
    }

    /// Waits until the kernel has no program that was not there at the beginning: it
    /// detaches them after their owner is gone, and each still costs until then.
    fn unloaded(&self) -> Result<()> {
        until("the kernel is rid of the programs", || {
            Ok(loaded().is_subset(&self.before).then_some(()))
        })
    }

    /// A profile that rules the same operations as the policy with few rules.
    fn apparmor(&mut self) -> Result<()> {
        let mut profile = format!(
            "profile {PROFILE} {{\n  /** rix,\n  network,\n  capability,\n  signal,\n  unix,\n  \
             {}/** w,\n",
            self.places.at("tree")
        );
        for number in 1..policy::FEW.rules {
            writeln!(profile, "  /srv/accounts/batch-{number}/cache/** w,")?;
        }
        profile.push_str("}\n");
        let mut parser = Command::new("apparmor_parser")
            .args(["--replace", "--skip-cache"])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start apparmor_parser")?;
        let mut input = parser.stdin.take().context("no input")?;
        input.write_all(profile.as_bytes())?;
        drop(input);
        ensure!(
            parser.wait()?.success(),
            "apparmor_parser refuses the profile"
        );
        let mut command = Command::new("aa-exec");
        command.args(["--profile", PROFILE, "--"]);
        self.measure("apparmor", command)
    }

    fn untagged(&mut self, state: &str) -> Result<()> {
        self.measure(state, Command::new("env"))
    }

    /// Runs the measurements behind `command`.
    fn measure(&mut self, state: &str, mut command: Command) -> Result<()> {
        let servers = [self.server.udp, self.server.tcp, self.own];
        let output = command
            // Random layouts of memory cost differently.
            .args(["setarch", "--addr-no-randomize"])
            .args([&self.this, measure::FLAG, &self.file])
            .args(servers.map(|address| address.to_string()))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot measure {state}"))?;
        ensure!(
            output.status.success(),
            "measuring {state}: {}",
            output.status
        );
        let costs: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("measuring {state} printed no JSON"))?;
        eprintln!("agentguard-bench: measured {state}");
        self.states.insert(state.to_owned(), costs);
        Ok(())
    }
}

/// The beginning of a command line that runs as the agent with this policy.
fn launch(daemon: &Daemon, policy: Policy) -> Command {
    daemon.command(&["run", "--agent", &policy.agent(), "--"])
}

//! One test machine: the same measurements in each state, from "no AgentGuard" to
//! "tagged, with many rules", and under AppArmor for comparison.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use agentguard_tests::agent::Agent;
use agentguard_tests::binary;
use agentguard_tests::daemon::Daemon;
use agentguard_tests::places::Places;
use agentguard_tests::servers::Server;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{empty, policy};

/// Sizes of the policies.
pub const RULES: [usize; 2] = [10, 10_000];

/// What every state measures on.
struct Bench {
    this: String,
    file: String,
    server: Server,
    states: Vec<Value>,
}

/// Measures all states; prints one JSON array.
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
        states: Vec::new(),
    };
    bench.untagged("none")?;
    let programs = empty::attach(empty_object)?;
    bench.untagged("empty")?;
    drop(programs);
    bench.agentguard(&places)?;
    bench.apparmor()?;
    // What the first state would be now: how far the figures can be trusted.
    bench.untagged("none_again")?;
    println!("{}", json!(bench.states));
    Ok(())
}

impl Bench {
    fn agentguard(&mut self, places: &Places) -> Result<()> {
        let mut daemon = Daemon::configure(binary::agentguard()?, places, &[])?;
        for rules in RULES {
            let name = policy::name(rules);
            let manifest =
                policy::manifest(&name, rules, &places.at("tree"), &self.server.rules());
            let path = places.at(&format!("agents/{name}.yaml"));
            fs::write(path, manifest.text())?;
        }
        daemon.start()?;
        self.untagged("idle")?;
        let agent = policy::name(RULES[0]);
        let mut command = daemon.command(&["run", "--agent", &agent, "--"]);
        command.args([&self.this, "wait"]);
        let live = Agent::start("a live agent", command)?;
        self.untagged("live")?;
        live.end()?;
        for rules in RULES {
            let agent = policy::name(rules);
            let command = daemon.command(&["run", "--agent", &agent, "--"]);
            self.measure(&format!("tagged_{rules}"), command)?;
        }
        daemon.unload()?;
        Ok(())
    }

    /// A profile with rules like those of the small policy.
    fn apparmor(&mut self) -> Result<()> {
        let tree = Path::new(&self.file).ancestors().nth(2).context("too short a path")?;
        let mut profile = String::from("profile agentguard-bench {\n  /** rix,\n  network,\n");
        profile.push_str("  capability,\n  signal,\n  unix,\n");
        profile.push_str(&format!("  {}/** w,\n", tree.display()));
        for number in 1..RULES[0] {
            profile.push_str(&format!("  /srv/accounts/batch-{number}/cache/** w,\n"));
        }
        profile.push_str("}\n");
        let mut parser = Command::new("apparmor_parser")
            .args(["--replace", "--skip-cache"])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start apparmor_parser")?;
        parser.stdin.take().context("no input")?.write_all(profile.as_bytes())?;
        ensure!(parser.wait()?.success(), "apparmor_parser refuses the profile");
        let mut command = Command::new("aa-exec");
        command.args(["--profile", "agentguard-bench", "--"]);
        self.measure("apparmor", command)
    }

    fn untagged(&mut self, state: &str) -> Result<()> {
        self.measure(state, Command::new("env"))
    }

    /// Runs the measurements behind `command`.
    fn measure(&mut self, state: &str, mut command: Command) -> Result<()> {
        let (udp, tcp) = (self.server.udp.to_string(), self.server.tcp.to_string());
        command.args([&self.this, "measure", &self.file, &udp, &tcp]);
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot measure {state}"))?;
        ensure!(output.status.success(), "measuring {state}: {}", output.status);
        let times: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("measuring {state} printed no JSON"))?;
        eprintln!("agentguard-bench: {state} {times}");
        self.states.push(json!({ "state": state, "times": times }));
        Ok(())
    }
}

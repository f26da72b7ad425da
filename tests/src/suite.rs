//! What the tests of a suite share.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::agent::Agent;
use crate::binary;
use crate::daemon::Daemon;
use crate::dns::Dns;
use crate::hammer;
use crate::manifest::Manifest;
use crate::places::Places;
use crate::servers::Servers;

/// Protections that may be degraded where the kernel refuses LSM programs.
pub const MAY_MISS: [&str; 4] = ["exec", "files", "network", "privileges"];

/// One daemon with its directories, and the servers around it.
#[derive(Debug)]
pub struct Suite {
    /// The daemon. First, so that it goes before its directories.
    pub daemon: Daemon,
    /// The directories.
    pub places: Places,
    /// The servers.
    pub servers: Servers,
    /// The server of the DNS that the daemon asks.
    pub dns: Dns,
    /// Why file and exec rules are not decided in the kernel here, if they are not.
    pub without_lsm: Option<String>,
    probe: PathBuf,
    /// Agents that were removed, and with that retired.
    retired: RefCell<BTreeSet<String>>,
}

impl Suite {
    /// Starts the daemon with the agents `worker` (enforced), `watcher` (the same
    /// rules, observed) and `listed` (only user `nobody` starts it).
    ///
    /// # Errors
    /// It does not start, or a test machine lacks a protection.
    pub fn start(probe: &str) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "end-to-end tests load programs into the kernel: run them as root"
        );
        let binary = binary::agentguard()?;
        let places = Places::make()?;
        let without_lsm = missing(&binary)?;
        let accepted: &[&str] = if without_lsm.is_some() {
            &MAY_MISS
        } else {
            &[]
        };
        let daemon = Daemon::configure(binary, &places, accepted)?;
        let path = places.root().join("probe.py");
        fs::write(&path, probe)?;
        let mut suite = Self {
            daemon,
            places,
            servers: Servers::start()?,
            dns: Dns::start()?,
            without_lsm,
            probe: path,
            retired: RefCell::default(),
        };
        suite.install(&suite.ruled("worker", "enforce"))?;
        suite.install(&suite.ruled("watcher", "observe"))?;
        suite.install(&suite.ruled("listed", "enforce").users(&["nobody"]))?;
        suite.daemon.start()?;
        Ok(suite)
    }

    /// The rules that most tests are about, under this name.
    #[must_use]
    pub fn ruled(&self, name: &str, mode: &str) -> Manifest {
        let at = |path: &str| self.places.at(path);
        Manifest::new(name, mode)
            .rules("write", "allow", &[at("ok/**"), at("ok-*/part?.txt")])
            .rules("write", "deny", &[at("ok/except/**")])
            .rules("read", "deny", &[at("secret/**")])
            .rules("exec", "deny", &[at("bin/denied*")])
            .rules("connect", "allow", &self.servers.rules())
            .privileges(&["mount", "namespaces", "devices"])
    }

    /// Writes a manifest to the agents' directory; its file is named as the agent.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn install(&self, manifest: &Manifest) -> Result<()> {
        let text = manifest.text();
        let value: Value = serde_json::from_str(&text)?;
        let name = value["metadata"]["name"].as_str().context("no name")?;
        let path = self.places.at(&format!("agents/{name}.yaml"));
        fs::write(&path, text).with_context(|| path.clone())?;
        if self.retired.borrow_mut().remove(name) {
            let again = ["agents", "reinstate", name, "--reason", "another test"];
            self.daemon.cli_ends(&again, 0)?;
        }
        Ok(())
    }

    /// Removes an agent's manifest and retires the agent: its policy is gone.
    ///
    /// # Errors
    /// It cannot be removed, or the daemon refuses.
    pub fn remove(&self, agent: &str) -> Result<()> {
        let path = self.places.at(&format!("agents/{agent}.yaml"));
        fs::remove_file(&path).with_context(|| path.clone())?;
        let retire = ["agents", "retire", agent, "--reason", "the test is over"];
        self.daemon.cli_ends(&retire, 0)?;
        self.retired.borrow_mut().insert(agent.to_owned());
        self.reload()
    }

    /// Has the daemon read its manifests again.
    ///
    /// # Errors
    /// It refuses.
    pub fn reload(&self) -> Result<()> {
        self.daemon.cli_ends(&["policy", "reload"], 0).map(|_| ())
    }

    /// Starts a probe as this agent.
    ///
    /// # Errors
    /// It does not start.
    pub fn tagged(&self, agent: &str) -> Result<Agent> {
        let mut command = self
            .daemon
            .command(&["run", "--agent", agent, "--", "python3"]);
        command.arg(&self.probe);
        let started = Agent::start(&format!("agent {agent}"), command)?;
        ensure!(started.run.is_some(), "agent {agent} was not told its run");
        Ok(started)
    }

    /// Starts a probe without a tag.
    ///
    /// # Errors
    /// It does not start.
    pub fn untagged(&self) -> Result<Agent> {
        let mut command = Command::new("python3");
        command.arg(&self.probe);
        Agent::start("the untagged process", command)
    }

    /// Starts a hammer as this agent: threads, and microseconds between two rounds.
    ///
    /// # Errors
    /// It does not start.
    pub fn hammer(
        &self,
        agent: &str,
        (threads, pause): (usize, u64),
        paths: &[String],
    ) -> Result<Agent> {
        let this = std::env::current_exe()?;
        let mut command = self.daemon.command(&["run", "--agent", agent, "--"]);
        command
            .arg(this)
            .arg(hammer::FLAG)
            .args([threads.to_string(), pause.to_string()])
            .args(paths);
        Agent::start(&format!("the hammer of {agent}"), command)
    }
}

/// Why this host does not decide about files in LSM programs; none: it does.
///
/// # Errors
/// `doctor` does not answer, or a test machine lacks the protection.
pub fn missing(binary: &std::path::Path) -> Result<Option<String>> {
    // Of no daemon: what the host could offer.
    let output = Command::new(binary)
        .args([
            "--socket",
            "/nonexistent/agentguard.sock",
            "doctor",
            "--json",
        ])
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("doctor: {}", crate::daemon::both(&output)))?;
    let protections = report["protections"].as_array().context("no protections")?;
    let files = protections
        .iter()
        .find(|protection| protection["name"] == "files")
        .context("doctor says nothing of files")?;
    if files["status"] == "enforcing" {
        return Ok(None);
    }
    let why = files["detail"]
        .as_str()
        .unwrap_or_default()
        .trim()
        .to_owned();
    if binary::expects_lsm() {
        bail!("this test machine has BPF LSM, and doctor says of files: {why}");
    }
    Ok(Some(why))
}

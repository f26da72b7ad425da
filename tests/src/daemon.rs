//! The daemon of a suite: start, stop, kill, ask.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::places::Places;
use crate::ports;
use crate::wait::until;

/// The file in the place of the host's resolv.conf.
const RESOLV_CONF: &str = "resolv.conf";

fn name() -> String {
    format!("agentguard-test-{}", std::process::id())
}

/// Where the daemon of this process pins its programs and maps.
#[must_use]
pub fn pins() -> PathBuf {
    Path::new("/sys/fs/bpf").join(name())
}

/// A daemon on private directories.
#[derive(Debug)]
pub struct Daemon {
    binary: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    /// Where its programs and maps are pinned.
    pub pins: PathBuf,
    log: PathBuf,
    metrics: u16,
    child: Option<Child>,
}

impl Daemon {
    /// Writes its configuration. Not started yet.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub fn configure(binary: PathBuf, places: &Places, accept_degraded: &[&str]) -> Result<Self> {
        let metrics = ports::unused()?;
        let name = name();
        let pins = pins();
        let config = places.root().join("agentguard.yaml");
        let resolv_conf = places.root().join(RESOLV_CONF);
        fs::write(
            &resolv_conf,
            format!("nameserver {}\n", crate::dns::ADDRESS),
        )?;
        let text = format!(
            "agents_dir: {agents}\nstate_dir: {state}\nruntime_dir: {runtime}\npins_dir: {pins}\n\
             metrics: {{ listen: \"127.0.0.1:{metrics}\" }}\n\
             accept_degraded: {accepted}\nslice: {name}.slice\n\
             resolver: {{ resolv_conf: {resolv} }}\n\
             log: {{ level: info, format: text }}\n",
            agents = places.at("agents"),
            state = places.at("state"),
            runtime = places.at("runtime"),
            pins = pins.display(),
            resolv = resolv_conf.display(),
            accepted = serde_json::to_string(accept_degraded)?,
        );
        fs::write(&config, text)?;
        Ok(Self {
            binary,
            config,
            socket: places.root().join("runtime/agentguard.sock"),
            pins,
            log: places.root().join("daemon.log"),
            metrics,
            child: None,
        })
    }

    /// Has it take these for the host's servers of the DNS, and listen for questions at
    /// this port. Before it is started.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub fn resolve_by(&self, servers: &[IpAddr], port: u16) -> Result<()> {
        let lines = servers
            .iter()
            .map(|server| format!("nameserver {server}\n"));
        fs::write(
            self.config.with_file_name(RESOLV_CONF),
            lines.collect::<String>(),
        )?;
        let text = fs::read_to_string(&self.config)?;
        let with = text.replace("resolver: { ", &format!("resolver: {{ port: {port}, "));
        Ok(fs::write(&self.config, with)?)
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.answers()
    }

    /// Uses another build of the program from its next start on.
    pub fn become_build(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// Starts it, without waiting.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.binary)
            .arg("daemon")
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer.
    pub fn answers(&mut self) -> Result<()> {
        until("the daemon answers", || {
            let child = self.child.as_mut().context("no daemon")?;
            if let Some(status) = child.try_wait()? {
                bail!("the daemon ended ({status}): {}", self.log_text());
            }
            // Asking costs as much as what the daemon does meanwhile, on one processor.
            if !self.socket.exists() {
                return Ok(None);
            }
            let answered = self.cli(&["status", "--json"])?.status.success();
            Ok(answered.then_some(()))
        })
        .with_context(|| self.log_text())
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it logged.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of it.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Kills it without a word.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no daemon runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// It does not stop, or not well.
    pub fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no daemon runs")?;
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
        let status = until("the daemon stops", || Ok(child.try_wait()?));
        if status.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let status = status?;
        ensure!(
            status.success(),
            "the daemon ended with {status}: {}",
            self.log_text()
        );
        Ok(())
    }

    /// Removes everything of it from the kernel.
    ///
    /// # Errors
    /// It cannot.
    pub fn unload(&mut self) -> Result<String> {
        if self.child.is_some() {
            self.stop()?;
        }
        let done = Command::new(&self.binary)
            .args(["daemon", "--unload", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .output()?;
        ensure!(done.status.success(), "unload: {}", both(&done));
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// A command line of it, not run yet.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("AGENTGUARD_SOCKET", &self.socket);
        command
    }

    /// Runs a command line.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments).stdin(Stdio::null()).output()?)
    }

    /// Runs a command line that must end with this code; returns both its outputs.
    ///
    /// # Errors
    /// It ends with another.
    pub fn cli_ends(&self, arguments: &[&str], code: i32) -> Result<String> {
        let done = self.cli(arguments)?;
        ensure!(
            done.status.code() == Some(code),
            "agentguard {arguments:?} must end with {code}, and ended with {}: {}",
            done.status,
            both(&done)
        );
        Ok(both(&done))
    }

    /// The JSON that a command line prints.
    ///
    /// # Errors
    /// It fails, or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let done = self.cli(arguments)?;
        // `doctor` ends with 5 on a host without everything.
        ensure!(
            matches!(done.status.code(), Some(0 | 5)),
            "agentguard {arguments:?}: {}",
            both(&done)
        );
        serde_json::from_slice(&done.stdout)
            .with_context(|| format!("agentguard {arguments:?} prints no JSON: {}", both(&done)))
    }

    /// The newest events of a run, one JSON value each.
    ///
    /// # Errors
    /// The command fails, or a line is no JSON.
    pub fn events(&self, run: &str) -> Result<Vec<Value>> {
        let text = self.cli(&["events", "--json", "--last", "10000", "--run", run])?;
        ensure!(text.status.success(), "events: {}", both(&text));
        String::from_utf8(text.stdout)?
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    }

    /// The page that Prometheus would read.
    ///
    /// # Errors
    /// It is not served.
    pub fn metrics(&self) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics))?;
        stream
            .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.contains(" 200 "), "metrics: {head}");
        Ok(body.to_owned())
    }

    /// The value of a sample, given its name and some of its labels; 0 if there is none.
    ///
    /// # Errors
    /// The metrics are not served.
    pub fn sample(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let wanted: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let page = self.metrics()?;
        let found = page.lines().find(|line| {
            let named = line
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']));
            named && wanted.iter().all(|label| line.contains(label))
        });
        match found.and_then(|line| line.rsplit(' ').next()) {
            Some(value) => value.parse().with_context(|| format!("{name}: {value}")),
            None => Ok(0.0),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.unload();
    }
}

/// Both outputs of a program.
#[must_use]
pub fn both(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

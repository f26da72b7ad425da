//! The demonstration's own daemon, beside whatever daemon the host has.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::places::Places;
use crate::sh;

/// Longest wait for the daemon to be ready or gone: emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// Exit code of a check that found problems.
const PROBLEMS: i32 = 5;

/// A daemon, stopped and removed from the kernel when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    program: PathBuf,
    places: Places,
    child: Option<Child>,
}

impl Daemon {
    /// What this host protects, asked before any daemon runs.
    pub fn survey(program: &Path, places: &Places) -> Result<Value> {
        doctor(&mut client(program, places))
    }

    /// Starts it and waits until it says that it is ready.
    pub fn start(program: &Path, places: &Places) -> Result<Self> {
        let notices = places.runtime.join("notify");
        let socket = UnixDatagram::bind(&notices)
            .with_context(|| format!("cannot bind {}", notices.display()))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let log = File::create(&places.log)
            .with_context(|| format!("cannot create {}", places.log.display()))?;
        let child = command(program, places)
            .env("NOTIFY_SOCKET", &notices)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut daemon = Self {
            program: program.into(),
            places: places.clone(),
            child: Some(child),
        };
        daemon.wait_until_ready(&socket)?;
        Ok(daemon)
    }

    fn wait_until_ready(&mut self, socket: &UnixDatagram) -> Result<()> {
        let start = Instant::now();
        let mut notice = [0; 1024];
        while start.elapsed() < PATIENCE {
            if let Ok(length) = socket.recv(&mut notice)
                && notice[..length].starts_with(b"READY=1")
            {
                return Ok(());
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                self.child = None;
                bail!("the daemon did not start ({status}):\n{}", self.log_tail());
            }
        }
        bail!(
            "the daemon was not ready after {} s:\n{}",
            PATIENCE.as_secs(),
            self.log_tail()
        )
    }

    fn log_tail(&self) -> String {
        sh::tail(
            &fs::read_to_string(&self.places.log).unwrap_or_default(),
            20,
        )
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// A command that talks to this daemon.
    pub fn client(&self) -> Command {
        client(&self.program, &self.places)
    }

    /// One JSON document from the daemon.
    pub fn ask(&self, args: &[&str]) -> Result<Value> {
        let text = read(self.client().args(args).arg("--json"), &[0])?;
        serde_json::from_str(&text).with_context(|| format!("`agentguard {}`", args.join(" ")))
    }

    /// JSON lines from the daemon.
    pub fn ask_lines(&self, args: &[&str]) -> Result<Vec<Value>> {
        let text = read(self.client().args(args).arg("--json"), &[0])?;
        text.lines()
            .map(|line| serde_json::from_str(line).context("an event that is not JSON"))
            .collect()
    }

    /// What this host protects, as the daemon sees it.
    pub fn doctor(&self) -> Result<Value> {
        doctor(&mut self.client())
    }

    /// The metrics as they are served.
    pub fn metrics(&self) -> Result<String> {
        let status = self.ask(&["status"])?;
        let url = status["metrics"]
            .as_str()
            .context("no metrics are served")?;
        let address = url
            .trim_start_matches("http://")
            .trim_end_matches("/metrics");
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("cannot get {url}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("{url} answered: {}", sh::tail(&answer, 3));
        }
        Ok(answer)
    }

    /// Leaves it running.
    pub fn keep(mut self) {
        self.child = None;
    }

    /// Stops it and removes it from the kernel.
    pub fn remove(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id")?);
        kill(pid, Signal::SIGTERM).context("cannot stop the daemon")?;
        let status = child.wait().context("cannot wait for the daemon")?;
        if !status.success() {
            bail!("the daemon ended with {status}:\n{}", self.log_tail());
        }
        read(command(&self.program, &self.places).arg("--unload"), &[0])?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("xtask: {error:#}");
        }
    }
}

fn client(program: &Path, places: &Places) -> Command {
    let mut command = Command::new(program);
    command.arg("--socket").arg(places.socket());
    command
}

fn command(program: &Path, places: &Places) -> Command {
    let mut command = Command::new(program);
    command.arg("daemon").args(places.daemon_options());
    command
}

fn doctor(client: &mut Command) -> Result<Value> {
    let text = read(client.args(["doctor", "--json"]), &[0, PROBLEMS])?;
    serde_json::from_str(&text).context("cannot read the output of doctor")
}

/// Standard output of a command that must end with one of these codes.
pub fn read(command: &mut Command, codes: &[i32]) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output
        .status
        .code()
        .is_some_and(|code| codes.contains(&code))
    {
        bail!(
            "{command:?} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} printed non-UTF-8 text"))
}

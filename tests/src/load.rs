//! A load that never rests: processes with threads on every processor that open, connect,
//! fork and execute, each operation with a known right outcome. They count themselves
//! what they were let do and what not: that is compared with what AgentGuard says.
//!
//! The test program starts itself for it (`--load PROCESSES THREADS PAUSE ALLOWED DENIED
//! ALLOWED_PORT DENIED_PORT ALLOWED_TCP DENIED_TCP`). All of its processes are in one
//! session of their own, which AgentGuard knows nothing about.

mod shared;
mod tries;

use std::ffi::CString;
use std::io::{self, BufRead as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::libc;
use serde_json::{Value, json};

use self::shared::Shared;
pub use self::tries::Try;
use self::tries::{Places, rounds};

/// The first argument that makes the test program this.
pub const FLAG: &str = "--load";

/// The first argument that makes the test program end at once, well.
pub const NOTHING: &str = "--nothing";

/// What a load is told at its start.
#[derive(Debug)]
pub struct Settings {
    /// Processes, besides the one that answers.
    pub processes: usize,
    /// Threads of each, of which one is its main thread.
    pub threads: usize,
    /// Microseconds between two rounds of a thread: leaves the processor to others.
    pub pause: u64,
    /// A file that may be written, and one that may not.
    pub files: [String; 2],
    /// Ports of 127.0.0.1: datagrams that may be sent, and not; connections that may be
    /// made, and not.
    pub ports: [u16; 4],
}

impl Settings {
    /// As arguments.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut words = vec![FLAG.to_owned()];
        words.extend([self.processes, self.threads].map(|number| number.to_string()));
        words.push(self.pause.to_string());
        words.extend(self.files.clone());
        words.extend(self.ports.map(|port| port.to_string()));
        words
    }

    fn read(arguments: &[String]) -> Result<Self> {
        let [processes, threads, pause, allowed, denied, ports @ ..] = arguments else {
            bail!("load: too few arguments");
        };
        let ports: Vec<u16> = ports
            .iter()
            .map(|port| port.parse())
            .collect::<Result<_, _>>()?;
        Ok(Self {
            processes: processes.parse()?,
            threads: threads.parse()?,
            pause: pause.parse()?,
            files: [allowed.clone(), denied.clone()],
            ports: ports.try_into().ok().context("load: four ports")?,
        })
    }
}

/// Works until standard input ends; answers `pause`, `go` and `tally` meanwhile.
///
/// # Errors
/// An argument is missing, or the kernel refuses what the load is made of.
pub fn main(arguments: &[String]) -> Result<()> {
    let settings = Settings::read(arguments)?;
    let shared = Shared::map()?;
    let places = Places::of(&settings)?;
    nix::unistd::setsid().context("setsid")?;
    let pause = Duration::from_micros(settings.pause);
    let mut children = Vec::new();
    for number in 0..settings.processes {
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            -1 => bail!("fork: {}", io::Error::last_os_error()),
            0 => {
                process(shared, &places, &settings, number, pause);
                // SAFETY: ends this process; nothing of it has to be cleaned up.
                unsafe { libc::_exit(0) };
            }
            child => children.push(child),
        }
    }
    say(&json!({ "pid": std::process::id(), "run": std::env::var("AGENTGUARD_RUN_ID").ok() }))?;
    let workers = u32::try_from(settings.processes * settings.threads)?;
    for line in io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        match request["op"].as_str() {
            Some("pause") => shared.pause(workers),
            Some("go") => shared.go(),
            _ => {}
        }
        say(&json!({ "ok": true, "value": shared.tally() }))?;
    }
    shared.stop();
    for child in children {
        let mut status = 0;
        // SAFETY: the status is ours; the child is.
        let found = unsafe { libc::waitpid(child, &raw mut status, 0) };
        ensure!(found == child, "a child is gone");
        ensure!(
            status == 0,
            "a process of the load ended with status {status:#x}"
        );
    }
    say(&json!({ "ok": true, "value": shared.tally() }))
}

fn say(value: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// One process of the load.
fn process(
    shared: &'static Shared,
    places: &Places,
    settings: &Settings,
    number: usize,
    pause: Duration,
) {
    // SAFETY: a plain request about this process: it goes with the one that answers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    std::thread::scope(|scope| {
        for thread in 0..settings.threads {
            let work = move || {
                on_processor(number * settings.threads + thread);
                rounds(shared, places, pause);
            };
            // The main thread is one of them.
            if thread + 1 == settings.threads {
                work();
            } else {
                scope.spawn(work);
            }
        }
    });
}

/// Keeps this thread on one processor, in turn.
fn on_processor(number: usize) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = nix::sched::CpuSet::new();
    // Where that is refused, the kernel spreads them.
    if set.set(number % processors).is_ok() {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
    }
}

/// A path for the kernel.
fn path(text: &str) -> Result<CString> {
    Ok(CString::new(text)?)
}

//! A program that opens files from many threads until it is told to stop: what a
//! tagged process would do to find the moment in which nobody looks.
//!
//! The test program starts itself for it (`--hammer THREADS PAUSE PATH…`).

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

/// The first argument that makes the test program this.
pub const FLAG: &str = "--hammer";

/// What happened to one path.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    opened: u64,
    refused: u64,
    other: u64,
}

/// Opens every path for writing, over and over in every thread with so many
/// microseconds in between, until standard input ends. Says who it is at the start
/// and tells the tallies at the end.
///
/// # Errors
/// An argument is missing, or the output is gone.
pub fn main(arguments: &[String]) -> Result<()> {
    let [threads, pause, paths @ ..] = arguments else {
        bail!("hammer: THREADS PAUSE PATH…");
    };
    let threads: usize = threads.parse()?;
    let pause = Duration::from_micros(pause.parse()?);
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (stop, paths) = (Arc::clone(&stop), paths.clone());
            thread::spawn(move || hammer(&stop, pause, &paths))
        })
        .collect();
    say(&json!({ "pid": std::process::id(), "run": std::env::var("AGENTGUARD_RUN_ID").ok() }))?;
    let _ = io::stdin().read_to_end(&mut Vec::new());
    stop.store(true, Ordering::Relaxed);
    let mut totals = vec![Tally::default(); paths.len()];
    for worker in workers {
        let Ok(tallies) = worker.join() else { continue };
        for (total, tally) in totals.iter_mut().zip(tallies) {
            total.opened += tally.opened;
            total.refused += tally.refused;
            total.other += tally.other;
        }
    }
    let shown: Vec<Value> = totals
        .iter()
        .map(|tally| json!({ "opened": tally.opened, "refused": tally.refused, "other": tally.other }))
        .collect();
    say(&json!({ "ok": true, "value": shown }))
}

fn say(value: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

fn hammer(stop: &AtomicBool, pause: Duration, paths: &[PathBuf]) -> Vec<Tally> {
    let mut tallies = vec![Tally::default(); paths.len()];
    while !stop.load(Ordering::Relaxed) {
        for (path, tally) in paths.iter().zip(&mut tallies) {
            match OpenOptions::new().write(true).open(path) {
                Ok(_) => tally.opened += 1,
                Err(error) if error.raw_os_error() == Some(nix::libc::EPERM) => tally.refused += 1,
                Err(_) => tally.other += 1,
            }
        }
        if !pause.is_zero() {
            // Leaves the processor to the daemon that the test is about.
            thread::sleep(pause);
        }
    }
    tallies
}

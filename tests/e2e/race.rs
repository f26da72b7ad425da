//! 64 threads look for the moment in which nobody looks.

use std::time::{Duration, Instant};

use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use anyhow::{Context as _, Result, ensure};

use crate::lsm;

pub const TESTS: &[Test] = &[lsm("race::no_open_of_64_threads_succeeds", threads)];

/// How long, unless `AGENTGUARD_RACE_SECONDS` says otherwise.
const SECONDS: u64 = 5;

fn threads(suite: &mut Suite) -> Result<()> {
    let seconds = match std::env::var("AGENTGUARD_RACE_SECONDS") {
        Ok(text) => text.parse().context("AGENTGUARD_RACE_SECONDS")?,
        Err(_) => SECONDS,
    };
    let denied = suite.places.file("no/raced")?;
    let allowed = suite.places.file("ok/raced")?;
    let begun = Instant::now();
    let hammer = suite.hammer("worker", (64, 0), &[denied, allowed])?;
    // Not to wait for something, but to give it that much time.
    std::thread::sleep(Duration::from_secs(seconds));
    let tallies = hammer.finish()?;
    let count = |index: usize, what: &str| tallies[index][what].as_u64().context("no tally");
    println!("# {tallies} in {:.1} s", begun.elapsed().as_secs_f64());
    ensure!(
        count(0, "opened")? == 0 && count(0, "other")? == 0,
        "denied: {tallies}"
    );
    ensure!(count(0, "refused")? >= 64, "too few tries: {tallies}");
    ensure!(
        count(1, "refused")? == 0 && count(1, "opened")? >= 64,
        "allowed: {tallies}"
    );
    Ok(())
}

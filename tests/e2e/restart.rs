//! The daemon is killed at random moments, and comes back, under a load that never rests.
//! The load says what it was let do; the kernel's counts, the runs and the tags are compared
//! with that and with `/proc`.
//!
//! `AGENTGUARD_RESTART_KILLS` says how often, `AGENTGUARD_RESTART_SEED` repeats the moments
//! of another time, `AGENTGUARD_UPGRADE_TO` names a build that takes over in the middle.

mod compare;
mod tally;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use agentguard_tests::agent::Agent;
use agentguard_tests::binary;
use agentguard_tests::load::Settings;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use self::compare::{agree, denied_connects, each_run_once, ended_whole, errors, no_errors};
use self::tally::Tally;
use crate::any;

pub const TESTS: &[Test] = &[any("restart::nothing_is_undecided_or_lost", restart)];

/// Kills, unless `AGENTGUARD_RESTART_KILLS` says otherwise.
const KILLS: u64 = 30;

/// The same on test machines, which are emulated: a start takes them ten seconds and more.
const KILLS_EMULATED: u64 = 2;

/// Runs of the load.
const RUNS: usize = 3;

/// Moments, the same for the same seed.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }

    /// Not to wait for something: the moment is what the test is about.
    fn pass(&mut self, up_to: Duration) {
        let micros = u64::try_from(up_to.as_micros()).unwrap_or(u64::MAX);
        std::thread::sleep(Duration::from_micros(self.next(micros)));
    }
}

/// A number that the environment gives.
fn given(name: &str) -> Result<Option<u64>> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text.parse().with_context(|| name.to_owned())?)),
        Err(_) => Ok(None),
    }
}

fn restart(suite: &mut Suite) -> Result<()> {
    let usual = if binary::expects_lsm() {
        KILLS_EMULATED
    } else {
        KILLS
    };
    let kills = given("AGENTGUARD_RESTART_KILLS")?.unwrap_or(usual);
    let seed = match given("AGENTGUARD_RESTART_SEED")? {
        Some(seed) => seed,
        None => u64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_nanos() & 0xffff_ffff)?,
    };
    println!("# {kills} kills, AGENTGUARD_RESTART_SEED={seed}");
    let errors = errors(suite)?;
    let before = denied_connects(suite)?;
    let mut loads = Vec::new();
    for _ in 0..RUNS {
        loads.push(load(suite)?);
    }
    let begun = Instant::now();
    kill_again_and_again(suite, kills, &mut Moments(seed | 1))?;
    suite.daemon.start()?;
    println!("# {kills} kills in {:.1} s", begun.elapsed().as_secs_f64());
    for load in &mut loads {
        // The last daemon has to have seen some of it.
        let enough = tally(load, "go")?.refused() + 100;
        until("the load goes on", || {
            Ok((tally(load, "go")?.refused() >= enough).then_some(()))
        })?;
    }
    for load in &mut loads {
        tally(load, "pause")?;
    }
    agree(suite, &loads)?;
    let mut total = Tally::default();
    let mut runs = Vec::new();
    for load in loads {
        let run = load.run()?.to_owned();
        let tally = Tally::of(&load.finish()?)?;
        total.add(&tally);
        runs.push((run, tally));
    }
    println!("# {total:?}");
    total.nothing_wrong()?;
    ended_whole(suite, &runs)?;
    let counted = denied_connects(suite)? - before;
    let seen = total.refused_by_address();
    println!("# denied connections: {seen} seen, {counted} counted in the kernel");
    ensure!(counted >= seen as f64, "{seen} seen, {counted} counted");
    no_errors(suite, &errors)?;
    each_run_once(suite)
}

/// Starts one run of the load.
fn load(suite: &Suite) -> Result<Agent> {
    let servers = &suite.servers;
    // On an emulated processor the daemon would hardly come to start beside more.
    let (processes, threads, pause) = if binary::expects_lsm() {
        (2, 2, 100_000)
    } else {
        (2, 2, 2_000)
    };
    let settings = Settings {
        processes,
        threads,
        pause,
        files: [
            suite.places.file("ok/restart")?,
            suite.places.file("no/restart")?,
        ],
        ports: [
            servers.listed_v4.udp.port(),
            servers.unlisted_v4.udp.port(),
            servers.listed_v4.tcp.port(),
            servers.unlisted_v4.tcp.port(),
        ],
    };
    let mut command = suite.daemon.command(&["run", "--agent", "worker", "--"]);
    command
        .arg(std::env::current_exe()?)
        .args(settings.arguments());
    Agent::start("the load", command)
}

/// A short run, whose launcher may meet a daemon that is being killed.
struct Short(Child);

impl Short {
    fn start(suite: &Suite) -> Result<Self> {
        let mut command = suite
            .daemon
            .command(&["run", "--agent", "worker", "--", "true"]);
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self(quiet.spawn()?))
    }

    /// A launcher ends when its request is answered, or the daemon is gone.
    fn end(mut self) -> Result<()> {
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills the daemon so often: while it starts, while it works, while it starts runs, while it
/// loads policies.
fn kill_again_and_again(suite: &mut Suite, kills: u64, moments: &mut Moments) -> Result<()> {
    let mut short: Vec<Short> = Vec::new();
    let begun = Instant::now();
    suite.daemon.kill()?;
    suite.daemon.start()?;
    let start = begun.elapsed();
    let upgrade = std::env::var_os("AGENTGUARD_UPGRADE_TO");
    // A kill more was made above, to see how long a start takes.
    for kill in 1..kills {
        if kill == kills / 2
            && let Some(build) = &upgrade
        {
            suite.daemon.become_build(build.into());
        }
        match moments.next(4) {
            0 => moments.pass(start),
            1 => {
                suite.daemon.answers()?;
                moments.pass(start / 8);
            }
            2 => {
                suite.daemon.answers()?;
                for _ in 0..3 {
                    short.push(Short::start(suite)?);
                }
                moments.pass(start / 16);
            }
            _ => {
                suite.daemon.answers()?;
                let mut reload = suite.daemon.command(&["policy", "reload"]);
                let quiet = reload.stdout(Stdio::null()).stderr(Stdio::null());
                let mut reload = quiet.spawn()?;
                moments.pass(start / 4);
                suite.daemon.kill()?;
                reload.wait()?;
                suite.daemon.spawn()?;
                continue;
            }
        }
        suite.daemon.kill()?;
        for run in short.drain(..) {
            run.end()?;
        }
        suite.daemon.spawn()?;
    }
    suite.daemon.kill()
}

fn tally(load: &mut Agent, what: &str) -> Result<Tally> {
    Tally::of(&load.may(&json!({ "op": what }))?)
}

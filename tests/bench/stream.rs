//! What sending costs in real time on this host: bulk traffic and short messages over established
//! connections, connections and datagrams; without AgentGuard, beside an agent, and as one.
//!
//! Other work on the host comes and goes. So every state is measured in many rounds, and compared
//! with the bare host just before and just after it.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use agentguard_tests::agent::Agent;
use agentguard_tests::daemon::Daemon;
use agentguard_tests::places::Places;
use agentguard_tests::wait::until;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use crate::machine::loaded;
use crate::network::{self, KINDS, Rule, SIZES};
use crate::sending::{CALLS, Peers, Times};

/// How often each state is measured.
const ROUNDS: usize = 7;

/// Measures all states with this daemon, which does not run. Before and after, the kernel
/// has nothing of it.
///
/// # Errors
/// A state cannot be made, or a measurement fails.
pub fn main(daemon: &mut Daemon, places: &Places) -> Result<Value> {
    let peers = Peers::start()?;
    let before = loaded();
    let mut bare = vec![measure(&peers, Command::new("env"), false)?];
    let mut ratios = BTreeMap::<String, Vec<Times>>::new();
    for round in 0..ROUNDS {
        for (kind, rule) in KINDS {
            policies(places, &peers, rule)?;
            daemon.start()?;
            let mut states = states(daemon, &peers, kind, round)?;
            daemon.unload()?;
            // Programs are detached once their owner is gone, and cost until then.
            until("the kernel is rid of the programs", || {
                Ok(loaded().is_subset(&before).then_some(()))
            })?;
            let earlier = bare[bare.len() - 1];
            let later = measure(&peers, Command::new("env"), false)?;
            bare.push(later);
            let base = by_call(|call| f64::midpoint(earlier[call], later[call]));
            for (state, times) in states.drain(..) {
                let ratio = by_call(|call| times[call] / base[call]);
                ratios.entry(state).or_default().push(ratio);
            }
            // How far the others can be trusted.
            let again = by_call(|call| later[call] / earlier[call]);
            ratios
                .entry("none_again".to_owned())
                .or_default()
                .push(again);
        }
        eprintln!("agentguard-bench: sending: round {} of {ROUNDS}", round + 1);
    }
    let ratios: Map<String, Value> = ratios
        .into_iter()
        .map(|(state, rounds)| (state, spread(&rounds)))
        .collect();
    Ok(json!({ "rounds": ROUNDS, "none": spread(&bare), "ratios": ratios }))
}

/// Writes the agents with few and with many rules of one kind.
fn policies(places: &Places, peers: &Peers, rule: Rule) -> Result<()> {
    let agents = places.root().join("agents");
    for other in fs::read_dir(&agents)? {
        fs::remove_file(other?.path())?;
    }
    for (size, rules) in SIZES {
        let manifest = network::manifest(size, &peers.rules()?, rules, rule);
        fs::write(agents.join(format!("bench-{size}.yaml")), manifest.text())?;
    }
    Ok(())
}

/// The states under a running daemon, each time in another order.
fn states(
    daemon: &Daemon,
    peers: &Peers,
    kind: &str,
    round: usize,
) -> Result<Vec<(String, Times)>> {
    let mut order = ["live", "few", "many"];
    order.rotate_left(round % 3);
    let launch = |size: &str| daemon.command(&["run", "--agent", &format!("bench-{size}"), "--"]);
    let mut measured = Vec::new();
    for state in order {
        if state == "live" {
            let mut waiting = launch("few");
            waiting.arg(std::env::current_exe()?).arg("wait");
            let live = Agent::start("a live agent", waiting)?;
            let times = measure(peers, Command::new("env"), false)?;
            live.end()?;
            measured.push((format!("live_{kind}"), times));
        } else {
            let times = measure(peers, launch(state), true)?;
            measured.push((format!("{kind}_{state}"), times));
        }
    }
    Ok(measured)
}

/// Runs the measured process behind `command`; a tagged one must be refused what it may not do.
fn measure(peers: &Peers, mut command: Command, tagged: bool) -> Result<Times> {
    let output = command
        .arg(std::env::current_exe()?)
        .args(peers.arguments()?)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "sending: {}", output.status);
    let said: Value = serde_json::from_slice(&output.stdout).context("sending printed no JSON")?;
    ensure!(
        said["refused"] == tagged,
        "a process that is an agent ({tagged}) was refused what agents may not do: {}",
        said["refused"]
    );
    Ok(serde_json::from_value(said["times"].clone())?)
}

fn by_call(figure: impl FnMut(usize) -> f64) -> Times {
    std::array::from_fn(figure)
}

/// The median of each call over the rounds, the least and the most.
fn spread(rounds: &[Times]) -> Value {
    let calls = CALLS.iter().enumerate().map(|(call, name)| {
        let mut figures: Vec<f64> = rounds.iter().map(|round| round[call]).collect();
        figures.sort_unstable_by(f64::total_cmp);
        let (least, most) = (figures[0], figures[figures.len() - 1]);
        let median = figures[figures.len() / 2];
        let spread = json!({ "median": median, "min": least, "max": most });
        ((*name).to_owned(), spread)
    });
    Value::Object(calls.collect())
}

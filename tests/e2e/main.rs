//! The end-to-end suite: one daemon, real programs, in a fixed order. The tests that
//! stop the daemon come late, and unloading is last.

mod adopt;
mod agents;
mod aliases;
mod bad_input;
mod files;
mod flows;
mod identity;
mod launch;
mod lifecycle;
mod lineage;
mod links;
mod matching;
mod metrics;
mod names;
mod network;
mod observe;
mod places;
mod policy_reload;
mod privileges;
mod race;
mod repeats;
mod restart;
mod rules;
mod server_names;
mod sockets;
mod verifier;

use std::process::ExitCode;

use agentguard_tests::runner::{self, Needs, Test};
use agentguard_tests::suite::Suite;
use agentguard_tests::{hammer, load};
use anyhow::Result;

/// The program that acts as an agent.
const PROBE: &str = include_str!("probe.py");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == hammer::FLAG) {
        return match hammer::main(&arguments[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if arguments
        .first()
        .is_some_and(|first| first == load::NOTHING)
    {
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|first| first == load::FLAG) {
        return match load::main(&arguments[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    runner::main(&tests(), PROBE, &arguments)
}

fn tests() -> Vec<Test> {
    let families = [
        identity::TESTS,
        files::TESTS,
        network::TESTS,
        sockets::TESTS,
        names::TESTS,
        server_names::TESTS,
        flows::TESTS,
        aliases::TESTS,
        observe::TESTS,
        places::TESTS,
        privileges::TESTS,
        links::TESTS,
        repeats::TESTS,
        launch::TESTS,
        matching::TESTS,
        lineage::TESTS,
        adopt::TESTS,
        bad_input::TESTS,
        policy_reload::TESTS,
        agents::TESTS,
        rules::TESTS,
        race::TESTS,
        metrics::TESTS,
        verifier::TESTS,
        restart::TESTS,
        lifecycle::TESTS,
    ];
    families.concat()
}

/// A test that needs LSM programs.
const fn lsm(name: &'static str, run: fn(&mut Suite) -> Result<()>) -> Test {
    Test {
        name,
        needs: Needs::Lsm,
        run,
    }
}

/// A test that every host can run.
const fn any(name: &'static str, run: fn(&mut Suite) -> Result<()>) -> Test {
    Test {
        name,
        needs: Needs::Network,
        run,
    }
}

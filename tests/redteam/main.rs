//! The red team: every way known to reach a file or an address that the policy forbids,
//! tried by an agent, with a positive control for each. `docs/redteam.md` says how to add one.
//!
//! One program with three parts. The *driver*, without a tag, prepares the objects,
//! starts the daemon and looks at what became of them. The *executor* is started as
//! an agent and carries attempts out, each in a child of its own. *Victims* are
//! untagged processes that attempts are made on.

mod attempt;
mod catalogue;
mod disks;
mod driver;
mod executor;
mod field;
mod files;
mod identity;
mod mounts;
mod network;
mod report;
mod ring;
mod snapshot;
mod stage;
mod sys;
mod victim;

use std::process::ExitCode;

use anyhow::Result;

use crate::network::names::beside;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some(executor::WORD) => executor::main(&arguments[1..]),
        Some(victim::WORD) => victim::main(&arguments[1..]),
        Some(beside::WORD) => beside::main(&arguments[1..]),
        _ => options(&arguments).and_then(|options| driver::main(&options)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("agentguard-redteam: {error:#}");
        ExitCode::FAILURE
    })
}

/// Every attempt, in the order of the catalogue.
pub fn attempts() -> Vec<attempt::Attempt> {
    [files::all(), network::all(), identity::all()].concat()
}

/// What the command line asks for.
#[derive(Debug, Default)]
pub struct Options {
    /// Print one JSON object instead of the table.
    json: bool,
    /// Run on this host, whatever it lacks, and touch nothing of it.
    native: bool,
    /// Only attempts whose id contains one of these.
    only: Vec<String>,
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options::default();
    for argument in arguments {
        match argument.as_str() {
            "--json" => options.json = true,
            "--native" => options.native = true,
            flag if flag.starts_with('-') => {
                anyhow::bail!(
                    "no option {flag}; usage: agentguard-redteam [--json] [--native] [ID…]"
                )
            }
            part => options.only.push(part.to_owned()),
        }
    }
    Ok(options)
}

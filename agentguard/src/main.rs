//! Entry point: parse, dispatch, exit code.

use std::process::ExitCode;

use agentguard::cli::{self, Cli};
use clap::Parser;

fn main() -> ExitCode {
    cli::dispatch(Cli::parse())
}

//! Placeholder.
use std::process::ExitCode;
/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {}
/// Runs.
pub fn main(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}

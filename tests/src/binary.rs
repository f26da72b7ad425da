//! Where the program under test is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Where a test machine has it.
const IN_MACHINE: &str = "/usr/local/bin/agentguard";

/// Whether this is a test machine, where every protection has to be there.
#[must_use]
pub fn expects_lsm() -> bool {
    env::var_os("AGENTGUARD_EXPECT_LSM").is_some_and(|value| value == "1")
}

/// The `agentguard` to be tested: the one that `AGENTGUARD_BIN` names, the test
/// machine's, or the one that Cargo builds beside this program.
///
/// # Errors
/// There is none, or Cargo cannot build it.
pub fn agentguard() -> Result<PathBuf> {
    if let Some(named) = env::var_os("AGENTGUARD_BIN") {
        return Ok(named.into());
    }
    if expects_lsm() {
        return Ok(IN_MACHINE.into());
    }
    let this = env::current_exe()?;
    let profile = this
        .parent()
        .and_then(Path::parent)
        .context("this program is not in a target directory; set AGENTGUARD_BIN")?;
    build(profile)?;
    let built = profile.join("agentguard");
    ensure!(
        built.is_file(),
        "{} is not there; build it, or name another with AGENTGUARD_BIN",
        built.display()
    );
    Ok(built)
}

/// Has Cargo build it into the same directory, when Cargo runs this test: Cargo
/// does not build another package's program for a test by itself.
fn build(profile: &Path) -> Result<()> {
    let Some(cargo) = env::var_os("CARGO") else {
        return Ok(());
    };
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "agentguard"]);
    if profile.ends_with("release") {
        command.arg("--release");
    }
    if let Some(triple) = profile.parent().and_then(Path::file_name)
        && triple == "x86_64-unknown-linux-gnu"
    {
        command.arg("--target").arg(triple);
    }
    let done = command.status().context("cannot run cargo")?;
    ensure!(done.success(), "cargo build of agentguard: {done}");
    Ok(())
}

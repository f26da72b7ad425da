//! The privileged test suite: every program in one directory, one line a test.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::host::{Host, is_executable};

use super::Guest;

/// Where the test programs appear inside a machine.
pub const GUEST_DIR: &str = "/guest-tests";
/// What runs them there.
pub const SCRIPT: &[u8] = include_bytes!("guest/suite.sh");

/// The suite as a guest program, from the executables in `<target>/xtask/guest-tests/`.
pub fn guest_suite(host: &Host) -> Result<Guest> {
    let dir = host.dir("guest-tests")?;
    if !has_programs(&dir) {
        bail!(
            "no test programs in {}: leave out --no-build, \
             or give a command to run after `--`",
            dir.display()
        );
    }
    Ok(Guest::Suite(dir))
}

fn has_programs(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| {
        entries
            .filter_map(Result::ok)
            .any(|e| is_executable(&e.path()))
    })
}

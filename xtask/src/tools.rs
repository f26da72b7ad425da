//! Development tools written in Rust, each in one pinned version.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::host::{self, Host};
use crate::sh::Tool;

/// A tool from crates.io.
#[derive(Debug)]
pub struct Pinned {
    /// The crate, and the program in it.
    pub name: &'static str,
    /// The version, exactly.
    pub version: &'static str,
}

impl Pinned {
    /// The program, installed under the target directory when it is absent or another version.
    pub fn install(&self, host: &Host) -> Result<PathBuf> {
        let Self { name, version } = *self;
        let _lock = host.lock(name)?;
        let root = host.dir("tools")?;
        let program = root.join("bin").join(name);
        if program.exists() && self.is_wanted(&program) {
            return Ok(program);
        }
        let build = host.scratch()?;
        host.timed(&format!("installing {name} {version}"), || {
            Tool::new(host::cargo())
                .args(["install", name, "--locked", "--force", "--quiet"])
                .args(["--version", version])
                .arg("--root")
                .arg(&root)
                .arg("--target-dir")
                .arg(build.path())
                .dir(&host.repo)
                .env_remove("RUSTFLAGS")
                .env_remove("CARGO_ENCODED_RUSTFLAGS")
                .run()
        })?;
        // Hundreds of megabytes: what stays is worth an error.
        build
            .close()
            .with_context(|| format!("cannot remove the build directory of {name}"))?;
        if !self.is_wanted(&program) {
            bail!("{} is not version {version}", program.display());
        }
        Ok(program)
    }

    fn is_wanted(&self, program: &Path) -> bool {
        let version = Tool::new(program).arg("--version").read();
        version.is_ok_and(|version| version.split_whitespace().nth(1) == Some(self.version))
    }
}

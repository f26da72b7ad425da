//! What the tasks know about the machine they run on: places, progress, missing programs.

use std::env;
use std::fmt::Display;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::sh::Tool;

/// A program a task calls, and the Debian package that has it.
pub type Need = (&'static str, &'static str);

/// Places on this machine, and where progress goes.
#[derive(Debug)]
pub struct Host {
    /// The repository's top directory.
    pub repo: PathBuf,
    /// Cargo's target directory; everything that tasks keep is under `xtask/` there.
    pub target: PathBuf,
    quiet: bool,
}

impl Host {
    /// Finds the repository and Cargo's target directory.
    pub fn find(quiet: bool) -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let repo = manifest
            .parent()
            .context("xtask's own directory has no parent")?
            .to_path_buf();
        let metadata = Tool::new(cargo())
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .dir(&repo)
            .read()?;
        let metadata: serde_json::Value =
            serde_json::from_str(&metadata).context("cannot read the output of cargo metadata")?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata names no target directory")?;
        Ok(Self {
            repo,
            target: target.into(),
            quiet,
        })
    }

    /// A directory of our own under the target directory, created when absent.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.target.join("xtask").join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    /// A directory of our own that goes when it is dropped; what killed tasks left goes now.
    pub fn scratch(&self) -> Result<TempDir> {
        let dir = self.dir("scratch")?;
        sweep(&dir);
        tempfile::Builder::new()
            .prefix(&format!("{}-", process::id()))
            .tempdir_in(&dir)
            .with_context(|| format!("cannot make a directory in {}", dir.display()))
    }

    /// Tells what is being done, on standard error, unless told to be quiet.
    pub fn step(&self, what: impl Display) {
        if !self.quiet {
            eprintln!("xtask: {what}");
        }
    }

    /// Tells what is being done and, afterwards, how long it took.
    pub fn timed<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.step(format_args!("{what} ..."));
        let start = Instant::now();
        let done = work()?;
        self.step(format_args!(
            "{what}: {:.1} s",
            start.elapsed().as_secs_f64()
        ));
        Ok(done)
    }

    /// Keeps other tasks of the same target directory out while something shared is prepared.
    /// The lock ends when the returned file is dropped.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.dir("locks")?.join(name);
        let file =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        if file.try_lock().is_err() {
            self.step(format_args!(
                "waiting for another xtask that prepares {name}"
            ));
            file.lock()
                .with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(file)
    }

    /// Makes sure that programs are there, by installing their Debian packages.
    pub fn need(&self, programs: &[Need]) -> Result<()> {
        let mut packages: Vec<&str> = Vec::new();
        for (program, package) in programs {
            if find_program(program).is_none() && !packages.contains(package) {
                packages.push(package);
            }
        }
        if packages.is_empty() {
            return Ok(());
        }
        let list = packages.join(" ");
        if !is_root() {
            bail!("missing programs; as root, run: apt-get install --no-install-recommends {list}");
        }
        if find_program("apt-get").is_none() {
            bail!("this machine has no apt-get; install what Debian calls: {list}");
        }
        let _lock = self.lock("host-packages")?;
        self.timed(&format!("installing {list}"), || {
            Tool::new("apt-get").args(["update", "-q"]).run_quiet()?;
            Tool::new("apt-get")
                .args(["install", "-q", "-y", "--no-install-recommends"])
                .args(&packages)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .run_quiet()
        })
    }
}

/// Removes the scratch directories of tasks that run no more.
fn sweep(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let owner = name.split('-').next().unwrap_or_default();
        let is_mounted = mounts.contains(&format!("{}/", path.display()));
        if !is_running(owner) && !is_mounted {
            // Another task may be removing the same one.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Whether a process is there and not merely waiting to be collected by its parent.
fn is_running(pid: &str) -> bool {
    let Ok(stat) = fs::read_to_string(Path::new("/proc").join(pid).join("stat")) else {
        return false;
    };
    // The name, in parentheses, can hold anything; the state comes after it.
    let state = stat.rsplit(')').next().unwrap_or_default();
    !state.trim_start().starts_with(['Z', 'X'])
}

/// The cargo that runs this task.
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// A cargo to build with. What the cargo that runs this task said of xtask is not passed on: build
/// scripts watch these variables, and would run again each time another cargo builds the same.
pub fn cargo_build() -> Tool {
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| ours(name))
        .fold(Tool::new(cargo()).arg("build"), |tool, name| {
            tool.env_remove(&name)
        })
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Looks a program up in PATH and in the system directories that a user's PATH may lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

/// Whether a path is a regular file that may be executed.
pub fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_tasks_lose_their_scratch() {
        let temp = tempfile::tempdir().unwrap();
        let mut child = process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let dead = temp.path().join(format!("{}-a", child.id()));
        let live = temp.path().join(format!("{}-b", process::id()));
        for dir in [&dead, &live] {
            fs::create_dir_all(dir.join("deep")).unwrap();
        }
        sweep(temp.path());
        assert!(!dead.exists());
        assert!(live.exists());
    }
}

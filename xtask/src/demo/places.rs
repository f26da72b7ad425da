//! The directories of one demonstration.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};

/// The script that plays the agent.
const SCRIPT: &str = include_str!("../../../tests/demo/agent.py");

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Places {
    /// The daemon's configuration.
    pub config: PathBuf,
    /// Manifests.
    pub agents: PathBuf,
    /// The ledger and the index of runs.
    pub state: PathBuf,
    /// The API socket.
    pub runtime: PathBuf,
    /// Pinned programs and maps.
    pub pins: PathBuf,
    /// The daemon's log.
    pub log: PathBuf,
    /// The agent's home directory.
    pub home: PathBuf,
    /// The repository that the agent works in.
    pub repository: PathBuf,
    /// For the agent's temporary files.
    pub work: PathBuf,
    /// The script that plays the agent.
    pub script: PathBuf,
    /// A file that the agent tries to make.
    pub etc: PathBuf,
    /// The slice for runs on hosts without BPF LSM.
    pub slice: String,
}

impl Places {
    /// Makes the directories and what the agent finds in them.
    pub fn make(base: &Path) -> Result<Self> {
        // Rules name what symbolic links lead to.
        let base = base
            .canonicalize()
            .with_context(|| format!("cannot use {}", base.display()))?;
        let name = format!("agentguard-demo-{}", process::id());
        let places = Self {
            config: base.join("agentguard.yaml"),
            agents: base.join("agents.d"),
            state: base.join("state"),
            runtime: base.join("runtime"),
            pins: Path::new("/sys/fs/bpf").join(&name),
            log: base.join("daemon.log"),
            home: base.join("home"),
            repository: base.join("repository"),
            work: base.join("work"),
            script: base.join("agent.py"),
            etc: Path::new("/etc").join(&name),
            slice: format!("{name}.slice"),
        };
        for dir in [
            &places.agents,
            &places.state,
            &places.runtime,
            &places.home.join(".aws"),
            &places.repository,
            &places.work,
        ] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        write(&places.script, SCRIPT)?;
        write(&places.home.join(".bashrc"), "# nothing yet\n")?;
        write(
            &places.home.join(".aws/credentials"),
            "[default]\naws_secret_access_key = not-a-real-one\n",
        )?;
        write(&places.repository.join("app.py"), "print('hello')\n")?;
        Ok(places)
    }

    /// The API socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("agentguard.sock")
    }

    /// The options that make a daemon use these places.
    pub fn daemon_options(&self) -> Vec<OsString> {
        [
            ("--config", &self.config),
            ("--agents", &self.agents),
            ("--state", &self.state),
            ("--runtime", &self.runtime),
            ("--pins", &self.pins),
        ]
        .into_iter()
        .flat_map(|(option, path)| [option.into(), path.into()])
        .collect()
    }

    /// Removes what the agent may have left outside the directories.
    pub fn clear_etc(&self) {
        for path in [self.etc.clone(), self.second_etc()] {
            // Absent is what it should be.
            let _ = fs::remove_file(path);
        }
    }

    /// The file that the agent's grandchild tries to make.
    pub fn second_etc(&self) -> PathBuf {
        PathBuf::from(format!("{}-2", self.etc.display()))
    }
}

/// Writes a file.
pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

//! The daemon's configuration, `agentguard.yaml`, as the rest of the code sees it.

mod read;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::read::load;
use crate::exporter::tls;
use crate::log;
use crate::sinks::ledger::Fsync;

/// Where the configuration is, unless said otherwise. It may be absent.
pub const DEFAULT_FILE: &str = "/etc/agentguard/agentguard.yaml";

/// Name of the API socket in the runtime directory.
pub const SOCKET: &str = "agentguard.sock";

/// The configuration. systemd/agentguard.yaml shows every setting with its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directory of manifests.
    pub agents_dir: PathBuf,
    /// Ledger, runs, registry.
    pub state_dir: PathBuf,
    /// The API socket.
    pub runtime_dir: PathBuf,
    /// Pinned programs and maps; on a BPF file system.
    pub pins_dir: PathBuf,
    /// The group that operates, besides root.
    pub socket_group: String,
    /// The metrics endpoint; none: not served.
    pub metrics: Option<Metrics>,
    /// The resolver of names.
    pub resolver: Resolver,
    /// When ledger records are forced to the disk.
    pub fsync: Fsync,
    /// Protections that may be missing although a manifest enforces.
    pub accept_degraded: BTreeSet<String>,
    /// Time without a run after which an agent is shown as dormant.
    pub dormant_after: Duration,
    /// How much is logged, and how.
    pub log: Log,
    /// The host's mounts, as its first process sees them.
    pub mountinfo: PathBuf,
    /// Root of the cgroup v2 hierarchy; none: looked for.
    pub cgroup_root: Option<PathBuf>,
    /// The cgroup for runs on hosts without BPF LSM.
    pub slice: String,
}

/// The metrics endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Address and port.
    pub listen: SocketAddr,
    /// TLS; none: plain HTTP.
    pub tls: Option<tls::Files>,
}

/// The resolver, which answers runs whose agents have rules about names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Whether there is one. Without it, names cannot be asked for.
    pub enabled: bool,
    /// Its port at 127.0.0.1 and `::1`; none: one that is free, and the same again for the
    /// next daemon.
    pub port: Option<u16>,
    /// The file that names the host's servers.
    pub resolv_conf: PathBuf,
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            enabled: true,
            port: None,
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }
}

/// Logging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Log {
    /// The least important level.
    pub level: log::Level,
    /// The form.
    pub format: log::Format,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            agents_dir: "/etc/agentguard/agents.d".into(),
            state_dir: "/var/lib/agentguard".into(),
            runtime_dir: "/run/agentguard".into(),
            pins_dir: "/sys/fs/bpf/agentguard".into(),
            socket_group: "agentguard".to_owned(),
            metrics: Some(Metrics {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9_470)),
                tls: None,
            }),
            resolver: Resolver::default(),
            fsync: Fsync::Interval(Duration::from_secs(1)),
            accept_degraded: BTreeSet::new(),
            dormant_after: Duration::from_secs(30 * 86_400),
            log: Log::default(),
            mountinfo: "/proc/1/mountinfo".into(),
            cgroup_root: None,
            slice: "agentguard.slice".to_owned(),
        }
    }
}

/// What the command line sets, over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// See [`Config::agents_dir`].
    pub agents_dir: Option<PathBuf>,
    /// See [`Config::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// See [`Config::runtime_dir`].
    pub runtime_dir: Option<PathBuf>,
    /// See [`Config::pins_dir`].
    pub pins_dir: Option<PathBuf>,
}

impl Config {
    /// With what the command line says.
    #[must_use]
    pub fn overridden(self, by: Overrides) -> Self {
        Self {
            agents_dir: by.agents_dir.unwrap_or(self.agents_dir),
            state_dir: by.state_dir.unwrap_or(self.state_dir),
            runtime_dir: by.runtime_dir.unwrap_or(self.runtime_dir),
            pins_dir: by.pins_dir.unwrap_or(self.pins_dir),
            ..self
        }
    }

    /// The API socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join(SOCKET)
    }

    /// The ledger's directory.
    #[must_use]
    pub fn ledger_dir(&self) -> PathBuf {
        self.state_dir.join("ledger")
    }

    /// The file that holds the agents' kernel indexes.
    #[must_use]
    pub fn registry_file(&self) -> PathBuf {
        self.state_dir.join("agents.json")
    }

    /// The directory of the manifests that were in force.
    #[must_use]
    pub fn kept_dir(&self) -> PathBuf {
        self.state_dir.join("manifests")
    }

    /// The file that says when agents last ran.
    #[must_use]
    pub fn last_runs_file(&self) -> PathBuf {
        self.state_dir.join("last-runs.json")
    }

    /// The file that holds the names of the rules in force.
    #[must_use]
    pub fn names_file(&self) -> PathBuf {
        self.state_dir.join("policy-names.json")
    }

    /// The file that holds the resolver's ports, for the next daemon.
    #[must_use]
    pub fn resolver_file(&self) -> PathBuf {
        self.state_dir.join("resolver.ports")
    }

    /// The options of the kernel side.
    #[must_use]
    pub fn kernel_options(&self) -> crate::kernel::Options {
        crate::kernel::Options {
            pins: self.pins_dir.clone(),
            cgroup_root: self.cgroup_root.clone().or_else(find_cgroup_root),
            slice: self.slice.clone(),
        }
    }
}

/// Where cgroup v2 is mounted: alone, or beside v1 on hybrid hosts.
fn find_cgroup_root() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(Path::new)
        .find(|root| root.join("cgroup.controllers").exists())
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests;

//! The command line of `cargo xtask vm`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::host::Host;

use super::suite::guest_suite;
use super::{DEFAULT_MEMORY, DEFAULT_TIMEOUT, Guest, Init, Machine, System};

/// A kernel series that AgentGuard is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// Debian 12's own kernel
    #[value(name = "6.1")]
    V6_1,
    /// The long-term kernel that Debian 12 offers beside its own
    #[value(name = "6.12")]
    V6_12,
    /// The newest one, from Debian 13's backports
    #[value(name = "7.3")]
    V7_3,
}

impl Series {
    /// The series as in release names.
    pub fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_3 => "7.3",
        }
    }
}

/// Which of Debian's builds of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Flavour {
    /// For virtual machines: smaller, without SCTP, vsock, AF_ALG, Bluetooth and most drivers
    Cloud,
    /// For any machine
    Generic,
}

impl Flavour {
    /// The name used for cached choices.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Generic => "generic",
        }
    }
}

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernel series; can be repeated [default: all three]
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<Series>,
    /// Which of Debian's builds of the kernel
    #[arg(long, default_value = "cloud")]
    flavour: Flavour,
    /// Start the whole of Debian 12 with systemd, not only the command
    #[arg(long)]
    debian: bool,
    /// Package to install at start [default: the newest in target/debian, when there is one]
    #[arg(long, value_name = "FILE", requires = "debian")]
    deb: Option<PathBuf>,
    /// Do not install any package
    #[arg(long, requires = "debian", conflicts_with = "deb")]
    no_deb: bool,
    /// Debian package to have in the machine; can be repeated
    #[arg(long, value_name = "PACKAGE")]
    with: Vec<String>,
    /// Additions to the kernel command line; they override the defaults (lsm=, panic=)
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    cmdline: String,
    /// Virtual processors
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_MEMORY,
          value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// Count instructions as time: the same figures every run (one processor only)
    #[arg(long)]
    icount: bool,
    /// Directory to have in the machine as /add (several: /add/NAME); can be repeated
    #[arg(long, value_name = "DIR")]
    add: Vec<PathBuf>,
    /// Stop the machine after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT)]
    timeout: u64,
    /// Do not fail when the kernel reports a fault (WARNING, BUG, Oops)
    #[arg(long)]
    allow_kernel_warnings: bool,
    /// Boot with what an earlier build left; otherwise the product and the suite are built first
    #[arg(long)]
    pub no_build: bool,
    /// Look for newer kernels and make the root file system anew
    #[arg(long)]
    refresh: bool,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
    /// Command to run inside [default: the privileged test suite]
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Args {
    /// The system described by the options.
    pub fn system(&self) -> System {
        System {
            series: self.series(),
            flavour: self.flavour,
            with: self.with.clone(),
            refresh: self.refresh,
        }
    }

    /// The kernel series asked for, without repetitions.
    fn series(&self) -> Vec<Series> {
        if self.kernels.is_empty() {
            return Series::value_variants().to_vec();
        }
        let mut kernels = Vec::new();
        for series in &self.kernels {
            if !kernels.contains(series) {
                kernels.push(*series);
            }
        }
        kernels
    }

    /// The machine described by the options.
    pub fn machine(&self, host: &Host) -> Result<Machine> {
        if self.icount && self.cpus > 1 {
            bail!("--icount needs --cpus 1: the emulator counts the instructions of one processor");
        }
        let guest = if self.command.is_empty() {
            guest_suite(host)?
        } else {
            Guest::Command(self.command.clone())
        };
        let init = if self.debian {
            Init::Systemd {
                install: self.package(host)?.into_iter().collect(),
            }
        } else {
            Init::Plain
        };
        Ok(Machine {
            cmdline: self.cmdline.clone(),
            cpus: self.cpus,
            memory: self.memory,
            icount: self.icount,
            add: places(&self.add)?,
            timeout: Duration::from_secs(self.timeout),
            allow_kernel_warnings: self.allow_kernel_warnings,
            init,
            ..Machine::new(guest)
        })
    }

    /// The package to install: the one named, or the newest one built.
    fn package(&self, host: &Host) -> Result<Option<PathBuf>> {
        if self.no_deb {
            return Ok(None);
        }
        if let Some(deb) = &self.deb {
            if !deb.is_file() {
                bail!("there is no package {}", deb.display());
            }
            return Ok(Some(deb.clone()));
        }
        Ok(newest_package(host))
    }
}

/// The newest package that was built, if there is one.
pub fn newest_package(host: &Host) -> Option<PathBuf> {
    fs::read_dir(host.target.join("debian"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok())
}

/// Where each directory appears inside.
fn places(dirs: &[PathBuf]) -> Result<Vec<(PathBuf, String)>> {
    let mut places: Vec<(PathBuf, String)> = Vec::new();
    for dir in dirs {
        let full = dir
            .canonicalize()
            .with_context(|| format!("cannot use {} for --add", dir.display()))?;
        if !full.is_dir() {
            bail!("--add takes directories; {} is none", dir.display());
        }
        let at = if dirs.len() == 1 {
            "/add".to_owned()
        } else {
            format!("/add/{}", base_name(&full)?)
        };
        if let Some((other, _)) = places.iter().find(|(_, taken)| *taken == at) {
            bail!(
                "{} and {} would both be {at}",
                other.display(),
                full.display()
            );
        }
        places.push((full, at));
    }
    Ok(places)
}

fn base_name(dir: &Path) -> Result<&str> {
    let name = dir.file_name().and_then(|name| name.to_str());
    match name {
        Some(name) if !name.contains(char::is_whitespace) => Ok(name),
        _ => bail!(
            "with several --add, a name without spaces is needed: {}",
            dir.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_directory_is_add_itself_and_several_are_below() {
        let temp = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let dir = temp.path().join(name);
            fs::create_dir_all(&dir).unwrap();
            dir
        };
        let (a, b, other_a) = (make("a"), make("b"), make("x/a"));
        let at = |dirs: &[PathBuf]| {
            places(dirs).map(|places| places.into_iter().map(|(_, at)| at).collect::<Vec<_>>())
        };
        assert_eq!(at(std::slice::from_ref(&a)).unwrap(), ["/add"]);
        assert_eq!(at(&[a.clone(), b]).unwrap(), ["/add/a", "/add/b"]);
        let error = at(&[a, other_a]).unwrap_err().to_string();
        assert!(error.contains("would both be /add/a"), "{error}");
    }
}

//! `cargo xtask workloads`: ordinary programs as agents (`tests/workloads`), in a machine that
//! starts the whole of Debian with the package installed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use sha2::{Digest as _, Sha256};

use crate::host::{self, Host, Need};
use crate::package;
use crate::sh::Tool;
use crate::vm::cli::{Flavour, Series, newest_package};
use crate::vm::{self, Guest, Init, Machine, System};

/// Packages of Debian in the machine: one root file system for all workloads.
const WITH: &[&str] = &[
    "cargo",
    "nodejs",
    "npm",
    "postgresql",
    "python3-venv",
    "sqlite3",
    "stress-ng",
];
/// The same for those with rules about names: their services would slow the others' start.
const WITH_NETWORK: &[&str] = &[
    "bind9-dnsutils",
    "dnsmasq-base",
    "fcgiwrap",
    "nginx-light",
    "nodejs",
    "npm",
    "openssh-server",
    "openssl",
    "postgresql",
    "python3-venv",
    "systemd-resolved",
    "unbound",
];
/// What fetching the inputs calls, and the package it is in.
const NEEDS: &[Need] = &[("pip3", "python3-pip")];
/// What builds the program with a resolver of its own.
const GO: &[Need] = &[("go", "golang-go")];
/// Python in the machine, for which wheels are fetched.
const PYTHON: &str = "3.11";
/// Minutes that each workload may take on an emulated processor with others beside it.
const PATIENCE: u64 = 20;
/// How often stress-ng's stressors are run.
const STATES: u64 = 3;

/// One workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Clones with and without hard links, commits, merges, gc, checkouts
    Git,
    /// Builds a crate from vendored sources
    Cargo,
    /// Installs from a local directory and tarballs
    Npm,
    /// Installs local wheels in a virtual environment
    Pip,
    /// Transactions, a write-ahead log, vacuum
    Sqlite,
    /// initdb, pgbench, dump and restoration
    Postgresql,
    /// stress-ng's file system class
    Stress,
    /// 10,000 lookups and connections by five programs, under two DNS servers and systemd's stub
    Lookups,
    /// git, pip, npm, PostgreSQL and a stream of events, through names
    NamesPrograms,
    /// Lookups while the daemon is stopped, and after it was killed
    Frozen,
}

/// Which script runs a workload, in which machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Ordinary,
    Stress,
    Network,
}

impl Workload {
    const fn group(self) -> Group {
        match self {
            Self::Git | Self::Cargo | Self::Npm | Self::Pip | Self::Sqlite | Self::Postgresql => {
                Group::Ordinary
            }
            Self::Stress => Group::Stress,
            Self::Lookups | Self::NamesPrograms | Self::Frozen => Group::Network,
        }
    }
}

/// Options of the command.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Kernel series (repeatable; default: 6.12)
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<Series>,
    /// Minutes for each of stress-ng's two runs as an agent, and for the stream of events
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    minutes: u64,
    /// Use the newest package that was built
    #[arg(long)]
    no_build: bool,
    /// Workloads (default: all)
    #[arg(value_name = "NAME")]
    only: Vec<Workload>,
}

/// Runs the command.
pub fn main(args: &Args) -> Result<ExitCode> {
    let host = Host::find(false)?;
    let package = if args.no_build {
        newest_package(&host)
            .context("no package was built yet: run `cargo xtask package`, or leave --no-build")?
    } else {
        package::build(&host)?
    };
    let series = match args.kernels.as_slice() {
        [] => vec![Series::V6_12],
        some => some.to_vec(),
    };
    let all = Workload::value_variants();
    let only = if args.only.is_empty() {
        all
    } else {
        args.only.as_slice()
    };
    let mut is_good = true;
    for series in series {
        println!("== Linux {} ==", series.name());
        for group in [Group::Ordinary, Group::Stress, Group::Network] {
            let of_group = |workload: &&Workload| workload.group() == group;
            let some: Vec<Workload> = only.iter().filter(of_group).copied().collect();
            if !some.is_empty() {
                is_good &= run(&host, &package, series, &job(group, &some, args.minutes))?;
            }
        }
    }
    Ok(ExitCode::from(u8::from(!is_good)))
}

/// What a machine does.
struct Job {
    command: Vec<OsString>,
    with: &'static [&'static str],
    /// Longest life of the machine.
    patience: Duration,
    /// Whether it takes the program that Go builds.
    is_network: bool,
}

/// What a machine does for workloads of one group.
fn job(group: Group, workloads: &[Workload], minutes: u64) -> Job {
    let (script, with, argument, patience) = match group {
        Group::Ordinary => (
            "workloads.sh",
            WITH,
            None,
            PATIENCE * (workloads.len() as u64 + 1),
        ),
        Group::Stress => (
            "stress.sh",
            WITH,
            Some(minutes * 60),
            PATIENCE + 2 * STATES * minutes,
        ),
        Group::Network => (
            "network.sh",
            WITH_NETWORK,
            Some(minutes),
            2 * PATIENCE * (workloads.len() as u64 + 1) + minutes,
        ),
    };
    // Of stress-ng there is one run.
    let named = workloads.iter().filter(|_| group != Group::Stress);
    let names = named.filter_map(|workload| {
        let value = workload.to_possible_value()?;
        Some(OsString::from(value.get_name()))
    });
    let argument = argument.map(|argument| OsString::from(argument.to_string()));
    Job {
        command: std::iter::once(format!("/add/workloads/{script}").into())
            .chain(argument)
            .chain(names)
            .collect(),
        with,
        patience: Duration::from_mins(patience),
        is_network: group == Group::Network,
    }
}

/// Runs a script of tests/workloads in a machine; whether it succeeded.
fn run(host: &Host, package: &Path, series: Series, job: &Job) -> Result<bool> {
    let tests = |name: &str| (host.repo.join("tests").join(name), format!("/add/{name}"));
    let mut add = vec![
        tests("workloads"),
        tests("debian"),
        (inputs(host)?, "/add/inputs".to_owned()),
    ];
    if job.is_network {
        add.push((lookups(host)?, "/add/lookups".to_owned()));
    }
    let machine = Machine {
        add,
        timeout: job.patience,
        init: Init::Systemd {
            install: vec![package.to_path_buf()],
        },
        ..Machine::new(Guest::Command(job.command.clone()))
    };
    let system = System {
        series: vec![series],
        flavour: Flavour::Cloud,
        with: job.with.iter().map(|&name| name.to_owned()).collect(),
        refresh: false,
    };
    Ok(vm::run_all(host, &system, &machine)? == 0)
}

/// The program that looks names up by Go's own resolver. Built here: the compiler is larger than all else in
/// the machine.
fn lookups(host: &Host) -> Result<PathBuf> {
    host.need(GO)?;
    let made = host.dir("lookups")?;
    Tool::new("go")
        .args(["build", "-trimpath", "-o"])
        .arg(made.join("lookups"))
        .arg(host.repo.join("tests/workloads/network/go/lookups.go"))
        // Without C there is no C library to ask.
        .env("CGO_ENABLED", "0")
        .env("GO111MODULE", "off")
        .env("GOCACHE", host.dir("go-cache")?)
        .run_quiet()?;
    Ok(made)
}

/// What workloads install, fetched by the package managers' own clients: the machine has no network.
fn inputs(host: &Host) -> Result<PathBuf> {
    let tests = host.repo.join("tests/workloads");
    let (krate, requirements) = (tests.join("crate"), tests.join("requirements.txt"));
    let files = [
        "crate/Cargo.toml",
        "crate/Cargo.lock",
        "crate/src/main.rs",
        "requirements.txt",
    ];
    let mut digest = Sha256::new();
    for file in files {
        let path = tests.join(file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        digest.update(bytes);
    }
    let key: String = digest.finalize()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let _lock = host.lock("workloads")?;
    let kept = host.dir("workloads")?.join(key);
    if kept.exists() {
        return Ok(kept);
    }
    host.need(NEEDS)?;
    host.timed("fetching what the workloads install", || {
        let temp = host.scratch()?;
        let made = temp.path().join("inputs");
        fs::create_dir(&made).with_context(|| format!("cannot create {}", made.display()))?;
        vendor(&krate, &made.join("crate"))?;
        copy(&requirements, &made.join("requirements.txt"))?;
        wheels(&requirements, &made.join("wheels"))?;
        fs::rename(&made, &kept).with_context(|| format!("cannot create {}", kept.display()))
    })?;
    Ok(kept)
}

/// The crate with the sources of what it depends on.
fn vendor(krate: &Path, into: &Path) -> Result<()> {
    for dir in ["src", ".cargo"] {
        let dir = into.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    for file in ["Cargo.toml", "Cargo.lock", "src/main.rs"] {
        copy(&krate.join(file), &into.join(file))?;
    }
    let config = Tool::new(host::cargo())
        .args(["vendor", "--locked", "vendor"])
        .dir(into)
        .read()?;
    if !config.contains("directory = \"vendor\"") {
        bail!("`cargo vendor` did not say how to use what it fetched, but:\n{config}");
    }
    let file = into.join(".cargo/config.toml");
    fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))
}

/// The wheels that a list of requirements names; those that any machine can use.
fn wheels(requirements: &Path, into: &Path) -> Result<()> {
    Tool::new("pip3")
        .args(["download", "--quiet", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary", ":all:"])
        .args(["--python-version", PYTHON, "--implementation", "py"])
        .args(["--abi", "none", "--platform", "any"])
        .arg("--requirement")
        .arg(requirements)
        .arg("--dest")
        .arg(into)
        .run_quiet()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_has_its_script_and_policy() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/workloads");
        for workload in Workload::value_variants() {
            let name = workload.to_possible_value().unwrap();
            let name = name.get_name();
            let group = workload.group();
            let command = job(group, &[*workload], 1).command;
            let script = command[0].to_str().unwrap();
            assert!(
                tests
                    .join(script.trim_start_matches("/add/workloads/"))
                    .is_file(),
                "{script}"
            );
            if group == Group::Stress {
                continue;
            }
            for file in [format!("cases/{name}.sh"), format!("policies/{name}.yaml")] {
                assert!(tests.join(&file).is_file(), "{file}");
            }
            assert!(group == Group::Ordinary || tests.join(format!("network/{name}.sh")).is_file());
            assert_eq!(command.last().unwrap(), name);
        }
    }
}

//! `cargo xtask bench`: what AgentGuard costs. System calls in a test machine whose clock counts
//! instructions, so that the figures repeat and one run can compare; the decision function,
//! reloads, memory and sending on this host, in real time. Beside them the targets (docs/benchmarks.md).

mod archive;
mod figures;
mod sending;
mod table;
mod targets;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::held::{self, Held};
use crate::host::{Host, cargo_build, is_root};
use crate::sh::Tool;
use crate::vm::cli::{Flavour, Series};
use crate::vm::{self, Guest, Init, Machine, System};
use crate::{ebpf, guest};
use figures::Figures;

/// Kernel programs that do nothing, and the decision function behind programs of another type.
const OBJECTS: [&str; 2] = ["agentguard-bench-empty", "agentguard-bench-decide"];
/// What measures.
const PROGRAM: &str = "agentguard-bench";
/// Linked statically, the same programs run here and in the machine, whose libraries are others.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Where they appear in the machine.
const GUEST_DIR: &str = "/bench";

/// Longest run of the machine, on a host that is busy with other things as well.
const TIMEOUT: Duration = Duration::from_secs(3_600);

/// What the main calls cost more.
const COSTS: Held = Held {
    file: "tests/bench/costs.json",
    word: "check",
    icount: true,
};

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernel series of the test machine
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Series,
    /// Measure only what is measured on this host: no test machine
    #[arg(long)]
    native: bool,
    /// Measure what sending costs, also under systemd's and nftables' rules, and nothing else
    #[arg(long, conflicts_with_all = ["native", "check"])]
    network: bool,
    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare what the main calls cost more with tests/bench/costs.json, and nothing else
    #[arg(long, conflicts_with_all = ["native", "json"])]
    check: bool,
    /// With --check: write that file, in place of comparing
    #[arg(long, requires = "check")]
    renew: bool,
    /// No progress on standard error
    #[arg(long, short)]
    quiet: bool,
}

/// The kernel whose costs are held.
pub const CHECKED: Series = Series::V6_12;

/// Compares the costs with the committed ones, or renews those; needs what [`guest::build`] makes.
pub fn check(host: &Host, series: Series, renew: bool) -> Result<()> {
    held::run(host, &COSTS, series, renew)
}

/// Measures and prints.
pub fn main(args: &Args) -> Result<ExitCode> {
    if args.check {
        let host = Host::find(args.quiet)?;
        guest::build(&host)?;
        check(&host, args.kernel, args.renew)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !is_root() {
        bail!("the daemon loads programs into the kernel: run this as root");
    }
    let host = Host::find(args.quiet)?;
    let scratch = host.scratch()?;
    let dir = scratch.path().join("programs");
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    build(&host, &dir)?;
    if args.network {
        let output = scratch.path().join("network.json");
        let words = ["network".to_owned()];
        // systemd's own rules are among what is compared.
        let debian = Init::Systemd { install: vec![] };
        let with = ["nftables"];
        let figures = in_machine(&host, args.kernel, debian, &dir, &output, &words, &with)?;
        if let Some(file) = &args.json {
            let all = json!({ "commit": commit(&host), "network": figures });
            fs::write(file, format!("{all:#}\n"))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        println!("{}", table::network(&Figures::new(figures))?);
        return Ok(ExitCode::SUCCESS);
    }
    let machine = if args.native {
        None
    } else {
        archive::make(&host, &dir)?;
        let output = scratch.path().join("machine.json");
        let words = [
            "machine".to_owned(),
            format!("{GUEST_DIR}/{}", OBJECTS[0]),
            format!("{GUEST_DIR}/{}", archive::NAME),
        ];
        // What the costs are compared with.
        let with = ["apparmor", "auditd"];
        Some(in_machine(
            &host,
            args.kernel,
            Init::Plain,
            &dir,
            &output,
            &words,
            &with,
        )?)
    };
    let native = natively(&host, &dir)?;
    if let Some(file) = &args.json {
        let all = json!({ "commit": commit(&host), "machine": machine, "native": native });
        fs::write(file, format!("{all:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let native = Figures::new(native);
    let machine = machine.map(Figures::new);
    if let Some(machine) = &machine {
        println!("{}", table::machine(machine)?);
        println!("{}", table::opens(machine)?);
        println!("{}", table::tree(machine)?);
    }
    println!("{}", table::native(&native)?);
    println!("{}", sending::table(&native)?);
    let targets = targets::judge(machine.as_ref(), &native)?;
    print!("{}", table::targets(&targets));
    Ok(ExitCode::SUCCESS)
}

/// Builds everything and puts it into `dir`.
fn build(host: &Host, dir: &Path) -> Result<()> {
    let objects = ebpf::build_others(host, &OBJECTS)?;
    host.timed("building agentguard and the measurements", || {
        cargo_build()
            .args(["--quiet", "--release", "--target", TARGET])
            .args(["--package", "agentguard", "--package", "agentguard-tests"])
            .args(["--bin", "agentguard", "--bin", PROGRAM])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .dir(&host.repo)
            .run()
    })?;
    let programs = host.target.join(TARGET).join("release");
    let built = OBJECTS.map(|name| objects.join(name)).into_iter();
    for from in built.chain(["agentguard", PROGRAM].map(|name| programs.join(name))) {
        let name = from.file_name().context("a program without a name")?;
        fs::copy(&from, dir.join(name))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// The measurements by instruction count.
fn in_machine(
    host: &Host,
    series: Series,
    init: Init,
    dir: &Path,
    output: &Path,
    words: &[String],
    with: &[&str],
) -> Result<Value> {
    let mut command = vec![
        "env".to_owned(),
        format!("AGENTGUARD_BIN={GUEST_DIR}/agentguard"),
        format!("{GUEST_DIR}/{PROGRAM}"),
    ];
    command.extend_from_slice(words);
    let machine = Machine {
        icount: true,
        add: vec![(dir.to_owned(), GUEST_DIR.to_owned())],
        output: Some(output.to_owned()),
        timeout: TIMEOUT,
        init,
        ..Machine::new(Guest::Command(
            command.into_iter().map(OsString::from).collect(),
        ))
    };
    let system = System {
        series: vec![series],
        flavour: Flavour::Cloud,
        with: with.iter().map(|name| (*name).to_owned()).collect(),
        refresh: false,
    };
    let code = vm::run_all(host, &system, &machine)?;
    if code != 0 {
        bail!("the measurements in the machine ended with code {code}");
    }
    let text = fs::read(output).with_context(|| format!("cannot read {}", output.display()))?;
    serde_json::from_slice(&text).context("the machine printed something else than figures")
}

/// The measurements in real time.
fn natively(host: &Host, dir: &Path) -> Result<Value> {
    let text = host.timed("measuring on this host", || {
        Tool::new(dir.join(PROGRAM))
            .arg("native")
            .arg(dir.join(OBJECTS[1]))
            .env("AGENTGUARD_BIN", dir.join("agentguard"))
            .read()
    })?;
    serde_json::from_str(&text).context("the measurements printed something else than figures")
}

/// What was measured, as far as git knows.
fn commit(host: &Host) -> Option<String> {
    let described = Tool::new("git")
        .args(["describe", "--always", "--dirty"])
        .dir(&host.repo)
        .read();
    described.ok().map(|text| text.trim().to_owned())
}

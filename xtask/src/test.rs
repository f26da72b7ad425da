//! `cargo xtask test`: everything that says whether the tree is good, in one go:
//! formatting, lints, unit and property tests, the committed kernel object, the
//! end-to-end suite natively and on the test kernels. Ends with one line of totals.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use crate::ebpf;
use crate::host::{self, Host};
use crate::sh::Tool;
use crate::vm::{self, System};

/// Options of `cargo xtask test`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Count parts that cannot run here as skipped, not as failed
    #[arg(long)]
    allow_skips: bool,
    /// Leave out the test kernels (counts as a skip)
    #[arg(long)]
    no_vm: bool,
    /// Test kernels to use (repeatable; default: all)
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<vm::cli::Series>,
}

/// Counted results.
#[derive(Default)]
struct Totals {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Totals {
    /// Runs one part and counts it.
    fn part(&mut self, name: &str, part: impl FnOnce() -> Result<()>) {
        let start = Instant::now();
        eprintln!("\n=== {name}");
        let result = part();
        let seconds = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                self.passed += 1;
                eprintln!("=== {name}: passed in {seconds:.0} s");
            }
            Err(error) => {
                self.failed += 1;
                eprintln!("=== {name}: FAILED in {seconds:.0} s: {error:#}");
            }
        }
    }

    /// Counts a part that cannot run here: a failure, unless skips are allowed.
    fn cannot(&mut self, name: &str, why: &str, allowed: bool) {
        if allowed {
            self.skipped += 1;
            eprintln!("=== {name}: SKIPPED: {why}");
        } else {
            self.failed += 1;
            eprintln!(
                "=== {name}: FAILED, for it cannot run here: {why} (--allow-skips lets that pass)"
            );
        }
    }
}

/// Runs everything.
pub fn main(args: &Args) -> Result<ExitCode> {
    let host = Host::find(false)?;
    let mut totals = Totals::default();
    let cargo = |words: &[&str]| Tool::new(host::cargo()).args(words).dir(&host.repo);
    totals.part("formatting", || cargo(&["fmt", "--all", "--check"]).run());
    totals.part("lints", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])
        .run()
    });
    totals.part("unit and property tests", || {
        cargo(&[
            "test",
            "--workspace",
            "--exclude",
            "agentguard-tests",
            "--quiet",
        ])
        .run()
    });
    totals.part("the committed kernel object", || {
        ebpf::committed_is_current(&host)
    });
    if nix_is_root() {
        totals.part("end to end, natively", || {
            cargo(&["build", "--quiet", "--package", "agentguard"]).run()?;
            cargo(&[
                "test",
                "--package",
                "agentguard-tests",
                "--quiet",
                "--",
                "--test-threads=1",
            ])
            .run()
        });
    } else {
        totals.cannot("end to end, natively", "it needs root", args.allow_skips);
    }
    if args.no_vm {
        totals.cannot(
            "end to end, on test kernels",
            "--no-vm was given",
            args.allow_skips,
        );
    } else {
        kernels(&host, args, &mut totals);
    }
    println!(
        "{} passed, {} failed, {} skipped",
        totals.passed, totals.failed, totals.skipped
    );
    Ok(if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The privileged suite on each test kernel.
fn kernels(host: &Host, args: &Args, totals: &mut Totals) {
    let built = build_guest(host);
    if let Err(error) = built {
        totals.part("building for the test kernels", || Err(error));
        return;
    }
    let all = vm::cli::Series::value_variants();
    let series = if args.kernels.is_empty() {
        all
    } else {
        &args.kernels
    };
    for series in series.iter().copied() {
        totals.part(&format!("end to end, on Linux {}", series.name()), || {
            let guest = vm::suite::guest_suite(host)?;
            let machine = vm::Machine {
                cpus: 2,
                ..vm::Machine::new(guest)
            };
            let system = System {
                series: vec![series],
                flavour: vm::cli::Flavour::Cloud,
                with: Vec::new(),
                refresh: false,
            };
            match vm::run_all(host, &system, &machine)? {
                0 => Ok(()),
                code => anyhow::bail!("the suite ended with code {code}"),
            }
        });
    }
}

/// Builds the product and the suite statically and puts them where machines find them.
pub fn build_guest(host: &Host) -> Result<()> {
    let target = "x86_64-unknown-linux-gnu";
    let build = |words: &[&str]| {
        Tool::new(host::cargo())
            .args(words)
            .args(["--target", target, "--profile", "guest"])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .dir(&host.repo)
    };
    build(&["build", "--quiet", "--package", "agentguard"]).run()?;
    let listed = build(&[
        "test",
        "--no-run",
        "--package",
        "agentguard-tests",
        "--message-format",
        "json",
        "--quiet",
    ])
    .read()?;
    let guest = host.dir("guest")?;
    let built = host.target.join(target).join("guest").join("agentguard");
    std::fs::copy(&built, guest.join("agentguard"))
        .with_context(|| format!("cannot copy {}", built.display()))?;
    let suite = host.dir("guest-tests")?;
    for entry in std::fs::read_dir(&suite)?.flatten() {
        std::fs::remove_file(entry.path())?;
    }
    for line in listed.lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let name = message["target"]["name"].as_str();
        if let (Some(path), Some(name)) = (message["executable"].as_str(), name) {
            let is_test = message["profile"]["test"].as_bool().unwrap_or(false);
            let to = if is_test {
                suite.join(name)
            } else {
                guest.join(name)
            };
            std::fs::copy(path, &to).with_context(|| format!("cannot copy {path}"))?;
        }
    }
    Ok(())
}

fn nix_is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")))
}

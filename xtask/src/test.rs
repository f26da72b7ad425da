//! `cargo xtask test`: everything that says whether the tree is good, in one go:
//! formatting, lints, unit and property tests, the committed kernel object, the
//! end-to-end suite natively, and on the test kernels, with the red team. Ends with one
//! line of totals.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum as _;

use crate::host::{self, Host, Need};
use crate::sh::Tool;
use crate::vm::beside::{self, Job};
use crate::vm::{self, System};
use crate::{bench, ebpf, guest, package, redteam};

/// What the native suite's agents and servers are made of.
const NATIVE_NEEDS: &[Need] = &[
    ("python3", "python3"),
    ("curl", "curl"),
    ("git", "git"),
    ("ip", "iproute2"),
];

/// Options of `cargo xtask test`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Count parts that cannot run here as skipped, not as failed
    #[arg(long)]
    allow_skips: bool,
    /// Leave out the test kernels (counts as a skip)
    #[arg(long)]
    no_vm: bool,
    /// Leave out the package on a whole Debian (counts as a skip)
    #[arg(long)]
    no_debian: bool,
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
        self.ended(name, start.elapsed(), result);
    }

    /// Counts a part that has run.
    fn ended(&mut self, name: &str, took: Duration, result: Result<()>) {
        let seconds = took.as_secs_f32();
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
            host.need(NATIVE_NEEDS)?;
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
        for name in ["end to end, on test kernels", "red team, on test kernels"] {
            totals.cannot(name, "--no-vm was given", args.allow_skips);
        }
    } else {
        kernels(&host, args, &mut totals);
        if args.no_debian {
            let name = "the package, on a whole Debian";
            totals.cannot(name, "--no-debian was given", args.allow_skips);
        } else {
            debian(&host, &mut totals);
        }
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

/// The privileged suite and the red team on each test kernel.
fn kernels(host: &Host, args: &Args, totals: &mut Totals) {
    let built = guest::build(host);
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
    // Once and first: the machines below start side by side.
    let prepared =
        vm::prepare(host, &system_of(series.to_vec())).and_then(|_| redteam::prepare(host, series));
    if prepared.is_err() {
        totals.part("preparing the test kernels", || prepared);
        return;
    }
    let names = series.iter().map(|series| series.name());
    eprintln!(
        "\n=== end to end and red team, on Linux {}",
        names.collect::<Vec<_>>().join(", ")
    );
    let on_each = |what: &str, part: fn(&Host, vm::cli::Series) -> Result<()>| {
        let job = |&series: &vm::cli::Series| Job {
            name: format!("{what}, on Linux {}", series.name()),
            run: Box::new(move || part(host, series)),
        };
        series.iter().map(job).collect::<Vec<_>>()
    };
    let mut jobs = on_each("end to end", suite_on);
    jobs.extend(on_each("red team", redteam::test));
    if series.contains(&bench::CHECKED) {
        // It counts instructions, so a neighbour does not matter.
        jobs.push(Job {
            name: "what the main calls cost".to_owned(),
            run: Box::new(|| bench::check(host, bench::CHECKED, false)),
        });
    }
    for ended in beside::run(jobs) {
        totals.ended(&ended.name, ended.took, ended.result);
    }
}

fn system_of(series: Vec<vm::cli::Series>) -> System {
    System {
        series,
        flavour: vm::cli::Flavour::Cloud,
        with: Vec::new(),
        refresh: false,
    }
}

/// The privileged suite on one test kernel.
fn suite_on(host: &Host, series: vm::cli::Series) -> Result<()> {
    // One processor: with more, the emulator now and then runs into the breakpoint that the
    // kernel sets while it attaches a program to a busy hook.
    let machine = vm::Machine::new(vm::suite::guest_suite(host)?);
    match vm::run_all(host, &system_of(vec![series]), &machine)? {
        0 => Ok(()),
        code => bail!("the suite ended with code {code}"),
    }
}

/// What the package does on a whole Debian: name of the part, the script in
/// tests/debian, what the kernel is told, packages beside it.
const DEBIAN: [(&str, &str, &str, &[&str]); 4] = [
    (
        "who becomes an agent, on a whole Debian",
        "identity.sh",
        "",
        &["at", "cron", "crun", "dbus"],
    ),
    (
        "the package's life, on a whole Debian",
        "package.sh",
        "",
        &[],
    ),
    (
        "a host without BPF LSM, on a whole Debian",
        "degraded.sh",
        "lsm=landlock,lockdown,capability,yama,apparmor",
        &[],
    ),
    (
        "Prometheus and its alerts, on a whole Debian",
        "prometheus.sh",
        "",
        &["prometheus"],
    ),
];

/// The package, in machines that start systemd.
fn debian(host: &Host, totals: &mut Totals) {
    let mut package = None;
    totals.part("the package", || {
        package = Some(package::build(host)?);
        Ok(())
    });
    let Some(package) = package else {
        return;
    };
    let directory = |path: &str, at: &str| (host.repo.join(path), format!("/add/{at}"));
    for (name, script, cmdline, with) in DEBIAN {
        totals.part(name, || {
            let guest = vm::Guest::Command(vec![format!("/add/debian/{script}").into()]);
            let machine = vm::Machine {
                cmdline: cmdline.to_owned(),
                add: vec![
                    directory("tests/debian", "debian"),
                    directory("policies/prometheus", "prometheus"),
                ],
                init: vm::Init::Systemd {
                    install: vec![package.clone()],
                },
                ..vm::Machine::new(guest)
            };
            let system = System {
                series: vec![vm::cli::Series::V6_12],
                flavour: vm::cli::Flavour::Cloud,
                with: with.iter().map(|&name| name.to_owned()).collect(),
                refresh: false,
            };
            match vm::run_all(host, &system, &machine)? {
                0 => Ok(()),
                code => bail!("{script} ended with code {code}"),
            }
        });
    }
}

fn nix_is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")))
}

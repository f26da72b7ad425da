//! `cargo xtask redteam`: the red team (`tests/redteam`) on the test kernels.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use serde_json::Value;

use crate::guest;
use crate::host::{Host, cargo_build};
use crate::vm::beside::{self, Job};
use crate::vm::cli::{Flavour, Series};
use crate::vm::{self, Guest, Machine, System};

/// The program in the machine.
const PROGRAM: &str = "agentguard-redteam";
/// File systems that some attempts need, beside Debian's usual programs.
const WITH: &[&str] = &["btrfs-progs"];

/// Options of the command.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Kernel series (repeatable; default: all)
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<Series>,
    /// On this host and its kernel, as root: the attempts on the network, in a network of the
    /// run's own
    #[arg(long, conflicts_with_all = ["kernels", "no_build"])]
    native: bool,
    /// Print JSON: an object for one kernel, an array of them for several
    #[arg(long)]
    json: bool,
    /// Boot with what an earlier build left
    #[arg(long)]
    no_build: bool,
    /// Only attempts whose id contains one of these
    #[arg(value_name = "ID")]
    only: Vec<String>,
}

/// What the red team found on one kernel.
#[derive(Debug)]
pub struct Report {
    object: Value,
}

/// Runs the command.
pub fn main(args: &Args) -> Result<ExitCode> {
    let host = Host::find(false)?;
    if args.native {
        let report = native(&host, &args.only)?;
        if args.json {
            println!("{:#}", report.object);
        } else {
            print!("{}", report.table());
        }
        return Ok(ExitCode::from(u8::from(report.bad() > 0)));
    }
    if !args.no_build {
        guest::build(&host)?;
    }
    let series = match args.kernels.as_slice() {
        [] => Series::value_variants(),
        some => some,
    };
    // Once and first: machines that start side by side find it done.
    prepare(&host, series)?;
    let (host, only) = (&host, &args.only);
    let jobs = series.iter().map(|&series| Job {
        name: series.name().to_owned(),
        run: Box::new(move || run(host, series, only)),
    });
    let mut reports = Vec::new();
    for ended in beside::run(jobs.collect()) {
        let report = ended.result?;
        if !args.json {
            print!("{}", report.table());
        }
        reports.push(report);
    }
    if args.json {
        let mut objects: Vec<&Value> = reports.iter().map(|report| &report.object).collect();
        match objects.len() {
            1 => println!("{:#}", objects.remove(0)),
            _ => println!("{:#}", serde_json::json!(objects)),
        }
    }
    let is_bad = reports.iter().any(|report| report.bad() > 0);
    Ok(ExitCode::from(u8::from(is_bad)))
}

/// Installs, fetches and makes what the machines need.
pub fn prepare(host: &Host, series: &[Series]) -> Result<()> {
    vm::prepare(host, &system(series)).map(|_| ())
}

fn system(series: &[Series]) -> System {
    System {
        series: series.to_vec(),
        // The cloud builds have no x32 system calls.
        flavour: Flavour::Generic,
        with: WITH.iter().map(|&name| name.to_owned()).collect(),
        refresh: false,
    }
}

/// Runs all attempts on one kernel, as a part of `cargo xtask test`: keeps the report beside
/// what was built, and fails if anything got through or proves nothing.
pub fn test(host: &Host, series: Series) -> Result<()> {
    let report = run(host, series, &[])?;
    let path = host.target.join(format!("redteam-{}.json", series.name()));
    fs::write(&path, format!("{:#}\n", report.object))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let totals = report.totals();
    if report.bad() > 0 {
        bail!("{totals}\n{}", report.lines(Report::is_bad));
    }
    println!("{totals}");
    Ok(())
}

/// Runs the attempts whose id contains one of `only`, or all, on one kernel.
///
/// Needs what [`guest::build`] makes. An attempt that gets through is no error here: ask
/// the report.
pub fn run(host: &Host, series: Series, only: &[String]) -> Result<Report> {
    let scratch = host.scratch()?;
    let output = scratch.path().join("report.json");
    let mut command: Vec<OsString> = ["env", "AGENTGUARD_EXPECT_LSM=1", PROGRAM, "--json"]
        .map(OsString::from)
        .into();
    command.extend(only.iter().map(OsString::from));
    let machine = Machine {
        output: Some(output.clone()),
        // Debian's kernels have that table, switched off.
        cmdline: "syscall.x32=y".to_owned(),
        ..Machine::new(Guest::Command(command))
    };
    let code = vm::run_all(host, &system(&[series]), &machine)?;
    let text = fs::read_to_string(&output).context("the machine gave no report")?;
    let object = serde_json::from_str(&text).with_context(|| {
        format!(
            "the red team ended with code {code} and no report on Linux {}",
            series.name()
        )
    })?;
    let report = Report { object };
    if code != 0 && report.bad() == 0 {
        bail!("the machine with Linux {} failed; see above", series.name());
    }
    Ok(report)
}

/// Runs the attempts on the network on this host: it need not have BPF LSM, and those that only
/// LSM programs hold are not made then.
fn native(host: &Host, only: &[String]) -> Result<Report> {
    let packages = ["-p", "agentguard", "-p", "agentguard-tests"];
    cargo_build()
        .arg("--bins")
        .args(packages)
        .dir(&host.repo)
        .run()?;
    let built = host.target.join("debug");
    let output = Command::new(built.join(PROGRAM))
        .args(["--json", "--native"])
        .args(only)
        .env("AGENTGUARD_BIN", built.join("agentguard"))
        .env_remove("AGENTGUARD_EXPECT_LSM")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {PROGRAM}"))?;
    let object = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the red team ended with {} and no report", output.status))?;
    Ok(Report { object })
}

impl Report {
    fn attempts(&self) -> impl Iterator<Item = &Value> {
        self.object["attempts"].as_array().into_iter().flatten()
    }

    fn count(&self, field: &str, value: &str) -> usize {
        self.attempts()
            .filter(|attempt| attempt[field] == value)
            .count()
    }

    /// Whether an attempt fails the run: it got through, or its control proves nothing.
    fn is_bad(attempt: &Value) -> bool {
        attempt["result"] == "through" || attempt["control"] == "failed"
    }

    /// Attempts that fail the run.
    pub fn bad(&self) -> usize {
        self.attempts()
            .filter(|attempt| Self::is_bad(attempt))
            .count()
    }

    /// One line of totals.
    pub fn totals(&self) -> String {
        format!(
            "Linux {}: {} attempts: {} blocked, {} through, {} allowed as designed, \
             {} not applicable, {} with a failed control",
            self.object["kernel"].as_str().unwrap_or_default(),
            self.attempts().count(),
            self.count("result", "blocked"),
            self.count("result", "through"),
            self.count("result", "allowed-as-designed"),
            self.count("result", "not-applicable"),
            self.count("control", "failed"),
        )
    }

    /// Everything, one line an attempt.
    pub fn table(&self) -> String {
        format!("{}{}\n", self.lines(|_| true), self.totals())
    }

    /// One line for each of these attempts.
    fn lines(&self, wanted: impl Fn(&Value) -> bool) -> String {
        let mut text = String::new();
        for attempt in self.attempts().filter(|attempt| wanted(attempt)) {
            let of = |field: &str| attempt[field].as_str().unwrap_or_default();
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{:<34} {:<8} {:<19} {:<7} {}",
                of("id"),
                of("user"),
                of("result"),
                of("control"),
                of("note")
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gets_through_and_what_proves_nothing_is_bad() {
        let attempt = |result: &str, control: &str| {
            serde_json::json!({
                "id": "a", "technique": "t", "user": "root",
                "result": result, "control": control, "note": "",
            })
        };
        let report = Report {
            object: serde_json::json!({ "kernel": "6.12", "attempts": [
                attempt("blocked", "passed"),
                attempt("blocked", "failed"),
                attempt("through", "passed"),
                attempt("allowed-as-designed", "passed"),
                attempt("not-applicable", "none"),
            ] }),
        };
        assert_eq!(report.bad(), 2);
        let totals = report.totals();
        assert!(
            totals.contains("5 attempts: 2 blocked, 1 through"),
            "{totals}"
        );
        assert_eq!(report.table().lines().count(), 6);
        assert_eq!(report.lines(Report::is_bad).lines().count(), 2);
    }
}

//! Figures that a committed file holds: `agentguard-bench` measures them in a test machine and
//! compares them with the file that was built into it; to renew the file, what it printed is
//! written there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use serde_json::Value;

use crate::guest;
use crate::host::Host;
use crate::vm::cli::{Flavour, Series};
use crate::vm::{self, Guest, Machine, System};

/// What is held.
pub struct Held {
    /// The committed file.
    pub file: &'static str,
    /// The word that asks `agentguard-bench` for it.
    pub word: &'static str,
    /// Whether the clock has to count instructions.
    pub icount: bool,
}

/// What the kernel's verifier took for each program.
const VERIFIER: Held = Held {
    file: "tests/verifier.json",
    word: "verifier",
    icount: false,
};

/// Options of `cargo xtask verifier`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write what was found to tests/verifier.json, in place of comparing
    #[arg(long)]
    renew: bool,
    /// Kernel series (repeatable; default: all)
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<Series>,
}

/// Runs `cargo xtask verifier`.
pub fn main(args: &Args) -> Result<ExitCode> {
    let host = Host::find(false)?;
    guest::build(&host)?;
    let series = match args.kernels.as_slice() {
        [] => Series::value_variants(),
        some => some,
    };
    let mut found = Vec::new();
    for &series in series {
        found.push(measure(&host, &VERIFIER, series, args.renew)?);
    }
    finish(&host, &VERIFIER, found, args.renew)?;
    Ok(ExitCode::SUCCESS)
}

/// Measures on one kernel and, if the file is to be renewed, writes it.
pub fn run(host: &Host, held: &Held, series: Series, renew: bool) -> Result<()> {
    let found = measure(host, held, series, renew)?;
    finish(host, held, vec![found], renew)
}

/// What one kernel gave; whether it held is compared there.
struct Found {
    holds: bool,
    figures: BTreeMap<String, Value>,
}

/// Needs what [`guest::build`] makes.
fn measure(host: &Host, held: &Held, series: Series, renew: bool) -> Result<Found> {
    let scratch = host.scratch()?;
    let output = scratch.path().join("figures.json");
    let how = if renew { "print" } else { "compare" };
    let command = [
        "env",
        "AGENTGUARD_EXPECT_LSM=1",
        "agentguard-bench",
        held.word,
        how,
    ];
    let machine = Machine {
        icount: held.icount,
        output: Some(output.clone()),
        ..Machine::new(Guest::Command(command.map(OsString::from).into()))
    };
    let system = System {
        series: vec![series],
        flavour: Flavour::Cloud,
        with: Vec::new(),
        refresh: false,
    };
    let code = vm::run_all(host, &system, &machine)?;
    let text = fs::read_to_string(&output)
        .with_context(|| format!("no figures of Linux {}", series.name()))?;
    let figures = serde_json::from_str(&text).with_context(|| {
        format!(
            "the measurement ended with code {code} and without figures on Linux {}",
            series.name()
        )
    })?;
    Ok(Found {
        holds: code == 0,
        figures,
    })
}

fn finish(host: &Host, held: &Held, found: Vec<Found>, renew: bool) -> Result<()> {
    if !found.iter().all(|found| found.holds) {
        bail!("not as {} says: see above", held.file);
    }
    if renew {
        let path = host.repo.join(held.file);
        let before =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let figures = found.into_iter().map(|found| found.figures);
        let text =
            merged(&before, figures).with_context(|| format!("cannot renew {}", path.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        host.step(format_args!("{} is written", held.file));
    }
    Ok(())
}

/// The file with the kernels replaced that were measured.
fn merged(
    before: &str,
    found: impl IntoIterator<Item = BTreeMap<String, Value>>,
) -> Result<String> {
    let mut all: BTreeMap<String, Value> = serde_json::from_str(before)?;
    for figures in found {
        if figures.is_empty() {
            bail!("a kernel gave no figures");
        }
        all.extend(figures);
    }
    Ok(format!("{:#}\n", serde_json::to_value(all)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_not_measured_stays_in_the_file() {
        let before = r#"{ "6.1": { "a": 1, "gone": 2 }, "7.3": { "a": 5 } }"#;
        let found = BTreeMap::from([("6.1".to_owned(), json!({ "a": 3 }))]);
        let text = merged(before, [found]).unwrap();
        let after: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(after, json!({ "6.1": { "a": 3 }, "7.3": { "a": 5 } }));
    }
}

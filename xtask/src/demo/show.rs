//! What the demonstration prints.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal as _, stdout};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::daemon::Daemon;
use super::places::Places;
use super::steps::Outcome;
use crate::sh::tail;

/// Lines of the ledger that are shown.
const LEDGER_LINES: usize = 3;

/// A heading.
pub fn heading(text: &str) {
    println!("\n{}", painted(text, "1"));
}

fn painted(text: &str, colour: &str) -> String {
    if stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// The attempts with what came of them.
pub fn outcomes(outcomes: &[Outcome]) {
    let head = ["WHAT", "PROGRAM", "RULE", "HOW IT IS KNOWN"].map(str::to_owned);
    let rows: Vec<[String; 4]> = outcomes
        .iter()
        .map(|outcome| {
            [
                &outcome.what,
                &outcome.program,
                &outcome.rule,
                &outcome.source,
            ]
            .map(Clone::clone)
        })
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]);
        cells.map(|row| row[column].len()).max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let [what, program, rule, source] = row;
        let [a, b, c] = widths;
        format!("{what:<a$}  {program:<b$}  {rule:<c$}  {source}")
    };
    println!("{:<8} {}", "VERDICT", line(&head));
    for (outcome, row) in outcomes.iter().zip(&rows) {
        let (verdict, colour) = match (outcome.is_right, outcome.is_allowed) {
            (true, true) => ("allowed", "32"),
            (true, false) => ("BLOCKED", "33"),
            (false, _) => ("WRONG", "31;1"),
        };
        println!(
            "{} {}",
            painted(&format!("{verdict:<8}"), colour),
            line(row)
        );
        if !outcome.is_right {
            println!("         the agent got: {}", outcome.result);
        }
    }
}

/// What protects this host and what does not.
pub fn protections(doctor: &Value) {
    let mut fixes = Vec::new();
    for protection in doctor["protections"].as_array().into_iter().flatten() {
        let text = |name: &str| protection[name].as_str().unwrap_or_default();
        let (status, name) = (text("status"), text("name"));
        for (number, part) in text("detail").split("; ").enumerate() {
            let (status, name) = if number == 0 {
                (status, name)
            } else {
                ("", "")
            };
            println!("{status:<10} {name:<9} {}", part.trim());
        }
        // Several protections often lack the same.
        if let Some(fix) = protection["fix"].as_str()
            && !fixes.contains(&fix)
        {
            fixes.push(fix);
        }
    }
    for fix in fixes {
        println!("to have it in full: {fix}");
    }
}

/// The metrics whose values differ.
pub fn metrics(before: &str, after: &str) {
    let (before, after) = (samples(before), samples(after));
    for (name, value) in &after {
        let old = before.get(name).copied().unwrap_or("0");
        if old != *value && name.starts_with("agentguard_") {
            println!("{name} {old} -> {value}");
        }
    }
}

fn samples(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .collect()
}

/// The ledger: where it is and how it ends.
pub fn ledger(places: &Places) -> Result<()> {
    let dir = places.state.join("ledger");
    let newest = fs::read_dir(&dir)
        .with_context(|| format!("cannot list {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "jsonl"))
        .max()
        .with_context(|| format!("{} holds no ledger", dir.display()))?;
    let text =
        fs::read_to_string(&newest).with_context(|| format!("cannot read {}", newest.display()))?;
    println!(
        "{} ({} records), its last:",
        newest.display(),
        text.lines().count()
    );
    println!("{}", tail(&text, LEDGER_LINES));
    Ok(())
}

/// How to look further, with the daemon that goes on.
pub fn kept(daemon: &Daemon, places: &Places, run: &str) {
    let options: Vec<_> = places.daemon_options();
    println!("export AGENTGUARD_SOCKET={}", places.socket().display());
    println!("agentguard runs show {run}");
    println!("agentguard events --run {run} --verdict deny");
    println!("agentguard ps; agentguard status; agentguard doctor");
    if let Some(pid) = daemon.pid() {
        let options = crate::sh::quote_all(&options);
        println!("to end it: kill {pid}; agentguard daemon {options} --unload");
    }
}

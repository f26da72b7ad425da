//! `agentguard doctor`.

use std::path::Path;

use super::output::{Colour, Output, Table};
use super::{Ending, Exit, Outcome, client};
use crate::api::{Doctor, Protection, Resolver};
use crate::kernel;
use crate::links;

/// Percentage of a table's limit from which on it is worth a look.
const FULL: u64 = 80;

pub(super) fn run(socket: &Path, json: bool) -> Outcome {
    let (report, note) = match client::get::<Doctor>(socket, "/v1/doctor") {
        Ok(report) => (report, None),
        Err(ending) if matches!(ending.exit, Exit::Unreachable | Exit::Refused) => {
            let note = format!(
                "this host was probed directly, for the daemon was not asked: {}",
                ending.message
            );
            (probe(), Some(note))
        }
        Err(ending) => return Err(ending),
    };
    let mut out = Output::new();
    if json {
        out.json(&report)?;
    } else {
        if let Some(note) = note {
            out.line(&note)?;
            out.line("")?;
        }
        show(&mut out, &report)?;
    }
    out.flush()?;
    if report
        .protections
        .iter()
        .all(|protection| protection.status == "enforcing")
    {
        Ok(())
    } else {
        Err(Ending::silent(Exit::Problems))
    }
}

fn probe() -> Doctor {
    Doctor {
        protections: kernel::probe::host().iter().map(Protection::from).collect(),
        hooks: Vec::new(),
        tables: Vec::new(),
        errors: std::collections::BTreeMap::new(),
        links: None,
        resolver: None,
    }
}

fn show(out: &mut Output, report: &Doctor) -> std::io::Result<()> {
    for protection in &report.protections {
        out.parts(&[
            (
                Colour::of_status(&protection.status),
                format!("{:<10} ", protection.status),
            ),
            (Colour::Head, format!("{:<12} ", protection.name)),
            (Colour::Plain, protection.detail.clone()),
        ])?;
        if let Some(fix) = &protection.fix {
            out.line(&format!("{:24}to have it: {fix}", ""))?;
        }
    }
    let detached: Vec<_> = report.hooks.iter().filter(|hook| !hook.attached).collect();
    if !report.hooks.is_empty() {
        let attached = report.hooks.len() - detached.len();
        out.line("")?;
        out.line(&format!(
            "kernel programs attached: {attached} of {}",
            report.hooks.len()
        ))?;
    }
    for hook in detached {
        let reason = hook
            .reason
            .clone()
            .unwrap_or_else(|| "not attached".to_owned());
        out.line(&format!("  {} ({}): {reason}", hook.program, hook.attach))?;
    }
    tables(out, report)?;
    if let Some(found) = &report.links {
        links(out, found)?;
    }
    if let Some(found) = &report.resolver {
        resolver(out, found)?;
    }
    for (name, count) in report.errors.iter().filter(|(_, count)| **count > 0) {
        out.parts(&[
            (Colour::Doubtful, format!("{count} x ")),
            (Colour::Plain, name.clone()),
        ])?;
    }
    Ok(())
}

fn links(out: &mut Output, found: &links::Report) -> std::io::Result<()> {
    out.line("")?;
    if !found.is_current {
        return out.line("files with several names: still being looked for");
    }
    out.line(&format!(
        "files with several names: {} in {} directories, {} judged by their strictest name",
        found.files, found.directories, found.pairs
    ))?;
    let mut doubt = |text: String| out.parts(&[(Colour::Doubtful, text)]);
    if found.left_out > 0 {
        doubt(format!(
            "  {} more found no room in the kernel's table: agents are refused what is not in it",
            found.left_out
        ))?;
    }
    for place in &found.skipped {
        doubt(format!("  not looked for in {place}"))?;
    }
    if found.skipped_count > found.skipped.len() as u64 {
        doubt(format!(
            "  nor in {} other places",
            found.skipped_count - found.skipped.len() as u64
        ))?;
    }
    Ok(())
}

fn resolver(out: &mut Output, found: &Resolver) -> std::io::Result<()> {
    out.line("")?;
    if found.is_missed() {
        let text = format!(
            "names: the resolver does not listen, and these agents have rules about names: {}",
            found.agents.join(", ")
        );
        out.parts(&[(Colour::Bad, text)])?;
        return out.line("  see the log, and `resolver:` in agentguard.yaml");
    }
    if found.listening.is_empty() {
        return out.line("names: the resolver does not listen; no agent has rules about names");
    }
    out.line(&format!(
        "names: the resolver listens on {} and asks {}; agents with rules about names: {}",
        found.listening.join(" and "),
        found.servers.join(", "),
        found.agents.len()
    ))
}

fn tables(out: &mut Output, report: &Doctor) -> std::io::Result<()> {
    if report.tables.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["TABLE", "USED", "LIMIT", "FULL"]);
    for fill in &report.tables {
        let percent = fill
            .used
            .saturating_mul(100)
            .checked_div(fill.limit)
            .unwrap_or(100);
        let colour = if percent >= FULL {
            Colour::Doubtful
        } else {
            Colour::Plain
        };
        table.coloured_row([
            (Colour::Plain, fill.map.clone()),
            (Colour::Plain, fill.used.to_string()),
            (Colour::Plain, fill.limit.to_string()),
            (colour, format!("{percent} %")),
        ]);
    }
    out.line("")?;
    out.table(&table)
}

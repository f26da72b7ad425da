//! `agentguard runs list` and `agentguard runs show`.

use std::path::Path;

use uuid::Uuid;

use super::output::{Colour, Output, Table, command, short_command, time};
use super::{Outcome, client};
use crate::api::{Run, Runs};

pub(super) fn list(socket: &Path, agent: Option<&str>, ended: usize, json: bool) -> Outcome {
    let agent = agent
        .map(|agent| format!("&agent={agent}"))
        .unwrap_or_default();
    let answer: Runs = client::get(socket, &format!("/v1/runs?ended={ended}{agent}"))?;
    let mut out = Output::new();
    if json {
        out.json(&answer)?;
        return Ok(out.flush()?);
    }
    let mut table = Table::new(&[
        "RUN",
        "AGENT",
        "ENVIRONMENT",
        "STATE",
        "STARTED",
        "BY",
        "TASKS",
        "DENIED",
        "RECORD",
        "COMMAND",
    ]);
    for run in answer.runs {
        let denied = if run.denials > 0 {
            Colour::Bad
        } else {
            Colour::Plain
        };
        let record = record(&run);
        table.coloured_row([
            (
                Colour::Plain,
                run.identity
                    .run
                    .map(|run| run.to_string())
                    .unwrap_or_default(),
            ),
            (Colour::Plain, run.identity.agent),
            (Colour::Plain, run.identity.environment),
            (Colour::Plain, run.state),
            (Colour::Plain, time(run.started)),
            (Colour::Plain, run.started_by),
            (Colour::Plain, run.tasks.to_string()),
            (denied, run.denials.to_string()),
            record,
            (Colour::Plain, short_command(&run.command)),
        ]);
    }
    if table.is_empty() {
        out.line("no runs")?;
    } else {
        out.table(&table)?;
    }
    Ok(out.flush()?)
}

/// Whether a run's record is complete, as far as is known now.
fn record(run: &Run) -> (Colour, String) {
    match &run.end {
        Some(end) if end.complete => (Colour::Plain, "complete".to_owned()),
        Some(end) if end.lost.total() == 0 => (Colour::Doubtful, "not known".to_owned()),
        Some(end) => (Colour::Doubtful, format!("{} lost", end.lost.total())),
        None if run.lost > 0 => (Colour::Doubtful, format!("{} lost", run.lost)),
        None => (Colour::Plain, String::new()),
    }
}

pub(super) fn show(socket: &Path, id: Uuid, json: bool) -> Outcome {
    let run: Run = client::get(socket, &format!("/v1/runs/{id}"))?;
    let mut out = Output::new();
    if json {
        out.json(&run)?;
        return Ok(out.flush()?);
    }
    let identity = &run.identity;
    let mut facts = vec![
        ("run", id.to_string()),
        ("agent", identity.agent.clone()),
        ("environment", identity.environment.clone()),
        ("owner", identity.owner.clone()),
        ("version", run.agent_version.clone()),
        (
            "on behalf of",
            identity.on_behalf_of.clone().unwrap_or_default(),
        ),
        ("task", identity.task.clone().unwrap_or_default()),
        ("state", run.state.clone()),
        (
            "started",
            format!(
                "{} by {} (uid {})",
                time(run.started),
                run.started_by,
                run.uid
            ),
        ),
        ("lease until", run.lease_until.map(time).unwrap_or_default()),
        ("first process", run.pid.to_string()),
        ("command", command(&run.command)),
        ("live tasks", run.tasks.to_string()),
        ("denied", run.denials.to_string()),
        ("events", run.events.to_string()),
        ("trace", run.traceparent.clone()),
    ];
    if let (Some(ended), Some(end)) = (run.ended, &run.end) {
        facts.push(("ended", format!("{} ({})", time(ended), end.ended_by)));
        facts.push(("record", ended_record(end)));
    }
    for (name, value) in facts {
        let value = if value.is_empty() {
            "-".to_owned()
        } else {
            value
        };
        out.parts(&[
            (Colour::Head, format!("{name:<14}")),
            (Colour::Plain, value),
        ])?;
    }
    Ok(out.flush()?)
}

fn ended_record(end: &crate::event::RunEnded) -> String {
    if end.complete {
        return format!("complete: all {} records are in the ledger", end.events);
    }
    let lost = &end.lost;
    if lost.total() == 0 {
        return format!(
            "not known: the kernel's counts were lost with its tables; {} records are in the ledger",
            end.recorded
        );
    }
    let when = match (lost.first, lost.last) {
        (Some(first), Some(last)) => format!(", between {} and {}", time(first), time(last)),
        _ => String::new(),
    };
    format!(
        "incomplete: {} of {} lost (in the kernel {}, on the way to the ledger {}, with a daemon that ended {}){when}",
        lost.total(),
        end.events,
        lost.kernel,
        lost.ledger,
        lost.daemon
    )
}

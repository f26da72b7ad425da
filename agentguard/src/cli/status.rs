//! `agentguard status`.

use std::path::Path;

use super::output::{Colour, Output, time};
use super::{Outcome, client};
use crate::api::{Resolver, Status};
use crate::sinks::ledger::HealthReport;

pub(super) fn run(socket: &Path, json: bool) -> Outcome {
    let status: Status = client::get(socket, "/v1/status")?;
    let mut out = Output::new();
    if json {
        out.json(&status)?;
        return Ok(out.flush()?);
    }
    let fact = |name: &str, colour, value: String| {
        [(Colour::Head, format!("{name:<12}")), (colour, value)]
    };
    let plain = Colour::Plain;
    let daemon = format!(
        "version {}, process {}, since {}",
        status.version,
        status.pid,
        time(status.started)
    );
    out.parts(&fact("daemon", plain, daemon))?;
    if status.enforcing {
        out.parts(&fact(
            "protection",
            Colour::Good,
            "enforcing in full".to_owned(),
        ))?;
    }
    for degraded in &status.degraded {
        let accepted = if degraded.accepted { " (accepted)" } else { "" };
        let text = format!("{}: {}{accepted}", degraded.protection, degraded.status);
        out.parts(&fact(
            "protection",
            Colour::of_status(&degraded.status),
            text,
        ))?;
    }
    let policy = &status.policy;
    let text = format!(
        "generation {} since {}, agents: {}",
        policy.generation,
        time(policy.loaded),
        policy.agents
    );
    out.parts(&fact("policy", plain, text))?;
    if let Some(refused) = policy.refused {
        let text = format!("a newer file set was refused at {}:", time(refused));
        out.parts(&fact("", Colour::Bad, text))?;
        for line in policy.problems.iter().flat_map(|problem| problem.lines()) {
            out.parts(&fact("", plain, line.to_owned()))?;
        }
    }
    let text = format!(
        "{} live, tagged tasks: {}",
        status.runs, status.tagged_tasks
    );
    out.parts(&fact("runs", plain, text))?;
    let (colour, text) = resolver(&status.resolver);
    out.parts(&fact("resolver", colour, text))?;
    let ledger = &status.ledger;
    let (colour, text) = written(ledger);
    out.parts(&fact("ledger", colour, text))?;
    if ledger.lost > 0 {
        let text = format!("{} records lost since the daemon started", ledger.lost);
        out.parts(&fact("", Colour::Bad, text))?;
    }
    let metrics = status.metrics.unwrap_or_else(|| "not served".to_owned());
    out.parts(&fact("metrics", plain, metrics))?;
    Ok(out.flush()?)
}

fn resolver(found: &Resolver) -> (Colour, String) {
    if found.is_missed() {
        let agents = found.agents.join(", ");
        (Colour::Bad, format!("NOT LISTENING, needed by {agents}"))
    } else if found.listening.is_empty() {
        (Colour::Plain, "not listening".to_owned())
    } else {
        (Colour::Plain, found.listening.join(", "))
    }
}

fn written(ledger: &HealthReport) -> (Colour, String) {
    match &ledger.last_error {
        Some(error) if !ledger.healthy => (Colour::Bad, format!("NOT WRITTEN: {error}")),
        _ => {
            let text = format!("{}, records written: {}", ledger.file, ledger.records);
            (Colour::Plain, text)
        }
    }
}

//! `agentguard agents list`.

use std::path::Path;
use std::time::Duration;

use super::output::{Output, Table};
use super::{Outcome, client};
use crate::api::Agents;
use crate::policy::duration;

pub(super) fn list(socket: &Path, json: bool) -> Outcome {
    let answer: Agents = client::get(socket, "/v1/agents")?;
    let mut out = Output::new();
    if json {
        out.json(&answer)?;
        return Ok(out.flush()?);
    }
    let mut table = Table::new(&[
        "AGENT",
        "ENVIRONMENT",
        "MODE",
        "AUTHORITY",
        "LEASE",
        "RUNS",
        "OWNER",
        "MANIFEST",
    ]);
    for agent in answer.agents {
        let lease = agent.lease_seconds.map(Duration::from_secs);
        table.row([
            agent.agent,
            agent.environment,
            agent.mode,
            agent.authority,
            lease.map(duration::format).unwrap_or_default(),
            agent.runs.to_string(),
            agent.owner,
            agent.manifest,
        ]);
    }
    if table.is_empty() {
        out.line("no agent is in force that you may start")?;
    } else {
        out.table(&table)?;
    }
    Ok(out.flush()?)
}

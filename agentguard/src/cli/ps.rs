//! `agentguard ps`.

use std::path::Path;

use super::output::{Output, Table, short_command};
use super::{Outcome, client};
use crate::api::Processes;

pub(super) fn run(socket: &Path, json: bool) -> Outcome {
    let answer: Processes = client::get(socket, "/v1/ps")?;
    let mut out = Output::new();
    if json {
        out.json(&answer)?;
        return Ok(out.flush()?);
    }
    let mut table = Table::new(&[
        "PID",
        "PPID",
        "UID",
        "AGENT",
        "ENVIRONMENT",
        "RUN",
        "COMMAND",
    ]);
    for process in answer.processes {
        table.row([
            process.pid.to_string(),
            process.ppid.to_string(),
            process.uid.to_string(),
            process.agent,
            process.environment,
            process.run.map(|run| run.to_string()).unwrap_or_default(),
            match process.command.as_slice() {
                [] => process.exe.unwrap_or_default(),
                arguments => short_command(arguments),
            },
        ]);
    }
    if table.is_empty() {
        out.line("no process runs as an agent")?;
    } else {
        out.table(&table)?;
    }
    Ok(out.flush()?)
}

//! `agentguard adopt`.

use std::path::Path;

use super::output::Output;
use super::{AdoptArgs, Outcome, client};
use crate::api::{AdoptRequest, Adopted};

pub(super) fn adopt(socket: &Path, args: AdoptArgs) -> Outcome {
    let json = args.json;
    let request = AdoptRequest {
        pid: args.pid,
        agent: args.wanted.agent,
        environment: args.wanted.environment,
        task: args.wanted.task,
        on_behalf_of: args.wanted.on_behalf_of,
        lease_seconds: args.wanted.lease.map(|lease| lease.as_secs()),
    };
    let adopted: Adopted = client::post(socket, "/v1/adoptions", Some(&request))?;
    let mut out = Output::new();
    if json {
        out.json(&adopted)?;
        return Ok(out.flush()?);
    }
    out.line(&format!(
        "run {} of agent {}: {} tasks in {} processes",
        adopted.run,
        adopted.agent,
        adopted.tasks,
        adopted.processes.len()
    ))?;
    let residual = &adopted.residual;
    let lists = [
        (
            "open for writing before, decided from now on",
            &residual.files,
        ),
        ("connected before, decided from now on", &residual.sockets),
        (
            "mapped and shared: what is written there NOBODY decides, until the process is restarted",
            &residual.mappings,
        ),
        ("of the same session and not adopted", &adopted.left_out),
    ];
    for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        out.line(&format!("{what}:"))?;
        for item in list {
            out.line(&format!("  {item}"))?;
        }
    }
    if residual.more {
        out.line("there is more than is listed")?;
    }
    Ok(out.flush()?)
}

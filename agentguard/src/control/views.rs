//! Runs, processes and agents as the API shows them.

use agentguard_common::identity::run_state;

use super::processes::{Tagged, details};
use crate::api;
use crate::engine::AgentReport;
use crate::kernel::KernelRun;
use crate::runs::Run;

/// A run for people and programs.
pub(super) fn run(run: &Run, kernel: Option<&KernelRun>) -> api::Run {
    let end = run.ended.as_ref();
    let state = match (end, kernel.map(|kernel| kernel.state)) {
        (Some(_), _) => "ended",
        (None, Some(run_state::ACTIVE)) => "active",
        (None, Some(run_state::PAUSED)) => "paused",
        (None, Some(run_state::REVOKED)) => "revoked",
        (None, _) => "unknown",
    };
    api::Run {
        identity: run.identity.clone(),
        origin: run.origin.name().to_owned(),
        agent_version: run.agent_version.clone(),
        state: state.to_owned(),
        started: run.started,
        uid: run.uid,
        started_by: run.started_by.clone(),
        pid: run.pid,
        command: run.command.clone(),
        lease_until: run.lease_until,
        traceparent: run.traceparent.clone(),
        tasks: kernel.map_or(0, |kernel| kernel.tasks),
        denials: kernel.map_or_else(
            || end.map_or(0, |end| end.how.denials),
            |kernel| kernel.denials,
        ),
        events: kernel.map_or_else(
            || end.map_or(0, |end| end.how.events),
            |kernel| kernel.events,
        ),
        lost: kernel.map_or_else(
            || end.map_or(0, |end| end.how.lost.total()),
            |kernel| kernel.lost,
        ),
        ended: end.map(|end| end.time),
        end: end.map(|end| end.how.clone()),
    }
}

/// A process for people and programs.
pub(super) fn process(process: &Tagged, run: Option<&Run>) -> api::Process {
    let details = details(process.pid);
    let identity = run.map(|run| &run.identity);
    api::Process {
        pid: process.pid,
        ppid: details.ppid,
        uid: details.uid,
        threads: details.threads,
        exe: details.exe,
        command: details.command,
        run: run.map(|run| run.id),
        agent: identity.map_or_else(
            || format!("unknown-{}", process.tag.agent),
            |identity| identity.agent.clone(),
        ),
        environment: identity.map_or_else(
            || "unknown".to_owned(),
            |identity| identity.environment.clone(),
        ),
    }
}

/// An agent for people and programs.
pub(super) fn agent(agent: &AgentReport) -> api::Agent {
    let manifest = &agent.manifest;
    api::Agent {
        agent: manifest.name.clone(),
        environment: manifest.environment.as_str().to_owned(),
        owner: manifest.owner.clone(),
        description: manifest.description.clone(),
        agent_version: manifest.version.clone(),
        mode: manifest.mode.as_str().to_owned(),
        authority: manifest.authority.as_str().to_owned(),
        lease_seconds: manifest.lease.map(|lease| lease.as_secs()),
        runs: agent.runs,
        manifest: manifest.source.file_line(),
        index: agent.index,
    }
}

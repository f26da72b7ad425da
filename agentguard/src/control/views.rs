//! Runs, processes and agents as the API shows them.

use agentguard_common::identity::run_state;

use super::processes::{Tagged, details};
use crate::agents::life::Version;
use crate::api;
use crate::clock;
use crate::engine::AgentReport;
use crate::kernel::KernelRun;
use crate::policy::duration;
use crate::runs::Run;

/// A run for people and programs.
pub(super) fn run(run: &Run, kernel: Option<&KernelRun>) -> api::Run {
    let end = run.ended.as_ref();
    let lease_is_over = kernel
        .is_some_and(|kernel| kernel.lease_until != 0 && clock::boot_ns() >= kernel.lease_until);
    let state = match (end, kernel.map(|kernel| kernel.state)) {
        (Some(_), _) => "ended",
        (None, Some(run_state::ACTIVE)) if lease_is_over => "lease-expired",
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

/// An agent for people and programs. Of one that is not in force, what the registry has
/// of its last manifest.
pub(super) fn agent(report: &AgentReport) -> api::Agent {
    let known = &report.known;
    let latest = known.latest();
    let told = |value: fn(&Version) -> &str| latest.map_or("", value).to_owned();
    let lease = latest.and_then(|latest| duration::parse(latest.lease.as_deref()?).ok());
    api::Agent {
        agent: known.name.clone(),
        environment: known.environment.clone(),
        owner: known.owner.clone(),
        description: latest.and_then(|latest| latest.description.clone()),
        agent_version: told(|latest| &latest.version),
        state: report.state.name().to_owned(),
        mode: told(|latest| &latest.mode),
        authority: told(|latest| &latest.authority),
        lease_seconds: lease.map(|lease| lease.as_secs()),
        runs: report.runs,
        last_run: report.last_run,
        registered: known.registered,
        absent_since: known.absent_since,
        retired: known.retired.clone(),
        // The file may have moved without meaning something else.
        manifest: report
            .manifest
            .as_ref()
            .filter(|_| known.absent_since.is_none())
            .map_or_else(
                || told(|latest| &latest.manifest),
                |it| it.source.file_line(),
            ),
        index: known.index,
    }
}

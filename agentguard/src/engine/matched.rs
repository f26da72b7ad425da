//! Runs that the kernel began by itself, because a process executed what a manifest's `match`
//! names: what is known of them is the kernel's record, and what it stands for.

use std::os::fd::AsFd;
use std::sync::Arc;

use agentguard_common::identity::{Tag, origin};
use uuid::{NoContext, Uuid};

use super::{Engine, sweep};
use crate::clock::{Clock, Timestamp};
use crate::control::peer::pidfd_open;
use crate::control::processes::details;
use crate::correlate::{AgentNames, unknown_agent};
use crate::event::Identity;
use crate::kernel::{KernelRun, RawRecord};
use crate::policy::manifest::Authority;
use crate::runs::{Origin, Run};
use crate::trace::TraceParent;

impl Engine {
    /// Records the runs that these records tell of for the first time.
    pub(super) fn learn_runs_of(&mut self, records: &[RawRecord]) {
        for record in records {
            let tag = record.header.tag;
            if tag.is_set() {
                self.learn_run(tag.run, tag.run_serial);
            }
        }
    }

    /// Records a run that the kernel began, if it is not recorded yet.
    pub(super) fn learn_run(&mut self, slot: u32, serial: u64) {
        if self.runs.by_serial(serial).is_some() {
            return;
        }
        let found = self.port.run_in(slot);
        let found = found.filter(|run| run.serial == serial && run.origin == origin::MATCHED);
        if let Some(run) = found {
            self.record_matched(&run);
        }
    }

    /// Gives a matched run its id and its record.
    pub(super) fn record_matched(&mut self, kernel: &KernelRun) {
        let tag = Tag {
            agent: kernel.agent,
            run: kernel.slot,
            run_serial: kernel.serial,
        };
        let clock = Clock::now();
        let started = clock.at(kernel.serial);
        let id = if kernel.id.is_nil() {
            let id = id_at(started);
            if let Err(error) = self.port.name_run(tag, id) {
                tracing::error!("a run that the kernel began has no id: {error}");
                return;
            }
            id
        } else {
            // An earlier daemon named it and could not record it.
            kernel.id
        };
        let parent = self.parent_of(kernel);
        let run = self.matched_run(kernel, (id, started), clock, parent.as_deref());
        match self.runs.add(run) {
            Ok(run) => {
                self.names_of_run(tag);
                self.tell(sweep::announcement(&run));
                self.tell_start(&run, None);
                if self.is_first_process(kernel) {
                    self.tell_credentials(&run);
                }
                self.context.metrics.count_run();
            }
            Err(error) => tracing::error!("a run that the kernel began is not recorded: {error}"),
        }
    }

    /// The run that began a run; recorded first if it is not yet.
    fn parent_of(&mut self, run: &KernelRun) -> Option<Arc<Run>> {
        if run.parent_serial == 0 {
            return None;
        }
        if self.runs.by_serial(run.parent_serial).is_none() {
            let parent = self.port.run_in(run.parent);
            let parent = parent.filter(|parent| {
                parent.serial == run.parent_serial
                    && parent.origin == origin::MATCHED
                    && parent.depth < run.depth
            })?;
            self.record_matched(&parent);
        }
        self.runs.by_serial(run.parent_serial).cloned()
    }

    fn matched_run(
        &self,
        kernel: &KernelRun,
        (id, started): (Uuid, Timestamp),
        clock: Clock,
        parent: Option<&Run>,
    ) -> Run {
        let user = self.context.accounts.user_label(kernel.uid);
        let names = self.agent_names(kernel.agent);
        let identity = names.map_or_else(
            || unknown_agent(kernel.agent),
            AgentNames::identity_without_run,
        );
        Run {
            id,
            agent_index: kernel.agent,
            slot: kernel.slot,
            serial: kernel.serial,
            boot_id: self.context.boot_id.clone(),
            origin: Origin::Matched,
            identity: Identity {
                run: Some(id),
                parent_run: parent.map(|parent| parent.id),
                on_behalf_of: match parent {
                    Some(parent) => parent.identity.on_behalf_of.clone(),
                    // Nobody else can have asked for it.
                    None => self.is_delegated(kernel.agent).then(|| user.clone()),
                },
                task: parent.and_then(|parent| parent.identity.task.clone()),
                ..identity
            },
            agent_version: names
                .map_or_else(|| "unknown".to_owned(), |names| names.version.to_string()),
            started,
            uid: kernel.uid,
            started_by: user,
            pid: kernel.pid,
            command: self.command_of(kernel),
            lease_until: (kernel.lease_until != 0).then(|| clock.at(kernel.lease_until)),
            traceparent: TraceParent::child_of(None)
                .map_or_else(|_| String::new(), |trace| trace.to_string()),
            ended: None,
        }
    }

    fn is_delegated(&self, agent: u32) -> bool {
        let mut agents = self.policy.agents.iter();
        agents
            .any(|(index, manifest)| *index == agent && manifest.authority == Authority::Delegated)
    }

    /// The command line of a run's first process, for people, if it is still that process.
    fn command_of(&self, run: &KernelRun) -> Vec<String> {
        if self.is_first_process(run) {
            details(run.pid).command
        } else {
            Vec::new()
        }
    }

    /// Whether the number of a run's first process still means it, or another of the run.
    fn is_first_process(&self, run: &KernelRun) -> bool {
        let Ok(pidfd) = pidfd_open(run.pid) else {
            return false;
        };
        let tag = self.port.tag_of(pidfd.as_fd()).ok().flatten();
        tag.is_some_and(|tag| tag.run_serial == run.serial)
    }
}

/// A run id of that moment.
fn id_at(time: Timestamp) -> Uuid {
    let nanos = time.since(Timestamp::from_nanos(0));
    let moment = uuid::Timestamp::from_unix(NoContext, nanos.as_secs(), nanos.subsec_nanos());
    Uuid::new_v7(moment)
}

//! Keeping the runs in step with the kernel's table: ends that no record told,
//! runs that an earlier daemon left, and runs that the kernel no longer has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use agentguard_common::identity::{Tag, origin, run_state};
use uuid::Uuid;

use super::Engine;
use crate::clock::{self, Timestamp};
use crate::correlate::KnownRun;
use crate::event::Identity;
use crate::kernel::KernelRun;
use crate::pipeline::{Message, RunEnding, RunSettled};
use crate::runs::{Origin, Run};

impl Engine {
    /// Tells the pipeline about the runs that were read from the disk.
    pub(super) fn announce_live_runs(&mut self) {
        let known: Vec<Arc<Run>> = self.runs.live().cloned().collect();
        for run in known {
            self.names_of_run(run.tag());
            self.tell(announcement(&run));
        }
    }

    /// Tells of runs that began under a daemon that was killed before it told of them. Of
    /// those that have no task and never had one, nothing began.
    pub(super) fn tell_missing_starts(&mut self, told: &HashSet<Uuid>) {
        let kernel: HashMap<u64, KernelRun> = self
            .port
            .runs()
            .into_iter()
            .map(|run| (run.serial, run))
            .collect();
        let untold: Vec<Arc<Run>> = self
            .runs
            .live()
            .filter(|run| !told.contains(&run.id))
            .cloned()
            .collect();
        for run in untold {
            let is_here = run.boot_id == self.context.boot_id;
            match kernel.get(&run.serial).filter(|_| is_here) {
                Some(found) if found.tasks == 0 && found.events == 0 => {
                    let why = "the daemon was killed before it had enrolled the process";
                    self.tell_start(&run, Some(why.to_owned()));
                    self.runs.discard(run.id);
                    // The slot is freed by the sweep that follows.
                }
                _ => self.tell_start(&run, None),
            }
        }
    }

    /// Compares both sides once.
    pub(super) fn sweep(&mut self) {
        self.revoke_retired();
        let kernel = self.port.runs();
        let known: HashSet<u64> = kernel.iter().map(|run| run.serial).collect();
        for run in &kernel {
            let is_known = self.runs.by_serial(run.serial).is_some();
            if !is_known && run.origin == origin::MATCHED {
                self.record_matched(run);
            }
            if run.tasks == 0 {
                self.ending.fresh.insert(run.serial);
            } else if !is_known && run.origin != origin::MATCHED {
                self.adopt_unknown(run);
            }
        }
        let gone: Vec<Arc<Run>> = self
            .runs
            .live()
            .filter(|run| !known.contains(&run.serial) || run.boot_id != self.context.boot_id)
            .filter(|run| !self.ending.closing.contains_key(&run.serial))
            .cloned()
            .collect();
        for run in gone {
            let ended_by = if run.boot_id == self.context.boot_id {
                "unloaded"
            } else {
                "host-restarted"
            };
            self.close(run, None, ended_by);
        }
        self.note_last_runs();
    }

    /// Closes those of these runs that have no task left.
    pub(super) fn close_runs(&mut self, serials: &HashSet<u64>) {
        if serials.is_empty() {
            return;
        }
        let kernel: HashMap<u64, KernelRun> = self
            .port
            .runs()
            .into_iter()
            .filter(|run| serials.contains(&run.serial) && run.tasks <= 0)
            .map(|run| (run.serial, run))
            .collect();
        for (serial, kernel) in kernel {
            if self.ending.closing.contains_key(&serial) {
                continue;
            }
            let tag = Tag {
                agent: kernel.agent,
                run: kernel.slot,
                run_serial: serial,
            };
            match self.runs.by_serial(serial).cloned() {
                Some(run) => {
                    let ended_by = ended_by(&kernel, clock::boot_ns());
                    self.close(run, Some((tag, kernel)), ended_by);
                }
                None => self.free(tag),
            }
        }
    }

    fn free(&mut self, tag: Tag) {
        if let Err(error) = self.port.end_run(tag) {
            tracing::error!("the slot of a run that ended was not freed: {error}");
        }
    }

    fn close(&mut self, run: Arc<Run>, kernel: Option<(Tag, KernelRun)>, ended_by: &'static str) {
        let (slot, kernel) = kernel.unzip();
        self.ending.closing.insert(run.serial, slot);
        self.forget_names_of(run.serial);
        self.tell(Message::RunEnded(Box::new(RunEnding {
            run,
            kernel,
            ended_by,
            time: Timestamp::now(),
        })));
    }

    /// The pipeline has recorded a run's end.
    pub(super) fn run_settled(&mut self, settled: RunSettled) {
        let mut slot = None;
        if let Some(run) = self.runs.get(settled.run) {
            slot = self.ending.closing.remove(&run.serial).flatten();
            // One that was too short for a sweep to see it.
            let identity = &run.identity;
            self.last_runs
                .note(&identity.agent, &identity.environment, run.started);
        }
        if let Err(error) = self.runs.end(settled.run, settled.ended) {
            tracing::error!("the record of a run that ended was not kept: {error}");
        }
        if let Some(tag) = slot {
            self.free(tag);
        }
    }

    /// The kernel holds a live run of which no record was found: it is known by
    /// what the kernel says, rather than not at all.
    fn adopt_unknown(&mut self, kernel: &KernelRun) {
        let agent = self.registry.by_index(kernel.agent);
        let unknown = || "unknown".to_owned();
        let seconds = kernel
            .id
            .get_timestamp()
            .map(|time| time.to_unix())
            .and_then(|(seconds, nanos)| {
                let nanos = i64::from(nanos);
                i64::try_from(seconds)
                    .ok()?
                    .checked_mul(1_000_000_000)?
                    .checked_add(nanos)
            });
        let run = Run {
            id: kernel.id,
            agent_index: kernel.agent,
            slot: kernel.slot,
            serial: kernel.serial,
            boot_id: self.context.boot_id.clone(),
            origin: Origin::of_kernel(kernel.origin),
            identity: Identity {
                agent: agent.map_or_else(
                    || format!("unknown-{}", kernel.agent),
                    |agent| agent.name.clone(),
                ),
                owner: agent.map_or_else(unknown, |agent| agent.owner.clone()),
                environment: agent.map_or_else(unknown, |agent| agent.environment.clone()),
                run: Some(kernel.id),
                parent_run: None,
                on_behalf_of: None,
                task: None,
                visible_to: None,
            },
            agent_version: unknown(),
            started: seconds.map_or_else(Timestamp::now, Timestamp::from_nanos),
            uid: u32::MAX,
            started_by: unknown(),
            pid: 0,
            command: Vec::new(),
            lease_until: None,
            traceparent: String::new(),
            ended: None,
        };
        tracing::warn!(
            "run {} is alive in the kernel, but its record was not found in the state directory: it stays enforced, and is shown without its owner's data",
            kernel.id
        );
        match self.runs.add(run) {
            Ok(run) => {
                self.names_of_run(run.tag());
                self.tell(announcement(&run));
            }
            Err(error) => tracing::error!("{error}"),
        }
    }
}

/// Why a run whose last task is gone has ended. Who was revoked or whose lease was over
/// could do nothing any more but end.
fn ended_by(kernel: &KernelRun, now: u64) -> &'static str {
    if kernel.state == run_state::REVOKED {
        "revoked"
    } else if kernel.lease_until != 0 && now >= kernel.lease_until {
        "lease-expired"
    } else {
        "exited"
    }
}

/// What the pipeline has to know of a run before its records.
pub(super) fn announcement(run: &Run) -> Message {
    Message::Run {
        run: KnownRun {
            serial: run.serial,
            identity: run.shown_identity(),
            agent_version: run.agent_version.as_str().into(),
        },
        process: run
            .command
            .first()
            .map(|program| (run.pid, program.clone())),
    }
}

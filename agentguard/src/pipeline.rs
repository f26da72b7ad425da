//! From kernel records to the sinks, on a thread of its own.
//!
//! Everything comes through one queue, in order: a policy before the records it
//! decided, a run before its records, its end after them. When the pipeline
//! falls behind, the queue fills, the engine leaves records in the kernel's
//! rings, and what does not fit there the kernel counts, run by run.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use agentguard_common::event::{Fold, FoldKey};
use agentguard_common::flow::{FlowKey, NamedFlow};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::correlate::{Correlator, KnownRun, PolicyNames};
use crate::credentials::Findings;
use crate::decode::{self, Body};
use crate::event::{Detail, Event, Kind, Lost, RunEnded};
use crate::files::FileError;
use crate::kernel::{KernelRun, RawRecord};
use crate::mounts::MountTable;
use crate::repeats::Repeats;
use crate::runs::{Ended, Run, Store};
use crate::sinks::metrics::Metrics;
use crate::sinks::{Sinks, Then};

/// Messages that wait. Records come in batches of [`BATCH`](crate::engine::BATCH).
pub const QUEUE: usize = 16;

/// What the engine tells the pipeline.
pub enum Message {
    /// A policy generation came into force.
    Policy(Arc<PolicyNames>),
    /// The host's mounts are now these.
    Mounts(Arc<MountTable>),
    /// A run exists, and its first process runs this program.
    Run {
        /// The run.
        run: KnownRun,
        /// Process and program, if known.
        process: Option<(u32, String)>,
    },
    /// A run was given addresses for a name.
    Named {
        /// Serial number of the run.
        serial: u64,
        /// The name.
        name: Arc<str>,
        /// All addresses of the answer, also those that no name may stand for.
        addresses: Vec<IpAddr>,
    },
    /// Records from the rings.
    Records(Vec<RawRecord>),
    /// Counts of repeats, collected after the records before them.
    Repeats(Vec<(FoldKey, Fold)>),
    /// Flows, collected after the records before them.
    Flows(Vec<(FlowKey, NamedFlow)>),
    /// An event that the engine made.
    Emit(Box<Event>),
    /// A run has ended and all its records were sent here.
    RunEnded(Box<RunEnding>),
    /// Answer, to show that the pipeline works.
    Ping(oneshot::Sender<()>),
}

/// A run that has ended, as the engine knows it.
#[derive(Debug)]
pub struct RunEnding {
    /// The run.
    pub run: Arc<Run>,
    /// The kernel's last word on it, if the kernel still knew it.
    pub kernel: Option<KernelRun>,
    /// Why it ended.
    pub ended_by: &'static str,
    /// When.
    pub time: Timestamp,
}

/// A run whose end is recorded.
#[derive(Clone, Debug)]
pub struct RunSettled {
    /// Run id.
    pub run: Uuid,
    /// Its end.
    pub ended: Ended,
}

/// The pipeline's parts.
pub struct Pipeline {
    /// Knows names.
    pub correlator: Correlator,
    /// Knows what may be repeated.
    pub repeats: Repeats,
    /// Knows which credentials were told of.
    pub findings: Findings,
    /// Where events go.
    pub sinks: Sinks,
    /// Where runs are written down before their ends are told.
    pub runs: Store,
    /// Where the engine hears that a run's end is recorded.
    pub settled: mpsc::UnboundedSender<RunSettled>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Pipeline {
    /// Starts the thread. It ends, with all sinks closed, when the queue is
    /// closed and empty.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(self, queue: mpsc::Receiver<Message>) -> Result<JoinHandle<()>, FileError> {
        std::thread::Builder::new()
            .name("pipeline".to_owned())
            .spawn(move || self.run(queue))
            .map_err(|error| FileError::new("start the thread", "pipeline".as_ref(), error))
    }

    fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some(message) = queue.blocking_recv() {
            self.take(message);
        }
        self.sinks.close();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Policy(names) => self.correlator.learn_policy(names),
            Message::Mounts(mounts) => self.correlator.learn_mounts(mounts),
            Message::Run { run, process } => {
                let serial = run.serial;
                self.correlator.learn_run(run);
                if let Some((pid, exe)) = process {
                    self.correlator.learn_process(serial, pid, &exe);
                }
            }
            Message::Named {
                serial,
                name,
                addresses,
            } => self.correlator.learn_name(serial, &name, &addresses),
            Message::Records(records) => self.records(&records),
            Message::Repeats(counts) => {
                self.correlator.grow_older();
                let events = self
                    .repeats
                    .events(counts, &mut self.correlator, Clock::now());
                for event in events {
                    self.sinks.publish(event);
                }
            }
            Message::Flows(flows) => self.flows(&flows),
            Message::Emit(event) => self.sinks.publish(*event),
            Message::RunEnded(ending) => self.run_ended(&ending),
            // Nobody waits any more if the watchdog gave up: that is its answer.
            Message::Ping(answer) => drop(answer.send(())),
        }
    }

    fn records(&mut self, records: &[RawRecord]) {
        let clock = Clock::now();
        let mut unreadable = None;
        for raw in records {
            match decode::decode(raw) {
                Ok(record) => {
                    if let Some(event) = self.correlator.event(&record, clock) {
                        let key = FoldKey {
                            run_serial: record.tag.run_serial,
                            what: record.fold,
                        };
                        self.repeats.told(key, &event);
                        let finding = self.findings.of(&event);
                        self.sinks.publish(event);
                        if let Some(finding) = finding {
                            self.sinks.publish(finding);
                        }
                    } else if record.body == Body::RunEnded
                        && let Some(run) = self.correlator.run_id(record.tag.run_serial)
                    {
                        self.sinks.count_record(run);
                    }
                }
                Err(error) => {
                    self.metrics.count_drop("undecodable", 1);
                    unreadable = Some(error);
                }
            }
        }
        if let Some(error) = unreadable {
            tracing::error!(
                "kernel records could not be read ({error}); are the kernel programs of another version than the daemon? restart it to load its own"
            );
        }
    }

    fn flows(&mut self, flows: &[(FlowKey, NamedFlow)]) {
        let clock = Clock::now();
        for (key, named) in flows {
            let event = self.correlator.flow(*key, named, clock);
            if let (Detail::Flow(flow), Some(identity)) = (&event.detail, &event.identity) {
                self.metrics.count_flow(identity, flow);
            }
            self.sinks.publish(event);
        }
    }

    fn run_ended(&mut self, ending: &RunEnding) {
        let run = &ending.run;
        self.correlator.forget_run(run.serial);
        self.findings.forget(run.id);
        let recorded = self.sinks.take_recorded(run.id);
        let how = settle(ending, recorded.kept, recorded.lost);
        let ended = Ended {
            time: ending.time,
            seq: self.sinks.next_seq(),
            how: how.clone(),
        };
        // Written down first, with the number of the record to come: by that the next
        // daemon knows whether the end was told, should this one be killed meanwhile.
        let closing = Run {
            ended: Some(ended.clone()),
            ..Run::clone(run)
        };
        if let Err(error) = self.runs.save_live(&closing) {
            tracing::error!("the record of a run that ended was not kept: {error}");
        }
        let event = Event {
            time: ending.time,
            seq: 0,
            kind: Kind::RunEnded,
            identity: Some(run.shown_identity()),
            agent_version: Some(run.agent_version.as_str().into()),
            run_seq: None,
            process: None,
            detail: Detail::RunEnded(how),
        };
        let settled = RunSettled { run: run.id, ended };
        let engine = self.settled.clone();
        // The engine is gone when the daemon stops; it finds the run again at its next start.
        let then = Then(Box::new(move || drop(engine.send(settled.clone()))));
        self.sinks.publish_then(event, Some(then));
    }
}

/// What a run's record comes to: complete, or how much is missing and where.
fn settle(ending: &RunEnding, kept: u64, refused: u64) -> RunEnded {
    let clock = Clock::now();
    let duration = ending.time.since(ending.run.started);
    let Some(kernel) = &ending.kernel else {
        // The kernel's counts are gone with its tables: nothing shows that the
        // record is complete.
        return RunEnded {
            ended_by: ending.ended_by.to_owned(),
            duration_seconds: duration.as_secs_f64(),
            denials: 0,
            events: kept + refused,
            recorded: kept,
            lost: Lost {
                ledger: refused,
                ..Lost::default()
            },
            complete: false,
        };
    };
    let lost = Lost {
        kernel: kernel.lost,
        ledger: refused,
        daemon: kernel
            .events
            .saturating_add(kernel.folded)
            .saturating_sub(kernel.lost)
            .saturating_sub(kept)
            .saturating_sub(refused),
        first: (kernel.first_lost != 0).then(|| clock.at(kernel.first_lost)),
        last: (kernel.last_lost != 0).then(|| clock.at(kernel.last_lost)),
    };
    RunEnded {
        ended_by: ending.ended_by.to_owned(),
        duration_seconds: duration.as_secs_f64(),
        denials: kernel.denials,
        events: kernel.events + kernel.folded,
        recorded: kept,
        lost,
        complete: lost.total() == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{NewRun, Port};
    use crate::testing::{FakePort, run};

    fn kernel_run(events: u64, lost: u64) -> KernelRun {
        let mut port = FakePort::new();
        let run = NewRun {
            agent: 0,
            id: Uuid::nil(),
            lease_until: 0,
            pid: 1,
            uid: 0,
            parent: None,
            origin: 0,
        };
        port.start_run(&run).unwrap();
        KernelRun {
            events,
            lost,
            denials: 2,
            ..port.runs()[0].clone()
        }
    }

    fn ending(kernel: Option<KernelRun>) -> RunEnding {
        RunEnding {
            run: Arc::new(run("a", 1)),
            kernel,
            ended_by: "exited",
            time: Timestamp::from_nanos(2_000_000_001),
        }
    }

    #[test]
    fn complete_means_every_record_is_in_the_ledger() {
        let ended = settle(&ending(Some(kernel_run(5, 0))), 5, 0);
        assert!(ended.complete);
        assert!((ended.duration_seconds - 2.0).abs() < 1e-9);
    }

    #[test]
    fn each_loss_has_its_place() {
        let ended = settle(&ending(Some(kernel_run(10, 3))), 4, 2);
        assert!(!ended.complete);
        let lost = ended.lost;
        assert_eq!((lost.kernel, lost.ledger, lost.daemon), (3, 2, 1));
    }

    #[test]
    fn without_the_kernels_counts_nothing_is_called_complete() {
        assert!(!settle(&ending(None), 4, 0).complete);
    }
}

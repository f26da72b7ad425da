//! The control task: it alone owns the kernel side, the agents and the runs, so
//! nothing about them needs a lock and nothing happens to them at once.
//!
//! Others ask it to do something ([`Handle::call`]); it moves records from the
//! kernel's rings to the pipeline, notices runs that ended, and never waits for
//! either: what the pipeline cannot take yet stays in the outbox, and while that
//! is not empty the records stay in the rings, where the kernel counts losses.

mod agents;
pub mod launch;
mod matched;
mod names;
mod policy;
mod report;
mod rings;
mod sweep;

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use agentguard_common::counter::Counter as KernelCounter;
use agentguard_common::event::Kind as RecordKind;
use agentguard_common::identity::Tag;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

pub use self::agents::{AgentReport, AgentState};
pub use self::launch::{Launch, LaunchError, Started};
use self::names::Names;
pub(crate) use self::names::address_of;
pub use self::names::{Listening, View, ip_of};
pub use self::policy::{
    Asked, Decided, InForce, LifeError, LoadError, Loaded, Loader, Named, Refusal, Sources,
    Trigger, load_names,
};
pub use self::report::StatusReport;
use self::rings::Rings;
use crate::agents::Registry;
use crate::agents::seen::LastRuns;
use crate::correlate::PolicyNames;
use crate::event::{Detail, Event, Kind};
use crate::kernel::{KernelError, LinkRow, Look, Port, RawRecord};
use crate::links::Links;
use crate::pipeline::{Message, RunSettled};
use crate::runs::Runs;
use crate::sinks::metrics::Metrics;
use crate::users::Accounts;

/// Records taken from the rings at once.
pub const BATCH: usize = 512;

/// Time between two looks at the kernel's run table: a lost record about a
/// run's end delays the end by this much at most.
const SWEEP: Duration = Duration::from_secs(1);

/// Looks after which what is known of datagrams is told: a minute.
const DATAGRAMS_EVERY: u64 = 60;

/// Requests that wait. More wait at their senders.
const REQUESTS: usize = 64;

/// What the control task owns.
pub struct Engine {
    port: Box<dyn Port>,
    registry: Registry,
    runs: Runs,
    last_runs: LastRuns,
    policy: InForce,
    context: Context,
    outbox: VecDeque<Message>,
    ending: Ending,
    links: Links,
    names: Names,
    /// Links that the kernel could not tell of, when it was last asked.
    untold_links: u64,
    /// The kernel's counts of repeats are due.
    collect_repeats: bool,
    /// Looks at the kernel's run table so far.
    sweeps: u64,
    stopping: bool,
}

/// What does not change while the daemon runs.
#[derive(Clone)]
pub struct Context {
    /// Boot of the host.
    pub boot_id: String,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// User names.
    pub accounts: Accounts,
    /// Time without a run after which an agent is dormant.
    pub dormant_after: Duration,
}

/// Runs that ended, by serial number. A run's last records can lie in one ring
/// when the record of its end is read from the other: it is closed only after
/// the rings were seen empty once more.
#[derive(Default)]
struct Ending {
    fresh: HashSet<u64>,
    ripe: HashSet<u64>,
    /// The pipeline has been told and has not answered yet; the slots to be freed then. Until
    /// its end is in the ledger, a run's counts stay in the kernel, for the next daemon.
    closing: HashMap<u64, Option<Tag>>,
}

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// Reaches the engine from other tasks.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Job>,
}

/// The engine has stopped: the daemon is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct Stopped;

impl Handle {
    /// Has the engine do something and waits for the answer.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |engine| {
            // Whoever asked may have gone; what was done stays done.
            let _ = sender.send(job(engine));
        });
        self.requests.send(job).await.map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }

    /// The same from a thread that is not the runtime's; `None` when the daemon is stopping.
    pub fn call_from_thread<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine) -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |engine| {
            let _ = sender.send(job(engine));
        });
        self.requests.blocking_send(job).ok()?;
        receiver.blocking_recv().ok()
    }

    /// Returns when both the engine and the pipeline have answered.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn ping(&self) -> Result<(), Stopped> {
        let (sender, receiver) = oneshot::channel();
        self.call(move |engine| engine.tell(Message::Ping(sender)))
            .await?;
        receiver.await.map_err(|_| Stopped)
    }
}

/// An engine that has not been started.
pub struct Prepared {
    engine: Engine,
    requests: mpsc::Receiver<Job>,
}

/// The ends of the engine's queues to and from the pipeline.
pub struct PipelineEnds {
    /// To the pipeline.
    pub messages: mpsc::Sender<Message>,
    /// Ends of runs that are recorded.
    pub settled: mpsc::UnboundedReceiver<RunSettled>,
}

impl Engine {
    /// Puts the parts together. The runs are compared with the kernel's table
    /// before anything else happens. `names` are those that the last daemon left, and `told`
    /// the runs whose beginnings are in the ledger.
    #[must_use]
    pub fn prepare(
        port: Box<dyn Port>,
        registry: Registry,
        (runs, last_runs): (Runs, LastRuns),
        context: Context,
        names: Vec<PolicyNames>,
        told: &HashSet<Uuid>,
    ) -> (Handle, Prepared) {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let mut engine = Self {
            port,
            registry,
            runs,
            last_runs,
            policy: InForce::default(),
            context,
            outbox: VecDeque::new(),
            ending: Ending::default(),
            links: Links::off(),
            names: Names::default(),
            untold_links: 0,
            collect_repeats: false,
            sweeps: 0,
            stopping: false,
        };
        let names: Vec<Arc<PolicyNames>> = names.into_iter().map(Arc::new).collect();
        // The newest is learned last: it is the one in force.
        for names in names.iter().rev() {
            engine.tell(Message::Policy(Arc::clone(names)));
        }
        engine.inherit_grants(names);
        engine.announce_live_runs();
        engine.tell_missing_starts(told);
        engine.sweep();
        let handle = Handle { requests: sender };
        (handle, Prepared { engine, requests })
    }

    /// Has files with several names looked at by this thread.
    pub fn set_links(&mut self, links: Links) {
        self.links = links;
    }

    /// Gives the kernel what was found of files with several names; how many found no room.
    /// `None`, and nothing is given, if another policy is in force meanwhile.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn put_links(
        &mut self,
        generation: u32,
        rows: &[LinkRow],
        replace: Option<&HashSet<u32>>,
    ) -> Result<Option<usize>, KernelError> {
        if self.policy.generation != generation {
            return Ok(None);
        }
        self.port.put_links(rows, replace).map(Some)
    }

    /// Tells of flows: of connections every second, of datagrams every minute, and of all when
    /// a run ends or the daemon does.
    fn collect_flows(&mut self) {
        let everything = self.sweeps.is_multiple_of(DATAGRAMS_EVERY)
            || !self.ending.ripe.is_empty()
            || self.stopping;
        let look = if everything {
            Look::Everything
        } else {
            Look::Connections
        };
        let flows = self.port.take_flows(look);
        if !flows.is_empty() {
            self.tell(Message::Flows(flows));
        }
    }

    /// Has all files looked at again if links were made that the kernel could not tell of.
    fn notice_untold_links(&mut self) {
        let counters = self.port.counters();
        let untold = counters.get(KernelCounter::LinkUntold as usize).copied();
        let untold = untold.unwrap_or(0);
        if untold != self.untold_links {
            self.untold_links = untold;
            self.links.untold();
        }
    }

    /// Ends the engine after this request: the rings are emptied once more, and
    /// every later request is answered with [`Stopped`].
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Sends a message to the pipeline, after those that wait already.
    fn tell(&mut self, message: Message) {
        self.outbox.push_back(message);
    }

    /// Publishes an event of the daemon itself.
    pub fn emit(&mut self, kind: Kind, detail: Detail) {
        self.tell(Message::Emit(Box::new(Event {
            time: crate::clock::Timestamp::now(),
            seq: 0,
            kind,
            identity: None,
            agent_version: None,
            run_seq: None,
            process: None,
            detail,
        })));
    }

    /// Moves one batch from the rings to the outbox. Returns whether there may
    /// be more.
    fn drain(&mut self) -> bool {
        let mut batch = Vec::new();
        self.port.drain(BATCH, &mut batch);
        let emptied = batch.len() < BATCH;
        let is_link = |record: &RawRecord| record.header.kind == RecordKind::Linked as u8;
        if batch.iter().any(is_link) {
            let (links, rest) = batch.into_iter().partition(is_link);
            self.links.linked(links);
            batch = rest;
        }
        for record in &batch {
            if record.header.kind == RecordKind::RunEnded as u8 {
                self.ending.fresh.insert(record.header.tag.run_serial);
            }
        }
        if !batch.is_empty() {
            self.learn_runs_of(&batch);
            self.tell(Message::Records(batch));
        }
        if emptied && (self.collect_repeats || !self.ending.ripe.is_empty()) {
            // After the records that they repeat.
            self.collect_repeats = false;
            let counts = self.port.take_repeats();
            self.tell(Message::Repeats(counts));
            self.collect_flows();
        }
        if emptied {
            let ripe = std::mem::take(&mut self.ending.ripe);
            self.close_runs(&ripe);
            self.ending.ripe = std::mem::take(&mut self.ending.fresh);
        }
        !emptied || !self.ending.ripe.is_empty()
    }
}

impl Prepared {
    /// The engine, before it runs.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Works until it is told to stop, then empties the rings once more.
    ///
    /// # Errors
    /// The rings cannot be polled.
    pub async fn run(mut self, mut pipeline: PipelineEnds) -> std::io::Result<()> {
        let rings = Rings::watch(&self.engine.port.ring_fds())?;
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        // What was there before this daemon makes no new wake-up.
        let mut more = true;
        loop {
            let engine = &mut self.engine;
            let may_drain = engine.outbox.is_empty();
            tokio::select! {
                job = self.requests.recv() => match job {
                    Some(job) => {
                        job(engine);
                        if engine.stopping {
                            break;
                        }
                    }
                    None => break,
                },
                permit = pipeline.messages.reserve(), if !may_drain => match permit {
                    Ok(permit) => if let Some(message) = engine.outbox.pop_front() {
                        permit.send(message);
                    },
                    Err(_) => break,
                },
                () = ready(()), if may_drain && more => more = engine.drain(),
                () = rings.readable(), if may_drain && !more => more = engine.drain(),
                Some(settled) = pipeline.settled.recv() => engine.run_settled(settled),
                _ = sweep.tick() => {
                    engine.sweep();
                    engine.tell_refused();
                    engine.notice_untold_links();
                    engine.collect_repeats = true;
                    engine.sweeps += 1;
                    more = true;
                }
            }
        }
        self.finish(&pipeline.messages).await;
        Ok(())
    }

    /// Hands over what the rings hold and what waits. What comes later stays in
    /// the rings, which are pinned, for the next daemon.
    async fn finish(mut self, messages: &mpsc::Sender<Message>) {
        self.engine.tell_refused();
        self.engine.collect_repeats = true;
        while self.engine.drain() {
            self.flush(messages).await;
        }
        self.flush(messages).await;
    }

    async fn flush(&mut self, messages: &mpsc::Sender<Message>) {
        while let Some(message) = self.engine.outbox.pop_front() {
            if messages.send(message).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;

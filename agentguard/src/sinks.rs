//! Where events go. Each sink has a bounded queue of its own; offering an event
//! never waits, and what a full queue refuses is counted, by sink and by run.

pub mod journal;
pub mod ledger;
pub mod metrics;
pub mod subscribers;

use std::collections::HashMap;
use std::sync::Arc;

use agentguard_common::verdict::Verdict;
use uuid::Uuid;

use self::journal::Journal;
use self::ledger::Ledger;
use self::metrics::Metrics;
use self::subscribers::Subscribers;
use crate::event::{Detail, Event, Identity, Kind};

/// An event as the sinks take it: serialised once, with what they select by.
#[derive(Debug)]
pub struct Entry {
    /// Sequence number.
    pub seq: u64,
    /// What it is about.
    pub kind: Kind,
    /// Whose it is.
    pub identity: Option<Arc<Identity>>,
    /// The verdict, for decisions.
    pub verdict: Option<Verdict>,
    /// How many of its run's kernel records and counted repeats it stands for.
    pub stands_for: u64,
    /// The JSON line, with its newline.
    pub line: Box<[u8]>,
    /// Waits for the record to be in the ledger.
    pub then: Option<Then>,
}

/// What is done when a record is in the ledger, or will never be.
pub struct Then(pub Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Then {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Then")
    }
}

impl Entry {
    /// The run.
    #[must_use]
    pub fn run(&self) -> Option<Uuid> {
        self.identity.as_ref()?.run
    }

    /// Whether this must not be crowded out: everything but what was allowed, flows,
    /// and the comings and goings of processes.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        match self.kind {
            Kind::Decision => self.verdict != Some(Verdict::Allow),
            Kind::Exec | Kind::Exit | Kind::Flow => false,
            _ => true,
        }
    }
}

/// Records of a run that the ledger took, or could not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Taken.
    pub kept: u64,
    /// Refused: its queue was full.
    pub lost: u64,
}

/// All sinks, and the one place where sequence numbers are given.
pub struct Sinks {
    ledger: Ledger,
    subscribers: Arc<Subscribers>,
    journal: Journal,
    metrics: Arc<Metrics>,
    next_seq: u64,
    recorded: HashMap<Uuid, Recorded>,
}

impl Sinks {
    /// `recorded` is what the ledger already holds of live runs.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        next_seq: u64,
        recorded: HashMap<Uuid, Recorded>,
        subscribers: Arc<Subscribers>,
        journal: Journal,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            ledger,
            subscribers,
            journal,
            metrics,
            next_seq,
            recorded,
        }
    }

    /// The number of the next event.
    #[must_use]
    pub const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Gives the event its number and offers it to every sink.
    pub fn publish(&mut self, event: Event) {
        self.publish_then(event, None);
    }

    /// The same, and does something when the ledger has it.
    pub fn publish_then(&mut self, mut event: Event, then: Option<Then>) {
        event.seq = self.next_seq;
        self.next_seq += 1;
        self.metrics.count_event(event.kind);
        let Ok(mut line) = serde_json::to_vec(&event) else {
            // Events are made of strings and numbers: this cannot happen, and
            // if it did, the gap in the numbers and this count would show it.
            self.metrics.count_drop("unserialisable", 1);
            return;
        };
        line.push(b'\n');
        self.journal.offer(&event);
        let entry = Arc::new(Entry {
            seq: event.seq,
            kind: event.kind,
            identity: event.identity,
            verdict: match &event.detail {
                Detail::Decision(decision) => Some(decision.verdict),
                _ => None,
            },
            stands_for: match &event.detail {
                // Those without a process are the resolver's: the kernel counted none of them.
                Detail::Decision(_) if event.process.is_none() => 0,
                Detail::Decision(decision) => decision.count,
                Detail::Flow(flow) => flow.count,
                _ => u64::from(event.run_seq.is_some()),
            },
            line: line.into_boxed_slice(),
            then,
        });
        self.offer_ledger(&entry);
        let lost = self.subscribers.publish(&entry);
        if lost > 0 {
            self.metrics.count_drop("subscriber", lost);
        }
    }

    fn offer_ledger(&mut self, entry: &Arc<Entry>) {
        let kept = self.ledger.offer(entry);
        if !kept {
            self.metrics.count_drop("ledger", 1);
            if let Some(Then(then)) = &entry.then {
                then();
            }
        }
        if entry.stands_for > 0
            && let Some(run) = entry.run()
        {
            let recorded = self.recorded.entry(run).or_default();
            if kept {
                recorded.kept += entry.stands_for;
            } else {
                recorded.lost += entry.stands_for;
            }
        }
    }

    /// A kernel record of a run that makes no event of its own.
    pub fn count_record(&mut self, run: Uuid) {
        self.recorded.entry(run).or_default().kept += 1;
    }

    /// What was recorded of a run that has ended; it is forgotten here.
    pub fn take_recorded(&mut self, run: Uuid) -> Recorded {
        self.recorded.remove(&run).unwrap_or_default()
    }

    /// Closes every sink; returns when the ledger is on the disk.
    pub fn close(self) {
        self.subscribers.close();
        self.journal.close();
        self.ledger.close();
    }
}

//! People and programs that follow events over the API.
//!
//! A subscriber that does not keep up is cut off: it receives what its queue
//! still held and is then told how many events it missed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use agentguard_common::verdict::Verdict;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Entry;

/// Subscribers at once. One more is refused with a message.
pub const SUBSCRIBERS: usize = 32;

/// Events that wait for one subscriber. One more and it is cut off.
const QUEUE: usize = 2_048;

/// Which events a subscriber receives. Everything that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this agent.
    pub agent: Option<String>,
    /// Only of this run.
    pub run: Option<Uuid>,
    /// Only decisions with this verdict.
    pub verdict: Option<Verdict>,
    /// What the subscriber may see at all.
    pub scope: Scope,
}

/// What a caller may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    #[default]
    All,
    /// One run.
    Run(Uuid),
    /// The runs that a user started.
    StartedBy {
        /// The user.
        uid: u32,
        /// Runs known to be theirs: ledger records do not say who started a run.
        known: HashSet<Uuid>,
    },
}

impl Scope {
    /// Whether a run is in it; `None` is what belongs to no run. `started_by`
    /// is the user that started it, where that is known.
    #[must_use]
    pub fn covers(&self, run: Option<Uuid>, started_by: Option<u32>) -> bool {
        match self {
            Self::All => true,
            Self::Run(one) => run == Some(*one),
            Self::StartedBy { uid, known } => {
                run.is_some_and(|run| started_by == Some(*uid) || known.contains(&run))
            }
        }
    }
}

impl Filter {
    fn selects(&self, entry: &Entry) -> bool {
        let identity = entry.identity.as_deref();
        let agent = identity.map(|identity| &identity.agent);
        let started_by = identity.and_then(|identity| identity.visible_to);
        self.scope.covers(entry.run(), started_by)
            && (self.agent.is_none() || self.agent.as_ref() == agent)
            && (self.run.is_none() || self.run == entry.run())
            && (self.verdict.is_none() || self.verdict == entry.verdict)
    }
}

/// The subscribers' end that the pipeline holds.
#[derive(Default)]
pub struct Subscribers {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    closed: bool,
    subscribers: Vec<Subscriber>,
}

struct Subscriber {
    filter: Filter,
    queue: mpsc::Sender<Arc<Entry>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cut_off: AtomicBool,
    lost: AtomicU64,
}

/// One subscriber's end.
pub struct Subscription {
    queue: mpsc::Receiver<Arc<Entry>>,
    shared: Arc<Shared>,
}

/// No more subscribers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{SUBSCRIBERS} clients already follow events; end one of them first")]
pub struct TooMany;

impl Subscribers {
    /// Subscribes from now on.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn subscribe(&self, filter: Filter) -> Result<Subscription, TooMany> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.subscribers
            .retain(|subscriber| !subscriber.queue.is_closed());
        if list.subscribers.len() >= SUBSCRIBERS {
            return Err(TooMany);
        }
        if !list.closed {
            list.subscribers.push(Subscriber {
                filter,
                queue: sender,
                shared: Arc::clone(&shared),
            });
        }
        Ok(Subscription {
            queue: receiver,
            shared,
        })
    }

    /// Hands an event to everyone whom it concerns; returns how many missed it.
    pub fn publish(&self, entry: &Arc<Entry>) -> u64 {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = 0;
        list.subscribers.retain(|subscriber| {
            if !subscriber.filter.selects(entry) {
                return true;
            }
            let cut_off = &subscriber.shared.cut_off;
            if !cut_off.load(Ordering::Relaxed) {
                match subscriber.queue.try_send(Arc::clone(entry)) {
                    Ok(()) => return true,
                    Err(mpsc::error::TrySendError::Closed(_)) => return false,
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        cut_off.store(true, Ordering::Relaxed);
                    }
                }
            }
            lost += 1;
            subscriber.shared.lost.fetch_add(1, Ordering::Relaxed);
            !subscriber.queue.is_closed()
        });
        lost
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.subscribers
            .iter()
            .filter(|subscriber| !subscriber.queue.is_closed())
            .count()
    }

    /// Ends every subscription, after what its queue holds.
    pub fn close(&self) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.closed = true;
        list.subscribers.clear();
    }
}

impl Subscription {
    /// The next event. `None` when the daemon ends or when this subscriber was
    /// cut off: then [`lost`](Self::lost) is not zero.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Arc<Entry>>> {
        if self.shared.cut_off.load(Ordering::Relaxed) {
            // What is queued is still delivered.
            self.queue.close();
        }
        self.queue.poll_recv(context)
    }

    #[cfg(test)]
    async fn next(&mut self) -> Option<Arc<Entry>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// How many events this subscriber missed.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Identity, Kind};

    fn entry(seq: u64, agent: &str, run: u128, verdict: Verdict) -> Arc<Entry> {
        Arc::new(Entry {
            seq,
            kind: Kind::Decision,
            identity: Some(Arc::new(Identity {
                agent: agent.to_owned(),
                owner: String::new(),
                environment: String::new(),
                run: Some(Uuid::from_u128(run)),
                parent_run: None,
                on_behalf_of: None,
                task: None,
                visible_to: None,
            })),
            verdict: Some(verdict),
            stands_for: 1,
            line: b"{}\n".as_slice().into(),
            then: None,
        })
    }

    #[tokio::test]
    async fn filters_select() {
        let subscribers = Subscribers::default();
        let filter = Filter {
            agent: Some("a".into()),
            verdict: Some(Verdict::Deny),
            scope: Scope::Run(Uuid::from_u128(1)),
            run: None,
        };
        let mut subscription = subscribers.subscribe(filter).unwrap();
        for (seq, agent, run, verdict) in [
            (1, "b", 1, Verdict::Deny),
            (2, "a", 2, Verdict::Deny),
            (3, "a", 1, Verdict::Allow),
            (4, "a", 1, Verdict::Deny),
        ] {
            assert_eq!(subscribers.publish(&entry(seq, agent, run, verdict)), 0);
        }
        subscribers.close();
        assert_eq!(subscription.next().await.unwrap().seq, 4);
        assert!(subscription.next().await.is_none());
        assert_eq!(subscription.lost(), 0);
    }

    #[tokio::test]
    async fn a_slow_one_is_cut_off_and_told() {
        let subscribers = Subscribers::default();
        let mut slow = subscribers.subscribe(Filter::default()).unwrap();
        let published = QUEUE as u64 + 10;
        let lost: u64 = (0..published)
            .map(|seq| subscribers.publish(&entry(seq, "a", 1, Verdict::Deny)))
            .sum();
        assert_eq!(lost, 10);
        let mut received = 0;
        while slow.next().await.is_some() {
            received += 1;
        }
        assert_eq!(received + slow.lost(), published);
        drop(slow);
        assert_eq!(subscribers.count(), 0);
    }

    #[tokio::test]
    async fn there_is_a_limit_and_leaving_makes_room() {
        let subscribers = Subscribers::default();
        let mut all: Vec<_> = (0..SUBSCRIBERS)
            .map(|_| subscribers.subscribe(Filter::default()).unwrap())
            .collect();
        assert!(subscribers.subscribe(Filter::default()).is_err());
        all.pop();
        assert!(subscribers.subscribe(Filter::default()).is_ok());
    }
}

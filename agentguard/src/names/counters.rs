//! What the resolver counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    /// Messages that came.
    Messages,
    /// Not DNS questions: dropped or answered FORMERR or NOTIMP.
    Malformed,
    /// From peers that are no redirected run: REFUSED.
    Strangers,
    /// Refused by policy: NXDOMAIN.
    Refused,
    /// Types and classes that are not answered: NOTIMP or REFUSED.
    Unsupported,
    /// Questions beyond a limit: SERVFAIL.
    TooManyQuestions,
    /// Connections beyond a limit: closed.
    TooManyConnections,
    /// Tries at a server that brought nothing: silence, errors, unreadable answers.
    FailedTries,
    /// Datagrams that were not the answer to the question: ignored.
    Ignored,
    /// Questions that no server answered: SERVFAIL.
    Unanswered,
    /// Answers whose addresses could not be admitted: SERVFAIL.
    NotAdmitted,
    /// Answers with addresses that no name may stand for, or with too many.
    Unusable,
    /// Answers given.
    Answered,
    /// Errors of sockets: receiving, accepting, replying.
    Sockets,
}

impl Count {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Messages,
        Self::Malformed,
        Self::Strangers,
        Self::Refused,
        Self::Unsupported,
        Self::TooManyQuestions,
        Self::TooManyConnections,
        Self::FailedTries,
        Self::Ignored,
        Self::Unanswered,
        Self::NotAdmitted,
        Self::Unusable,
        Self::Answered,
        Self::Sockets,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Malformed => "malformed",
            Self::Strangers => "strangers",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::TooManyQuestions => "too_many_questions",
            Self::TooManyConnections => "too_many_connections",
            Self::FailedTries => "failed_tries",
            Self::Ignored => "ignored",
            Self::Unanswered => "unanswered",
            Self::NotAdmitted => "not_admitted",
            Self::Unusable => "unusable",
            Self::Answered => "answered",
            Self::Sockets => "sockets",
        }
    }
}

/// The counters.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Count::ALL.len()]);

impl Counters {
    /// How many there were.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.0[count as usize].load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: Count) {
        self.0[count as usize].fetch_add(1, Ordering::Relaxed);
    }
}

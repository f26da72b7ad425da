//! Limits of the resolver, and the count of questions being answered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Asker;

/// Bytes of a question. A longer one is malformed: a name has at most 255.
pub const QUESTION_BYTES: usize = 4096;

/// Questions of one run being answered. Beyond it: SERVFAIL at once, counted.
pub const RUN_QUESTIONS: usize = 64;

/// Questions of all runs being answered. Beyond it: SERVFAIL at once, counted.
/// Each holds a buffer of [`DATAGRAM_BYTES`]: 4 MiB in all.
pub const ALL_QUESTIONS: usize = 1024;

/// TCP connections of one run. Beyond it a new one is closed, counted.
pub const RUN_CONNECTIONS: usize = 64;

/// TCP connections of all runs. Beyond it a new one is closed, counted.
pub const ALL_CONNECTIONS: usize = 512;

/// A TCP client's time for its next question, and to take a reply. Then the
/// connection is closed.
pub const IDLE_TIME: Duration = Duration::from_secs(10);

/// Servers that one question may be put to, as in resolv.conf(5). The rest are
/// not asked.
pub const SERVERS: usize = 3;

/// Rounds over the servers. After the last: SERVFAIL.
pub const TRIES: usize = 2;

/// One server's time for one try, the repetition over TCP not included, which
/// has as much again. Then the next server is asked.
pub const TRY_TIME: Duration = Duration::from_secs(2);

/// Connections to servers, for answers that do not fit a datagram. A question
/// beyond it waits for one within its [`TRY_TIME`]. Each may hold 64 KiB: 4 MiB.
pub const UPSTREAM_CONNECTIONS: usize = 64;

/// Bytes of a datagram that we tell servers to send (RFC 9715: unfragmented).
pub const EDNS_BYTES: u16 = 1232;

/// Bytes of a datagram that is read. A longer one is cut, and then malformed.
pub const DATAGRAM_BYTES: usize = 4096;

/// Bytes of a datagram to a client that says nothing else (RFC 1035).
pub const UDP_LEAST: usize = 512;

/// Bytes of a datagram to a client, whatever it says. A longer reply is truncated
/// and the client comes by TCP.
pub const UDP_MOST: usize = 4096;

/// The kernel's side has this long to admit addresses. Then: SERVFAIL.
pub const ADMIT_TIME: Duration = Duration::from_secs(2);

/// Links of a CNAME chain that are followed. What is behind is as if it had not
/// been answered.
pub const LINKS: usize = 16;

/// Addresses of one answer that are admitted. The rest are left out of the reply
/// (but for SVCB hints, which stay) and listed as unusable.
pub const ADDRESSES: usize = 64;

/// Records of an answer's section. A longer one is refused: SERVFAIL.
pub const RECORDS: usize = 2048;

/// An address is admitted for at least this: programs resolve, then connect, and
/// many ignore a TTL of seconds.
pub const ADMIT_LEAST: Duration = Duration::from_secs(60);

/// TTLs are cut to this, for the program as well as for the kernel, so that a name
/// whose address changes is asked for again.
pub const ADMIT_MOST: Duration = Duration::from_secs(60 * 60);

/// Added to what is admitted, because a program that caches counts from when it
/// read the reply, which is later.
pub const ADMIT_GRACE: Duration = Duration::from_secs(30);

/// Counts what a run and all runs have in hand.
#[derive(Debug)]
pub struct InHand {
    per_run: usize,
    all: usize,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    all: usize,
    /// Only runs that have something in hand, so never more than `all`.
    runs: HashMap<(u32, u64), usize>,
}

impl InHand {
    /// Counts up to so many.
    #[must_use]
    pub fn new(per_run: usize, all: usize) -> Arc<Self> {
        Arc::new(Self {
            per_run,
            all,
            now: Mutex::default(),
        })
    }

    /// One more of the run, until it is dropped; `None` when there are too many.
    #[must_use]
    pub fn take(self: &Arc<Self>, asker: &Asker) -> Option<Held> {
        let run = (asker.run, asker.serial);
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let count = now.runs.get(&run).copied().unwrap_or(0);
        if now.all >= self.all || count >= self.per_run {
            return None;
        }
        now.all += 1;
        now.runs.insert(run, count + 1);
        Some(Held {
            of: Arc::clone(self),
            run,
        })
    }
}

/// One thing in hand.
#[derive(Debug)]
pub struct Held {
    of: Arc<InHand>,
    run: (u32, u64),
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut now = self.of.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.all = now.all.saturating_sub(1);
        if let Entry::Occupied(mut count) = now.runs.entry(self.run) {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

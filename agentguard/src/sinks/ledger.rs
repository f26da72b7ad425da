//! The ledger: append-only JSON lines in files of bounded size, written by a
//! thread of its own.
//!
//! Files are named after the sequence number of their first record, so that
//! their order and their ranges are plain. How often they are forced to the
//! disk is configured ([`Fsync`]); a record is always whole or absent: what a
//! failed or interrupted write left behind is cut off again.

mod recover;
mod tail;
mod writer;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

pub use self::recover::{Recovered, Torn};
pub use self::tail::{Selection, tail};
use self::writer::Writer;
use super::Entry;
use crate::files::FileError;

/// Records that wait to be written. One more is dropped and counted, for its
/// run too; a later `records-lost` record in the ledger says which.
const QUEUE: usize = 8_192;

/// Places in the queue that only urgent records may take: a flood of allowed
/// operations cannot crowd out a denial.
const QUEUE_FOR_URGENT: u64 = QUEUE as u64 / 4;

/// Size at which a file is closed and the next begun.
pub const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// When records are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// After every batch: at most what is being written can be lost to a power cut.
    Always,
    /// At this interval: what was written since can be lost to a power cut.
    Interval(Duration),
    /// When the kernel sees fit. A crash of the daemon alone loses nothing either way.
    Never,
}

/// How the ledger is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its directory.
    pub directory: PathBuf,
    /// When records are forced to the disk.
    pub fsync: Fsync,
    /// See [`FILE_BYTES`].
    pub file_bytes: u64,
}

/// The pipeline's end of the ledger.
pub struct Ledger {
    queue: SyncSender<Arc<Entry>>,
    thread: Option<JoinHandle<()>>,
    health: Arc<Health>,
    missed: Option<Missed>,
}

/// Records that the queue refused since the last one it took.
#[derive(Clone, Copy, Debug)]
struct Missed {
    lost: u64,
    first_seq: u64,
    last_seq: u64,
}

/// How the ledger does, for status and metrics.
#[derive(Debug, Default)]
pub struct Health {
    written: AtomicU64,
    errors: AtomicU64,
    lost: AtomicU64,
    queued: AtomicU64,
    failing: AtomicBool,
    /// The daemon ends: nothing is retried for long any more.
    ending: AtomicBool,
    last_error: Mutex<Option<String>>,
    file: Mutex<String>,
}

/// [`Health`] at one moment.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct HealthReport {
    /// Whether the last write worked.
    pub healthy: bool,
    /// File being written.
    pub file: String,
    /// Records written since the daemon started.
    pub records: u64,
    /// Failed writes since then.
    pub errors: u64,
    /// Records lost since then.
    pub lost: u64,
    /// Records waiting.
    pub queued: u64,
    /// How writing last began to fail.
    pub last_error: Option<String>,
}

impl Health {
    /// The state now.
    #[must_use]
    pub fn report(&self) -> HealthReport {
        let text =
            |slot: &Mutex<String>| slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        HealthReport {
            healthy: !self.failing.load(Ordering::Relaxed),
            file: text(&self.file),
            records: self.written.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            last_error: self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    fn failed(&self, error: &FileError) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        // The first failure is the cause; those that follow from it would hide it.
        if self.failing.swap(true, Ordering::Relaxed) {
            return;
        }
        let text = error.to_string();
        tracing::error!(
            "the ledger cannot be written: {text}; records wait in memory and are lost, counted, when {QUEUE} wait; make room or repair the disk"
        );
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    fn worked(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the ledger is written again");
        }
    }
}

impl Ledger {
    /// Opens the ledger, mends what a crash left, and starts the writer. Only
    /// for `live` runs the records are counted.
    ///
    /// # Errors
    /// The directory or a file in it cannot be used.
    pub fn open(options: Options, live: &HashSet<Uuid>) -> Result<(Self, Recovered), FileError> {
        crate::files::ensure_directory(&options.directory, 0o700)?;
        let mut recovered = recover::recover(&options.directory)?;
        recovered.recorded.retain(|run, _| live.contains(run));
        let health = Arc::new(Health::default());
        let (queue, entries) = sync_channel(QUEUE);
        let kept: HashMap<Uuid, u64> = recovered.recorded.clone();
        let directory = options.directory.clone();
        let writer = Writer::open(options, &recovered, kept, Arc::clone(&health))?;
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(&entries))
            .map_err(|source| FileError::new("start the thread for", &directory, source))?;
        let ledger = Self {
            queue,
            thread: Some(thread),
            health,
            missed: None,
        };
        Ok((ledger, recovered))
    }

    /// How it does.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Hands a record over without waiting. False if it was refused.
    pub fn offer(&mut self, entry: &Arc<Entry>) -> bool {
        let queued = self.health.queued.load(Ordering::Relaxed);
        if !entry.is_urgent() && queued + QUEUE_FOR_URGENT >= QUEUE as u64 {
            self.refuse(entry.seq, entry.seq, 1);
            return false;
        }
        if !self.tell_missed() {
            self.refuse(entry.seq, entry.seq, 1);
            return false;
        }
        self.send(Arc::clone(entry)).is_ok() || {
            self.refuse(entry.seq, entry.seq, 1);
            false
        }
    }

    /// Puts the record about missed ones in front of the next one that fits.
    fn tell_missed(&mut self) -> bool {
        let Some(missed) = self.missed else {
            return true;
        };
        let Some(note) = writer::missed_note(missed.lost, missed.first_seq, missed.last_seq) else {
            return true;
        };
        if self.send(note).is_err() {
            return false;
        }
        self.missed = None;
        true
    }

    fn send(&self, entry: Arc<Entry>) -> Result<(), TrySendError<Arc<Entry>>> {
        self.queue.try_send(entry)?;
        self.health.queued.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn refuse(&mut self, first_seq: u64, last_seq: u64, lost: u64) {
        self.health.lost.fetch_add(lost, Ordering::Relaxed);
        let missed = self.missed.get_or_insert(Missed {
            lost: 0,
            first_seq,
            last_seq,
        });
        missed.lost += lost;
        missed.last_seq = last_seq;
    }

    /// Writes what waits, forces it to the disk and ends the writer.
    pub fn close(mut self) {
        self.tell_missed();
        self.health.ending.store(true, Ordering::Relaxed);
        drop(self.queue);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's writer ended early; records may be missing");
        }
    }
}

#[cfg(test)]
mod tests;

//! The thread that writes.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::recover::{self, Checkpoint, Recovered};
use super::{Fsync, Health, Options};
use crate::clock::Timestamp;
use crate::event::{Detail, Event, Kind, RecordsLost};
use crate::files::FileError;
use crate::sinks::{Entry, Then};

/// Bytes written at once.
const BATCH_BYTES: usize = 256 * 1024;

/// Time between two attempts to write what could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Time between two checkpoints while records are written.
const CHECKPOINT: Duration = Duration::from_secs(30);

pub(super) struct Writer {
    options: Options,
    health: Arc<Health>,
    file: File,
    path: PathBuf,
    /// Bytes of whole records in the file.
    length: u64,
    last_seq: u64,
    recorded: HashMap<Uuid, u64>,
    /// A failed write may have left bytes after them.
    torn: bool,
    unsynced: bool,
    synced: Instant,
    checkpointed: Instant,
}

/// Records taken from the queue and not yet on the disk.
#[derive(Default)]
struct Batch {
    entries: Vec<Arc<Entry>>,
    bytes: Vec<u8>,
}

impl Batch {
    fn push(&mut self, entry: Arc<Entry>) {
        self.bytes.extend_from_slice(&entry.line);
        self.entries.push(entry);
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        // One flood of long records must not stay in memory for good.
        self.bytes.shrink_to(BATCH_BYTES);
    }
}

impl Writer {
    pub fn open(
        options: Options,
        recovered: &Recovered,
        recorded: HashMap<Uuid, u64>,
        health: Arc<Health>,
    ) -> Result<Self, FileError> {
        let path = recovered.file.clone().unwrap_or_else(|| {
            options
                .directory
                .join(recover::file_name(recovered.next_seq))
        });
        let (file, length) = append_to(&path)?;
        let writer = Self {
            options,
            health,
            file,
            path,
            length,
            last_seq: recovered.next_seq - 1,
            recorded,
            torn: false,
            unsynced: false,
            synced: Instant::now(),
            checkpointed: Instant::now(),
        };
        writer.show_path();
        Ok(writer)
    }

    /// Writes somewhere else, to try what happens there.
    #[cfg(test)]
    pub fn write_to(&mut self, file: File) {
        self.file = file;
    }

    fn show_path(&self) {
        let shown = self.path.display().to_string();
        *self
            .health
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// Writes until the queue is closed and empty.
    pub fn run(mut self, entries: &Receiver<Arc<Entry>>) {
        // What was counted at the start is not counted again by the next daemon, should this
        // one be killed soon.
        self.checkpoint();
        let mut batch = Batch::default();
        loop {
            match entries.recv_timeout(self.next_wake()) {
                Ok(entry) => {
                    batch.push(entry);
                    self.fill(&mut batch, entries);
                    self.write_until_done(&mut batch);
                }
                Err(RecvTimeoutError::Timeout) => self.on_timer(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.finish();
    }

    fn fill(&self, batch: &mut Batch, entries: &Receiver<Arc<Entry>>) {
        while batch.bytes.len() < BATCH_BYTES
            && let Ok(entry) = entries.try_recv()
        {
            batch.push(entry);
        }
        let taken = batch.entries.len() as u64;
        self.health.queued.fetch_sub(taken, Ordering::Relaxed);
    }

    /// How long the queue may stay silent before something else is due.
    fn next_wake(&self) -> Duration {
        match self.options.fsync {
            Fsync::Interval(interval) if self.unsynced => {
                interval.saturating_sub(self.synced.elapsed())
            }
            _ => CHECKPOINT,
        }
    }

    fn on_timer(&mut self) {
        self.sync_if_due();
        self.checkpoint_if_due();
    }

    /// Tries until it works. Meanwhile the queue fills, and what does not fit
    /// is counted at its other end; when the daemon ends, the batch is given up.
    fn write_until_done(&mut self, batch: &mut Batch) {
        let mut attempts = 0_u32;
        loop {
            match self.write(batch) {
                Ok(()) => {
                    self.health.worked();
                    break;
                }
                Err(error) => {
                    self.health.failed(&error);
                    attempts += 1;
                    if attempts > 1 && self.health.ending.load(Ordering::Relaxed) {
                        self.give_up(batch);
                        break;
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
        batch.clear();
        self.sync_if_due();
        self.checkpoint_if_due();
    }

    fn give_up(&self, batch: &Batch) {
        let lost = batch.entries.len() as u64;
        self.health.lost.fetch_add(lost, Ordering::Relaxed);
        tracing::error!("{lost} records were lost: the ledger could not be written before the end");
    }

    fn write(&mut self, batch: &Batch) -> Result<(), FileError> {
        let Some(first) = batch.entries.first() else {
            return Ok(());
        };
        self.cut_torn_end()?;
        if self.length > 0 && self.length + batch.bytes.len() as u64 > self.options.file_bytes {
            self.rotate(first.seq)?;
        }
        // Until all of it worked, it counts as not written and is written again.
        self.torn = true;
        self.file
            .write_all(&batch.bytes)
            .map_err(|source| FileError::new("write", &self.path, source))?;
        if self.options.fsync == Fsync::Always {
            self.file
                .sync_data()
                .map_err(|source| FileError::new("force to the disk", &self.path, source))?;
        }
        self.torn = false;
        self.length += batch.bytes.len() as u64;
        self.unsynced = self.options.fsync != Fsync::Always;
        self.account(batch);
        Ok(())
    }

    /// Whole records only: what a failed write left is removed before the next.
    fn cut_torn_end(&mut self) -> Result<(), FileError> {
        if self.torn {
            self.file
                .set_len(self.length)
                .map_err(|source| FileError::new("mend", &self.path, source))?;
            self.torn = false;
        }
        Ok(())
    }

    fn account(&mut self, batch: &Batch) {
        for entry in &batch.entries {
            self.last_seq = self.last_seq.max(entry.seq);
            if let Some(Then(then)) = &entry.then {
                then();
            }
            let Some(run) = entry.run() else {
                continue;
            };
            if entry.kind == Kind::RunEnded {
                self.recorded.remove(&run);
            } else if entry.stands_for > 0 || entry.kind == Kind::RunStarted {
                *self.recorded.entry(run).or_default() += entry.stands_for;
            }
        }
        let written = batch.entries.len() as u64;
        self.health.written.fetch_add(written, Ordering::Relaxed);
    }

    fn rotate(&mut self, first_seq: u64) -> Result<(), FileError> {
        self.sync()?;
        let path = self.options.directory.join(recover::file_name(first_seq));
        let (file, length) = append_to(&path)?;
        (self.file, self.path, self.length) = (file, path, length);
        self.show_path();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), FileError> {
        self.synced = Instant::now();
        if self.unsynced && self.options.fsync != Fsync::Never {
            self.file
                .sync_data()
                .map_err(|source| FileError::new("force to the disk", &self.path, source))?;
        }
        self.unsynced = false;
        Ok(())
    }

    fn sync_if_due(&mut self) {
        if let Fsync::Interval(interval) = self.options.fsync
            && self.unsynced
            && self.synced.elapsed() >= interval
            && let Err(error) = self.sync()
        {
            self.health.failed(&error);
        }
    }

    fn checkpoint_if_due(&mut self) {
        if self.checkpointed.elapsed() >= CHECKPOINT {
            self.checkpoint();
        }
    }

    fn checkpoint(&mut self) {
        self.checkpointed = Instant::now();
        let checkpoint = Checkpoint {
            seq: self.last_seq,
            runs: self.recorded.clone(),
        };
        if let Err(error) = checkpoint.save(&self.options.directory) {
            self.health.failed(&error);
        }
    }

    fn finish(mut self) {
        let _ = self.cut_torn_end();
        if let Err(error) = self.sync() {
            self.health.failed(&error);
        }
        self.checkpoint();
    }
}

/// Opens a ledger file for appending, private to root.
fn append_to(path: &PathBuf) -> Result<(File, u64), FileError> {
    let open = || -> io::Result<(File, u64)> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    open().map_err(|source| FileError::new("open", path, source))
}

/// The record that stands for records which were not kept. It has the number of
/// the last of them: numbers stay unique and rising.
pub(super) fn missed_note(lost: u64, first_seq: u64, last_seq: u64) -> Option<Arc<Entry>> {
    let event = Event {
        time: Timestamp::now(),
        seq: last_seq,
        kind: Kind::RecordsLost,
        identity: None,
        agent_version: None,
        run_seq: None,
        process: None,
        detail: Detail::RecordsLost(RecordsLost {
            sink: "ledger",
            cause: "the queue of the ledger was full".to_owned(),
            lost,
            first_seq,
            last_seq,
        }),
    };
    let mut line = serde_json::to_vec(&event).ok()?;
    line.push(b'\n');
    Some(Arc::new(Entry {
        seq: last_seq,
        kind: Kind::RecordsLost,
        identity: None,
        verdict: None,
        stands_for: 0,
        line: line.into_boxed_slice(),
        then: None,
    }))
}

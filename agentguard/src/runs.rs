//! Runs as userspace knows them: for whom, by whom, since when.
//!
//! The kernel holds a run's identity and counts; this holds the rest, in the
//! state directory, one file a run, so that a restarted daemon knows what its
//! predecessor knew. Live runs and ended ones are kept apart.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentguard_common::identity::{Tag, origin};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::{Identity, RunEnded};
use crate::files::{self, Durability, FileError};

/// Ended runs whose records are kept. Older ones remain in the ledger.
pub const ENDED_RUNS: usize = 10_000;

/// Ended runs after which the oldest records are removed.
const PRUNE_EVERY: usize = 500;

/// How a run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// With `agentguard run`.
    #[default]
    Launched,
    /// A process executed what a manifest's `match` names.
    Matched,
    /// Processes that were there already were made the agent's.
    Adopted,
}

impl Origin {
    /// As the kernel's record says it ([`origin`]).
    #[must_use]
    pub const fn of_kernel(number: u16) -> Self {
        match number {
            origin::MATCHED => Self::Matched,
            origin::ADOPTED => Self::Adopted,
            _ => Self::Launched,
        }
    }

    /// The word in events and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Launched => "launched",
            Self::Matched => "matched",
            Self::Adopted => "adopted",
        }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Run id.
    pub id: Uuid,
    /// Index of its agent in the kernel.
    pub agent_index: u32,
    /// Slot in the kernel's run table.
    pub slot: u32,
    /// Serial number in its tag.
    pub serial: u64,
    /// Boot of the host in which it lives.
    pub boot_id: String,
    /// How it began.
    #[serde(default)]
    pub origin: Origin,
    /// Identity on its events.
    pub identity: Identity,
    /// Version of the manifest it was started under.
    pub agent_version: String,
    /// When it started.
    pub started: Timestamp,
    /// User id that started it.
    pub uid: u32,
    /// That user's name.
    pub started_by: String,
    /// Process id of its first process.
    pub pid: u32,
    /// The command, as the launcher said it.
    pub command: Vec<String>,
    /// When its rights end.
    pub lease_until: Option<Timestamp>,
    /// The trace context that it was given.
    pub traceparent: String,
    /// How it ended.
    #[serde(default)]
    pub ended: Option<Ended>,
}

/// When and how a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub time: Timestamp,
    /// Number of the ledger's record of it; zero if that is not known.
    #[serde(default)]
    pub seq: u64,
    /// How.
    #[serde(flatten)]
    pub how: RunEnded,
}

impl Run {
    /// The identity for its events, with who may see them.
    #[must_use]
    pub fn shown_identity(&self) -> Arc<Identity> {
        Arc::new(Identity {
            visible_to: Some(self.uid),
            ..self.identity.clone()
        })
    }

    /// The tag of its tasks.
    #[must_use]
    pub const fn tag(&self) -> Tag {
        Tag {
            agent: self.agent_index,
            run: self.slot,
            run_serial: self.serial,
        }
    }
}

/// The files.
#[derive(Clone, Debug)]
pub struct Store {
    live: PathBuf,
    ended: PathBuf,
}

impl Store {
    /// The store below a state directory.
    ///
    /// # Errors
    /// Its directories cannot be made.
    pub fn open(state: &Path) -> Result<Self, FileError> {
        let store = Self {
            live: state.join("runs/live"),
            ended: state.join("runs/ended"),
        };
        files::ensure_directory(&store.live, 0o700)?;
        files::ensure_directory(&store.ended, 0o700)?;
        Ok(store)
    }

    /// Writes a live run. It survives the daemon; a power cut ends the run anyway.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save_live(&self, run: &Run) -> Result<(), FileError> {
        save(&self.live, run)
    }

    /// Finishes what a daemon was at when it was killed: of these live runs, the ends that
    /// the ledger holds (it has all records below `next_seq`) are kept; the others are to be
    /// ended anew. What is returned is live.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn resume(&self, live: Vec<Run>, next_seq: u64) -> Result<Vec<Run>, FileError> {
        let mut left = Vec::new();
        for mut run in live {
            match &run.ended {
                Some(ended) if ended.seq < next_seq => self.save_ended(&run)?,
                _ => {
                    run.ended = None;
                    left.push(run);
                }
            }
        }
        self.remove_unfinished();
        Ok(left)
    }

    /// Removes what a killed daemon had begun to write.
    fn remove_unfinished(&self) {
        for directory in [&self.live, &self.ended] {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|it| it == "new") {
                    // It is in nobody's way.
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// Removes a run that did not come to life.
    pub fn discard_live(&self, id: Uuid) {
        // What is left over is found dead at the next start.
        let _ = fs::remove_file(path(&self.live, id));
    }

    /// Moves a run from the live to the ended.
    ///
    /// # Errors
    /// The file cannot be written; the run then stays among the live ones.
    pub fn save_ended(&self, run: &Run) -> Result<(), FileError> {
        save(&self.ended, run)?;
        self.discard_live(run.id);
        Ok(())
    }

    /// All live runs. Files that cannot be read are named in the second list.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn load_live(&self) -> Result<(Vec<Run>, Vec<String>), FileError> {
        let (mut runs, mut unreadable) = (Vec::new(), Vec::new());
        for id in ids(&self.live)? {
            match load(&self.live, id) {
                Ok(Some(run)) => runs.push(run),
                Ok(None) => {}
                Err(error) => unreadable.push(error.to_string()),
            }
        }
        Ok((runs, unreadable))
    }

    /// One ended run.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn ended(&self, id: Uuid) -> Result<Option<Run>, FileError> {
        load(&self.ended, id)
    }

    /// The newest ended runs that are wanted, newest first.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn newest_ended(
        &self,
        at_most: usize,
        wanted: impl Fn(&Run) -> bool,
    ) -> Result<Vec<Run>, FileError> {
        let runs = ids(&self.ended)?
            .into_iter()
            .rev()
            .filter_map(|id| load(&self.ended, id).ok().flatten())
            .filter(wanted)
            .take(at_most);
        Ok(runs.collect())
    }

    /// Removes the oldest records, so that this many are left.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn prune(&self, keep: usize) -> Result<(), FileError> {
        let ids = ids(&self.ended)?;
        for id in &ids[..ids.len().saturating_sub(keep)] {
            let _ = fs::remove_file(path(&self.ended, *id));
        }
        Ok(())
    }
}

fn path(directory: &Path, id: Uuid) -> PathBuf {
    directory.join(format!("{id}.json"))
}

fn save(directory: &Path, run: &Run) -> Result<(), FileError> {
    let path = path(directory, run.id);
    let bytes =
        serde_json::to_vec(run).map_err(|error| FileError::new("write", &path, error.into()))?;
    files::replace(&path, &bytes, Durability::Process)
}

fn load(directory: &Path, id: Uuid) -> Result<Option<Run>, FileError> {
    let path = path(directory, id);
    let fail = |error| FileError::new("read", &path, error);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| fail(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail(error)),
    }
}

/// The run ids in a directory. They are `UUIDv7`: in order of time.
fn ids(directory: &Path) -> Result<Vec<Uuid>, FileError> {
    let fail = |error| FileError::new("list", directory, error);
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let id = name
            .to_str()
            .and_then(|name| name.strip_suffix(".json"))
            .and_then(|id| Uuid::parse_str(id).ok());
        ids.extend(id);
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Live runs, in memory and on the disk.
#[derive(Debug)]
pub struct Runs {
    store: Store,
    by_id: HashMap<Uuid, Arc<Run>>,
    by_serial: HashMap<u64, Uuid>,
    ended_since_prune: usize,
}

impl Runs {
    /// With these live ones, as the store had them.
    #[must_use]
    pub fn new(store: Store, live: Vec<Run>) -> Self {
        let mut runs = Self {
            store,
            by_id: HashMap::new(),
            by_serial: HashMap::new(),
            ended_since_prune: PRUNE_EVERY,
        };
        for run in live {
            runs.remember(run);
        }
        runs
    }

    /// The store, for questions about ended runs.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// A live run.
    #[must_use]
    pub fn get(&self, id: Uuid) -> Option<&Arc<Run>> {
        self.by_id.get(&id)
    }

    /// The live run with this serial number.
    #[must_use]
    pub fn by_serial(&self, serial: u64) -> Option<&Arc<Run>> {
        self.by_id.get(self.by_serial.get(&serial)?)
    }

    /// All live runs.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.by_id.values()
    }

    /// Adds a run, on the disk first.
    ///
    /// # Errors
    /// It cannot be written: then it is not added.
    pub fn add(&mut self, run: Run) -> Result<Arc<Run>, FileError> {
        self.store.save_live(&run)?;
        Ok(self.remember(run))
    }

    fn remember(&mut self, run: Run) -> Arc<Run> {
        let run = Arc::new(run);
        self.by_serial.insert(run.serial, run.id);
        self.by_id.insert(run.id, Arc::clone(&run));
        run
    }

    /// Forgets a run that did not come to life.
    pub fn discard(&mut self, id: Uuid) {
        self.forget(id);
        self.store.discard_live(id);
    }

    /// Ends a run. It is no longer live, whether or not that could be written.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn end(&mut self, id: Uuid, ended: Ended) -> Result<(), FileError> {
        let Some(run) = self.forget(id) else {
            return Ok(());
        };
        let mut run = Arc::unwrap_or_clone(run);
        run.ended = Some(ended);
        self.store.save_ended(&run)?;
        self.ended_since_prune += 1;
        if self.ended_since_prune >= PRUNE_EVERY {
            self.ended_since_prune = 0;
            self.store.prune(ENDED_RUNS)?;
        }
        Ok(())
    }

    fn forget(&mut self, id: Uuid) -> Option<Arc<Run>> {
        let run = self.by_id.remove(&id)?;
        self.by_serial.remove(&run.serial);
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    fn ended() -> Ended {
        Ended {
            time: Timestamp::from_nanos(5),
            seq: 7,
            how: RunEnded {
                ended_by: "exited".into(),
                duration_seconds: 1.0,
                denials: 0,
                events: 0,
                recorded: 0,
                lost: crate::event::Lost::default(),
                complete: true,
            },
        }
    }

    #[test]
    fn a_restart_finds_the_live_runs() {
        let dir = tempfile::tempdir().unwrap();
        let mut runs = Runs::new(Store::open(dir.path()).unwrap(), Vec::new());
        let (a, b) = (run("a", 1), run("b", 2));
        runs.add(a.clone()).unwrap();
        runs.add(b.clone()).unwrap();
        runs.end(a.id, ended()).unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.load_live().unwrap(), (vec![b], Vec::new()));
        let kept = store.ended(a.id).unwrap().unwrap();
        assert_eq!(kept.ended, Some(ended()));
        assert_eq!(store.newest_ended(9, |_| true).unwrap(), vec![kept]);
        assert!(
            store
                .newest_ended(9, |run| run.uid == 4_711)
                .unwrap()
                .is_empty()
        );
    }

    /// The daemon is killed at each step of ending a run.
    #[test]
    fn an_end_is_taken_up_where_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let ending = Run {
            ended: Some(ended()),
            ..run("a", 1)
        };
        // Written down, and not in the ledger yet: it is to be ended anew.
        let left = store.resume(vec![ending.clone()], 7).unwrap();
        assert_eq!(left, vec![run("a", 1)]);
        // In the ledger, and still among the live ones.
        store.save_live(&ending).unwrap();
        fs::write(dir.path().join("runs/live/x.new"), "{").unwrap();
        let (live, _) = store.load_live().unwrap();
        assert!(store.resume(live, 8).unwrap().is_empty());
        assert_eq!(store.ended(ending.id).unwrap(), Some(ending));
        assert_eq!(
            fs::read_dir(dir.path().join("runs/live")).unwrap().count(),
            0
        );
    }

    #[test]
    fn an_unreadable_record_is_named_and_does_not_stop_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let good = run("a", 1);
        store.save_live(&good).unwrap();
        let bad = dir
            .path()
            .join("runs/live/01890a5d-ac96-774b-bcce-b302099a8057.json");
        fs::write(&bad, "").unwrap();
        let (live, unreadable) = store.load_live().unwrap();
        assert_eq!(live, vec![good]);
        assert!(
            unreadable[0].contains("b302099a8057.json"),
            "{unreadable:?}"
        );
    }

    #[test]
    fn the_oldest_ended_runs_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let ended: Vec<Run> = (0..3).map(|number| run("a", number)).collect();
        for run in &ended {
            store.save_ended(run).unwrap();
        }
        store.prune(3).unwrap();
        assert_eq!(store.newest_ended(9, |_| true).unwrap().len(), 3);
        store.prune(2).unwrap();
        let left = store.newest_ended(9, |_| true).unwrap();
        assert_eq!(left, [ended[2].clone(), ended[1].clone()]);
    }
}

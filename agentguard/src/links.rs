//! Files with several names (hard links): the strictest of what their names say holds,
//! whichever is used. The kernel programs know one name at a time, so the daemon looks for
//! such files where rules say something, and gives those of which not all names are equally
//! free to the kernel (`LINKS`).
//!
//! It looks when a policy comes into force and when a file system is mounted; of links that
//! are made later, by whomever, the kernel tells it (`Kind::Linked`). A thread of its own:
//! looking can take seconds, and nothing waits for it but the daemon's start.

mod classes;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agentguard_common::identity::PolicyRecord;
use agentguard_common::path::{Position, Unreadable};
use tokio::sync::oneshot;

use self::classes::{Classes, is_stricter};
use crate::decode::{self, Body, FileObject};
use crate::engine::Handle;
use crate::files::FileError;
use crate::kernel::{LinkRow, RawRecord};
use crate::memory;
use crate::mounts::{MountTable, names};
use crate::policy::compile::{Compiled, Tables};

/// A look takes at most one part in so many of the time, but for new policies.
const REST: u32 = 10;

/// Files of which it is remembered what their names say.
const RECENT: usize = 1_024;

/// Time until what the kernel did not take is looked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// Problems that are named; more are counted.
const PROBLEMS: usize = 8;

/// A policy in force, as far as names are concerned.
pub struct Scope {
    generation: u32,
    /// The agents' records; `starts` is the agent's index.
    agents: Vec<PolicyRecord>,
    tables: Arc<Tables>,
    mounts: Arc<MountTable>,
}

impl Scope {
    /// Of a compiled policy.
    #[must_use]
    pub fn of(policy: &Compiled) -> Self {
        Self {
            generation: policy.generation,
            agents: policy.agents.iter().map(|agent| agent.record).collect(),
            tables: Arc::clone(&policy.tables),
            mounts: Arc::new(policy.mounts.clone()),
        }
    }

    /// File systems that are mounted elsewhere than before, or only now.
    fn changed_since(&self, before: &Self) -> HashSet<u32> {
        let of = |table: &MountTable, device: u32| -> Vec<_> {
            let mounts = table.mounts().iter();
            mounts
                .filter(|mount| mount.device == device)
                .map(|mount| (mount.root.clone(), mount.point.clone()))
                .collect()
        };
        let devices = self.mounts.devices().into_iter();
        devices
            .filter(|device| of(&self.mounts, *device) != of(&before.mounts, *device))
            .collect()
    }
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Directories that were listed.
    pub directories: u64,
    /// Files with several names in them.
    pub files: u64,
    /// What the kernel is to know.
    pub rows: Vec<LinkRow>,
    /// Places that could not be looked at, and why: the first few.
    pub skipped: Vec<String>,
    /// How many there are.
    pub skipped_count: u64,
}

impl Outcome {
    fn skip(&mut self, path: &Path, why: &str) {
        self.skipped_count += 1;
        if self.skipped.len() < PROBLEMS {
            self.skipped.push(format!("{}: {why}", path.display()));
        }
    }
}

/// What is known, for `doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// Whether the files were looked at under the policy in force.
    pub is_current: bool,
    /// Milliseconds that the last look took.
    pub milliseconds: u64,
    /// Directories that it listed.
    pub directories: u64,
    /// Files with several names that it found.
    pub files: u64,
    /// (agent, file) pairs of which one name is less free than another.
    pub pairs: u64,
    /// Of these, those for which the kernel's table has no room.
    pub left_out: u64,
    /// Places that could not be looked at, and why: the first few.
    pub skipped: Vec<String>,
    /// How many there are.
    pub skipped_count: u64,
}

/// What the thread is told.
enum Request {
    /// A policy is in force; `only_mounts`: it differs from the one before by the mounts.
    Policy(Box<Scope>, bool),
    /// Names of files that get another.
    Linked(Vec<RawRecord>),
    /// Links were made of which the kernel could not tell.
    Untold,
    /// Answer when nothing is left to be looked at.
    Settled(oneshot::Sender<()>),
}

/// Reaches the thread.
#[derive(Clone)]
pub struct Links {
    requests: Option<Sender<Request>>,
    report: Arc<Mutex<Report>>,
}

impl Links {
    /// Starts the thread; it ends when the last handle is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(engine: Handle) -> Result<Self, FileError> {
        let (sender, receiver) = channel();
        let report = Arc::new(Mutex::new(Report::default()));
        let worker = Worker {
            engine,
            scope: None,
            due: None,
            report: Arc::clone(&report),
            classes: None,
            recent: HashMap::new(),
            older: HashMap::new(),
            waiting: Vec::new(),
        };
        std::thread::Builder::new()
            .name("links".to_owned())
            .spawn(move || worker.run(&receiver))
            .map_err(|error| FileError::new("start the thread", "links".as_ref(), error))?;
        Ok(Self {
            requests: Some(sender),
            report,
        })
    }

    /// Where nothing asks for links: without LSM programs, files are decided by Landlock.
    #[must_use]
    pub fn off() -> Self {
        Self {
            requests: None,
            report: Arc::default(),
        }
    }

    /// What is known; `None` where it is not asked for.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        self.requests.as_ref()?;
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        Some(report.clone())
    }

    /// A policy is in force.
    pub fn policy(&self, scope: Scope, only_mounts: bool) {
        self.tell(Request::Policy(Box::new(scope), only_mounts));
    }

    /// Files get other names.
    pub fn linked(&self, records: Vec<RawRecord>) {
        self.tell(Request::Linked(records));
    }

    /// Files got other names of which nothing is known.
    pub fn untold(&self) {
        self.tell(Request::Untold);
    }

    /// Returns when everything was looked at, or after `limit`; whether it was.
    pub async fn settled(&self, limit: Duration) -> bool {
        if self.requests.is_none() {
            return true;
        }
        let (sender, receiver) = oneshot::channel();
        self.tell(Request::Settled(sender));
        tokio::time::timeout(limit, receiver).await.is_ok()
    }

    fn tell(&self, request: Request) {
        if let Some(requests) = &self.requests {
            // The thread ends with the daemon only.
            let _ = requests.send(request);
        }
    }
}

/// A look that is to be taken.
struct Due {
    when: Instant,
    /// `None`: all file systems.
    devices: Option<HashSet<u32>>,
}

/// The thread.
struct Worker {
    engine: Handle,
    scope: Option<Scope>,
    due: Option<Due>,
    report: Arc<Mutex<Report>>,
    /// What names that were told of say; of the policy in force.
    classes: Option<Classes>,
    /// The strictest and the freest of what the names of a file say that were told of
    /// since the policy came into force.
    recent: HashMap<(u32, u64), (u32, u32)>,
    /// The same of those before: the two names of a link may come apart.
    older: HashMap<(u32, u64), (u32, u32)>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Worker {
    fn run(mut self, requests: &Receiver<Request>) {
        let mut rest_until = Instant::now();
        loop {
            let request = match &self.due {
                Some(due) => {
                    let wait = due.when.saturating_duration_since(Instant::now());
                    requests.recv_timeout(wait)
                }
                None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match request {
                Ok(request) => self.take(request, rest_until),
                Err(RecvTimeoutError::Timeout) => {
                    let begun = Instant::now();
                    self.look();
                    rest_until = Instant::now() + begun.elapsed() * REST;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, request: Request, rest_until: Instant) {
        match request {
            Request::Policy(scope, only_mounts) => {
                let changed = match &self.scope {
                    Some(before) if only_mounts => Some(scope.changed_since(before)),
                    _ => None,
                };
                self.scope = Some(*scope);
                self.recent.clear();
                self.older.clear();
                self.classes = None;
                let when = if only_mounts {
                    rest_until
                } else {
                    Instant::now()
                };
                self.plan(when, changed);
            }
            Request::Linked(records) => self.linked(&records),
            Request::Untold => self.plan(rest_until, None),
            Request::Settled(answer) if self.due.is_none() => {
                // Nobody waits any more if the daemon stopped meanwhile.
                let _ = answer.send(());
            }
            Request::Settled(answer) => self.waiting.push(answer),
        }
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&mut self, when: Instant, devices: Option<HashSet<u32>>) {
        if devices.as_ref().is_some_and(HashSet::is_empty) {
            return;
        }
        self.report().is_current = false;
        self.due = Some(match self.due.take() {
            None => Due { when, devices },
            Some(due) => Due {
                when: when.min(due.when),
                devices: due
                    .devices
                    .zip(devices)
                    .map(|(planned, more)| planned.union(&more).copied().collect()),
            },
        });
    }

    /// Looks at what is due.
    fn look(&mut self) {
        let (Some(due), Some(scope)) = (self.due.take(), &self.scope) else {
            return;
        };
        let begun = Instant::now();
        let devices = due
            .devices
            .unwrap_or_else(|| scope.mounts.devices().into_iter().collect());
        let outcome = match walk::look(scope, &devices) {
            Ok(outcome) => outcome,
            Err(Unreadable) => {
                tracing::error!(
                    "the policy's tables are inconsistent: hard links are not looked at"
                );
                return;
            }
        };
        let Some(left_out) = self.put(scope.generation, outcome.rows.clone(), Some(devices)) else {
            self.plan(Instant::now() + AGAIN, None);
            return;
        };
        self.tell(&outcome, left_out, begun.elapsed());
        memory::give_back();
        for answer in self.waiting.drain(..) {
            let _ = answer.send(());
        }
    }

    /// Gives rows to the kernel; how many found no room. `None` if they are not there: the
    /// kernel refused, or another policy is in force.
    fn put(
        &self,
        generation: u32,
        rows: Vec<LinkRow>,
        replace: Option<HashSet<u32>>,
    ) -> Option<usize> {
        let put = self
            .engine
            .call_from_thread(move |engine| engine.put_links(generation, &rows, replace.as_ref()));
        match put? {
            Ok(left_out) => left_out,
            Err(error) => {
                tracing::error!("{error}; tried again in {} s", AGAIN.as_secs());
                None
            }
        }
    }

    fn tell(&self, outcome: &Outcome, left_out: usize, took: Duration) {
        let skipped = outcome.skipped_count;
        if skipped > 0 {
            tracing::warn!(
                "files with several names were not looked for in {skipped} places, where a file is judged by the name it is reached by: {}",
                outcome.skipped.join("; ")
            );
        }
        if left_out > 0 {
            tracing::error!(
                "the kernel's table of files with several names is full, {left_out} found no room: to the agents that these are about every such file is refused that is not in it; give agents fewer such files, or make their rules agree about the names"
            );
        }
        tracing::debug!(
            "looked at {} directories in {took:?}: {} files with several names, {} judged by their strictest",
            outcome.directories,
            outcome.files,
            outcome.rows.len()
        );
        *self.report() = Report {
            is_current: true,
            milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            directories: outcome.directories,
            files: outcome.files,
            pairs: outcome.rows.len() as u64,
            left_out: left_out as u64,
            skipped: outcome.skipped.clone(),
            skipped_count: skipped,
        };
    }

    /// Names of files that get another one: two records a link.
    fn linked(&mut self, records: &[RawRecord]) {
        let Some(scope) = self.scope.take() else {
            return;
        };
        let mut rows = Vec::new();
        for raw in records {
            match decode::decode(raw).map(|record| record.body) {
                Ok(Body::Linked(file)) if !file.cut => {
                    if self.name(&scope, &file, &mut rows).is_err() {
                        tracing::error!("a hard link was made whose names cannot be judged");
                    }
                }
                // Its name is longer than the kernel can tell.
                _ => self.plan(Instant::now(), None),
            }
        }
        if self.recent.len() > RECENT {
            self.older = std::mem::take(&mut self.recent);
        }
        if !rows.is_empty() {
            match self.put(scope.generation, rows, None) {
                Some(left_out) => self.report().left_out += left_out as u64,
                // The look that is due finds them.
                None => self.plan(Instant::now() + AGAIN, None),
            }
        }
        self.scope = Some(scope);
    }

    fn name(
        &mut self,
        scope: &Scope,
        file: &FileObject,
        rows: &mut Vec<LinkRow>,
    ) -> Result<(), Unreadable> {
        let mut positions: Vec<Position> = Vec::with_capacity(scope.agents.len());
        for record in &scope.agents {
            let mut at = scope.tables.start(record, file.device);
            for name in names(&file.path) {
                at = scope.tables.step(at, &name)?;
            }
            positions.push(at);
        }
        let classes = match &mut self.classes {
            Some(classes) => classes,
            none => none.insert(Classes::new(scope)?),
        };
        let class = classes.at(scope, &positions)?;
        let key = (file.device, file.inode);
        let known = self.older.remove(&key).unwrap_or((class, class));
        let (strictest, freest) = self.recent.entry(key).or_insert(known);
        *strictest = classes.merge(*strictest, class, true);
        *freest = classes.merge(*freest, class, false);
        if strictest == freest {
            return Ok(());
        }
        let (strict, free) = (classes.get(*strictest), classes.get(*freest));
        for ((record, row), free) in scope.agents.iter().zip(strict).zip(free) {
            if is_stricter(row, free) {
                rows.push(LinkRow {
                    agent: record.starts,
                    device: file.device,
                    inode: file.inode,
                    row: *row,
                });
            }
        }
        Ok(())
    }
}

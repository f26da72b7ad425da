//! The kernel side as the daemon sees it: load or take over the programs, put
//! policies in force, tag processes, read events and counters.
//!
//! [`Port`] is that view; [`bpf`](self) implements it with aya. The daemon knows
//! only the trait, so its own logic is tested without privileges.

mod banks;
pub mod bpf;
pub mod btf;
mod cgroup;
pub mod fields;
mod flows;
pub mod load;
pub mod pins;
pub mod probe;
pub mod programs;
mod protections;
mod server_names;
mod sock_diag;
mod sys;
mod table;

use std::collections::HashSet;
use std::path::PathBuf;

use agentguard_common::event::{Fold, FoldKey, Header};
use agentguard_common::flow::{FlowKey, NamedFlow};
use agentguard_common::identity::Tag;
use agentguard_common::path::PathRow;
use agentguard_common::resolver::{Asker, AskerKey, Grant, GrantKey, ResolverRecord};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Mode, Verdict};
use serde::Serialize;

use crate::policy::compile::Compiled;

/// Where the kernel objects live.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on a bpffs for pinned links and maps (`/sys/fs/bpf/agentguard`).
    pub pins: PathBuf,
    /// Root of the cgroup v2 hierarchy, when this host has one.
    pub cgroup_root: Option<PathBuf>,
    /// Name of the cgroup under that root in which hosts without BPF LSM put runs.
    pub slice: String,
}

/// What stands between an agent and the host, and whether it does on this host.
#[derive(Clone, Debug, Serialize)]
pub struct Protection {
    /// Stable name: `identity`, `files`, `exec`, `network`, ...; what `accept_degraded` lists.
    pub name: &'static str,
    /// Whether and how it works here.
    pub status: ProtectionStatus,
    /// One sentence: what it does, or what is missing and why.
    pub detail: String,
    /// The exact setting that would enable it, when it is not full.
    pub fix: Option<String>,
}

/// Whether a protection works on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProtectionStatus {
    /// In full.
    Enforcing,
    /// In part; the detail says which part.
    Degraded,
    /// Not at all.
    Absent,
}

/// One attach point and whether a program is on it.
#[derive(Clone, Debug, Serialize)]
pub struct Hook {
    /// Program name, as in agentguard-ebpf's table of contents.
    pub program: &'static str,
    /// Attach point, as the kernel calls it.
    pub attach: &'static str,
    /// Whether it is attached.
    pub attached: bool,
    /// Why not, when not.
    pub reason: Option<String>,
}

/// A run to be put into the kernel's table.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Index of the agent, as in [`Compiled`].
    pub agent: u32,
    /// The run id.
    pub id: uuid::Uuid,
    /// `CLOCK_BOOTTIME` nanoseconds at which its rights end; zero: never.
    pub lease_until: u64,
}

/// A run as the kernel holds it.
#[derive(Clone, Debug, Serialize)]
pub struct KernelRun {
    /// Slot in the run table.
    pub slot: u32,
    /// Serial number; tells a reused slot from an old tag.
    pub serial: u64,
    /// Run id.
    pub id: uuid::Uuid,
    /// Agent index.
    pub agent: u32,
    /// Live tasks (threads).
    pub tasks: i64,
    /// Events that the kernel tried to send.
    pub events: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Repeats that were counted instead.
    pub folded: u64,
    /// Denied and asked decisions.
    pub denials: u64,
    /// Boot-clock nanoseconds of the first and last lost event; zero: none.
    pub first_lost: u64,
    /// See `first_lost`.
    pub last_lost: u64,
    /// One of [`run_state`](agentguard_common::identity::run_state).
    pub state: u32,
    /// Boot-clock nanoseconds at which its rights end; zero: never.
    pub lease_until: u64,
}

/// A count of decisions, from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionCount {
    /// Agent index.
    pub agent: u32,
    /// Verb.
    pub verb: Verb,
    /// Verdict.
    pub verdict: Verdict,
    /// Mode in which it was decided.
    pub mode: Mode,
    /// How many since the maps were made.
    pub count: u64,
}

/// How full a kernel table is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Fill {
    /// Map name.
    pub map: &'static str,
    /// Entries in use.
    pub used: u64,
    /// Entries at most.
    pub limit: u64,
}

/// One record from a ring: the header as it was, the tail's bytes in use.
#[derive(Clone, Debug)]
pub struct RawRecord {
    /// Header.
    pub header: Header,
    /// Tail bytes in use (a path inside its file system, or a `NetTail`).
    pub tail: Vec<u8>,
}

/// What an agent may do with a file that has several names of which not all are equally
/// free: the strictest of what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRow {
    /// Index of the agent.
    pub agent: u32,
    /// Device number of the file system (`s_dev`).
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// The verdicts.
    pub row: PathRow,
}

/// Which flows are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Connections that ended, and those that are due.
    Connections,
    /// Datagrams as well.
    Everything,
}

/// A failure of the kernel side. The message names the object, the kernel's
/// answer and the next step.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A system call or an aya call failed.
    #[error("{what}: {cause}; {next}")]
    Failed {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        cause: String,
        /// What to do.
        next: String,
    },
    /// A limit of [`agentguard_common::limits`] was reached.
    #[error("{what}: limit of {limit} reached; {next}")]
    Limit {
        /// What is full.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What to do.
        next: &'static str,
    },
    /// The process to be enrolled is gone or not as expected.
    #[error("cannot enrol process {pid}: {reason}")]
    Enrol {
        /// Process id.
        pid: u32,
        /// Why.
        reason: String,
    },
}

/// Reads who asks the resolver, from any task: the kernel's table, and nothing else.
pub trait Askers: Send + Sync {
    /// Who sends from this port, as far as the kernel remembers.
    fn get(&self, key: &AskerKey) -> Option<Asker>;
}

/// The kernel side. All calls are quick (well under a millisecond but for
/// `put_policy`), so the daemon makes them from its control task.
pub trait Port: Send {
    /// Protections of this host, after attaching.
    fn protections(&self) -> Vec<Protection>;
    /// Attach points and their state.
    fn hooks(&self) -> Vec<Hook>;
    /// Whether files of launched runs have to be confined with Landlock by the
    /// launcher, because the LSM hooks are absent.
    fn needs_landlock(&self) -> bool;
    /// Puts a compiled policy in force for every agent in it, each at one
    /// instant. Agents no longer in it are denied everything.
    ///
    /// # Errors
    /// A full table or a refused map update: the old policy stays in force.
    fn put_policy(&mut self, policy: &Compiled) -> Result<(), KernelError>;
    /// Takes a slot for a run. No task is in it yet.
    ///
    /// # Errors
    /// [`KernelError::Limit`] when all slots are taken.
    fn start_run(&mut self, run: &NewRun) -> Result<Tag, KernelError>;
    /// Tags every thread of a process. `pidfd` must be that process: it is the
    /// proof that the id was not reused meanwhile.
    ///
    /// # Errors
    /// The process is gone, is tagged already, or could not be tagged in full.
    fn enrol(
        &mut self,
        tag: Tag,
        pid: u32,
        pidfd: std::os::fd::BorrowedFd<'_>,
    ) -> Result<(), KernelError>;
    /// The tag of a process, if it has one.
    ///
    /// # Errors
    /// The kernel's answer other than "no tag".
    fn tag_of(&self, pidfd: std::os::fd::BorrowedFd<'_>) -> Result<Option<Tag>, KernelError>;
    /// Sets the state of a run ([`run_state`](agentguard_common::identity::run_state)).
    ///
    /// # Errors
    /// The slot does not hold that run any more.
    fn set_run_state(&mut self, tag: Tag, state: u32) -> Result<(), KernelError>;
    /// Frees the slot of a run that has no tasks.
    ///
    /// # Errors
    /// The slot does not hold that run any more, or it still has tasks.
    fn end_run(&mut self, tag: Tag) -> Result<(), KernelError>;
    /// Runs in the kernel's table.
    fn runs(&self) -> Vec<KernelRun>;
    /// Takes the counts of repeats out of the kernel.
    fn take_repeats(&mut self) -> Vec<(FoldKey, Fold)>;
    /// Takes what is known of flows out of the kernel, and has connections that go on for more
    /// than a minute, or whose run has ended, told first.
    fn take_flows(&mut self, look: Look) -> Vec<(FlowKey, NamedFlow)>;
    /// Says of files with several names what the strictest of them says, in the policy in
    /// force. With `replace`, of the files on these file systems nothing else is said.
    /// Returns how many found no room.
    ///
    /// # Errors
    /// The kernel's answer.
    fn put_links(
        &mut self,
        links: &[LinkRow],
        replace: Option<&HashSet<u32>>,
    ) -> Result<usize, KernelError>;
    /// The policy generation in force, also one that an earlier daemon put there; zero: none.
    fn generation(&self) -> u32;
    /// Sets what runs were given for names.
    ///
    /// # Errors
    /// The kernel's answer; some may have been set.
    fn put_grants(&mut self, grants: &[(GrantKey, Grant)]) -> Result<(), KernelError>;
    /// Takes back what runs were given for names; it is no error if it is not there.
    ///
    /// # Errors
    /// The kernel's answer; some may have been removed.
    fn remove_grants(&mut self, keys: &[GrantKey]) -> Result<(), KernelError>;
    /// What runs were given for names, also by an earlier daemon.
    ///
    /// # Errors
    /// The kernel's answer.
    fn grants(&self) -> Result<Vec<(GrantKey, Grant)>, KernelError>;
    /// Who asks the resolver.
    ///
    /// # Errors
    /// No descriptor is left.
    fn askers(&self) -> Result<std::sync::Arc<dyn Askers>, KernelError>;
    /// Says where the resolver listens, and whom the host asks.
    ///
    /// # Errors
    /// The kernel's answer.
    fn set_resolver(&mut self, record: &ResolverRecord) -> Result<(), KernelError>;
    /// Decision counts since the maps were made; they survive the daemon.
    fn decisions(&self) -> Vec<DecisionCount>;
    /// Error and drop counters, in order of [`Counter`](agentguard_common::counter::Counter).
    fn counters(&self) -> Vec<u64>;
    /// Fill levels of the tables.
    fn fills(&self) -> Vec<Fill>;
    /// Live tagged tasks.
    fn tagged_tasks(&self) -> u64;
    /// File descriptors of the rings, to be polled for reading.
    fn ring_fds(&self) -> Vec<std::os::fd::RawFd>;
    /// Takes up to `at_most` records out of the rings, denials first.
    fn drain(&mut self, at_most: usize, into: &mut Vec<RawRecord>);
}

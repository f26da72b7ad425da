//! Events: what the ledger keeps and subscribers receive, one JSON line each.
//!
//! Field names are stable; docs/events.md lists them. A field that does not
//! apply to a kind of event is absent, one that applies but is not known is null.

use std::sync::Arc;

use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Mode, Reason, Verdict};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::credentials::SharedCredential;
use crate::policy::change::{Change, Effect};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An operation was decided.
    Decision,
    /// A process of a run started a program.
    Exec,
    /// A process of a run ended.
    Exit,
    /// Something went to and fro between a run and somebody.
    Flow,
    /// A run began.
    RunStarted,
    /// A run could not begin: its process was not enrolled.
    RunFailed,
    /// The last process of a run ended.
    RunEnded,
    /// An agent has a credential of a person.
    SharedCredential,
    /// An agent's first manifest came into force.
    AgentRegistered,
    /// Another version of an agent's manifest came into force.
    AgentChanged,
    /// An agent's manifest is gone.
    AgentAbsent,
    /// An agent's manifest is there again.
    AgentReturned,
    /// An operator retired an agent.
    AgentRetired,
    /// An operator reinstated an agent.
    AgentReinstated,
    /// A policy generation came into force.
    PolicyLoaded,
    /// A file set was refused; the policy in force stayed.
    PolicyRefused,
    /// The daemon is ready.
    DaemonStarted,
    /// The daemon stops; enforcement stays.
    DaemonStopped,
    /// Records could not be kept.
    RecordsLost,
    /// The ledger ended in the middle of a record, as after a power cut.
    LedgerRecovered,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 20] = [
        Self::Decision,
        Self::Exec,
        Self::Exit,
        Self::Flow,
        Self::RunStarted,
        Self::RunFailed,
        Self::RunEnded,
        Self::SharedCredential,
        Self::AgentRegistered,
        Self::AgentChanged,
        Self::AgentAbsent,
        Self::AgentReturned,
        Self::AgentRetired,
        Self::AgentReinstated,
        Self::PolicyLoaded,
        Self::PolicyRefused,
        Self::DaemonStarted,
        Self::DaemonStopped,
        Self::RecordsLost,
        Self::LedgerRecovered,
    ];

    /// The value of `kind` in events and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Exec => "exec",
            Self::Exit => "exit",
            Self::Flow => "flow",
            Self::RunStarted => "run-started",
            Self::RunFailed => "run-failed",
            Self::RunEnded => "run-ended",
            Self::SharedCredential => "shared-credential",
            Self::AgentRegistered => "agent-registered",
            Self::AgentChanged => "agent-changed",
            Self::AgentAbsent => "agent-absent",
            Self::AgentReturned => "agent-returned",
            Self::AgentRetired => "agent-retired",
            Self::AgentReinstated => "agent-reinstated",
            Self::PolicyLoaded => "policy-loaded",
            Self::PolicyRefused => "policy-refused",
            Self::DaemonStarted => "daemon-started",
            Self::DaemonStopped => "daemon-stopped",
            Self::RecordsLost => "records-lost",
            Self::LedgerRecovered => "ledger-recovered",
        }
    }
}

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When it happened.
    pub time: Timestamp,
    /// Number of this event on this host; numbers go on over restarts.
    pub seq: u64,
    /// What it is about.
    pub kind: Kind,
    /// Whose it is, for events of runs.
    #[serde(flatten)]
    pub identity: Option<Arc<Identity>>,
    /// Version of the agent's manifest, for events of runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<Arc<str>>,
    /// Number of the kernel record among its run's, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_seq: Option<u64>,
    /// The process, for events that a process caused.
    #[serde(flatten)]
    pub process: Option<Process>,
    /// What happened.
    #[serde(flatten)]
    pub detail: Detail,
}

/// The identity under which something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Agent name.
    pub agent: String,
    /// Who answers for the agent.
    pub owner: String,
    /// Environment.
    pub environment: String,
    /// Run id; null if the daemon does not know the run.
    pub run: Option<Uuid>,
    /// Run that started this one.
    pub parent_run: Option<Uuid>,
    /// Person for whom the run acts.
    pub on_behalf_of: Option<String>,
    /// Work item.
    pub task: Option<String>,
    /// User id that started the run: who may see it. Not part of the event.
    #[serde(skip)]
    pub visible_to: Option<u32>,
}

/// The process that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Process id of the real parent.
    pub ppid: u32,
    /// The program it runs, as the kernel named it at exec.
    pub exe: Option<Arc<str>>,
    /// Command name, which the process can set itself.
    pub comm: String,
    /// User id.
    pub uid: u32,
    /// Cgroup (v2) id.
    pub cgroup: u64,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Detail {
    /// See [`Kind::Decision`].
    Decision(Decision),
    /// See [`Kind::Exec`].
    Exec {
        /// The program.
        object: Object,
    },
    /// See [`Kind::Exit`].
    Exit(Exit),
    /// See [`Kind::Flow`].
    Flow(Flow),
    /// See [`Kind::RunStarted`] and [`Kind::RunFailed`].
    RunStarted(RunStarted),
    /// See [`Kind::RunEnded`].
    RunEnded(RunEnded),
    /// See [`Kind::SharedCredential`].
    SharedCredential(SharedCredential),
    /// See [`Kind::AgentRegistered`] and what follows it there.
    Agent(Box<AgentEvent>),
    /// See [`Kind::PolicyLoaded`].
    PolicyLoaded(PolicyLoaded),
    /// See [`Kind::PolicyRefused`].
    PolicyRefused {
        /// What asked for the load.
        trigger: &'static str,
        /// What is wrong, one line each.
        problems: Vec<String>,
    },
    /// See [`Kind::DaemonStarted`] and [`Kind::DaemonStopped`].
    Daemon(Daemon),
    /// See [`Kind::RecordsLost`].
    RecordsLost(RecordsLost),
    /// See [`Kind::LedgerRecovered`].
    LedgerRecovered {
        /// File name in the ledger's directory.
        file: String,
        /// Bytes after the last whole record.
        bytes: u64,
        /// These bytes, as far as they are text, at most 4,096.
        fragment: String,
    },
}

/// A decided operation.
#[derive(Clone, Debug, Serialize)]
pub struct Decision {
    /// The operation.
    #[serde(serialize_with = "verb_name")]
    pub verb: Verb,
    /// What it was to be done to.
    pub object: Object,
    /// The verdict.
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    /// Whether the operation failed because of it.
    pub blocked: bool,
    /// The mode it was decided in.
    #[serde(serialize_with = "mode_name")]
    pub mode: Mode,
    /// Why.
    #[serde(serialize_with = "reason_name")]
    pub reason: Reason,
    /// Where the rule stands (`file:line`), if a rule decided.
    pub rule: Option<Arc<str>>,
    /// The rule as it is written.
    pub rule_text: Option<Arc<str>>,
    /// Policy generation that decided.
    pub policy_generation: u32,
    /// How often it happened: repeats are counted in the kernel, and told every second.
    pub count: u64,
}

/// What an operation is done to. The fields of the other kind are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Object {
    /// A file.
    File(FileObject),
    /// A place in a network.
    Address(AddressObject),
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileObject {
    /// The host's name of it. Where bytes are not UTF-8, U+FFFD stands for them.
    pub path: String,
    /// The bytes of the path in hex, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// True where the front of the path is missing because it was too long.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub path_cut: bool,
    /// True for pipes, memory files and the like: `path` is the kernel's label.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// Device number of the file system.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
}

/// A place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressObject {
    /// The address; null for families other than IPv4 and IPv6.
    pub address: Option<String>,
    /// The port.
    pub port: u16,
    /// `tcp`, `udp`, or the IP protocol number.
    pub protocol: String,
    /// The name that led to the address, where one is known.
    pub name: Option<String>,
    /// The server that the connection says it is for, where that decided or was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Address family number, for families other than IPv4 and IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<u16>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// Its exit code; null if a signal ended it.
    pub exit_code: Option<u8>,
    /// The signal that ended it.
    pub signal: Option<u8>,
}

impl Exit {
    /// From the kernel's exit code word.
    #[must_use]
    pub const fn from_word(word: i32) -> Self {
        let signal = (word & 0x7f) as u8;
        if signal == 0 {
            Self {
                exit_code: Some((word >> 8) as u8),
                signal: None,
            }
        } else {
            Self {
                exit_code: None,
                signal: Some(signal),
            }
        }
    }
}

/// What went to and fro between a process and somebody. Flows of the same process with the
/// same place, which began on the same side and ended in the same way, are one event a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flow {
    /// The process that made or connected the socket; null if not known.
    pub pid: Option<u32>,
    /// The program that it runs.
    pub exe: Option<Arc<str>>,
    /// With whom.
    pub object: AddressObject,
    /// `outbound`: the agent connected; `inbound`: it was connected to; absent for datagrams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<&'static str>,
    /// `closed`, `failed` (no connection came about), or `open`: another event follows.
    pub state: &'static str,
    /// The first packet. Of datagrams: the first of which no event told before.
    pub started: Timestamp,
    /// Seconds from the first packet to the end, or to the last that this tells of.
    pub duration_seconds: f64,
    /// Bytes of payload that were sent, since the flow's last event.
    pub sent_bytes: u64,
    /// Bytes of payload that arrived, since the flow's last event.
    pub received_bytes: u64,
    /// How many flows.
    pub count: u64,
}

/// How a run began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunStarted {
    /// `launched`, `matched` or `adopted`.
    pub origin: &'static str,
    /// Process id of its first process.
    pub pid: u32,
    /// User id that asked for it.
    pub uid: u32,
    /// That user's name, or the number.
    pub started_by: String,
    /// The command, as the launcher said it would execute it.
    pub command: Vec<String>,
    /// When its rights end.
    pub lease_until: Option<Timestamp>,
    /// The trace context that it was given: a claim, for correlation only.
    pub traceparent: String,
    /// Why it failed, for `run-failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What happened to an agent's registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentEvent {
    /// What asked for it: the `trigger` of a load, or `api` for a decision.
    pub trigger: String,
    /// Who.
    pub by: String,
    /// `file:line` of the manifest.
    pub manifest: Option<String>,
    /// To whom its file belonged.
    pub manifest_owner: Option<String>,
    /// The version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<String>,
    /// What changed in meaning; absent if the version before is not known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
    /// Whether the changes give the agent more or less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Why an operator did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Live runs that were revoked with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_revoked: Option<usize>,
}

/// How a run ended, and whether its record is complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEnded {
    /// Why: `exited`, `lease-expired`, `revoked`, `host-restarted`, `unloaded`.
    pub ended_by: String,
    /// Seconds from start to end.
    pub duration_seconds: f64,
    /// Denied and asked operations, counted by the kernel.
    pub denials: u64,
    /// Records that the kernel made for this run, and repeats that it counted.
    pub events: u64,
    /// Of these, those that the ledger holds.
    pub recorded: u64,
    /// Records lost, by place.
    pub lost: Lost,
    /// True if every record that the kernel made is in the ledger.
    pub complete: bool,
}

/// Records lost of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lost {
    /// In the kernel: a ring was full.
    pub kernel: u64,
    /// In the daemon: the ledger could not keep up or could not write.
    pub ledger: u64,
    /// Taken from the ring by a daemon that ended before writing them.
    pub daemon: u64,
    /// When the kernel first lost one.
    pub first: Option<Timestamp>,
    /// When the kernel last lost one.
    pub last: Option<Timestamp>,
}

impl Lost {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.kernel + self.ledger + self.daemon
    }
}

/// A policy generation that came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyLoaded {
    /// Its number.
    pub policy_generation: u32,
    /// What asked for the load: `start`, `signal`, `api`, `mounts`.
    pub trigger: &'static str,
    /// The agents in it.
    pub agents: Vec<LoadedAgent>,
}

/// An agent of a policy generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadedAgent {
    /// Agent name.
    pub agent: String,
    /// Environment.
    pub environment: String,
    /// Version of its manifest.
    pub agent_version: String,
    /// Mode.
    pub mode: &'static str,
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// Version of AgentGuard.
    pub version: &'static str,
    /// Its process id.
    pub daemon_pid: u32,
    /// Kernel release.
    pub kernel: String,
    /// Protections and their state on this host.
    pub protections: Vec<(String, String)>,
}

/// Records that could not be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordsLost {
    /// Where: `ledger`.
    pub sink: &'static str,
    /// Why.
    pub cause: String,
    /// How many.
    pub lost: u64,
    /// Sequence number of the first.
    pub first_seq: u64,
    /// Sequence number of the last.
    pub last_seq: u64,
}

// serde calls these with a reference to the field.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn verb_name<S: Serializer>(verb: &Verb, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verb.name())
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn verdict_name<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.name())
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn mode_name<S: Serializer>(mode: &Mode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(mode.name())
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn reason_name<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_serde_writes() {
        for kind in Kind::ALL {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(text, format!("\"{}\"", kind.name()));
        }
    }

    #[test]
    fn exit_words() {
        assert_eq!(
            Exit::from_word(3 << 8),
            Exit {
                exit_code: Some(3),
                signal: None
            }
        );
        assert_eq!(
            Exit::from_word(9),
            Exit {
                exit_code: None,
                signal: Some(9)
            }
        );
        assert_eq!(
            Exit::from_word(0x8b),
            Exit {
                exit_code: None,
                signal: Some(11)
            }
        );
    }
}

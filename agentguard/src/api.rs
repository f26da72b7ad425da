//! What goes over the local API, as the daemon writes it and the command line
//! reads it. docs/openapi.yaml describes the same; a test compares the two.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::agents::life::{Retirement, Version};
use crate::clock::Timestamp;
use crate::event::{Identity, RunEnded};
use crate::kernel;
use crate::landlock;
use crate::links;
use crate::sinks::ledger::HealthReport;

/// Every endpoint: method, path, what it does.
pub const ENDPOINTS: [(&str, &str, &str); 13] = [
    ("post", "/v1/adoptions", "Make running processes an agent's"),
    ("post", "/v1/runs", "Start a run with the calling process"),
    ("get", "/v1/runs", "Live runs, and the newest ended ones"),
    ("get", "/v1/runs/{id}", "One run"),
    ("get", "/v1/ps", "Tagged processes"),
    ("get", "/v1/events", "Events: the newest, or all to come"),
    ("get", "/v1/agents", "Agents, in force and not"),
    ("get", "/v1/agents/{name}", "One agent and its history"),
    (
        "post",
        "/v1/agents/{name}/retire",
        "End an agent: no new runs, live ones revoked",
    ),
    (
        "post",
        "/v1/agents/{name}/reinstate",
        "Take a retirement back",
    ),
    ("post", "/v1/policy/reload", "Read the manifests again"),
    ("get", "/v1/status", "How the daemon does"),
    (
        "get",
        "/v1/doctor",
        "What protects this host, and what does not",
    ),
];

/// A request to start a run with the process that sends it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Agent name.
    pub agent: String,
    /// Environment; needed where the name exists in several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Work item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Person for whom the run acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// Longest life in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u64>,
    /// The command that the process will execute, program first.
    pub command: Vec<String>,
    /// The caller's trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// A request to make a process that runs already, and its descendants, an agent's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// The process.
    pub pid: u32,
    /// Agent name.
    pub agent: String,
    /// Environment; needed where the name exists in several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Work item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Person for whom the run acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// Longest life in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u64>,
}

/// Processes that were adopted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adopted {
    /// Run id.
    pub run: Uuid,
    /// Agent name.
    pub agent: String,
    /// Environment.
    pub environment: String,
    /// When the run's rights end.
    pub lease_until: Option<Timestamp>,
    /// Live tasks (threads) of it.
    pub tasks: i64,
    /// Its processes.
    pub processes: Vec<u32>,
    /// What they had open already.
    pub residual: Residual,
    /// Processes of the same session that are no descendants (of processes that have ended, for
    /// instance) and were left alone: `PID: PROGRAM`.
    pub left_out: Vec<String>,
}

/// What processes had open when they were adopted, each as `PID: WHAT`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Residual {
    /// Files open for writing: decided at each use from now on.
    pub files: Vec<String>,
    /// Peers of connected sockets: the same.
    pub sockets: Vec<String>,
    /// Files that are mapped, shared and writable: nothing is decided about stores there.
    pub mappings: Vec<String>,
    /// There is more than is listed.
    pub more: bool,
}

/// A run that was started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunCreated {
    /// Run id.
    pub run: Uuid,
    /// Agent name.
    pub agent: String,
    /// Environment.
    pub environment: String,
    /// Version of the agent's manifest.
    pub agent_version: String,
    /// When the run's rights end.
    pub lease_until: Option<Timestamp>,
    /// Variables to set before executing the command.
    pub env: BTreeMap<String, String>,
    /// What to confine the process to before executing the command, on hosts
    /// where the kernel programs cannot.
    pub landlock: Option<landlock::Rules>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Identity; `run` is the run id.
    #[serde(flatten)]
    pub identity: Identity,
    /// How it began: `launched`, `matched` or `adopted`.
    pub origin: String,
    /// Version of the manifest it was started under.
    pub agent_version: String,
    /// `active`, `lease-expired`, `paused`, `revoked`, `ended`, or `unknown` when the kernel does not say.
    pub state: String,
    /// When it started.
    pub started: Timestamp,
    /// User id that started it.
    pub uid: u32,
    /// That user's name.
    pub started_by: String,
    /// Process id of its first process.
    pub pid: u32,
    /// The command.
    pub command: Vec<String>,
    /// When its rights end.
    pub lease_until: Option<Timestamp>,
    /// The trace context that it was given.
    pub traceparent: String,
    /// Live tasks.
    pub tasks: i64,
    /// Denied and asked operations.
    pub denials: u64,
    /// Records made in the kernel.
    pub events: u64,
    /// Of these, lost in the kernel.
    pub lost: u64,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it ended.
    pub end: Option<RunEnded>,
}

/// Runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    /// Live ones first, then the newest ended ones.
    pub runs: Vec<Run>,
}

/// A tagged process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Process id of the parent.
    pub ppid: u32,
    /// User id.
    pub uid: u32,
    /// Threads.
    pub threads: u32,
    /// Program, if it could be read.
    pub exe: Option<String>,
    /// Command line.
    pub command: Vec<String>,
    /// Run id; null if the daemon does not know the run.
    pub run: Option<Uuid>,
    /// Agent name.
    pub agent: String,
    /// Environment.
    pub environment: String,
}

/// Tagged processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Processes {
    /// By process id.
    pub processes: Vec<Process>,
}

/// An agent whose manifest is or was in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Name.
    pub agent: String,
    /// Environment.
    pub environment: String,
    /// Owner.
    pub owner: String,
    /// What it is for.
    pub description: Option<String>,
    /// Version of its manifest.
    pub agent_version: String,
    /// `active`, `idle`, `dormant`, `absent` or `retired`.
    pub state: String,
    /// `observe` or `enforce`.
    pub mode: String,
    /// `service` or `delegated`.
    pub authority: String,
    /// Longest life of a run in seconds.
    pub lease_seconds: Option<u64>,
    /// Live runs.
    pub runs: usize,
    /// When its newest run began, as far as that is known.
    pub last_run: Option<Timestamp>,
    /// When its first manifest came into force.
    pub registered: Option<Timestamp>,
    /// Since when its manifest is gone.
    pub absent_since: Option<Timestamp>,
    /// By whom it was retired, when and why.
    pub retired: Option<Retirement>,
    /// `file:line` of its manifest.
    pub manifest: String,
    /// Index in the kernel's tables; 0: none any more.
    pub index: u32,
}

/// Agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agents {
    /// By name and environment.
    pub agents: Vec<Agent>,
}

/// One agent and its history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentDetail {
    /// The agent.
    #[serde(flatten)]
    pub agent: Agent,
    /// The last versions of its manifest, the newest last.
    pub versions: Vec<Version>,
}

/// A decision about an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentDecision {
    /// Environment; needed where the name exists in several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Why.
    pub reason: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDecided {
    /// The agent.
    pub agent: String,
    /// Its environment.
    pub environment: String,
    /// Live runs that were revoked: their next operations are denied.
    pub runs_revoked: usize,
    /// Processes of these runs that were killed.
    pub processes_killed: usize,
    /// Tagged processes of these runs that were still there at the last look.
    pub processes_left: usize,
}

/// A policy that came into force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Generation in force now.
    pub policy_generation: u32,
    /// How many agents it has.
    pub agents: usize,
}

/// How the daemon does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of AgentGuard.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// When the daemon started.
    pub started: Timestamp,
    /// Whether every protection works in full.
    pub enforcing: bool,
    /// Protections that do not, and whether the operator accepted that.
    pub degraded: Vec<Degraded>,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// Live runs.
    pub runs: usize,
    /// Live tagged tasks.
    pub tagged_tasks: u64,
    /// The resolver of names.
    pub resolver: Resolver,
    /// The ledger.
    pub ledger: HealthReport,
    /// Clients that follow events.
    pub subscribers: usize,
    /// Where metrics are served.
    pub metrics: Option<String>,
    /// The directories in use.
    pub directories: BTreeMap<String, String>,
}

/// A protection that is not there in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// Its name.
    pub protection: String,
    /// `degraded` or `absent`.
    pub status: String,
    /// Whether the configuration lists it under `accept_degraded`.
    pub accepted: bool,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Generation.
    pub generation: u32,
    /// When it came into force.
    pub loaded: Timestamp,
    /// How many agents it has.
    pub agents: usize,
    /// When a newer file set was last refused, if it was.
    pub refused: Option<Timestamp>,
    /// Why.
    pub problems: Vec<String>,
}

/// What protects this host, and what does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    /// Protections.
    pub protections: Vec<Protection>,
    /// Attach points; empty when no daemon was asked.
    pub hooks: Vec<Hook>,
    /// Fill levels of the kernel's tables; empty when no daemon was asked.
    pub tables: Vec<Table>,
    /// Errors and drops counted in the kernel; empty when no daemon was asked.
    pub errors: BTreeMap<String, u64>,
    /// Files with several names; null where no daemon was asked, or none looks for them.
    pub links: Option<links::Report>,
    /// The resolver of names; null where no daemon was asked.
    pub resolver: Option<Resolver>,
}

/// The resolver, which answers runs whose agents have rules about names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Where it listens; empty: it does not, and questions are refused.
    pub listening: Vec<String>,
    /// The host's servers, which it asks.
    pub servers: Vec<String>,
    /// The agents in force that have rules about names.
    pub agents: Vec<String>,
}

impl Resolver {
    /// Whether agents have rules about names that nobody answers for.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        self.listening.is_empty() && !self.agents.is_empty()
    }
}

/// A protection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// Name.
    pub name: String,
    /// `enforcing`, `degraded` or `absent`.
    pub status: String,
    /// What it does, or what is missing and why.
    pub detail: String,
    /// The setting that would enable it.
    pub fix: Option<String>,
}

/// The status of a protection, as it is written.
#[must_use]
pub const fn status_name(status: kernel::ProtectionStatus) -> &'static str {
    match status {
        kernel::ProtectionStatus::Enforcing => "enforcing",
        kernel::ProtectionStatus::Degraded => "degraded",
        kernel::ProtectionStatus::Absent => "absent",
    }
}

impl From<&kernel::Protection> for Protection {
    fn from(protection: &kernel::Protection) -> Self {
        Self {
            name: protection.name.to_owned(),
            status: status_name(protection.status).to_owned(),
            detail: protection.detail.clone(),
            fix: protection.fix.clone(),
        }
    }
}

/// An attach point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Program.
    pub program: String,
    /// Attach point, as the kernel calls it.
    pub attach: String,
    /// Whether it is attached.
    pub attached: bool,
    /// Why not.
    pub reason: Option<String>,
}

impl From<&kernel::Hook> for Hook {
    fn from(hook: &kernel::Hook) -> Self {
        Self {
            program: hook.program.to_owned(),
            attach: hook.attach.to_owned(),
            attached: hook.attached,
            reason: hook.reason.clone(),
        }
    }
}

/// How full a kernel table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Map name.
    pub map: String,
    /// Entries in use.
    pub used: u64,
    /// Entries at most.
    pub limit: u64,
}

impl From<&kernel::Fill> for Table {
    fn from(fill: &kernel::Fill) -> Self {
        Self {
            map: fill.map.to_owned(),
            used: fill.used,
            limit: fill.limit,
        }
    }
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure it is.
    pub code: Code,
    /// What failed, why, and what to do.
    pub error: String,
    /// Each problem with its place, for refused policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request is malformed.
    BadRequest,
    /// The caller may not.
    Refused,
    /// There is no such thing.
    NotFound,
    /// The request does not fit the state: several agents of a name, for example.
    Conflict,
    /// The policy files have problems; the policy in force stays.
    PolicyProblems,
    /// A limit is reached, or the daemon is stopping.
    Unavailable,
    /// Something failed in the daemon or the kernel.
    Failed,
}

impl Code {
    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn http(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Refused => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::PolicyProblems => 422,
            Self::Unavailable => 503,
            Self::Failed => 500,
        }
    }
}

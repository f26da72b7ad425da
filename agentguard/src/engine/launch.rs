//! Starting a run: the rules of who may, and the steps in their order.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Engine, sweep};
use crate::clock::{self, Timestamp};
use crate::event::{Detail, Event, Identity, Kind, RunStarted};
use crate::files::FileError;
use crate::kernel::{KernelError, NewRun};
use crate::landlock;
use crate::pipeline::Message;
use crate::policy::compile::protected;
use crate::policy::manifest::{Authority, Manifest};
use crate::policy::{duration, text};
use crate::runs::Run;
use crate::trace::{NoRandom, TraceParent};

/// A request to start a run with the process that asks.
#[derive(Debug)]
pub struct Launch {
    /// Agent name.
    pub agent: String,
    /// Environment; needed where the name exists in several.
    pub environment: Option<String>,
    /// Work item.
    pub task: Option<String>,
    /// Person for whom the run acts.
    pub on_behalf_of: Option<String>,
    /// Longest life, if shorter than the manifest's.
    pub lease: Option<Duration>,
    /// The command that will be executed.
    pub command: Vec<String>,
    /// The caller's trace context.
    pub traceparent: Option<String>,
    /// The process.
    pub process: Process,
}

/// The process to be enrolled and the user behind it.
#[derive(Debug)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Proof that the id still means it.
    pub pidfd: OwnedFd,
    /// User id.
    pub uid: u32,
    /// That user's name, or the number.
    pub user: String,
    /// Whether the user may operate, and so start any agent for anyone.
    pub operator: bool,
}

/// A run that was started.
#[derive(Debug)]
pub struct Started {
    /// The run.
    pub run: Arc<Run>,
    /// What the launcher has to confine itself to, on hosts that need it.
    pub landlock: Option<landlock::Rules>,
}

/// Why a run was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No such agent.
    #[error("no agent `{agent}`{}; `agentguard agents list` shows the agents in force", hint(nearest.as_ref()))]
    NoAgent {
        /// Its name.
        agent: String,
        /// The nearest name there is.
        nearest: Option<String>,
    },
    /// The name exists in several environments.
    #[error("agent `{agent}` exists in {}; say which with --environment", environments.join(" and "))]
    Ambiguous {
        /// Its name.
        agent: String,
        /// They.
        environments: Vec<String>,
    },
    /// The user may not.
    #[error("{0}")]
    Refused(String),
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The kernel side refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The run cannot be recorded, so it does not start.
    #[error("the run cannot be recorded: {0}")]
    Record(#[from] FileError),
    /// What the run's files are confined to cannot be worked out.
    #[error(
        "the run's files cannot be confined: {0}; the daemon must see the host's files (ProtectProc=, CAP_SYS_PTRACE)"
    )]
    Files(FileError),
    /// No random numbers for the trace context.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

fn hint(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

impl Engine {
    /// Starts a run with the process that asked for it.
    ///
    /// # Errors
    /// See [`LaunchError`]. Then no run exists and the process is as before.
    pub fn start_run(&mut self, launch: Launch) -> Result<Started, LaunchError> {
        self.in_service(&launch.agent, launch.environment.as_deref())?;
        let (index, manifest) = self.choose(&launch)?;
        self.authorise(&manifest, &launch)?;
        let lease = lease(&manifest, launch.lease)?;
        let traceparent = TraceParent::child_of(launch.traceparent.as_deref())?;
        let id = Uuid::now_v7();
        let tag = self.port.start_run(&NewRun {
            agent: index,
            id,
            lease_until: lease.map_or(0, |lease| {
                let nanos = u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX);
                clock::boot_ns().saturating_add(nanos)
            }),
        })?;
        let started = Timestamp::now();
        let run = Run {
            id,
            agent_index: index,
            slot: tag.run,
            serial: tag.run_serial,
            boot_id: self.context.boot_id.clone(),
            identity: Identity {
                agent: manifest.name.clone(),
                owner: manifest.owner.clone(),
                environment: manifest.environment.as_str().to_owned(),
                run: Some(id),
                parent_run: None,
                on_behalf_of: launch.on_behalf_of.clone(),
                task: launch.task.clone(),
                visible_to: None,
            },
            agent_version: manifest.version.clone(),
            started,
            uid: launch.process.uid,
            started_by: launch.process.user.clone(),
            pid: launch.process.pid,
            command: launch.command,
            lease_until: lease.map(|lease| started.plus(lease)),
            traceparent: traceparent.to_string(),
            ended: None,
        };
        let landlock = self.confinement(&manifest)?;
        let run = self.enrol(run, &launch.process)?;
        self.context.metrics.count_run();
        Ok(Started { landlock, run })
    }

    /// What the launcher has to confine itself to, where no LSM program decides
    /// about files. What that leaves open is logged for every run.
    fn confinement(&self, manifest: &Manifest) -> Result<Option<landlock::Rules>, LaunchError> {
        if !self.port.needs_landlock() {
            return Ok(None);
        }
        // Process 1 can be out of sight even for root (in hardened guests). Our own view
        // is as good if it is the launcher's: the launcher compares mount namespaces.
        let tree = landlock::HostTree::of_host()
            .or_else(|_| landlock::HostTree::here())
            .map_err(|error| {
                LaunchError::Files(FileError::new("read", Path::new("/proc"), error))
            })?;
        // Accepting `files` as degraded is accepting these, and they are reported.
        let concessions = landlock::Concessions {
            listing: true,
            patterns: true,
        };
        let protections = protected::protections();
        let rules = landlock::rules(manifest, protections, concessions, &tree);
        for gap in &rules.gaps {
            tracing::warn!(agent = %manifest.name, "Landlock: {gap}");
        }
        Ok(Some(rules))
    }

    /// Records the run, tags the process, and takes both back if that fails.
    fn enrol(&mut self, run: Run, process: &Process) -> Result<Arc<Run>, LaunchError> {
        let tag = run.tag();
        let run = match self.runs.add(run) {
            Ok(run) => run,
            Err(error) => {
                self.free_slot(tag);
                return Err(error.into());
            }
        };
        // Before its first question.
        self.names_of_run(tag);
        // The records of the process come after this in the pipeline's queue.
        self.tell(sweep::announcement(&run));
        match self.port.enrol(tag, process.pid, process.pidfd.as_fd()) {
            Ok(()) => {
                self.tell_start(&run, None);
                Ok(run)
            }
            Err(error) => {
                self.tell_start(&run, Some(error.to_string()));
                self.runs.discard(run.id);
                self.free_slot(tag);
                Err(error.into())
            }
        }
    }

    fn free_slot(&mut self, tag: agentguard_common::identity::Tag) {
        self.forget_names_of(tag.run_serial);
        if let Err(error) = self.port.end_run(tag) {
            tracing::error!("the slot of a run that did not start was not freed: {error}");
        }
    }

    pub(super) fn tell_start(&mut self, run: &Run, error: Option<String>) {
        let kind = match error {
            None => Kind::RunStarted,
            Some(_) => Kind::RunFailed,
        };
        self.tell(Message::Emit(Box::new(Event {
            time: run.started,
            seq: 0,
            kind,
            identity: Some(run.shown_identity()),
            agent_version: Some(run.agent_version.as_str().into()),
            run_seq: None,
            process: None,
            detail: Detail::RunStarted(RunStarted {
                pid: run.pid,
                uid: run.uid,
                started_by: run.started_by.clone(),
                command: run.command.clone(),
                lease_until: run.lease_until,
                traceparent: run.traceparent.clone(),
                error,
            }),
        })));
    }

    /// The one agent that the request names.
    fn choose(&self, launch: &Launch) -> Result<(u32, Arc<Manifest>), LaunchError> {
        let named: Vec<&(u32, Arc<Manifest>)> = self
            .policy
            .agents
            .iter()
            .filter(|(_, manifest)| manifest.name == launch.agent)
            .collect();
        let wanted = launch.environment.as_deref();
        let found: Vec<_> = named
            .iter()
            .filter(|(_, manifest)| {
                wanted.is_none_or(|wanted| manifest.environment.as_str() == wanted)
            })
            .collect();
        match found.as_slice() {
            [one] => Ok((one.0, Arc::clone(&one.1))),
            [] if named.is_empty() => Err(LaunchError::NoAgent {
                nearest: self.nearest_agent(&launch.agent),
                agent: launch.agent.clone(),
            }),
            [] => Err(LaunchError::NoAgent {
                agent: format!("{} in {}", launch.agent, wanted.unwrap_or_default()),
                nearest: None,
            }),
            several => Err(LaunchError::Ambiguous {
                agent: launch.agent.clone(),
                environments: several
                    .iter()
                    .map(|(_, manifest)| manifest.environment.as_str().to_owned())
                    .collect(),
            }),
        }
    }

    fn nearest_agent(&self, name: &str) -> Option<String> {
        let agents = self.policy.agents.iter();
        let names: Vec<&str> = agents.map(|(_, manifest)| manifest.name.as_str()).collect();
        text::nearest(name, &names).map(str::to_owned)
    }

    /// Who may start this agent, and for whom.
    fn authorise(&self, manifest: &Manifest, launch: &Launch) -> Result<(), LaunchError> {
        let process = &launch.process;
        let accounts = &self.context.accounts;
        let listed = manifest
            .launch_users
            .iter()
            .any(|user| accounts.uid(user) == Some(process.uid));
        if !process.operator && !listed {
            return Err(LaunchError::Refused(format!(
                "user {} may not start agent `{}`: its manifest does not list that user under enrol.launch.users ({})",
                process.user,
                manifest.name,
                manifest.source.file_line(),
            )));
        }
        match (&launch.on_behalf_of, manifest.authority) {
            (None, Authority::Delegated) => Err(LaunchError::Refused(format!(
                "agent `{}` acts for a person (authority: delegated): say for whom with --on-behalf-of",
                manifest.name
            ))),
            (Some(person), _) if !process.operator && *person != process.user => {
                Err(LaunchError::Refused(format!(
                    "user {} may start runs on behalf of {} only, not of {person}",
                    process.user, process.user
                )))
            }
            _ => Ok(()),
        }
    }
}

/// The run's lease: what was asked for, within what the manifest allows.
fn lease(manifest: &Manifest, wanted: Option<Duration>) -> Result<Option<Duration>, LaunchError> {
    match (wanted, manifest.lease) {
        (Some(wanted), _) if wanted.is_zero() => Err(LaunchError::Invalid(
            "a lease of no time is no lease".to_owned(),
        )),
        (Some(wanted), Some(longest)) if wanted > longest => Err(LaunchError::Refused(format!(
            "the lease of {} is longer than the {} that the manifest of `{}` allows",
            duration::format(wanted),
            duration::format(longest),
            manifest.name
        ))),
        (Some(wanted), _) => Ok(Some(wanted)),
        (None, longest) => Ok(longest),
    }
}

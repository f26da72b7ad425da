//! Starting a run: the rules of who may, and the steps in their order.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentguard_common::identity::{Tag, origin};
use agentguard_common::limits;
use uuid::Uuid;

use super::{Engine, sweep};
use crate::clock::{self, Timestamp};
use crate::credentials;
use crate::event::{Detail, Event, Identity, Kind, RunStarted};
use crate::files::FileError;
use crate::kernel::{KernelError, NewRun, Port};
use crate::landlock;
use crate::pipeline::Message;
use crate::policy::compile::protected;
use crate::policy::manifest::{Authority, Manifest};
use crate::policy::{duration, text};
use crate::runs::{Origin, Run};
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
    /// The run that the process is in, below which the new one is.
    pub parent: Option<Uuid>,
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

/// A run that has a slot and no task.
struct Begun {
    run: Run,
    process: Process,
    parent: Option<Arc<Run>>,
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
        let (begun, manifest) = self.begin(launch, Origin::Launched)?;
        let landlock = match self.confinement(&manifest) {
            Ok(landlock) => landlock,
            Err(error) => {
                self.free_slot(begun.run.tag());
                return Err(error);
            }
        };
        let run = self.enrol(begun, |port, tag, process, from| {
            port.enrol(tag, process.pid, process.pidfd.as_fd(), from)
        })?;
        self.context.metrics.count_run();
        Ok(Started { landlock, run })
    }

    /// Makes a process that runs already, and all its descendants, an agent's.
    ///
    /// # Errors
    /// See [`LaunchError`]. Then nobody is in the run; but where descendants multiply faster than
    /// they can be found, those that were found stay the agent's.
    pub fn adopt(&mut self, launch: Launch) -> Result<Arc<Run>, LaunchError> {
        let (begun, _) = self.begin(launch, Origin::Adopted)?;
        let run = self.enrol(begun, |port, tag, process, _| {
            port.adopt(tag, process.pid, process.pidfd.as_fd())
                .map(drop)
        })?;
        self.context.metrics.count_run();
        Ok(run)
    }

    /// Takes a slot for a run, and says what is to be recorded of it.
    fn begin(
        &mut self,
        launch: Launch,
        origin: Origin,
    ) -> Result<(Begun, Arc<Manifest>), LaunchError> {
        let parent = launch.parent.map(|id| self.parent(id)).transpose()?;
        let own = parent
            .as_deref()
            .map(|parent| parent.identity.environment.as_str());
        self.in_service(&launch.agent, launch.environment.as_deref().or(own))?;
        let (index, manifest) = self.choose(&launch, parent.as_deref())?;
        let (index, on_behalf_of) = match &parent {
            None => (index, self.authorise(&manifest, &launch)?),
            Some(parent) => self.delegate(index, &manifest, &launch, parent)?,
        };
        let lease = lease(&manifest, launch.lease)?;
        let started = Timestamp::now();
        let lease = below(lease, started, parent.as_deref());
        let context = launch.traceparent.as_deref();
        let traceparent = TraceParent::child_of(context)?;
        let id = Uuid::now_v7();
        let tag = self.port.start_run(&NewRun {
            agent: index,
            id,
            pid: launch.process.pid,
            uid: launch.process.uid,
            parent: parent.as_ref().map(|parent| parent.tag()),
            origin: match origin {
                Origin::Adopted => origin::ADOPTED,
                _ => origin::LAUNCHED,
            },
            lease_until: lease.map_or(0, |lease| {
                let nanos = u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX);
                clock::boot_ns().saturating_add(nanos)
            }),
        })?;
        let run = Run {
            id,
            agent_index: index,
            slot: tag.run,
            serial: tag.run_serial,
            boot_id: self.context.boot_id.clone(),
            origin,
            identity: Identity {
                agent: manifest.name.clone(),
                owner: manifest.owner.clone(),
                environment: manifest.environment.as_str().to_owned(),
                run: Some(id),
                parent_run: parent.as_ref().map(|parent| parent.id),
                on_behalf_of,
                task: launch
                    .task
                    .clone()
                    .or_else(|| parent.as_ref()?.identity.task.clone()),
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
        let begun = Begun {
            run,
            process: launch.process,
            parent,
        };
        Ok((begun, manifest))
    }

    /// The run that an agent is in which starts another one.
    fn parent(&self, id: Uuid) -> Result<Arc<Run>, LaunchError> {
        let found = self.runs.get(id).cloned();
        found.ok_or_else(|| LaunchError::Refused(format!("run {id} has ended")))
    }

    /// Whether the agent of a run may start this one, and as what.
    fn delegate(
        &self,
        agent: u32,
        manifest: &Manifest,
        launch: &Launch,
        parent: &Run,
    ) -> Result<(u32, Option<String>), LaunchError> {
        let refused = |why: String| Err(LaunchError::Refused(why));
        let starter = &parent.identity.agent;
        let Some(index) = self.started_by(parent.agent_index, agent) else {
            return refused(format!(
                "agent `{starter}` may not start agent `{}`: its manifest does not list it under delegates, for its environment",
                manifest.name
            ));
        };
        let above = self.port.run_in(parent.slot);
        if above.is_some_and(|above| above.depth >= limits::LINEAGE) {
            return refused(format!(
                "there are {} runs above this one already, which is the limit",
                limits::LINEAGE
            ));
        }
        let person = parent.identity.on_behalf_of.clone();
        match (&launch.on_behalf_of, &person) {
            (Some(wanted), known) if known.as_ref() != Some(wanted) => refused(format!(
                "a run that an agent starts acts for whom that agent acts ({}), not for {wanted}",
                known.as_deref().unwrap_or("nobody")
            )),
            (None, None) if manifest.authority == Authority::Delegated => refused(format!(
                "agent `{}` acts for a person (authority: delegated), and `{starter}` acts for nobody",
                manifest.name
            )),
            _ => Ok((index, person)),
        }
    }

    /// The index of an agent where another one starts it.
    pub(super) fn started_by(&self, from: u32, agent: u32) -> Option<u32> {
        self.policy.delegations.get(&(from, agent)).copied()
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
    fn enrol(
        &mut self,
        begun: Begun,
        tag_it: impl FnOnce(&mut dyn Port, Tag, &Process, Option<Tag>) -> Result<(), KernelError>,
    ) -> Result<Arc<Run>, LaunchError> {
        let (run, process) = (begun.run, begun.process);
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
        let from = begun.parent.as_deref().map(Run::tag);
        match tag_it(self.port.as_mut(), tag, &process, from) {
            Ok(()) => {
                self.tell_start(&run, None);
                self.tell_credentials(&run);
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

    fn free_slot(&mut self, tag: Tag) {
        self.forget_names_of(tag.run_serial);
        if let Err(error) = self.port.end_run(tag) {
            tracing::error!("the slot of a run that did not start was not freed: {error}");
        }
    }

    /// Tells which credentials of people a run begins with.
    pub(super) fn tell_credentials(&mut self, run: &Run) {
        for found in credentials::of_process(run.pid, &self.context.accounts) {
            self.tell(Message::Emit(Box::new(Event {
                time: run.started,
                seq: 0,
                kind: Kind::SharedCredential,
                identity: Some(run.shown_identity()),
                agent_version: Some(run.agent_version.as_str().into()),
                run_seq: None,
                process: None,
                detail: Detail::SharedCredential(found),
            })));
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
                origin: run.origin.name(),
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
    fn choose(
        &self,
        launch: &Launch,
        parent: Option<&Run>,
    ) -> Result<(u32, Arc<Manifest>), LaunchError> {
        let named: Vec<&(u32, Arc<Manifest>)> = self
            .policy
            .agents
            .iter()
            .filter(|(_, manifest)| manifest.name == launch.agent)
            .collect();
        // An agent's others are in its own environment.
        let own = parent.map(|parent| parent.identity.environment.as_str());
        let wanted = launch.environment.as_deref().or(own);
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

    /// Who may start this agent, and for whom it then acts.
    fn authorise(
        &self,
        manifest: &Manifest,
        launch: &Launch,
    ) -> Result<Option<String>, LaunchError> {
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
            (person, _) => Ok(person.clone()),
        }
    }
}

/// A lease that does not last longer than that of the run above.
fn below(lease: Option<Duration>, now: Timestamp, parent: Option<&Run>) -> Option<Duration> {
    let left = parent.and_then(|parent| parent.lease_until);
    // One that has ended is still one.
    let left = left.map(|until| until.since(now).max(Duration::from_nanos(1)));
    match (lease, left) {
        (Some(own), Some(left)) => Some(own.min(left)),
        (own, left) => own.or(left),
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

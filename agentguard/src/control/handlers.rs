//! What each endpoint does.

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Body as HttpBody;
use uuid::Uuid;

use super::Control;
use super::answers::{Answer, Failed, json, with_type};
use super::authority::Role;
use super::body::Body;
use super::peer::{Peer, pidfd_open};
use super::processes;
use super::request::{self, EventQuery, Route};
use super::residual;
use super::views;
use crate::api;
use crate::engine::{Asked, Launch, StatusReport, Trigger, launch};
use crate::files::FileError;
use crate::kernel::ProtectionStatus;
use crate::runs::{ENDED_RUNS, Run};
use crate::sinks::ledger::{self, Selection};
use crate::sinks::subscribers::{Filter, Scope};

impl Control {
    /// Answers one request of this peer.
    pub(super) async fn answer<B>(&self, peer: &Peer, request: Request<B>) -> Answer
    where
        B: HttpBody,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let uri = request.uri();
        let route = request::route(request.method(), uri.path(), uri.query())?;
        let role = self.role(peer).await?;
        match route {
            Route::StartRun => {
                let parent = role.start_runs()?;
                let wanted = request::body(request.into_body()).await?;
                self.start_run(peer, (role, parent), wanted).await
            }
            Route::Adopt => {
                role.operate("adopting processes", &self.socket_group)?;
                let wanted = request::body(request.into_body()).await?;
                self.adopt(peer, wanted).await
            }
            Route::Runs { agent, ended } => self.runs(role, agent, ended).await,
            Route::Run(id) => self.run(role, id).await,
            Route::Ps => self.ps(role).await,
            Route::Events(query) => self.events(role, query).await,
            Route::Agents => self.agents(role).await,
            Route::Agent { name, environment } => self.agent(role, &name, environment).await,
            Route::Decide { name, retire } => {
                let what = if retire {
                    "retiring an agent"
                } else {
                    "reinstating an agent"
                };
                role.operate(what, &self.socket_group)?;
                let decision = request::body(request.into_body()).await?;
                self.decide(peer, name, retire, decision).await
            }
            Route::Reload => {
                role.operate("reloading policies", &self.socket_group)?;
                let loaded = self
                    .loader
                    .load(Asked {
                        trigger: Trigger::Api,
                        by: self.caller(peer),
                    })
                    .await?;
                json(&api::Reloaded {
                    policy_generation: loaded.generation,
                    agents: loaded.agents,
                })
            }
            Route::Status => self.status(role).await,
            Route::Doctor => {
                role.operate("the daemon's doctor", &self.socket_group)?;
                json(&self.engine.call(|engine| engine.doctor()).await?)
            }
        }
    }

    /// What the peer is, asked of the kernel for this request.
    async fn role(&self, peer: &Peer) -> Result<Role, Failed> {
        if !peer.is_alive() {
            return Err(Failed::new(
                api::Code::Refused,
                "the process that connected has ended; connect anew",
            ));
        }
        let pidfd = peer.pidfd().try_clone_to_owned()?;
        let (tag, run) = self
            .engine
            .call(move |engine| {
                use std::os::fd::AsFd;
                let tag = engine.port().tag_of(pidfd.as_fd())?;
                Ok::<_, crate::kernel::KernelError>((tag, tag.and_then(|tag| engine.run_of(tag))))
            })
            .await??;
        let group = self.accounts.gid(&self.socket_group);
        Ok(Role::of(peer, tag, run, group))
    }

    async fn start_run(
        &self,
        peer: &Peer,
        (role, parent): (Role, Option<Uuid>),
        wanted: api::RunRequest,
    ) -> Answer {
        if peer.threads()? != 1 {
            return Err(Failed::bad_request(
                "a run starts with a process of one thread; `agentguard run` is such a process",
            ));
        }
        if wanted.command.is_empty() {
            return Err(Failed::bad_request(
                "`command` is empty: nothing would be executed",
            ));
        }
        let launch = Launch {
            agent: wanted.agent,
            environment: wanted.environment,
            task: wanted.task,
            on_behalf_of: wanted.on_behalf_of,
            lease: wanted.lease_seconds.map(Duration::from_secs),
            command: wanted.command,
            traceparent: wanted.traceparent,
            parent,
            process: launch::Process {
                pid: peer.pid,
                pidfd: peer.pidfd().try_clone_to_owned()?,
                uid: peer.uid,
                user: self.accounts.user_label(peer.uid),
                operator: role == Role::Operator,
            },
        };
        let started = self
            .engine
            .call(move |engine| engine.start_run(launch))
            .await??;
        let run = &started.run;
        let env = BTreeMap::from([
            ("AGENTGUARD_RUN_ID".to_owned(), run.id.to_string()),
            ("TRACEPARENT".to_owned(), run.traceparent.clone()),
        ]);
        json(&api::RunCreated {
            run: run.id,
            agent: run.identity.agent.clone(),
            environment: run.identity.environment.clone(),
            agent_version: run.agent_version.clone(),
            lease_until: run.lease_until,
            env,
            landlock: started.landlock,
        })
    }

    async fn adopt(&self, peer: &Peer, wanted: api::AdoptRequest) -> Answer {
        let pid = wanted.pid;
        let gone = |error: std::io::Error| {
            Failed::bad_request(format!("process {pid} cannot be adopted: {error}"))
        };
        if let Some(why) = processes::not_to_be_adopted(pid) {
            return Err(Failed::bad_request(format!(
                "process {pid} cannot be adopted: {why}"
            )));
        }
        let pidfd = pidfd_open(pid).map_err(gone)?;
        let first = processes::details(pid);
        let session = processes::session(pid);
        let launch = Launch {
            agent: wanted.agent,
            environment: wanted.environment,
            task: wanted.task,
            on_behalf_of: wanted.on_behalf_of,
            lease: wanted.lease_seconds.map(Duration::from_secs),
            command: first.command,
            traceparent: None,
            parent: None,
            process: launch::Process {
                pid,
                pidfd,
                uid: first.uid,
                user: self.accounts.user_label(peer.uid),
                operator: true,
            },
        };
        let run = self
            .engine
            .call(move |engine| engine.adopt(launch))
            .await??;
        let tagged = processes::tagged(&self.engine).await?;
        let of_run = |tagged: &processes::Tagged| tagged.tag.run_serial == run.serial;
        let pids: Vec<u32> = tagged
            .iter()
            .filter(|one| of_run(one))
            .map(|one| one.pid)
            .collect();
        let all: HashSet<u32> = tagged.iter().map(|one| one.pid).collect();
        let looked_at = pids.clone();
        let (residual, left_out) = tokio::task::spawn_blocking(move || {
            (residual::of(&looked_at), left_out(session, &all))
        })
        .await
        .map_err(|error| Failed::bad_request(error.to_string()))?;
        let slot = run.slot;
        let kernel = self
            .engine
            .call(move |engine| engine.port().run_in(slot))
            .await?;
        json(&api::Adopted {
            run: run.id,
            agent: run.identity.agent.clone(),
            environment: run.identity.environment.clone(),
            lease_until: run.lease_until,
            tasks: kernel.map_or(0, |kernel| kernel.tasks),
            processes: pids,
            residual,
            left_out,
        })
    }

    /// The runs that the caller may see, as a scope for events.
    async fn sight(&self, role: Role) -> Result<Scope, Failed> {
        let (live, store) = self
            .engine
            .call(|engine| (engine.live_runs(), engine.store()))
            .await?;
        let sight = role.sight(|uid| {
            let mut known: HashSet<Uuid> = live
                .iter()
                .filter(|(run, _)| run.uid == uid)
                .map(|(run, _)| run.id)
                .collect();
            let ended = store.newest_ended(ENDED_RUNS, |run| run.uid == uid)?;
            known.extend(ended.iter().map(|run| run.id));
            Ok::<_, FileError>(known)
        })?;
        Ok(sight?)
    }

    async fn runs(&self, role: Role, agent: Option<String>, ended: usize) -> Answer {
        let (live, store) = self
            .engine
            .call(|engine| (engine.live_runs(), engine.store()))
            .await?;
        let visible = move |run: &Run| {
            let of_caller = match role {
                Role::Operator => true,
                Role::User(uid) => run.uid == uid,
                Role::Agent(own) => own == Some(run.id),
            };
            of_caller
                && agent
                    .as_ref()
                    .is_none_or(|agent| *agent == run.identity.agent)
        };
        let runs = tokio::task::spawn_blocking(move || {
            let mut runs: Vec<api::Run> = live
                .iter()
                .filter(|(run, _)| visible(run))
                .map(|(run, kernel)| views::run(run, kernel.as_ref()))
                .collect();
            let ended = store.newest_ended(ended, visible)?;
            runs.extend(ended.iter().map(|run| views::run(run, None)));
            Ok::<_, FileError>(runs)
        });
        json(&api::Runs { runs: runs.await?? })
    }

    async fn run(&self, role: Role, id: Uuid) -> Answer {
        let (live, store) = self
            .engine
            .call(move |engine| {
                let live = engine.live_runs();
                (
                    live.into_iter().find(|(run, _)| run.id == id),
                    engine.store(),
                )
            })
            .await?;
        let (run, kernel) = match live {
            Some((run, kernel)) => (Some(run), kernel),
            None => (store.ended(id)?.map(Arc::new), None),
        };
        let scope_covers = |run: &Run| match role {
            Role::Operator => true,
            Role::User(uid) => run.uid == uid,
            Role::Agent(own) => own == Some(run.id),
        };
        // A run that may not be seen and one that does not exist look the same.
        match run.filter(|run| scope_covers(run)) {
            Some(run) => json(&views::run(&run, kernel.as_ref())),
            None => Err(Failed::not_found(format!(
                "no run {id}; `agentguard runs list` shows live and recently ended runs"
            ))),
        }
    }

    async fn ps(&self, role: Role) -> Answer {
        let tagged = processes::tagged(&self.engine).await?;
        let runs: BTreeMap<u64, Arc<Run>> = self
            .engine
            .call(|engine| engine.live_runs())
            .await?
            .into_iter()
            .map(|(run, _)| (run.serial, run))
            .collect();
        let mut list = Vec::new();
        for process in tagged {
            let run = runs.get(&process.tag.run_serial);
            let visible = match role {
                Role::Operator => true,
                Role::User(uid) => run.is_some_and(|run| run.uid == uid),
                Role::Agent(own) => own.is_some() && own == run.map(|run| run.id),
            };
            if visible {
                list.push(views::process(&process, run.map(Arc::as_ref)));
            }
        }
        json(&api::Processes { processes: list })
    }

    async fn events(&self, role: Role, query: EventQuery) -> Answer {
        let filter = Filter {
            agent: query.agent,
            run: query.run,
            verdict: query.verdict,
            scope: self.sight(role).await?,
        };
        if query.follow {
            let subscription = self
                .subscribers
                .subscribe(filter)
                .map_err(|error| Failed::new(api::Code::Unavailable, error.to_string()))?;
            return Ok(with_type(Body::events(subscription), "application/jsonl"));
        }
        let directory = self.ledger_directory.clone();
        let selection = Selection {
            filter,
            last: if query.last == 0 { 100 } else { query.last },
        };
        let lines =
            tokio::task::spawn_blocking(move || ledger::tail(&directory, &selection)).await??;
        Ok(with_type(Body::whole(lines.concat()), "application/jsonl"))
    }

    async fn status(&self, role: Role) -> Answer {
        role.operate("the daemon's status", &self.socket_group)?;
        let report = self.engine.call(|engine| engine.status()).await?;
        json(&self.status_of(&report))
    }

    fn status_of(&self, report: &StatusReport) -> api::Status {
        let accepted = &self.facts.accept_degraded;
        let degraded: Vec<api::Degraded> = report
            .protections
            .iter()
            .filter(|protection| protection.status != ProtectionStatus::Enforcing)
            .map(|protection| api::Degraded {
                protection: protection.name.to_owned(),
                status: api::status_name(protection.status).to_owned(),
                accepted: accepted.iter().any(|name| name == protection.name),
            })
            .collect();
        let policy = &report.policy;
        let refusal = policy.last_refusal.as_ref();
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.facts.started,
            enforcing: degraded.is_empty(),
            degraded,
            policy: api::PolicyStatus {
                generation: policy.generation,
                loaded: policy.loaded,
                agents: policy.agents.len(),
                refused: refusal.map(|refusal| refusal.time),
                problems: refusal
                    .map(|refusal| refusal.problems.clone())
                    .unwrap_or_default(),
            },
            runs: report.runs,
            tagged_tasks: report.tagged_tasks,
            resolver: report.resolver.clone(),
            ledger: self.ledger.report(),
            subscribers: self.subscribers.count(),
            metrics: self.facts.metrics.clone(),
            directories: self.facts.directories.clone(),
        }
    }
}

/// Processes of a session that are no agent's: a descendant whose parents have ended is not
/// found as one.
fn left_out(session: Option<i32>, tagged: &HashSet<u32>) -> Vec<String> {
    let Some(session) = session else {
        return Vec::new();
    };
    processes::all_pids()
        .into_iter()
        .filter(|pid| !tagged.contains(pid) && processes::session(*pid) == Some(session))
        .filter_map(|pid| Some(format!("{pid}: {}", processes::details(pid).exe?)))
        .collect()
}

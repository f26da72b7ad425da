//! Loading policies: read, check, compile, put in force. Whatever fails, the
//! policy in force stays as it is.

mod asked;
mod decide;
mod life;
mod needs;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

pub use self::asked::{Asked, Trigger};
pub use self::decide::{Decided, LifeError, Named};
use self::life::{Wanted, note};
use self::needs::missing_protections;
use super::{Engine, Handle, Stopped};
use crate::agents::kept::Kept;
use crate::agents::{Registry, RegistryError};
use crate::clock::Timestamp;
use crate::correlate::PolicyNames;
use crate::event::{Detail, Kind, LoadedAgent, PolicyLoaded};
use crate::files::{self, Durability, FileError};
use crate::kernel::KernelError;
use crate::links::Scope;
use crate::memory;
use crate::mounts::MountTable;
use crate::pipeline::Message;
use crate::policy::compile::lineage::{self, Place};
use crate::policy::compile::protected::{self, Protection};
use crate::policy::compile::{Compiled, Set};
use crate::policy::manifest::Manifest;
use crate::policy::{self, Diagnostic, LoadOptions};
use crate::users::Accounts;

/// Agents with their kernel indexes.
pub type IndexedAgents = Vec<(u32, Arc<Manifest>)>;

/// The policy in force.
#[derive(Clone, Debug, Default)]
pub struct InForce {
    /// Its generation; zero before the first load.
    pub generation: u32,
    /// When it came into force.
    pub loaded: Timestamp,
    /// The agents in it, with their kernel indexes.
    pub agents: IndexedAgents,
    /// The places in which they can be started by others, with their kernel indexes.
    pub places: Vec<(u32, Place)>,
    /// The index of an agent in such a place, by that of the one that starts it and its own.
    pub delegations: HashMap<(u32, u32), u32>,
    /// The mounts that it was compiled for.
    pub mounts: Arc<MountTable>,
    /// Why the last attempt to load another was refused.
    pub last_refusal: Option<Refusal>,
}

/// A load that was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// When.
    pub time: Timestamp,
    /// Why.
    pub problems: Vec<String>,
}

/// Where policies come from and where what is known about them is kept.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Directory of manifests.
    pub agents: PathBuf,
    /// The host's mounts.
    pub mountinfo: PathBuf,
    /// The registry's file.
    pub registry: PathBuf,
    /// The file of rule names, for the next daemon.
    pub names: PathBuf,
    /// The texts of the manifests in force.
    pub kept: Kept,
    /// Protections that the operator lets be absent.
    pub accept_degraded: BTreeSet<String>,
    /// Protections of the daemon's own places.
    pub own: Vec<Protection>,
}

/// A load that succeeded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The generation in force now.
    pub generation: u32,
    /// How many agents it has.
    pub agents: usize,
}

/// Why a policy was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The manifests have problems.
    #[error("{} in the manifests; the policy in force stays:\n{}", count(problems.len()), problems.join("\n"))]
    Manifests {
        /// Each with its place.
        problems: Vec<String>,
    },
    /// A manifest needs what this host does not have.
    #[error("{}", problems.join("\n"))]
    Protections {
        /// One per protection.
        problems: Vec<String>,
    },
    /// Agents cannot be numbered.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The kernel refused; the policy in force stays.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The daemon is stopping.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A worker thread was lost.
    #[error("the policy loader ended early: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

fn count(problems: usize) -> String {
    match problems {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}

impl LoadError {
    /// One line per problem.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Manifests { problems } | Self::Protections { problems } => problems.clone(),
            other => vec![other.to_string()],
        }
    }
}

/// Loads policies, one at a time.
pub struct Loader {
    engine: Handle,
    sources: Sources,
    /// Whoever holds this is loading.
    known: Mutex<Known>,
}

/// What a load leaves for the next.
struct Known {
    /// The names of the generation in force.
    names: Option<Arc<PolicyNames>>,
    /// The warnings that were logged last.
    warnings: Vec<Diagnostic>,
}

impl Loader {
    /// `names` are those of the generation that the last daemon left in force.
    #[must_use]
    pub fn new(engine: Handle, sources: Sources, names: Option<Arc<PolicyNames>>) -> Self {
        Self {
            engine,
            sources,
            known: Mutex::new(Known {
                names,
                warnings: Vec::new(),
            }),
        }
    }

    /// Reads the manifests and puts them in force.
    ///
    /// # Errors
    /// See [`LoadError`]; the policy in force stays.
    pub async fn load(&self, asked: impl Into<Asked>) -> Result<Loaded, LoadError> {
        let asked = asked.into();
        let mut known = self.known.lock().await;
        let result = self.load_locked(&asked, &mut known).await;
        self.tell_refusal(asked.trigger, &result).await;
        result
    }

    async fn load_locked(&self, asked: &Asked, known: &mut Known) -> Result<Loaded, LoadError> {
        let directory = self.sources.agents.clone();
        let options = LoadOptions {
            strict_permissions: true,
        };
        let read = tokio::task::spawn_blocking(move || policy::load_dir(&directory, options));
        let set = read.await?.map_err(|diagnostics| LoadError::Manifests {
            problems: diagnostics.0.iter().map(ToString::to_string).collect(),
        })?;
        let wanted = self.with_absent(set).await?;
        self.install(wanted, asked, known).await
    }

    /// Compiles the manifests in force anew if the host's mounts are not those
    /// that they were compiled for. The manifests on the disk are not looked
    /// at: a mount is no reload.
    ///
    /// # Errors
    /// See [`LoadError`]; the policy in force stays.
    pub async fn follow_mounts(&self) -> Result<(), LoadError> {
        let mut known = self.known.lock().await;
        let in_force = self.engine.call(|engine| engine.policy.clone()).await?;
        let mountinfo = self.sources.mountinfo.clone();
        let now = tokio::task::spawn_blocking(move || MountTable::read(&mountinfo)).await?;
        if now.is_ok_and(|now| now == *in_force.mounts) {
            return Ok(());
        }
        self.install_again(Trigger::Mounts.into(), &mut known).await
    }

    /// Compiles the manifests in force anew, without those of retired agents.
    async fn install_again(&self, asked: Asked, known: &mut Known) -> Result<(), LoadError> {
        let wanted = self.engine.call(|engine| engine.in_force_again()).await?;
        let result = self.install(wanted, &asked, known).await;
        self.tell_refusal(asked.trigger, &result).await;
        result.map(|_| ())
    }

    async fn install(
        &self,
        wanted: Wanted,
        asked: &Asked,
        known: &mut Known,
    ) -> Result<Loaded, LoadError> {
        let trigger = asked.trigger;
        let accepted = self.sources.accept_degraded.clone();
        let (registry, set, mut wanted) = self
            .engine
            .call(move |engine| engine.plan(wanted, &accepted))
            .await??;
        let sources = self.sources.clone();
        let previous = known.names.clone();
        let occasion = asked.occasion();
        let mut warnings = std::mem::take(&mut wanted.warnings);
        let (compiled, registry, set, names) = tokio::task::spawn_blocking(move || {
            let compiled = compile(&sources, &registry, &set)?;
            let registry = note(registry, &wanted, &sources.kept, &occasion)?;
            registry.save(&sources.registry)?;
            let names = Arc::new(PolicyNames::of(&compiled));
            // The previous generation stays known: its records may still be in the rings.
            let kept: Vec<&PolicyNames> = [Some(&names), previous.as_ref()]
                .into_iter()
                .flatten()
                .map(Arc::as_ref)
                .collect();
            save_names(&sources.names, &kept)?;
            Ok::<_, LoadError>((compiled, registry, set, names))
        })
        .await??;
        if trigger != Trigger::Mounts {
            warnings.extend(compiled.warnings.iter().cloned());
            known.warn(warnings);
        }
        let told = Arc::clone(&names);
        let loaded = self
            .engine
            .call(move |engine| engine.put(&compiled, registry, set, told, trigger))
            .await??;
        known.names = Some(names);
        self.told().await?;
        memory::give_back();
        Ok(loaded)
    }

    async fn tell_refusal(&self, trigger: Trigger, result: &Result<Loaded, LoadError>) {
        let Err(error) = result else {
            return;
        };
        let problems = error.problems();
        // A start that fails ends the daemon, whose last words say why.
        if trigger != Trigger::Start {
            tracing::error!(
                "policy refused ({}), the policy in force stays: {}",
                trigger.name(),
                problems.join("; ")
            );
        }
        // When the engine is gone there is nobody left to tell.
        let _ = self
            .engine
            .call(move |engine| engine.refuse(trigger, problems))
            .await;
    }
}

impl Known {
    /// Logs what is probably not meant, once as long as it stays the same.
    fn warn(&mut self, warnings: Vec<Diagnostic>) {
        if self.warnings == warnings {
            return;
        }
        for warning in &warnings {
            let text = warning.to_string();
            tracing::warn!("{}", text.lines().collect::<Vec<_>>().join("; "));
        }
        self.warnings = warnings;
    }
}

/// The blocking part: nothing of it touches the kernel side.
fn compile(sources: &Sources, registry: &Registry, set: &Set) -> Result<Compiled, LoadError> {
    let mounts = MountTable::read(&sources.mountinfo)
        .map_err(|error| FileError::new("read", &sources.mountinfo, error))?;
    let mut own = sources.own.clone();
    own.extend(protected::in_homes(&Accounts::default().homes()));
    let compiled = policy::compile::compile(set, &mounts, &own, registry.generation).map_err(
        |diagnostics| LoadError::Manifests {
            problems: diagnostics.iter().map(ToString::to_string).collect(),
        },
    )?;
    Ok(compiled)
}

fn save_names(path: &std::path::Path, names: &[&PolicyNames]) -> Result<(), LoadError> {
    let bytes =
        serde_json::to_vec(names).map_err(|error| FileError::new("write", path, error.into()))?;
    Ok(files::replace(path, &bytes, Durability::Process)?)
}

/// The rule names that the last daemon left, the generation in force first;
/// none if they cannot be read, for then events lose only their rules' names.
#[must_use]
pub fn load_names(path: &std::path::Path) -> Vec<PolicyNames> {
    std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

impl Engine {
    /// Numbers the agents and checks that this host can do what they need. Retired ones
    /// are left out, whatever their files say.
    fn plan(
        &self,
        mut wanted: Wanted,
        accepted: &BTreeSet<String>,
    ) -> Result<(Registry, Set, Wanted), LoadError> {
        let mut registry = self.registry.clone();
        wanted.leave_out(&registry);
        let manifests = wanted.all();
        let problems = missing_protections(&self.port.protections(), &manifests, accepted);
        if !problems.is_empty() {
            return Err(LoadError::Protections { problems });
        }
        let live: HashSet<u32> = self.port.runs().iter().map(|run| run.agent).collect();
        let places = lineage::places(&manifests).map_err(|error| LoadError::Manifests {
            problems: vec![error.to_string()],
        })?;
        let placeholders = places.iter().map(|place| Arc::new(place.placeholder()));
        let all: Vec<Arc<Manifest>> = manifests.iter().cloned().chain(placeholders).collect();
        let mut agents = registry.assign(&all, &live, &self.port.decisions())?;
        let indexes = agents.split_off(manifests.len()).into_iter();
        let indexes = indexes.map(|(index, _)| index);
        let set = Set {
            agents,
            places: indexes.zip(places).collect(),
        };
        Ok((registry, set, wanted))
    }

    fn put(
        &mut self,
        compiled: &Compiled,
        registry: Registry,
        set: Set,
        names: Arc<PolicyNames>,
        trigger: Trigger,
    ) -> Result<Loaded, LoadError> {
        self.put_with_names(compiled, &names)?;
        self.links
            .policy(Scope::of(compiled), trigger == Trigger::Mounts);
        let mounts = Arc::new(compiled.mounts.clone());
        self.tell(Message::Mounts(Arc::clone(&mounts)));
        self.tell(Message::Policy(names));
        let loaded = Loaded {
            generation: compiled.generation,
            agents: set.agents.len(),
        };
        let delegations = compiled.tables.delegations.iter();
        self.registry = registry;
        self.policy = InForce {
            generation: compiled.generation,
            loaded: Timestamp::now(),
            agents: set.agents,
            places: set.places,
            delegations: delegations
                .map(|(key, index)| ((key.from, key.agent), *index))
                .collect(),
            mounts,
            last_refusal: None,
        };
        self.tell_untold();
        self.tell_loaded(trigger);
        Ok(loaded)
    }

    fn tell_loaded(&mut self, trigger: Trigger) {
        let agents = self.policy.agents.iter().map(|(_, manifest)| LoadedAgent {
            agent: manifest.name.clone(),
            environment: manifest.environment.as_str().to_owned(),
            agent_version: manifest.version.clone(),
            mode: manifest.mode.as_str(),
        });
        let loaded = PolicyLoaded {
            policy_generation: self.policy.generation,
            trigger: trigger.name(),
            agents: agents.collect(),
        };
        tracing::info!(
            "policy generation {} in force ({}), agents: {}",
            loaded.policy_generation,
            loaded.trigger,
            loaded.agents.len()
        );
        self.emit(Kind::PolicyLoaded, Detail::PolicyLoaded(loaded));
    }

    fn refuse(&mut self, trigger: Trigger, problems: Vec<String>) {
        self.context.metrics.count_load_failure();
        self.policy.last_refusal = Some(Refusal {
            time: Timestamp::now(),
            problems: problems.clone(),
        });
        self.emit(
            Kind::PolicyRefused,
            Detail::PolicyRefused {
                trigger: trigger.name(),
                problems,
            },
        );
    }
}

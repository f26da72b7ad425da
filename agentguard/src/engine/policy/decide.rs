//! The decisions of operators about agents: retired, reinstated.

use super::{Asked, LoadError, Loader, Trigger};
use crate::agents::life::Occasion;
use crate::agents::{Registry, RegistryError};
use crate::engine::{Engine, Stopped};
use crate::event::Kind;

/// Which agent an operator means, and why.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its name.
    pub agent: String,
    /// Its environment; needed where the name exists in several.
    pub environment: Option<String>,
    /// Why.
    pub reason: String,
    /// Who decides.
    pub by: String,
}

/// What came of an operator's decision.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The agent.
    pub agent: String,
    /// Its environment.
    pub environment: String,
    /// Serial numbers of the runs that were revoked.
    pub revoked: Vec<u64>,
}

/// Why an operator's decision about an agent was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// There is no such agent.
    #[error("no agent `{0}` was ever registered here; `agentguard agents list` shows all")]
    NoAgent(String),
    /// The name exists in several environments.
    #[error("agent `{agent}` exists in {}; say which with --environment", environments.join(" and "))]
    Ambiguous {
        /// Its name.
        agent: String,
        /// They.
        environments: Vec<String>,
    },
    /// It is so already.
    #[error("{0}")]
    Already(String),
    /// The registry cannot be written: nothing is changed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It is decided, but the policy could not be loaded.
    #[error(
        "agent `{agent}` is reinstated, but its manifest is not in force: {}; correct it, then `agentguard policy reload`",
        source.problems().join("; ")
    )]
    Load {
        /// Its name.
        agent: String,
        /// Why.
        source: LoadError,
    },
    /// The daemon is stopping.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A worker thread was lost.
    #[error("the registry's writer ended early: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl Loader {
    /// Retires an agent: no new runs, and the live ones are revoked before this returns.
    ///
    /// # Errors
    /// See [`LifeError`]; then nothing is changed.
    pub async fn retire(&self, named: Named) -> Result<Decided, LifeError> {
        let mut known = self.known.lock().await;
        let reason = named.reason.clone();
        let asked = asked(Trigger::Retire, &named);
        let occasion = asked.occasion();
        let at = occasion.clone();
        let (registry, at_agent) = self
            .engine
            .call(move |engine| engine.plan_retirement(&named, &reason, &at))
            .await??;
        self.save(&registry).await?;
        let decided = self
            .engine
            .call(move |engine| engine.put_retirement(registry, at_agent))
            .await?;
        // Its rights are gone already; this takes its rules out of the tables.
        let cleared = match self.install_again(asked, &mut known).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(
                    "agent `{}` is retired, but its rules are still in the kernel's tables, where nobody is judged by them: {error}",
                    decided.agent
                );
                self.told().await
            }
        };
        if let Err(error) = cleared {
            tracing::error!("{error}");
        }
        Ok(decided)
    }

    /// Takes a retirement back, and puts the agent's manifest in force again.
    ///
    /// # Errors
    /// See [`LifeError`].
    pub async fn reinstate(&self, named: Named) -> Result<Decided, LifeError> {
        let mut known = self.known.lock().await;
        let asked = asked(Trigger::Reinstate, &named);
        let occasion = asked.occasion();
        let (registry, decided) = self
            .engine
            .call(move |engine| engine.plan_reinstatement(&named, &occasion))
            .await??;
        self.save(&registry).await?;
        self.engine
            .call(move |engine| engine.put_registry(registry))
            .await?;
        let result = self.load_locked(&asked, &mut known).await;
        self.tell_refusal(asked.trigger, &result).await;
        match result {
            Ok(_) => Ok(decided),
            Err(source) => Err(LifeError::Load {
                agent: decided.agent,
                source,
            }),
        }
    }

    async fn save(&self, registry: &Registry) -> Result<(), LifeError> {
        let (registry, path) = (registry.clone(), self.sources.registry.clone());
        Ok(tokio::task::spawn_blocking(move || registry.save(&path)).await??)
    }
}

fn asked(trigger: Trigger, named: &Named) -> Asked {
    Asked {
        trigger,
        by: named.by.clone(),
    }
}

impl Engine {
    /// The registered agent that an operator means, by its place in the registry.
    fn meant(&self, name: &str, environment: Option<&str>) -> Result<(String, String), LifeError> {
        let found: Vec<&str> = self
            .registry
            .iter()
            .filter(|agent| agent.name == name && agent.latest().is_some())
            .map(|agent| agent.environment.as_str())
            .filter(|it| environment.is_none_or(|wanted| wanted == *it))
            .collect();
        match found.as_slice() {
            [one] => Ok((name.to_owned(), (*one).to_owned())),
            [] => Err(LifeError::NoAgent(name.to_owned())),
            several => Err(LifeError::Ambiguous {
                agent: name.to_owned(),
                environments: several.iter().map(|it| (*it).to_owned()).collect(),
            }),
        }
    }

    fn plan_retirement(
        &self,
        named: &Named,
        reason: &str,
        occasion: &Occasion,
    ) -> Result<(Registry, (String, String)), LifeError> {
        let at = self.meant(&named.agent, named.environment.as_deref())?;
        let mut registry = self.registry.clone();
        let Some(agent) = registry.find_mut(&at.0, &at.1) else {
            return Err(LifeError::NoAgent(at.0));
        };
        if let Some(retired) = &agent.retired {
            return Err(LifeError::Already(format!(
                "agent `{}` ({}) is retired already, since {}, by {}: {}",
                at.0, at.1, retired.time, retired.by, retired.reason
            )));
        }
        agent.retire(occasion, reason);
        let told = agent.happening(Kind::AgentRetired, occasion, |detail| {
            detail.reason = Some(reason.to_owned());
        });
        // What it is after that, the retirement says.
        agent.absent_since = None;
        registry.untold.push(told);
        Ok((registry, at))
    }

    fn put_retirement(&mut self, registry: Registry, at: (String, String)) -> Decided {
        self.registry = registry;
        let revoked = self.revoke_retired();
        if let Some(told) = self.registry.untold.last_mut() {
            told.detail.runs_revoked = Some(revoked.len());
        }
        self.tell_untold();
        tracing::info!(
            "agent `{}` ({}) is retired; runs revoked: {}",
            at.0,
            at.1,
            revoked.len()
        );
        Decided {
            agent: at.0,
            environment: at.1,
            revoked,
        }
    }

    fn plan_reinstatement(
        &self,
        named: &Named,
        occasion: &Occasion,
    ) -> Result<(Registry, Decided), LifeError> {
        let at = self.meant(&named.agent, named.environment.as_deref())?;
        let mut registry = self.registry.clone();
        let Some(agent) = registry.find_mut(&at.0, &at.1) else {
            return Err(LifeError::NoAgent(at.0));
        };
        if agent.retired.is_none() {
            return Err(LifeError::Already(format!(
                "agent `{}` ({}) is not retired",
                at.0, at.1
            )));
        }
        let told = agent.reinstate(occasion, &named.reason);
        registry.untold.push(told);
        let decided = Decided {
            agent: at.0,
            environment: at.1,
            revoked: Vec::new(),
        };
        Ok((registry, decided))
    }

    fn put_registry(&mut self, registry: Registry) {
        self.registry = registry;
        self.tell_untold();
    }
}

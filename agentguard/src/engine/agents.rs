//! What state agents are in, who of them may begin a run, and what is told of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use agentguard_common::identity::{Tag, run_state};

use super::{Engine, LaunchError};
use crate::agents::Agent;
use crate::clock::Timestamp;
use crate::event::{Detail, Event, Identity};
use crate::pipeline::Message;
use crate::policy::compile::lineage;
use crate::policy::manifest::Manifest;

/// What an agent does, or why it does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AgentState {
    /// It has a live run.
    Active,
    /// It has none.
    Idle,
    /// It had none for longer than `dormant_after`.
    Dormant,
    /// Its manifest is gone, and nobody confirmed that.
    Absent,
    /// An operator retired it.
    Retired,
}

impl AgentState {
    /// All, in order of their names' meaning.
    pub const ALL: [Self; 5] = [
        Self::Active,
        Self::Idle,
        Self::Dormant,
        Self::Absent,
        Self::Retired,
    ];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Dormant => "dormant",
            Self::Absent => "absent",
            Self::Retired => "retired",
        }
    }
}

/// An agent, in force or not.
pub struct AgentReport {
    /// What the registry has of it.
    pub known: Agent,
    /// Its manifest, if one is in force.
    pub manifest: Option<Arc<Manifest>>,
    /// Its state.
    pub state: AgentState,
    /// Its live runs.
    pub runs: usize,
    /// When its newest run began, as far as that is known.
    pub last_run: Option<Timestamp>,
}

impl Engine {
    /// All agents whose manifests were ever in force.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentReport> {
        // Not by index: where another agent starts it, it has one of its own.
        let mut live: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for run in self.runs.live() {
            let identity = &run.identity;
            let key = (identity.agent.as_str(), identity.environment.as_str());
            *live.entry(key).or_default() += 1;
        }
        let manifests: BTreeMap<u32, &Arc<Manifest>> = self
            .policy
            .agents
            .iter()
            .map(|(index, manifest)| (*index, manifest))
            .collect();
        let now = Timestamp::now();
        let report = |agent: &Agent| {
            let key = (agent.name.as_str(), agent.environment.as_str());
            let runs = live.get(&key).copied().unwrap_or(0);
            let last_run = self.last_runs.get(&agent.name, &agent.environment);
            AgentReport {
                known: agent.clone(),
                manifest: manifests.get(&agent.index).map(|it| Arc::clone(it)),
                state: self.state_of(agent, runs, last_run, now),
                runs,
                last_run,
            }
        };
        let agents = self.registry.iter();
        agents
            .filter(|agent| agent.latest().is_some())
            .map(report)
            .collect()
    }

    fn state_of(
        &self,
        agent: &Agent,
        runs: usize,
        last_run: Option<Timestamp>,
        now: Timestamp,
    ) -> AgentState {
        let newest = last_run.max(agent.registered);
        if agent.retired.is_some() {
            AgentState::Retired
        } else if agent.absent_since.is_some() {
            AgentState::Absent
        } else if runs > 0 {
            AgentState::Active
        } else if newest.is_some_and(|newest| now.since(newest) > self.context.dormant_after) {
            AgentState::Dormant
        } else {
            AgentState::Idle
        }
    }

    /// How many agents are in each state.
    pub(super) fn agents_by_state(&self) -> BTreeMap<&'static str, u64> {
        let mut counts: BTreeMap<_, _> = AgentState::ALL.map(|state| (state.name(), 0)).into();
        for agent in self.agents() {
            *counts.entry(agent.state.name()).or_default() += 1;
        }
        counts
    }

    /// Whether an agent of this name may begin a run, as far as its life is concerned.
    ///
    /// # Errors
    /// It is retired, or its manifest is gone.
    pub(super) fn in_service(
        &self,
        name: &str,
        environment: Option<&str>,
    ) -> Result<(), LaunchError> {
        let known: Vec<&Agent> = self
            .registry
            .iter()
            .filter(|agent| agent.name == name && agent.latest().is_some())
            .filter(|agent| environment.is_none_or(|wanted| agent.environment == wanted))
            .collect();
        // Also where all but one are retired: which of them is meant is not to be guessed.
        if let [_, _, ..] = known.as_slice() {
            return Err(LaunchError::Ambiguous {
                agent: name.to_owned(),
                environments: known.iter().map(|it| it.environment.clone()).collect(),
            });
        }
        let Some(agent) = known.first() else {
            return Ok(());
        };
        if let Some(retired) = &agent.retired {
            return Err(LaunchError::Refused(format!(
                "agent `{name}` ({}) is retired since {}, by {}: {}; an operator takes that back with `agentguard agents reinstate {name} --environment {} --reason TEXT`",
                agent.environment, retired.time, retired.by, retired.reason, agent.environment
            )));
        }
        if let Some(since) = agent.absent_since {
            let was = agent.latest().map_or("", |latest| latest.manifest.as_str());
            return Err(LaunchError::Refused(format!(
                "the manifest of agent `{name}` ({}) is gone since {since} (it was {was}): no run begins until it is put back and loaded (`agentguard policy reload`)",
                agent.environment
            )));
        }
        Ok(())
    }

    /// Revokes the live runs of retired agents; the serial numbers of those that were not
    /// revoked before. An earlier daemon may have been killed before it came to that.
    pub(super) fn revoke_retired(&mut self) -> Vec<u64> {
        let gone: HashSet<(&str, &str)> = self
            .registry
            .iter()
            .filter(|agent| agent.retired.is_some())
            .map(|agent| (agent.name.as_str(), agent.environment.as_str()))
            .collect();
        // Also the runs that such an agent began, and those below them.
        let is_below = |agent: &&Agent| {
            let mut names = lineage::names_in(&agent.name);
            names.any(|name| gone.contains(&(name, agent.environment.as_str())))
        };
        let retired: HashSet<u32> = self
            .registry
            .iter()
            .filter(|agent| agent.index != 0)
            .filter(is_below)
            .map(|agent| agent.index)
            .collect();
        if retired.is_empty() {
            return Vec::new();
        }
        let mut revoked = Vec::new();
        for run in self.port.runs() {
            if !retired.contains(&run.agent) || run.state == run_state::REVOKED {
                continue;
            }
            let tag = Tag {
                agent: run.agent,
                run: run.slot,
                run_serial: run.serial,
            };
            match self.port.set_run_state(tag, run_state::REVOKED) {
                Ok(()) => revoked.push(run.serial),
                Err(error) => {
                    tracing::error!("run {} of a retired agent was not revoked: {error}", run.id);
                }
            }
        }
        revoked
    }

    /// Notes when agents last began a run, and keeps it for the next daemon.
    pub(super) fn note_last_runs(&mut self) {
        for run in self.runs.live() {
            let identity = &run.identity;
            self.last_runs
                .note(&identity.agent, &identity.environment, run.started);
        }
        if let Err(error) = self.last_runs.save() {
            tracing::error!("when agents last ran is not kept: {error}");
        }
    }

    /// Tells what happened to agents.
    pub(super) fn tell_untold(&mut self) {
        for happened in std::mem::take(&mut self.registry.untold) {
            self.tell(Message::Emit(Box::new(Event {
                time: happened.time,
                seq: 0,
                kind: happened.kind,
                identity: Some(Arc::new(Identity {
                    agent: happened.agent,
                    owner: happened.owner,
                    environment: happened.environment,
                    run: None,
                    parent_run: None,
                    on_behalf_of: None,
                    task: None,
                    visible_to: None,
                })),
                agent_version: Some(happened.agent_version.into()),
                run_seq: None,
                process: None,
                detail: Detail::Agent(Box::new(happened.detail)),
            })));
        }
    }
}

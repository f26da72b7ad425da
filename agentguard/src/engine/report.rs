//! What the engine tells about itself: for status, doctor, agents, metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentguard_common::counter::Counter;
use agentguard_common::identity::Tag;
use uuid::Uuid;

use super::{Engine, InForce};
use crate::api;
use crate::kernel::{KernelRun, Protection};
use crate::policy::compile::lineage;
use crate::runs::{Run, Store};
use crate::sinks::ledger::HealthReport;
use crate::sinks::metrics::{AgentDecisions, Snapshot};

/// The engine's part of a status.
pub struct StatusReport {
    /// The policy.
    pub policy: InForce,
    /// Protections.
    pub protections: Vec<Protection>,
    /// Live runs.
    pub runs: usize,
    /// Live tagged tasks.
    pub tagged_tasks: u64,
    /// The resolver of names.
    pub resolver: api::Resolver,
}

impl Engine {
    /// See [`StatusReport`].
    #[must_use]
    pub fn status(&self) -> StatusReport {
        StatusReport {
            policy: self.policy.clone(),
            protections: self.port.protections(),
            runs: self.runs.live().count(),
            tagged_tasks: self.port.tagged_tasks(),
            resolver: self.resolver(),
        }
    }

    /// The kernel's part of a doctor's report.
    #[must_use]
    pub fn doctor(&self) -> api::Doctor {
        let counters = Counter::ALL
            .iter()
            .zip(self.port.counters())
            .map(|(counter, count)| (counter.name().to_owned(), count));
        api::Doctor {
            protections: self.port.protections().iter().map(Into::into).collect(),
            hooks: self.port.hooks().iter().map(Into::into).collect(),
            tables: self.port.fills().iter().map(Into::into).collect(),
            errors: counters.collect(),
            links: self.links.report(),
            resolver: Some(self.resolver()),
        }
    }

    /// The live runs, each with the kernel's counts.
    #[must_use]
    pub fn live_runs(&self) -> Vec<(Arc<Run>, Option<KernelRun>)> {
        let mut kernel: BTreeMap<u64, KernelRun> = self
            .port
            .runs()
            .into_iter()
            .map(|run| (run.serial, run))
            .collect();
        let mut runs: Vec<_> = self
            .runs
            .live()
            .map(|run| (Arc::clone(run), kernel.remove(&run.serial)))
            .collect();
        runs.sort_by_key(|(run, _)| run.id);
        runs
    }

    /// The store of ended runs.
    #[must_use]
    pub fn store(&self) -> Store {
        self.runs.store().clone()
    }

    /// The run id behind a tag.
    #[must_use]
    pub fn run_of(&self, tag: Tag) -> Option<Uuid> {
        self.runs.by_serial(tag.run_serial).map(|run| run.id)
    }

    /// The kernel side, for questions.
    #[must_use]
    pub fn port(&self) -> &dyn crate::kernel::Port {
        self.port.as_ref()
    }

    /// Everything for one scrape.
    #[must_use]
    pub fn snapshot(&self, ledger: HealthReport, subscribers: usize) -> Snapshot {
        let mut active_runs: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (_, manifest) in &self.policy.agents {
            let environment = manifest.environment.as_str().to_owned();
            active_runs.insert((manifest.name.clone(), environment), 0);
        }
        for run in self.runs.live() {
            let identity = &run.identity;
            let key = (identity.agent.clone(), identity.environment.clone());
            *active_runs.entry(key).or_default() += 1;
        }
        Snapshot {
            protections: self.port.protections(),
            hooks: self.port.hooks(),
            decisions: self.decisions(),
            counters: self.port.counters(),
            fills: self.port.fills(),
            tagged_tasks: self.port.tagged_tasks(),
            active_runs,
            agents: self.agents_by_state(),
            name_grants: self.grant_count(),
            generation: self.policy.generation,
            loaded: self.policy.loaded,
            ledger,
            subscribers,
        }
    }

    /// The kernel's counts, with the names of their agents. Counts of an index
    /// that no agent has are left out: nobody could tell whose they are.
    fn decisions(&self) -> Vec<AgentDecisions> {
        let mut all: Vec<AgentDecisions> = Vec::new();
        for count in self.port.decisions() {
            let Some(agent) = self.registry.by_index(count.agent) else {
                continue;
            };
            let own = agent.own_count(&count);
            if own == 0 {
                continue;
            }
            let decisions = AgentDecisions {
                agent: lineage::agent_of(&agent.name).to_owned(),
                environment: agent.environment.clone(),
                owner: agent.owner.clone(),
                verb: count.verb,
                verdict: count.verdict,
                mode: count.mode,
                count: own,
            };
            // An agent has as many indexes as there are places in which others start it.
            match all.iter_mut().find(|known| known.is_of(&decisions)) {
                Some(known) => known.count += own,
                None => all.push(decisions),
            }
        }
        all
    }
}

//! What the resolver asks about runs and policies, without waiting for the engine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use agentguard_common::identity::Tag;
use agentguard_common::verdict::{Mode, Verdict};

use crate::clock::Timestamp;
use crate::names::{Asker, Protocol, Refusal};
use crate::policy::compile::{Compiled, NameRules};

/// Names of which it is told one by one in a second that they were refused. More are told
/// without the name, counted for each run.
const REFUSED_NAMES: usize = 1_024;

/// The policy in force and the live runs, as far as names are concerned. The engine alone
/// changes it.
#[derive(Default)]
pub struct View {
    policies: RwLock<Arc<Policies>>,
    /// Live runs by serial number: their slots and agents.
    runs: RwLock<HashMap<u64, (u32, u32)>>,
    refused: Mutex<HashMap<RefusedKey, Refused>>,
}

/// The agents' policies by index.
type Policies = HashMap<u32, Policy>;

/// An agent's policy.
#[derive(Clone)]
pub(super) struct Policy {
    pub generation: u32,
    pub mode: Mode,
    pub names: Arc<NameRules>,
}

/// What is told once a second.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RefusedKey {
    pub serial: u64,
    /// None: of more names than are told one by one.
    pub name: Option<Box<str>>,
    pub protocol: Protocol,
}

/// Questions that the policy refused, or would have.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub agent: u32,
    /// The policy that refused; zero: the agent has none.
    pub generation: u32,
    pub mode: Mode,
    pub verdict: Verdict,
    pub rule: Option<u16>,
    pub blocked: bool,
    pub count: u64,
    /// The first of them.
    pub time: Timestamp,
}

impl View {
    /// Whether a run is alive.
    #[must_use]
    pub fn is_live(&self, tag: Tag) -> bool {
        self.runs().get(&tag.run_serial) == Some(&(tag.run, tag.agent))
    }

    /// Whether a run may ask for a name. In observe mode it may, and that it would not have
    /// been allowed is told.
    #[must_use]
    pub fn may_ask(&self, asker: &Asker, name: &str) -> bool {
        let Some((agent, policy)) = self.policy_of(asker.serial) else {
            return false;
        };
        let Some(policy) = policy else {
            return false;
        };
        if policy.names.may_ask(name) {
            return true;
        }
        if policy.mode == Mode::Observe {
            self.note(asker, agent, Some(&policy), name, false);
            return true;
        }
        false
    }

    /// A question was refused. Only what a policy refuses is told: what is beyond a limit
    /// is counted by the resolver.
    pub fn refused(&self, asker: &Asker, name: &str, why: Refusal) {
        if why == Refusal::TooMany {
            return;
        }
        if let Some((agent, policy)) = self.policy_of(asker.serial) {
            self.note(asker, agent, policy.as_ref(), name, true);
        }
    }

    fn note(&self, asker: &Asker, agent: u32, policy: Option<&Policy>, name: &str, blocked: bool) {
        let mut all = self.lock_refused();
        let mut key = RefusedKey {
            serial: asker.serial,
            name: Some(name.into()),
            protocol: asker.protocol,
        };
        if all.len() >= REFUSED_NAMES && !all.contains_key(&key) {
            key.name = None;
        }
        let (verdict, rule) =
            policy.map_or((Verdict::Deny, None), |policy| policy.names.blame(name));
        let refused = all.entry(key).or_insert_with(|| Refused {
            agent,
            generation: policy.map_or(0, |policy| policy.generation),
            mode: policy.map_or(Mode::Enforce, |policy| policy.mode),
            verdict,
            rule,
            blocked,
            count: 0,
            time: Timestamp::now(),
        });
        refused.count += 1;
    }

    /// Takes what is to be told.
    pub(super) fn take_refused(&self) -> Vec<(RefusedKey, Refused)> {
        let mut told: Vec<_> = std::mem::take(&mut *self.lock_refused())
            .into_iter()
            .collect();
        told.sort_by_key(|(_, refused)| refused.time);
        told
    }

    /// The agent of a live run, and its policy in force if it has one.
    pub(super) fn policy_of(&self, serial: u64) -> Option<(u32, Option<Policy>)> {
        let (_, agent) = *self.runs().get(&serial)?;
        Some((agent, self.policies().get(&agent).cloned()))
    }

    /// The rules of an agent in force.
    pub(super) fn rules(&self, agent: u32) -> Option<Arc<NameRules>> {
        let policies = self.policies();
        let policy = policies.get(&agent)?;
        Some(Arc::clone(&policy.names))
    }

    /// A policy came into force.
    pub(super) fn learn_policy(&self, policy: &Compiled) {
        let agents = policy.agents.iter().map(|agent| {
            let policy = Policy {
                generation: policy.generation,
                mode: match agent.record.mode {
                    mode if mode == Mode::Observe as u8 => Mode::Observe,
                    _ => Mode::Enforce,
                },
                names: Arc::clone(&agent.names),
            };
            (agent.index, policy)
        });
        let policies = Arc::new(agents.collect());
        *self
            .policies
            .write()
            .unwrap_or_else(PoisonError::into_inner) = policies;
    }

    /// A run exists.
    pub fn run_started(&self, tag: Tag) {
        let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
        runs.insert(tag.run_serial, (tag.run, tag.agent));
    }

    /// A run has ended.
    pub(super) fn run_ended(&self, serial: u64) {
        let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
        runs.remove(&serial);
    }

    fn policies(&self) -> Arc<Policies> {
        let policies = self.policies.read();
        Arc::clone(&policies.unwrap_or_else(PoisonError::into_inner))
    }

    fn runs(&self) -> RwLockReadGuard<'_, HashMap<u64, (u32, u32)>> {
        self.runs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_refused(&self) -> MutexGuard<'_, HashMap<RefusedKey, Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

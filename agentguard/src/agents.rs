//! Agents and their kernel indexes.
//!
//! An agent is a name in an environment. Its index in the kernel's tables is
//! kept in the state directory, so that tags and counters made before a restart
//! still mean the same agent. A new agent gets a number never used before; only
//! when all are used up does it take that of an agent that is retired and has no
//! live run. What is known of an agent stays, also without a number.

pub mod kept;
pub mod life;
pub mod seen;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use agentguard_common::matching::MATCHER;
use serde::{Deserialize, Serialize};

use self::life::{Happening, Retirement, Version};
use crate::clock::Timestamp;
use crate::files::{self, Durability, FileError};
use crate::kernel::DecisionCount;
use crate::policy::manifest::Manifest;

/// See the module. Cheap to copy: a change is made to a copy, which takes the
/// place of the old one when the kernel has accepted it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// The last policy generation given out. Never used again.
    pub generation: u32,
    agents: Vec<Agent>,
    /// What happened to agents and was not told yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<Happening>,
}

/// A registered agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Index in the kernel; 0: it has none any more, for it is retired.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Environment.
    pub environment: String,
    /// Owner, as last loaded.
    pub owner: String,
    /// The generation in which its manifest was last there.
    pub last_generation: u32,
    /// When its first manifest came into force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<Timestamp>,
    /// Versions of its manifest, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
    /// Since when its manifest is gone; none: it is there, or the agent is retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_since: Option<Timestamp>,
    /// Who retired it, when and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Retirement>,
    /// Kernel counts that an earlier agent left at this index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inherited: Vec<Inherited>,
}

/// A kernel count that belongs to the index's earlier agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Inherited {
    verb: u8,
    verdict: u8,
    mode: u8,
    count: u64,
}

/// Why agents could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry's file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The registry's file is damaged.
    #[error(
        "{path} is damaged: {reason}; restore it from a backup, or, when no agent runs, remove it and all agents are numbered anew"
    )]
    Damaged {
        /// Its path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// All indexes are taken.
    #[error(
        "more than {} agents: remove manifests and retire their agents (`agentguard agents retire`), or end runs of agents that are retired",
        MATCHER - 1
    )]
    Full,
}

impl Registry {
    /// Reads the registry; an absent file is an empty registry.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn load(path: &Path) -> Result<Self, RegistryError> {
        let damaged = |reason: String| RegistryError::Damaged {
            path: path.display().to_string(),
            reason,
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(FileError::new("read", path, error).into()),
        };
        let registry: Self =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let mut seen = HashSet::new();
        match registry
            .agents
            .iter()
            .filter(|agent| agent.index != 0 || agent.retired.is_none())
            .find(|agent| !(1..MATCHER).contains(&agent.index) || !seen.insert(agent.index))
        {
            Some(agent) => Err(damaged(format!("index {} of {}", agent.index, agent.name))),
            None => Ok(registry),
        }
    }

    /// Writes the registry so that it survives a power cut: the kernel's tables
    /// must never mean something else than what is on the disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), RegistryError> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| FileError::new("write", path, error.into()))?;
        Ok(files::replace(path, &bytes, Durability::Disk)?)
    }

    /// Takes the next generation and gives every manifest its agent's index.
    /// `live` are the indexes that live runs use; `counts` are the kernel's
    /// counters, of which a reused index starts anew.
    ///
    /// # Errors
    /// [`RegistryError::Full`].
    pub fn assign(
        &mut self,
        manifests: &[Arc<Manifest>],
        live: &HashSet<u32>,
        counts: &[DecisionCount],
    ) -> Result<Vec<(u32, Arc<Manifest>)>, RegistryError> {
        self.generation += 1;
        // Known agents first: a new one must not take the index of another that
        // is in the same set.
        for manifest in manifests {
            let generation = self.generation;
            if let Some(agent) = self.find_mut(&manifest.name, manifest.environment.as_str()) {
                agent.last_generation = generation;
                agent.owner.clone_from(&manifest.owner);
            }
        }
        let mut set = Vec::with_capacity(manifests.len());
        for manifest in manifests {
            let environment = manifest.environment.as_str();
            let index = match self.find(&manifest.name, environment) {
                Some(agent) if agent.index != 0 => agent.index,
                _ => self.register(manifest, live, counts)?,
            };
            set.push((index, Arc::clone(manifest)));
        }
        Ok(set)
    }

    fn register(
        &mut self,
        manifest: &Manifest,
        live: &HashSet<u32>,
        counts: &[DecisionCount],
    ) -> Result<u32, RegistryError> {
        let used: HashSet<u32> = self.agents.iter().map(|agent| agent.index).collect();
        // Index 0 is nobody's: it is what a zeroed tag would name.
        let fresh = (1..MATCHER).find(|index| !used.contains(index) && !live.contains(index));
        let index = match fresh {
            Some(index) => index,
            None => self.reuse_oldest(live)?,
        };
        let inherited = counts
            .iter()
            .filter(|count| count.agent == index && count.count > 0)
            .map(|count| Inherited {
                verb: count.verb as u8,
                verdict: count.verdict as u8,
                mode: count.mode as u8,
                count: count.count,
            });
        let inherited = inherited.collect();
        let generation = self.generation;
        match self.find_mut(&manifest.name, manifest.environment.as_str()) {
            // It was retired, and is reinstated.
            Some(known) => (known.index, known.inherited) = (index, inherited),
            None => self.agents.push(Agent {
                inherited,
                ..Agent::new(index, manifest, generation)
            }),
        }
        Ok(index)
    }

    /// Takes the index of the retired agent that has been gone longest.
    fn reuse_oldest(&mut self, live: &HashSet<u32>) -> Result<u32, RegistryError> {
        let oldest = self
            .agents
            .iter_mut()
            .filter(|agent| agent.retired.is_some() && agent.index != 0)
            .filter(|agent| !live.contains(&agent.index))
            .min_by_key(|agent| agent.last_generation)
            .ok_or(RegistryError::Full)?;
        oldest.inherited.clear();
        Ok(std::mem::take(&mut oldest.index))
    }

    /// All agents that were ever registered.
    pub fn iter(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter()
    }

    /// The same, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Agent> {
        self.agents.iter_mut()
    }

    /// The agent with this name in this environment.
    #[must_use]
    pub fn find(&self, name: &str, environment: &str) -> Option<&Agent> {
        self.agents
            .iter()
            .find(|agent| agent.name == name && agent.environment == environment)
    }

    /// The same, to change it.
    pub fn find_mut(&mut self, name: &str, environment: &str) -> Option<&mut Agent> {
        self.agents
            .iter_mut()
            .find(|agent| agent.name == name && agent.environment == environment)
    }

    /// The agent with this index.
    #[must_use]
    pub fn by_index(&self, index: u32) -> Option<&Agent> {
        self.agents
            .iter()
            .find(|agent| agent.index == index && index != 0)
    }

    /// Forgets what indexes inherited: the kernel's counters began anew.
    pub fn counters_began_anew(&mut self) {
        for agent in &mut self.agents {
            agent.inherited.clear();
        }
    }
}

impl Agent {
    /// A new one.
    #[must_use]
    pub fn new(index: u32, manifest: &Manifest, generation: u32) -> Self {
        Self {
            index,
            name: manifest.name.clone(),
            environment: manifest.environment.as_str().to_owned(),
            owner: manifest.owner.clone(),
            last_generation: generation,
            registered: None,
            versions: Vec::new(),
            absent_since: None,
            retired: None,
            inherited: Vec::new(),
        }
    }

    /// How much of a kernel count is this agent's own.
    #[must_use]
    pub fn own_count(&self, count: &DecisionCount) -> u64 {
        let inherited = self
            .inherited
            .iter()
            .find(|inherited| {
                inherited.verb == count.verb as u8
                    && inherited.verdict == count.verdict as u8
                    && inherited.mode == count.mode as u8
            })
            .map_or(0, |inherited| inherited.count);
        // Smaller than what was inherited: the counters began anew meanwhile.
        count.count.checked_sub(inherited).unwrap_or(count.count)
    }
}

#[cfg(test)]
mod tests;

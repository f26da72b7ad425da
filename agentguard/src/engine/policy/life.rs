//! Agents that come, change, go, and are retired: what a load has to know of them.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::{LoadError, Loader};
use crate::agents::Registry;
use crate::agents::kept::Kept;
use crate::agents::life::Occasion;
use crate::engine::Engine;
use crate::policy::manifest::Manifest;
use crate::policy::{Diagnostic, PolicySet};
use crate::users::Accounts;

/// What is to be in force.
pub(super) struct Wanted {
    /// Manifests that are there, each with its text where it was just read.
    pub present: Vec<(Arc<Manifest>, Option<Box<str>>)>,
    /// The last manifests of agents whose files are gone: they stay in force.
    pub absent: Vec<Arc<Manifest>>,
    /// Manifests that were in force before, for comparison.
    pub before: Vec<Arc<Manifest>>,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
}

impl Wanted {
    /// Without those that are retired.
    pub fn leave_out(&mut self, registry: &Registry) {
        let in_service = |manifest: &Manifest| {
            let known = registry.find(&manifest.name, manifest.environment.as_str());
            known.is_none_or(|agent| agent.retired.is_none())
        };
        self.present.retain(|(manifest, _)| in_service(manifest));
        self.absent.retain(|manifest| in_service(manifest));
    }

    /// All manifests.
    pub fn all(&self) -> Vec<Arc<Manifest>> {
        let present = self.present.iter().map(|(manifest, _)| manifest);
        present.chain(&self.absent).cloned().collect()
    }
}

/// Notes in the registry what is new about the agents, and keeps their texts.
pub(super) fn note(
    mut registry: Registry,
    wanted: &Wanted,
    kept: &Kept,
    occasion: &Occasion,
) -> Result<Registry, LoadError> {
    let mut untold = std::mem::take(&mut registry.untold);
    let mut owners = HashMap::new();
    for (manifest, text) in &wanted.present {
        let environment = manifest.environment.as_str();
        let Some(agent) = registry.find_mut(&manifest.name, environment) else {
            continue;
        };
        let known = agent.latest().map(|latest| latest.version.clone());
        let before = known
            .filter(|version| *version != manifest.version)
            .and_then(|version| before(wanted, kept, manifest, &version));
        let file = &manifest.source.file;
        let owner = owners
            .entry(Arc::clone(file))
            .or_insert_with(|| file_owner(file));
        untold.extend(agent.seen(manifest, owner.clone(), before.as_deref(), occasion));
        if let Some(text) = text {
            kept.keep(manifest, text)?;
        }
    }
    let present: HashSet<(&str, &str)> = wanted
        .present
        .iter()
        .map(|(manifest, _)| (manifest.name.as_str(), manifest.environment.as_str()))
        .collect();
    for agent in registry.iter_mut() {
        let is_there = present.contains(&(agent.name.as_str(), agent.environment.as_str()));
        if is_there || agent.latest().is_none() {
            continue;
        }
        if let Some(happened) = agent.missed(occasion) {
            tracing::warn!(
                "the manifest of agent `{}` ({}) is gone (it was {}): its policy stays in force for the runs that are alive, and new ones are refused; put the file back, or confirm with `agentguard agents retire {} --environment {} --reason TEXT`",
                agent.name,
                agent.environment,
                happened.detail.manifest.as_deref().unwrap_or("unknown"),
                agent.name,
                agent.environment,
            );
            untold.push(happened);
        }
    }
    registry.untold = untold;
    Ok(registry)
}

/// The manifest of an earlier version: in force until now, or kept.
fn before(
    wanted: &Wanted,
    kept: &Kept,
    manifest: &Manifest,
    version: &str,
) -> Option<Arc<Manifest>> {
    let in_force = wanted.before.iter().find(|before| {
        before.name == manifest.name
            && before.environment == manifest.environment
            && before.version == version
    });
    if let Some(before) = in_force {
        return Some(Arc::clone(before));
    }
    match kept.read(&manifest.name, manifest.environment.as_str(), version) {
        Ok(before) => Some(Arc::new(before)),
        Err(error) => {
            tracing::warn!("what its new version changes cannot be told: {error}");
            None
        }
    }
}

/// To whom a file belongs: whoever can change it is who registers the agent.
fn file_owner(file: &Path) -> Option<String> {
    let uid = std::fs::metadata(file).ok()?.uid();
    Some(Accounts::default().user_label(uid))
}

impl Loader {
    /// Adds to what was read the manifests of agents whose files are gone.
    pub(super) async fn with_absent(&self, set: PolicySet) -> Result<Wanted, LoadError> {
        let present: Vec<Arc<Manifest>> = set.manifests.into_iter().map(Arc::new).collect();
        let texts = set.texts.into_iter().map(Some);
        let there: HashSet<(String, String)> = present
            .iter()
            .map(|manifest| (manifest.name.clone(), manifest.environment.to_string()))
            .collect();
        let (before, missing) = self
            .engine
            .call(move |engine| (engine.manifests(), engine.missing(&there)))
            .await?;
        let kept = self.sources.kept.clone();
        let in_force = before.clone();
        let read = move || {
            let last = |(name, environment, version): &(String, String, String)| {
                last_manifest(&in_force, &kept, name, environment, version)
            };
            missing.iter().filter_map(last).collect()
        };
        Ok(Wanted {
            present: present.into_iter().zip(texts).collect(),
            absent: tokio::task::spawn_blocking(read).await?,
            before,
            warnings: set.warnings,
        })
    }

    /// What was to be told of agents is with the pipeline: that is noted, and what is not
    /// needed any more removed.
    pub(super) async fn told(&self) -> Result<(), LoadError> {
        self.engine.ping().await?;
        let registry = self.engine.call(|engine| engine.registry.clone()).await?;
        let sources = self.sources.clone();
        let saved = tokio::task::spawn_blocking(move || {
            sources.kept.prune(&registry);
            registry.save(&sources.registry)
        });
        Ok(saved.await??)
    }
}

/// The last manifest of an agent whose file is gone. Processes do not become this agent
/// any more: that would be new runs.
fn last_manifest(
    in_force: &[Arc<Manifest>],
    kept: &Kept,
    name: &str,
    environment: &str,
    version: &str,
) -> Option<Arc<Manifest>> {
    let found = in_force.iter().find(|manifest| {
        manifest.name == name
            && manifest.environment.as_str() == environment
            && manifest.version == version
    });
    let mut manifest = match found {
        Some(manifest) => Manifest::clone(manifest),
        None => match kept.read(name, environment, version) {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::error!("{error}; its live runs are denied everything");
                return None;
            }
        },
    };
    manifest.matches.clear();
    Some(Arc::new(manifest))
}

impl Engine {
    /// The manifests in force.
    fn manifests(&self) -> Vec<Arc<Manifest>> {
        let agents = self.policy.agents.iter();
        agents.map(|(_, manifest)| Arc::clone(manifest)).collect()
    }

    /// Agents in service whose manifests are not among these: name, environment, version.
    fn missing(&self, there: &HashSet<(String, String)>) -> Vec<(String, String, String)> {
        let agents = self.registry.iter();
        agents
            .filter(|agent| agent.retired.is_none())
            .filter_map(|agent| {
                let key = (agent.name.clone(), agent.environment.clone());
                let version = agent.latest()?.version.clone();
                (!there.contains(&key)).then_some((key.0, key.1, version))
            })
            .collect()
    }

    /// What is in force, to be compiled anew.
    pub(super) fn in_force_again(&self) -> Wanted {
        let is_absent = |manifest: &Manifest| {
            let known = self
                .registry
                .find(&manifest.name, manifest.environment.as_str());
            known.is_some_and(|agent| agent.absent_since.is_some())
        };
        let (absent, present) = self
            .manifests()
            .into_iter()
            .partition(|manifest| is_absent(manifest));
        let present: Vec<Arc<Manifest>> = present;
        Wanted {
            present: present.into_iter().map(|it| (it, None)).collect(),
            absent,
            before: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

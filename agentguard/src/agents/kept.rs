//! The texts of manifests that were in force, in the state directory: by them a policy
//! stays in force when its file is gone, also over a restart, and a new version can be
//! compared with the one before.
//!
//! A text is filed under the agent and the digest of what it means, so that a file is
//! written once and never changed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Registry;
use crate::files::{self, Durability, FileError};
use crate::policy;
use crate::policy::manifest::Manifest;

/// The texts.
#[derive(Clone, Debug)]
pub struct Kept {
    directory: PathBuf,
}

/// A text that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the last manifest of agent `{agent}` ({environment}), kept in {path}, cannot be used: {reason}"
)]
pub struct Unusable {
    agent: String,
    environment: String,
    path: String,
    reason: String,
}

impl Kept {
    /// Those in this directory.
    #[must_use]
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn path(&self, agent: &str, environment: &str, version: &str) -> PathBuf {
        // Names of agents hold no `/` and no `@`, versions are hex.
        self.directory
            .join(format!("{agent}@{environment}@{version}.yaml"))
    }

    /// Keeps a manifest's text.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, manifest: &Manifest, text: &str) -> Result<(), FileError> {
        let environment = manifest.environment.as_str();
        let path = self.path(&manifest.name, environment, &manifest.version);
        if path.exists() {
            return Ok(());
        }
        files::ensure_directory(&self.directory, 0o700)?;
        files::replace(&path, text.as_bytes(), Durability::Disk)
    }

    /// The manifest of a version.
    ///
    /// # Errors
    /// It is not kept, or not understood by this version of AgentGuard.
    pub fn read(
        &self,
        agent: &str,
        environment: &str,
        version: &str,
    ) -> Result<Manifest, Unusable> {
        let path = self.path(agent, environment, version);
        read(&path, agent, environment).map_err(|reason| Unusable {
            agent: agent.to_owned(),
            environment: environment.to_owned(),
            path: path.display().to_string(),
            reason,
        })
    }

    /// Removes what no agent of the registry needs any more.
    pub fn prune(&self, registry: &Registry) {
        let needed: HashSet<PathBuf> = registry
            .iter()
            .filter_map(|agent| {
                let version = &agent.latest()?.version;
                Some(self.path(&agent.name, &agent.environment, version))
            })
            .collect();
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            if !needed.contains(&entry.path()) {
                // What stays is removed the next time.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn read(path: &Path, agent: &str, environment: &str) -> Result<Manifest, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let parsed = policy::parse(path, &text).map_err(|problem| problem.message.clone())?;
    let checked = policy::check(&parsed);
    if let Some(problem) = checked.diagnostics.iter().find(|it| it.is_error()) {
        return Err(problem.message.clone());
    }
    let mut manifests = checked.manifests.into_iter();
    match (manifests.next(), manifests.next()) {
        (Some(manifest), None)
            if manifest.name == agent && manifest.environment.as_str() == environment =>
        {
            Ok(manifest)
        }
        _ => Err("it is not one manifest of this agent".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::LoadOptions;

    const TWO: &str = "--- # one\napiVersion: agentguard/v1\nkind: Agent\nmetadata: { name: one }\nspec: { owner: o@example.com, environment: staging, authority: service, mode: enforce, enrol: { launch: { users: [root] } }, permissions: { read: { deny: ['/x'] } } }\n---\napiVersion: agentguard/v1\nkind: Agent\nmetadata: { name: two }\nspec: { owner: o@example.com, environment: staging, authority: service, mode: observe, enrol: { launch: { users: [root] } } }\n...\n";

    #[test]
    fn each_of_a_files_manifests_is_kept_alone_and_means_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("two.yaml"), TWO).unwrap();
        let set = policy::load_dir(dir.path(), LoadOptions::default()).unwrap();
        let kept = Kept::new(dir.path().join("kept"));
        for (manifest, text) in set.manifests.iter().zip(&set.texts) {
            kept.keep(manifest, text).unwrap();
            let again = kept.read(&manifest.name, "staging", &manifest.version);
            assert_eq!(again.unwrap().version, manifest.version);
        }
        assert_eq!(set.manifests.len(), 2);
        let first = kept.path("one", "staging", &set.manifests[0].version);
        assert!(!fs::read_to_string(first).unwrap().contains("two"));
        kept.prune(&Registry::default());
        assert_eq!(fs::read_dir(dir.path().join("kept")).unwrap().count(), 0);
    }

    #[test]
    fn a_text_that_is_damaged_or_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(dir.path().to_owned());
        let missing = kept.read("a", "staging", "00").unwrap_err().to_string();
        assert!(missing.contains("a@staging@00.yaml"), "{missing}");
        fs::write(kept.path("a", "staging", "00"), TWO).unwrap();
        let other = kept.read("a", "staging", "00").unwrap_err().to_string();
        assert!(other.contains("not one manifest of this agent"), "{other}");
    }
}

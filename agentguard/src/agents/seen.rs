//! When each agent last began a run, in a file of its own: it changes with every run,
//! and the registry only with the policy.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::clock::Timestamp;
use crate::files::{self, Durability, FileError};

/// The newest run's start by agent, as `NAME@ENVIRONMENT`.
#[derive(Debug, Default)]
pub struct LastRuns {
    path: PathBuf,
    by_agent: BTreeMap<String, Timestamp>,
    changed: bool,
}

impl LastRuns {
    /// What an earlier daemon left; nothing if that cannot be read, for then the runs
    /// to come tell it anew.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let by_agent = fs::read(path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self {
            path: path.to_owned(),
            by_agent,
            changed: false,
        }
    }

    /// A run of this agent began then.
    pub fn note(&mut self, agent: &str, environment: &str, started: Timestamp) {
        let last = self.by_agent.entry(key(agent, environment)).or_default();
        if *last < started {
            *last = started;
            self.changed = true;
        }
    }

    /// When this agent last began a run.
    #[must_use]
    pub fn get(&self, agent: &str, environment: &str) -> Option<Timestamp> {
        self.by_agent.get(&key(agent, environment)).copied()
    }

    /// Writes what is new.
    ///
    /// # Errors
    /// It cannot be written; the next call tries again.
    pub fn save(&mut self) -> Result<(), FileError> {
        if !self.changed || self.path.as_os_str().is_empty() {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&self.by_agent)
            .map_err(|error| FileError::new("write", &self.path, error.into()))?;
        files::replace(&self.path, &bytes, Durability::Process)?;
        self.changed = false;
        Ok(())
    }
}

fn key(agent: &str, environment: &str) -> String {
    format!("{agent}@{environment}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_kept_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-runs.json");
        let mut runs = LastRuns::load(&path);
        runs.note("a", "staging", Timestamp::from_nanos(5));
        runs.note("a", "staging", Timestamp::from_nanos(3));
        runs.note("a", "production", Timestamp::from_nanos(1));
        runs.save().unwrap();
        let again = LastRuns::load(&path);
        assert_eq!(again.get("a", "staging"), Some(Timestamp::from_nanos(5)));
        assert_eq!(again.get("b", "staging"), None);
    }

    #[test]
    fn what_cannot_be_read_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-runs.json");
        fs::write(&path, "{").unwrap();
        assert_eq!(LastRuns::load(&path).get("a", "staging"), None);
    }
}

//! The life of an agent: registered, changed, absent, retired, reinstated.
//!
//! What happened is noted here, in the registry, before it is in force, and told as an
//! event after: a daemon that is killed in between tells it at its next start.

use serde::{Deserialize, Serialize};

use super::Agent;
use crate::clock::Timestamp;
use crate::event::{AgentEvent, Kind};
use crate::policy::change::{Change, Effect, changes, overall};
use crate::policy::duration;
use crate::policy::manifest::Manifest;

/// Versions of a manifest that are remembered; the ledger has them all.
pub const VERSIONS: usize = 20;

/// Changes of a version that are remembered; its event has more.
const CHANGES: usize = 20;

/// A version of an agent's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its digest.
    pub version: String,
    /// When it was first put in force.
    pub time: Timestamp,
    /// Who asked for the load.
    pub by: String,
    /// `file:line` of the manifest.
    pub manifest: String,
    /// To whom the file belonged; null if that could not be told.
    pub manifest_owner: Option<String>,
    /// The agent's owner.
    pub owner: String,
    /// What the agent is for.
    pub description: Option<String>,
    /// `observe` or `enforce`.
    pub mode: String,
    /// `service` or `delegated`.
    pub authority: String,
    /// Longest life of a run.
    pub lease: Option<String>,
    /// What it changed, the first twenty of it; null for the first version, and where the
    /// one before is not known any more.
    pub changes: Option<Vec<Change>>,
    /// What the changes come to.
    pub effect: Effect,
}

/// A decision of an operator about an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retirement {
    /// When.
    pub time: Timestamp,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Something that happened to an agent and is not told yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// When.
    pub time: Timestamp,
    /// What.
    pub kind: Kind,
    /// The agent.
    pub agent: String,
    /// Its environment.
    pub environment: String,
    /// Its owner.
    pub owner: String,
    /// The version of its manifest.
    pub agent_version: String,
    /// The rest.
    pub detail: AgentEvent,
}

/// On what occasion something is noted.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// When.
    pub time: Timestamp,
    /// What asked for it: the value of `trigger` in events.
    pub trigger: &'static str,
    /// Who.
    pub by: String,
}

impl Agent {
    /// The version that was last in force.
    #[must_use]
    pub fn latest(&self) -> Option<&Version> {
        self.versions.last()
    }

    /// Notes that its manifest is there. `before` is the manifest of its latest version,
    /// where that is known. What is new about it is returned.
    pub fn seen(
        &mut self,
        manifest: &Manifest,
        file_owner: Option<String>,
        before: Option<&Manifest>,
        occasion: &Occasion,
    ) -> Vec<Happening> {
        let mut happened = Vec::new();
        let returned = self.absent_since.take().is_some();
        let previous = self.latest().map(|latest| latest.version.clone());
        if previous.as_deref() != Some(manifest.version.as_str()) {
            let changes = before.map(|before| changes(before, manifest));
            self.add(manifest, file_owner, changes.as_deref(), occasion);
            let kind = match previous {
                None => Kind::AgentRegistered,
                Some(_) => Kind::AgentChanged,
            };
            happened.push(self.happening(kind, occasion, |detail| {
                detail.previous_version = previous;
                detail.changes = changes;
            }));
        }
        if returned {
            happened.push(self.happening(Kind::AgentReturned, occasion, |_| {}));
        }
        happened
    }

    fn add(
        &mut self,
        manifest: &Manifest,
        manifest_owner: Option<String>,
        changes: Option<&[Change]>,
        occasion: &Occasion,
    ) {
        self.registered.get_or_insert(occasion.time);
        let effect = match changes {
            Some(changes) => overall(changes),
            None if self.versions.is_empty() => Effect::Neither,
            None => Effect::Unclear,
        };
        self.versions.push(Version {
            version: manifest.version.clone(),
            time: occasion.time,
            by: occasion.by.clone(),
            manifest: manifest.source.file_line(),
            manifest_owner,
            owner: manifest.owner.clone(),
            description: manifest.description.clone(),
            mode: manifest.mode.to_string(),
            authority: manifest.authority.to_string(),
            lease: manifest.lease.map(duration::format),
            changes: changes.map(|changes| changes.iter().take(CHANGES).cloned().collect()),
            effect,
        });
        let old = self.versions.len().saturating_sub(VERSIONS);
        self.versions.drain(..old);
    }

    /// Notes that its manifest is not there. What is new about that is returned.
    pub fn missed(&mut self, occasion: &Occasion) -> Option<Happening> {
        if self.absent_since.is_some() || self.retired.is_some() {
            return None;
        }
        self.absent_since = Some(occasion.time);
        Some(self.happening(Kind::AgentAbsent, occasion, |_| {}))
    }

    /// Retires it.
    pub fn retire(&mut self, occasion: &Occasion, reason: &str) {
        self.retired = Some(Retirement {
            time: occasion.time,
            by: occasion.by.clone(),
            reason: reason.to_owned(),
        });
    }

    /// Takes a retirement back; what is to be told of that.
    pub fn reinstate(&mut self, occasion: &Occasion, reason: &str) -> Happening {
        self.retired = None;
        self.happening(Kind::AgentReinstated, occasion, |detail| {
            detail.reason = Some(reason.to_owned());
        })
    }

    /// What is to be told of it.
    pub fn happening(
        &self,
        kind: Kind,
        occasion: &Occasion,
        more: impl FnOnce(&mut AgentEvent),
    ) -> Happening {
        let latest = self.latest();
        let mut detail = AgentEvent {
            trigger: occasion.trigger.to_owned(),
            by: occasion.by.clone(),
            manifest: latest.map(|latest| latest.manifest.clone()),
            manifest_owner: latest.and_then(|latest| latest.manifest_owner.clone()),
            previous_version: None,
            changes: None,
            effect: latest
                .filter(|_| kind == Kind::AgentChanged)
                .map(|latest| latest.effect),
            reason: None,
            runs_revoked: None,
        };
        more(&mut detail);
        Happening {
            time: occasion.time,
            kind,
            agent: self.name.clone(),
            environment: self.environment.clone(),
            owner: self.owner.clone(),
            agent_version: latest.map_or_else(String::new, |latest| latest.version.clone()),
            detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::manifest_of;

    fn occasion(nanos: i64) -> Occasion {
        Occasion {
            time: Timestamp::from_nanos(nanos),
            trigger: "api",
            by: "alice (uid 1000)".to_owned(),
        }
    }

    fn version(number: u64) -> Manifest {
        manifest_of("a", |manifest| {
            manifest.version = format!("v{number}");
            manifest.lease = Some(std::time::Duration::from_secs(3_600 * number));
        })
    }

    fn agent() -> Agent {
        Agent::new(1, &version(1), 1)
    }

    #[test]
    fn a_new_version_says_what_it_changes() {
        let mut agent = agent();
        let first = agent.seen(&version(1), Some("root".into()), None, &occasion(1));
        assert_eq!(first[0].kind, Kind::AgentRegistered);
        assert_eq!(first[0].detail.manifest_owner.as_deref(), Some("root"));
        assert!(agent.seen(&version(1), None, None, &occasion(2)).is_empty());
        let changed = agent.seen(&version(2), None, Some(&version(1)), &occasion(3));
        assert_eq!(changed[0].kind, Kind::AgentChanged);
        let detail = &changed[0].detail;
        assert_eq!(detail.previous_version.as_deref(), Some("v1"));
        assert_eq!(detail.effect, Some(Effect::Wider));
        assert_eq!(detail.changes.as_ref().unwrap()[0].field, "lease");
        assert_eq!(agent.latest().unwrap().time, Timestamp::from_nanos(3));
    }

    #[test]
    fn a_version_before_which_nothing_is_known_is_unclear() {
        let mut agent = agent();
        agent.seen(&version(1), None, None, &occasion(1));
        let changed = agent.seen(&version(2), None, None, &occasion(2));
        assert_eq!(changed[0].detail.effect, Some(Effect::Unclear));
        assert_eq!(changed[0].detail.changes, None);
    }

    #[test]
    fn the_last_twenty_versions_are_kept() {
        let mut agent = agent();
        for number in 1..=30 {
            agent.seen(&version(number), None, None, &occasion(1));
        }
        assert_eq!(agent.versions.len(), VERSIONS);
        assert_eq!(agent.versions[0].version, "v11");
    }

    #[test]
    fn absence_and_return_are_told_once() {
        let mut agent = agent();
        agent.seen(&version(1), None, None, &occasion(1));
        let gone = agent.missed(&occasion(2)).unwrap();
        assert_eq!(gone.kind, Kind::AgentAbsent);
        assert!(agent.missed(&occasion(3)).is_none());
        assert_eq!(agent.absent_since, Some(Timestamp::from_nanos(2)));
        let back = agent.seen(&version(1), None, None, &occasion(4));
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].kind, Kind::AgentReturned);
        assert_eq!(agent.absent_since, None);
    }

    #[test]
    fn who_is_retired_is_not_absent() {
        let mut agent = agent();
        agent.retire(&occasion(1), "replaced");
        assert!(agent.missed(&occasion(2)).is_none());
        let back = agent.reinstate(&occasion(3), "needed");
        assert_eq!(back.detail.reason.as_deref(), Some("needed"));
        assert_eq!(agent.retired, None);
    }
}

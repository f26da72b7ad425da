//! Who may do what.
//!
//! | caller | may |
//! |---|---|
//! | a task that carries a tag, whatever its user | ask about its own run, and start the agents that its manifest delegates to |
//! | root, and members of the socket's group | everything |
//! | everyone else | start agents that list them, and see the runs they started |
//!
//! The tag is asked for at every request, not once a connection: a process can
//! connect first and become an agent afterwards, over that very connection.

use std::collections::HashSet;

use agentguard_common::identity::Tag;
use uuid::Uuid;

use super::peer::Peer;
use crate::sinks::subscribers::Scope;

/// What a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Operates.
    Operator,
    /// Starts agents and sees its own runs.
    User(u32),
    /// Is an agent; knows its run, if the daemon does.
    Agent(Option<Uuid>),
}

/// The caller may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Role {
    /// Of a peer with this tag. `run` is the run behind the tag.
    #[must_use]
    pub fn of(peer: &Peer, tag: Option<Tag>, run: Option<Uuid>, socket_group: Option<u32>) -> Self {
        if tag.is_some_and(|tag| tag.is_set()) {
            return Self::Agent(run);
        }
        let in_group = socket_group.is_some_and(|group| peer.groups.contains(&group));
        if peer.uid == 0 || in_group {
            Self::Operator
        } else {
            Self::User(peer.uid)
        }
    }

    /// Only operators.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn operate(self, what: &str, group: &str) -> Result<(), Refused> {
        match self {
            Self::Operator => Ok(()),
            Self::User(_) => Err(Refused(format!(
                "{what} is for root and members of the group {group}"
            ))),
            Self::Agent(_) => Err(agent_may_not(what)),
        }
    }

    /// Everyone; of an agent, the run below which the new one is.
    ///
    /// # Errors
    /// [`Refused`] for an agent whose run is not known.
    pub fn start_runs(self) -> Result<Option<Uuid>, Refused> {
        match self {
            Self::Operator | Self::User(_) => Ok(None),
            Self::Agent(Some(run)) => Ok(Some(run)),
            Self::Agent(None) => Err(unknown_run()),
        }
    }

    /// What the caller may see of runs. `started` are the runs of a user, asked
    /// for only if the answer depends on them.
    ///
    /// # Errors
    /// [`Refused`] for an agent whose run is not known.
    pub fn sight<E>(
        self,
        started: impl FnOnce(u32) -> Result<HashSet<Uuid>, E>,
    ) -> Result<Result<Scope, E>, Refused> {
        match self {
            Self::Operator => Ok(Ok(Scope::All)),
            Self::User(uid) => Ok(started(uid).map(|known| Scope::StartedBy { uid, known })),
            Self::Agent(Some(run)) => Ok(Ok(Scope::Run(run))),
            Self::Agent(None) => Err(unknown_run()),
        }
    }
}

fn unknown_run() -> Refused {
    Refused("this process is an agent of a run that the daemon does not know".to_owned())
}

fn agent_may_not(what: &str) -> Refused {
    Refused(format!(
        "{what} is not for agents: this process carries the tag of a run, and a tagged process can ask about its own run only"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TAG;

    fn role(uid: u32, groups: &[u32], tag: Option<Tag>) -> Role {
        let peer = Peer::this_process(uid, groups.to_vec());
        Role::of(&peer, tag, Some(Uuid::nil()), Some(998))
    }

    #[test]
    fn root_and_the_group_operate() {
        assert_eq!(role(0, &[0], None), Role::Operator);
        assert_eq!(role(1_000, &[1_000, 998], None), Role::Operator);
        assert_eq!(role(1_000, &[1_000], None), Role::User(1_000));
    }

    #[test]
    fn a_tag_takes_everything_from_root() {
        let agent = role(0, &[0, 998], Some(TAG));
        assert_eq!(agent, Role::Agent(Some(Uuid::nil())));
        assert!(agent.operate("reloading", "agentguard").is_err());
        // What it starts is below its own run.
        assert_eq!(agent.start_runs().unwrap(), Some(Uuid::nil()));
        assert!(Role::Agent(None).start_runs().is_err());
        let sight = agent.sight(|_| Ok::<_, ()>(HashSet::new())).unwrap();
        assert_eq!(sight, Ok(Scope::Run(Uuid::nil())));
    }

    #[test]
    fn a_group_that_does_not_exist_has_no_members() {
        let peer = Peer::this_process(1_000, vec![1_000]);
        assert_eq!(Role::of(&peer, None, None, None), Role::User(1_000));
    }

    #[test]
    fn users_see_what_they_started() {
        let user = role(1_000, &[1_000], None);
        assert_eq!(user.start_runs().unwrap(), None);
        let error = user.operate("status", "agentguard").unwrap_err();
        assert_eq!(
            error.to_string(),
            "status is for root and members of the group agentguard"
        );
        let sight =
            user.sight(|uid| Ok::<_, ()>(HashSet::from([Uuid::from_u128(u128::from(uid))])));
        let scope = sight.unwrap().unwrap();
        assert!(scope.covers(Some(Uuid::from_u128(1_000)), None));
        assert!(scope.covers(Some(Uuid::from_u128(5)), Some(1_000)));
        assert!(!scope.covers(Some(Uuid::from_u128(5)), Some(1_001)));
        assert!(!scope.covers(None, None));
    }
}

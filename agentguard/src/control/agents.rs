//! Agents: the list, one with its history, and the decisions of operators.

use super::Control;
use super::answers::{Answer, Failed, json};
use super::authority::Role;
use super::peer::Peer;
use super::{processes, views};
use crate::api;
use crate::engine::{AgentReport, AgentState, Named};

/// Characters of a reason: enough for a sentence and a ticket.
const REASON: usize = 1_000;

impl Control {
    /// The caller, for the record.
    pub(super) fn caller(&self, peer: &Peer) -> String {
        format!("{} (uid {})", self.accounts.user_label(peer.uid), peer.uid)
    }

    /// The agents that the caller may see: an operator all, a user those in force that
    /// list the user.
    async fn visible_agents(&self, role: Role) -> Result<Vec<AgentReport>, Failed> {
        let uid = match role {
            Role::Operator => None,
            Role::User(uid) => Some(uid),
            Role::Agent(_) => {
                role.operate("the list of agents", &self.socket_group)?;
                None
            }
        };
        let mut agents = self.engine.call(|engine| engine.agents()).await?;
        agents.retain(|agent| {
            let Some(uid) = uid else {
                return true;
            };
            let users = agent.manifest.iter().flat_map(|it| &it.launch_users);
            agent.state != AgentState::Absent
                && users
                    .into_iter()
                    .any(|it| self.accounts.uid(it) == Some(uid))
        });
        Ok(agents)
    }

    pub(super) async fn agents(&self, role: Role) -> Answer {
        let agents = self.visible_agents(role).await?;
        let mut agents: Vec<api::Agent> = agents.iter().map(views::agent).collect();
        agents.sort_by(|a, b| (&a.agent, &a.environment).cmp(&(&b.agent, &b.environment)));
        json(&api::Agents { agents })
    }

    pub(super) async fn agent(
        &self,
        role: Role,
        name: &str,
        environment: Option<String>,
    ) -> Answer {
        let mut agents = self.visible_agents(role).await?;
        agents.retain(|agent| {
            let wanted = environment.as_ref();
            agent.known.name == name
                && wanted.is_none_or(|wanted| *wanted == agent.known.environment)
        });
        match agents.as_slice() {
            [one] => json(&api::AgentDetail {
                agent: views::agent(one),
                versions: one.known.versions.clone(),
            }),
            // One that may not be seen and one that does not exist look the same.
            [] => Err(Failed::not_found(format!(
                "no agent `{name}`; `agentguard agents list` shows all"
            ))),
            several => {
                let environments: Vec<&str> = several
                    .iter()
                    .map(|agent| agent.known.environment.as_str())
                    .collect();
                Err(Failed::new(
                    api::Code::Conflict,
                    format!(
                        "agent `{name}` exists in {}; say which with --environment",
                        environments.join(" and ")
                    ),
                ))
            }
        }
    }

    pub(super) async fn decide(
        &self,
        peer: &Peer,
        agent: String,
        retire: bool,
        decision: api::AgentDecision,
    ) -> Answer {
        let reason = decision.reason.trim();
        if reason.is_empty() || reason.chars().count() > REASON {
            return Err(Failed::bad_request(format!(
                "`reason` says why, in 1 to {REASON} characters"
            )));
        }
        let named = Named {
            agent,
            environment: decision.environment,
            reason: reason.to_owned(),
            by: self.caller(peer),
        };
        let decided = if retire {
            self.loader.retire(named).await?
        } else {
            self.loader.reinstate(named).await?
        };
        let killed = processes::kill(&self.engine, &decided.revoked).await?;
        json(&api::AgentDecided {
            agent: decided.agent,
            environment: decided.environment,
            runs_revoked: decided.revoked.len(),
            processes_killed: killed.killed,
            processes_left: killed.left,
        })
    }
}

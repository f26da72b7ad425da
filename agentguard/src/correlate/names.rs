//! What numbers in kernel records stand for: agents, rules, files, addresses.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use agentguard_common::net::Transport;
use serde::{Deserialize, Serialize};

use crate::decode;
use crate::event::{AddressObject, FileObject, Identity};
use crate::mounts::MountTable;
use crate::policy::compile::Compiled;

/// The names of one policy generation. Kept in the state directory too, so that
/// denials made while no daemon ran are still told with their rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyNames {
    /// The generation.
    pub generation: u32,
    /// Its agents, by rising index.
    agents: Vec<AgentNames>,
}

/// The names of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentNames {
    /// Index in the kernel.
    pub index: u32,
    /// Agent name.
    pub name: String,
    /// Who answers for it.
    pub owner: String,
    /// Environment.
    pub environment: String,
    /// Version of the manifest.
    pub version: Arc<str>,
    /// Rules by index.
    pub rules: Vec<RuleName>,
}

/// The names of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleName {
    /// `file:line`.
    pub at: Arc<str>,
    /// The rule as it is written.
    pub text: Arc<str>,
}

impl PolicyNames {
    /// The names in a compiled policy.
    #[must_use]
    pub fn of(policy: &Compiled) -> Self {
        let mut agents: Vec<AgentNames> = policy
            .agents
            .iter()
            .map(|agent| AgentNames {
                index: agent.index,
                name: agent.manifest.name.clone(),
                owner: agent.manifest.owner.clone(),
                environment: agent.manifest.environment.as_str().to_owned(),
                version: agent.manifest.version.as_str().into(),
                rules: agent
                    .rules
                    .iter()
                    .map(|rule| RuleName {
                        at: rule.at.as_str().into(),
                        text: rule.text.as_str().into(),
                    })
                    .collect(),
            })
            .collect();
        agents.sort_by_key(|agent| agent.index);
        Self {
            generation: policy.generation,
            agents,
        }
    }

    /// The agent with this index.
    #[must_use]
    pub fn agent(&self, index: u32) -> Option<&AgentNames> {
        self.agents
            .binary_search_by_key(&index, |agent| agent.index)
            .ok()
            .map(|at| &self.agents[at])
    }

    #[cfg(test)]
    pub(super) const fn for_test(generation: u32, agents: Vec<AgentNames>) -> Self {
        Self { generation, agents }
    }
}

impl AgentNames {
    /// The identity on events of a run that the daemon does not know.
    #[must_use]
    pub fn identity_without_run(&self) -> Identity {
        Identity {
            agent: self.name.clone(),
            owner: self.owner.clone(),
            environment: self.environment.clone(),
            run: None,
            parent_run: None,
            on_behalf_of: None,
            task: None,
            visible_to: None,
        }
    }
}

/// The identity of an agent that no known policy names.
pub fn unknown_agent(index: u32) -> Identity {
    Identity {
        agent: format!("unknown-{index}"),
        owner: "unknown".to_owned(),
        environment: "unknown".to_owned(),
        run: None,
        parent_run: None,
        on_behalf_of: None,
        task: None,
        visible_to: None,
    }
}

/// A file by the host's name for it.
pub(super) fn file(mounts: &MountTable, file: &decode::FileObject) -> FileObject {
    let host_path;
    let bytes = if file.anonymous || file.cut {
        // No name in the tree, or not all of it: there is nothing to translate.
        file.path.as_slice()
    } else {
        host_path = mounts.host_path(file.device, &file.path);
        host_path.as_os_str().as_bytes()
    };
    let path = String::from_utf8_lossy(bytes);
    let path_hex = matches!(path, std::borrow::Cow::Owned(_)).then(|| hex(bytes));
    FileObject {
        path: path.into_owned(),
        path_hex,
        path_cut: file.cut,
        anonymous: file.anonymous,
        device: file.device,
        inode: file.inode,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name as it was sent, with what is no name written as `\\xNN`.
fn shown(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}

/// An address in text, with the name that it was given for.
pub(super) fn address(object: &decode::AddressObject, name: Option<&str>) -> AddressObject {
    AddressObject {
        address: object.address.map(|address| address.to_string()),
        port: object.port,
        protocol: match object.transport {
            Transport::Tcp | Transport::Udp => object.transport.name().to_owned(),
            Transport::Other => object.protocol.to_string(),
        },
        name: name.map(str::to_owned),
        server_name: object.server.as_deref().map(shown),
        family: object.address.is_none().then_some(object.family),
    }
}

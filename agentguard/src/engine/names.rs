//! Names: what runs were given for them, and what the resolver is told.
//!
//! An address that a run was given for a name is a grant. The kernel holds it with what
//! the rules about the name say of ports, for the generation in force and for the next, so
//! that no connection ever sees a moment without.

mod grants;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agentguard_common::identity::Tag;
use agentguard_common::resolver::{GrantKey, PortRange, ResolverRecord, Server};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::Reason;

pub(crate) use self::grants::address_of;
use self::grants::{Given, Grants};
pub use self::view::View;
use self::view::{Refused, RefusedKey};
use super::Engine;
use crate::api;
use crate::clock;
use crate::correlate::{AgentNames, PolicyNames};
use crate::event::{AddressObject, Decision, Detail, Event, Kind, Object};
use crate::kernel::KernelError;
use crate::names::{self, AdmitError, Protocol};
use crate::pipeline::Message;
use crate::policy::compile::{Compiled, NameRules};

/// The port of DNS.
const PORT: u16 = agentguard_common::resolver::DNS_PORT;

/// The engine's part in names.
#[derive(Default)]
pub(super) struct Names {
    grants: Grants,
    view: Arc<View>,
    /// The rules' names of the newest generations, the newest first.
    rules: Vec<Arc<PolicyNames>>,
    resolver: Listening,
}

/// Where the resolver listens, and whom the host asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// Port at 127.0.0.1; zero: none.
    pub v4: u16,
    /// Port at `::1`; zero: none.
    pub v6: u16,
    /// The host's servers.
    pub servers: Vec<SocketAddr>,
}

impl Listening {
    fn record(&self) -> ResolverRecord {
        let mut record = ResolverRecord {
            port_v4: self.v4,
            port_v6: self.v6,
            ..ResolverRecord::default()
        };
        for (slot, server) in record.servers.iter_mut().zip(&self.servers) {
            let address = address_of(server.ip());
            *slot = Server {
                address: address.words,
                is_v4: u32::from(address.is_v4),
            };
            record.count += 1;
        }
        record
    }

    fn addresses(&self) -> Vec<String> {
        let v4 = (self.v4 != 0).then(|| format!("127.0.0.1:{}", self.v4));
        let v6 = (self.v6 != 0).then(|| format!("[::1]:{}", self.v6));
        v4.into_iter().chain(v6).collect()
    }
}

impl Engine {
    /// What the resolver asks without waiting.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.names.view)
    }

    /// Says where the resolver listens, and whom the host asks.
    pub fn set_resolver(&mut self, listening: Listening) {
        if let Err(error) = self.port.set_resolver(&listening.record()) {
            tracing::error!("the kernel does not know where the resolver listens: {error}");
        }
        self.names.resolver = listening;
    }

    /// The host has other servers. Nothing is changed if the resolver has ended.
    pub fn set_servers(&mut self, listening: Listening) {
        let now = &self.names.resolver;
        if (now.v4, now.v6) == (listening.v4, listening.v6) {
            self.set_resolver(listening);
        }
    }

    /// The resolver, for `status` and `doctor`.
    pub(super) fn resolver(&self) -> api::Resolver {
        let resolver = &self.names.resolver;
        let with_names = self.policy.agents.iter().filter(|(index, _)| {
            let rules = self.names.view.rules(*index);
            rules.is_some_and(|rules| !rules.is_empty())
        });
        let servers = resolver.servers.iter();
        api::Resolver {
            listening: resolver.addresses(),
            servers: servers.map(|server| server.ip().to_string()).collect(),
            agents: with_names
                .map(|(_, manifest)| manifest.name.clone())
                .collect(),
        }
    }

    /// How many addresses runs hold.
    pub(super) const fn grant_count(&self) -> usize {
        self.names.grants.len()
    }

    /// Learns what an earlier daemon gave to runs that live, and takes the rest back.
    pub(super) fn inherit_grants(&mut self, names: Vec<Arc<PolicyNames>>) {
        self.names.rules = names;
        let grants = self.port.grants().unwrap_or_else(|error| {
            tracing::error!("{error}: runs have to ask again");
            Vec::new()
        });
        let in_force = self.port.generation();
        let kernel = self.port.runs();
        let live: HashSet<u64> = kernel
            .iter()
            .filter(|run| run.tasks > 0)
            .map(|run| run.serial)
            .collect();
        let mut stale = Vec::new();
        for (key, grant) in grants {
            if live.contains(&key.run_serial) {
                self.names.grants.inherit(key, grant, in_force);
            } else {
                stale.push(key);
            }
        }
        self.take_back(&stale);
    }

    /// Gives a run addresses for a name: returns when the kernel has them.
    ///
    /// # Errors
    /// The run has ended, its policy does not allow the name, the table is full, or the
    /// kernel refuses.
    pub fn admit(
        &mut self,
        slot: u32,
        serial: u64,
        given: &names::Grant,
    ) -> Result<(), AdmitError> {
        let ended = || AdmitError("the run has ended".to_owned());
        self.learn_run(slot, serial);
        let run = self.runs.by_serial(serial).ok_or_else(ended)?;
        if run.slot != slot || self.ending.closing.contains_key(&serial) {
            return Err(ended());
        }
        let policy = self.names.view.policy_of(serial);
        let Some((_, Some(policy))) = policy else {
            return Err(AdmitError("its agent has no policy in force".to_owned()));
        };
        let observed = policy.mode == agentguard_common::verdict::Mode::Observe;
        if !observed && !policy.names.may_ask(&given.name) {
            return Err(AdmitError("the policy in force is another one".to_owned()));
        }
        self.write(&Given {
            serial,
            name: &given.name,
            addresses: &given.addresses,
            rules: &policy.names,
            generation: policy.generation,
            now: clock::boot_ns(),
        })?;
        let usable = given.addresses.iter().map(|(address, _)| *address);
        self.tell(Message::Named {
            serial,
            name: given.name.as_str().into(),
            addresses: usable.chain(given.unusable.iter().copied()).collect(),
        });
        Ok(())
    }

    fn write(&mut self, given: &Given<'_>) -> Result<(), AdmitError> {
        let plan = self.names.grants.plan(given).map_err(|full| {
            tracing::warn!("an answer for {} was not admitted: {full}", given.name);
            AdmitError(full.to_string())
        })?;
        if plan.left_out {
            tracing::warn!(
                "the rules about {} have more ports than fit; some that are allowed are refused",
                given.name
            );
        }
        self.take_back(&plan.evicted);
        if let Err(error) = self.port.put_grants(&plan.grants()) {
            tracing::error!("an answer for {} was not admitted: {error}", given.name);
            // Whatever was written of it is in no table.
            let unknown = self.names.grants.unknown(&plan);
            self.take_back(&unknown);
            return Err(AdmitError(error.to_string()));
        }
        self.names.grants.keep(plan);
        Ok(())
    }

    fn take_back(&mut self, keys: &[GrantKey]) {
        if keys.is_empty() {
            return;
        }
        if let Err(error) = self.port.remove_grants(keys) {
            tracing::error!("{error}");
        }
        self.names.grants.forget(keys);
    }

    /// A run exists, or is found to.
    pub(super) fn names_of_run(&mut self, tag: Tag) {
        self.names.view.run_started(tag);
    }

    /// What is known of an agent by the newest policy that has it.
    pub(super) fn agent_names(&self, agent: u32) -> Option<&AgentNames> {
        self.names.rules.iter().find_map(|names| names.agent(agent))
    }

    /// A run has ended: what it was given goes with it.
    pub(super) fn forget_names_of(&mut self, serial: u64) {
        self.tell_refused();
        self.names.view.run_ended(serial);
        let keys = self.names.grants.of_run(serial);
        self.take_back(&keys);
    }

    /// Puts a policy in force: first what it says of the addresses that were given.
    pub(super) fn put_with_names(
        &mut self,
        compiled: &Compiled,
        rules: &Arc<PolicyNames>,
    ) -> Result<(), KernelError> {
        let in_force = self.port.generation();
        let agents = self.agents_of_runs();
        let new: HashMap<u32, Arc<NameRules>> = compiled
            .agents
            .iter()
            .map(|agent| (agent.index, Arc::clone(&agent.names)))
            .collect();
        let rules_of = |serial: u64| new.get(agents.get(&serial)?).cloned();
        let old = self
            .names
            .rules
            .iter()
            .find(|names| names.generation == in_force)
            .cloned();
        let translated = |serial: u64, ranges: &[PortRange]| {
            let both = agents.get(&serial).and_then(|agent| {
                let old = old.as_ref()?.agent(*agent)?;
                Some((old, rules.agent(*agent)?))
            });
            both.map_or_else(Vec::new, |(old, new)| translate(old, new, ranges))
        };
        let generation = compiled.generation;
        let grants = self
            .names
            .grants
            .renew(in_force, generation, &rules_of, &translated);
        if !grants.is_empty() {
            self.port.put_grants(&grants)?;
        }
        self.port.put_policy(compiled)?;
        self.names.grants.renewed(&translated);
        self.names.view.learn_policy(compiled);
        self.names.rules.insert(0, Arc::clone(rules));
        self.names.rules.truncate(2);
        Ok(())
    }

    /// The agents of runs by serial number, as the kernel knows them.
    fn agents_of_runs(&self) -> HashMap<u64, u32> {
        if self.names.grants.len() == 0 {
            return HashMap::new();
        }
        let runs = self.port.runs().into_iter();
        runs.map(|run| (run.serial, run.agent)).collect()
    }

    /// Tells which names were refused since this was called last.
    pub(super) fn tell_refused(&mut self) {
        for (key, refused) in self.names.view.take_refused() {
            let Some(run) = self.runs.by_serial(key.serial) else {
                continue;
            };
            let (identity, version) = (run.shown_identity(), run.agent_version.as_str().into());
            let detail = Detail::Decision(self.refusal(key, &refused));
            self.tell(Message::Emit(Box::new(Event {
                time: refused.time,
                seq: 0,
                kind: Kind::Decision,
                identity: Some(identity),
                agent_version: Some(version),
                run_seq: None,
                process: None,
                detail,
            })));
        }
    }

    fn refusal(&self, key: RefusedKey, refused: &Refused) -> Decision {
        let names = self.names.rules.iter();
        let mut names = names.filter(|names| names.generation == refused.generation);
        let rule = refused.rule.and_then(|rule| {
            let agent = names.next()?.agent(refused.agent)?;
            agent.rules.get(usize::from(rule))
        });
        Decision {
            verb: Verb::Connect,
            object: Object::Address(AddressObject {
                address: None,
                port: PORT,
                protocol: match key.protocol {
                    Protocol::Udp => "udp",
                    Protocol::Tcp => "tcp",
                }
                .to_owned(),
                name: key.name.map(Into::into),
                server_name: None,
                family: None,
            }),
            verdict: refused.verdict,
            blocked: refused.blocked,
            mode: refused.mode,
            reason: match refused.rule {
                _ if refused.generation == 0 => Reason::NoPolicy,
                Some(_) => Reason::Rule,
                None => Reason::Default,
            },
            rule: rule.map(|rule| Arc::clone(&rule.at)),
            rule_text: rule.map(|rule| Arc::clone(&rule.text)),
            policy_generation: refused.generation,
            count: refused.count,
        }
    }
}

/// Ranges of one generation with the rule numbers of the next, if the agent's manifest
/// means the same in both; else none, for it is not known for which names they were.
fn translate(old: &AgentNames, new: &AgentNames, ranges: &[PortRange]) -> Vec<PortRange> {
    if old.version != new.version {
        return Vec::new();
    }
    let number = |rule: u16| {
        let name = old.rules.get(usize::from(rule))?;
        // A comment more in the file moves a rule, and changes no text.
        let same = new.rules.iter().position(|other| other == name);
        let same = same.or_else(|| new.rules.iter().position(|other| other.text == name.text));
        u16::try_from(same?).ok()
    };
    let renumbered = |range: &PortRange| {
        let rule = number(range.rule)?;
        Some(PortRange { rule, ..*range })
    };
    // One that cannot be told would be missing, and it may be one that denies.
    let all: Option<Vec<PortRange>> = ranges.iter().map(renumbered).collect();
    all.unwrap_or_default()
}

/// An address from the kernel.
#[must_use]
pub fn ip_of(words: [u32; 4], is_v4: bool) -> IpAddr {
    let [a, b, c, d] = words.map(u128::from);
    if is_v4 {
        return IpAddr::V4(words[0].into());
    }
    IpAddr::V6((a << 96 | b << 64 | c << 32 | d).into())
}

//! Kernel records to events: who it was, for which run, by which rule.
//!
//! No I/O, and the clock is an argument: what comes out depends on what was put
//! in and nothing else. Everything it knows is told to it, in order, by the
//! engine: policies before records that they decided, runs before their records.

mod addresses;
mod flows;
mod names;
mod processes;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use agentguard_common::identity::Tag;
use uuid::Uuid;

use self::addresses::Addresses;
pub use self::names::{AgentNames, PolicyNames, RuleName, unknown_agent};
use self::processes::Processes;
use crate::clock::Clock;
use crate::decode::{self, Body, Record};
use crate::event::{self, Detail, Event, Exit, Identity, Kind, Process};
use crate::mounts::MountTable;

/// Policy generations whose rules are still known by name. Records of an older
/// generation are seconds old when they arrive; they keep their verdict and
/// lose only the rule's text.
const GENERATIONS: usize = 4;

/// What the engine tells about a run.
#[derive(Clone, Debug)]
pub struct KnownRun {
    /// Serial number in its tag.
    pub serial: u64,
    /// Identity on its events.
    pub identity: Arc<Identity>,
    /// Version of the manifest it was started under.
    pub agent_version: Arc<str>,
}

/// See the module.
#[derive(Default)]
pub struct Correlator {
    policies: VecDeque<Arc<PolicyNames>>,
    mounts: Arc<MountTable>,
    runs: HashMap<u64, KnownRun>,
    processes: Processes,
    addresses: Addresses,
}

impl Correlator {
    /// A policy generation came into force, or was in force before this daemon.
    pub fn learn_policy(&mut self, policy: Arc<PolicyNames>) {
        self.policies.push_front(policy);
        self.policies.truncate(GENERATIONS);
    }

    /// The host's mounts are now these.
    pub fn learn_mounts(&mut self, mounts: Arc<MountTable>) {
        self.mounts = mounts;
    }

    /// A run exists.
    pub fn learn_run(&mut self, run: KnownRun) {
        self.runs.insert(run.serial, run);
    }

    /// A process of a run runs this program.
    pub fn learn_process(&mut self, serial: u64, pid: u32, exe: &str) {
        self.processes.started(serial, pid, exe.into());
    }

    /// A known run was given these addresses for a name.
    pub fn learn_name(&mut self, serial: u64, name: &Arc<str>, addresses: &[IpAddr]) {
        // Of a run that has ended, nobody would forget them again.
        if self.runs.contains_key(&serial) {
            self.addresses.given(serial, name, addresses);
        }
    }

    /// A run has ended and its last record has been seen.
    pub fn forget_run(&mut self, serial: u64) {
        self.runs.remove(&serial);
        self.processes.run_ended(serial);
        self.addresses.run_ended(serial);
    }

    /// A second has passed since this was called last.
    pub fn grow_older(&mut self) {
        self.processes.grow_older();
    }

    /// The id of a known run.
    #[must_use]
    pub fn run_id(&self, serial: u64) -> Option<Uuid> {
        self.runs.get(&serial)?.identity.run
    }

    /// Turns a record into an event. `None` for records that are not events:
    /// the end of a run is told by the engine, with the kernel's counts. The
    /// event gets its sequence number when it is published.
    pub fn event(&mut self, record: &Record, clock: Clock) -> Option<Event> {
        let serial = record.tag.run_serial;
        let (kind, detail) = match &record.body {
            Body::Decision {
                verb,
                object,
                decision,
            } => {
                let detail = self.decision(record, *verb, object, decision);
                (Kind::Decision, Detail::Decision(detail))
            }
            Body::Exec(file) => {
                let object = names::file(&self.mounts, file);
                self.processes
                    .started(serial, record.task.pid, object.path.as_str().into());
                let object = event::Object::File(object);
                (Kind::Exec, Detail::Exec { object })
            }
            Body::Exit(word) => (Kind::Exit, Detail::Exit(Exit::from_word(*word))),
            Body::RunEnded | Body::Linked(_) => return None,
        };
        let process = self.process(record);
        if kind == Kind::Exit {
            self.processes.exited(serial, record.task.pid);
        }
        let generation = match &record.body {
            Body::Decision { decision, .. } => Some(decision.generation),
            _ => None,
        };
        let (identity, agent_version) = self.identity(record.tag, generation);
        Some(Event {
            time: clock.at(record.boot_ns),
            seq: 0,
            kind,
            identity: Some(identity),
            agent_version,
            run_seq: Some(record.run_seq),
            process: Some(process),
            detail,
        })
    }

    /// The names of the generation that decided.
    fn names(&self, generation: u32) -> Option<&PolicyNames> {
        self.policies
            .iter()
            .find(|policy| policy.generation == generation)
            .map(Arc::as_ref)
    }

    /// Who it was. The version is that of the policy which decided, because it
    /// can have changed under a running agent.
    fn identity(&self, tag: Tag, generation: Option<u32>) -> (Arc<Identity>, Option<Arc<str>>) {
        let names = generation
            .map_or_else(
                || self.policies.front().map(Arc::as_ref),
                |generation| self.names(generation),
            )
            .and_then(|names| names.agent(tag.agent));
        let version = names.map(|agent| Arc::clone(&agent.version));
        match (self.runs.get(&tag.run_serial), names) {
            (Some(run), _) => {
                let version = version.unwrap_or_else(|| Arc::clone(&run.agent_version));
                (Arc::clone(&run.identity), Some(version))
            }
            (None, Some(agent)) => (Arc::new(agent.identity_without_run()), version),
            (None, None) => (Arc::new(unknown_agent(tag.agent)), None),
        }
    }

    fn decision(
        &self,
        record: &Record,
        verb: agentguard_common::verb::Verb,
        object: &decode::Object,
        decision: &decode::Decision,
    ) -> event::Decision {
        let rule = decision.rule.and_then(|rule| {
            self.names(decision.generation)?
                .agent(record.tag.agent)?
                .rules
                .get(usize::from(rule))
        });
        event::Decision {
            verb,
            object: match object {
                decode::Object::File(file) => event::Object::File(names::file(&self.mounts, file)),
                decode::Object::Address(address) => {
                    let serial = record.tag.run_serial;
                    let name = address
                        .address
                        .and_then(|address| self.addresses.name(serial, address));
                    event::Object::Address(names::address(address, name))
                }
            },
            verdict: decision.verdict,
            blocked: decision.blocked,
            mode: decision.mode,
            reason: decision.reason,
            rule: rule.map(|rule| Arc::clone(&rule.at)),
            rule_text: rule.map(|rule| Arc::clone(&rule.text)),
            policy_generation: decision.generation,
            count: u64::from(record.count),
        }
    }

    fn process(&mut self, record: &Record) -> Process {
        let task = &record.task;
        Process {
            pid: task.pid,
            tid: task.tid,
            ppid: task.ppid,
            exe: self
                .processes
                .program(record.tag.run_serial, task.pid, task.ppid),
            comm: task.comm.clone(),
            uid: task.uid,
            cgroup: task.cgroup,
        }
    }
}

#[cfg(test)]
mod tests;

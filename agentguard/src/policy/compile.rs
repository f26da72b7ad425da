//! From checked manifests to the tables that the kernel programs walk.
//!
//! Everything is rebuilt for every generation: the tables of a policy set are
//! made from nothing but the manifests and the mounts, so what is in force can
//! always be told from these. [`tables`] also answers in userspace, with the
//! same code as the kernel's, so an explanation cannot differ from a verdict.

mod globs;
pub mod lineage;
mod matching;
pub mod named;
mod nets;
mod paths;
pub mod protected;
pub mod rules;
pub mod tables;
#[cfg(test)]
mod tests;
mod unsupported;

use std::collections::HashMap;
use std::sync::Arc;

use agentguard_common::identity::{NetRoots, PolicyRecord, policy_flag, privilege};
use agentguard_common::limits;
use agentguard_common::matching::DelegateKey;
use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Mode, Verdict};

use super::diagnostic::Diagnostic;
use super::manifest::{self, Manifest};
use crate::mounts::MountTable;

pub use named::NameRules;
pub use tables::Tables;

/// A compiled policy set.
pub struct Compiled {
    /// Policy generation: global, never reused.
    pub generation: u32,
    /// Agents, by ascending kernel index.
    pub agents: Vec<CompiledAgent>,
    /// What programs are matched by, if any manifest matches any.
    pub matcher: Option<PolicyRecord>,
    /// Mounts that it was compiled for.
    pub mounts: MountTable,
    /// Kernel tables.
    pub tables: Arc<Tables>,
    /// What loads but may not mean what it says.
    pub warnings: Vec<Diagnostic>,
}

/// One agent of a compiled set.
pub struct CompiledAgent {
    /// Kernel index.
    pub index: u32,
    /// Manifest.
    pub manifest: Arc<Manifest>,
    /// What the kernel's rule index i means.
    pub rules: Vec<RuleRef>,
    /// The record that goes into the kernel.
    pub record: PolicyRecord,
    /// Its rules about names.
    pub names: Arc<NameRules>,
}

/// A rule as events name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The rule's text.
    pub text: String,
    /// `file:line`, or `built-in:NAME`.
    pub at: String,
    /// Verb under which it is written.
    pub verb: Verb,
    /// Verdict.
    pub verdict: Verdict,
}

/// What is to be compiled.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// The agents, each with its kernel index.
    pub agents: Vec<(u32, Arc<Manifest>)>,
    /// The places in which they can be started by others, each with its kernel index.
    pub places: Vec<(u32, lineage::Place)>,
}

impl Set {
    /// One agent.
    #[cfg(test)]
    pub fn of(index: u32, manifest: Arc<Manifest>) -> Self {
        Self {
            agents: vec![(index, manifest)],
            places: Vec::new(),
        }
    }

    fn index_of(&self, start: lineage::Start) -> Option<u32> {
        match start {
            lineage::Start::Root(at) => self.agents.get(at).map(|(index, _)| *index),
            lineage::Start::Place(at) => self.places.get(at).map(|(index, _)| *index),
        }
    }

    /// Who starts what as what: the indexes of the starter, of the agent, and of the agent in
    /// that place.
    fn delegations(&self) -> Vec<(DelegateKey, u32)> {
        let indexes: HashMap<(&str, &str), u32> = self
            .agents
            .iter()
            .map(|(index, manifest)| {
                (
                    (manifest.name.as_str(), manifest.environment.as_str()),
                    *index,
                )
            })
            .collect();
        let mut found = Vec::new();
        for (index, place) in &self.places {
            let manifest = &place.manifest;
            let name = (manifest.name.as_str(), manifest.environment.as_str());
            let Some(agent) = indexes.get(&name) else {
                continue;
            };
            for from in place.from.iter().filter_map(|start| self.index_of(*start)) {
                let key = DelegateKey {
                    bank: 0,
                    from,
                    agent: *agent,
                    reserved: 0,
                };
                found.push((key, *index));
            }
        }
        found
    }
}

/// Compiles a set of manifests for these mounts. `own` are the daemon's own places, where
/// they are not the usual ones.
///
/// # Errors
/// Limits of [`agentguard_common::limits`] that the set does not keep, each with
/// the manifest that goes beyond.
pub fn compile(
    set: &Set,
    mounts: &MountTable,
    own: &[protected::Protection],
    generation: u32,
) -> Result<Compiled, Vec<Diagnostic>> {
    let mut builder = tables::Builder::default();
    let mut agents = Vec::new();
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    let mut links = rules::Links::default();
    if let Some(error) = too_many_rules(&set.agents) {
        return Err(vec![error]);
    }
    let roots = set
        .agents
        .iter()
        .map(|(index, manifest)| (*index, manifest, vec![manifest.as_ref()], None));
    let places = set
        .places
        .iter()
        .map(|(index, place)| (*index, &place.manifest, place.layers(), Some(place)));
    for (index, manifest, layers, place) in roots.chain(places) {
        let mut found = Vec::new();
        let subject = Subject {
            index,
            manifest,
            layers: &layers,
        };
        match subject.compile(
            &mut builder,
            mounts,
            (own, &mut links),
            generation,
            &mut found,
        ) {
            Ok(agent) => agents.push(agent),
            Err(error) => {
                let text = match place {
                    None => error,
                    Some(place) => format!("{error}, where others start it ({})", place.name()),
                };
                errors.push(Diagnostic::about_manifest(manifest, &text));
            }
        }
        // What is said of a manifest is said once.
        if place.is_none() {
            warnings.extend(unsupported::findings(manifest));
            warnings.append(&mut found);
        }
    }
    let matcher = matcher(
        &mut builder,
        set,
        mounts,
        (&mut links, &mut warnings, &mut errors),
        generation,
    );
    if !errors.is_empty() {
        return Err(errors);
    }
    agents.sort_by_key(|agent| agent.index);
    Ok(Compiled {
        generation,
        agents,
        matcher,
        mounts: mounts.clone(),
        tables: Arc::new(builder.finish(set.delegations())),
        warnings,
    })
}

/// What programs are matched by.
fn matcher(
    builder: &mut tables::Builder,
    set: &Set,
    mounts: &MountTable,
    (links, warnings, errors): (
        &mut rules::Links,
        &mut Vec<Diagnostic>,
        &mut Vec<Diagnostic>,
    ),
    generation: u32,
) -> Option<PolicyRecord> {
    // A program that has been replaced is still ours.
    if let Ok(own) = std::env::current_exe() {
        errors.extend(matching::about_ourselves(&set.agents, &own));
    }
    let agents = &set.agents;
    let compiled = matching::compile(builder, agents, mounts, links, generation, warnings);
    compiled.unwrap_or_else(|full| {
        let first = agents.first();
        let about = |manifest| Diagnostic::about_manifest(manifest, &full.to_string());
        errors.extend(first.map(|(_, manifest)| about(manifest)));
        None
    })
}

/// An agent that is being compiled: its own manifest's rules, and those of the agents above it.
struct Subject<'a> {
    index: u32,
    manifest: &'a Arc<Manifest>,
    layers: &'a [&'a Manifest],
}

impl Subject<'_> {
    fn compile(
        &self,
        builder: &mut tables::Builder,
        mounts: &MountTable,
        (own, links): (&[protected::Protection], &mut rules::Links),
        generation: u32,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<CompiledAgent, String> {
        let list = rules::RuleList::of(self.layers, own, links, warnings);
        let list = list.map_err(|error| error.to_string())?;
        let defaults = rules::strictest_defaults(&list.defaults);
        let default = Verdict::from_bits((defaults >> (2 * Verb::Connect as u16)) as u8 & 3);
        let names = NameRules::of(&list.connect, default.unwrap_or(Verdict::Deny));
        warnings.extend(unsupported::crowded(self.manifest, &names));
        let record = self.record(builder, &list, mounts, generation);
        let mut record = record.map_err(|full| full.to_string())?;
        if !names.is_empty() {
            record.flags |= policy_flag::NAMES;
        }
        Ok(CompiledAgent {
            index: self.index,
            manifest: Arc::clone(self.manifest),
            rules: list.names(),
            record,
            names: Arc::new(names),
        })
    }

    fn record(
        &self,
        builder: &mut tables::Builder,
        list: &rules::RuleList,
        mounts: &MountTable,
        generation: u32,
    ) -> Result<PolicyRecord, tables::Full> {
        let unknown_start = paths::compile(builder, self.index, list, mounts)?;
        let connect = nets::compile(builder, &list.connect)?;
        let listen = nets::compile(builder, &list.listen)?;
        let observed = |manifest: &&Manifest| manifest.mode == manifest::Mode::Observe;
        Ok(PolicyRecord {
            generation,
            mode: if self.layers.iter().all(observed) {
                Mode::Observe as u8
            } else {
                Mode::Enforce as u8
            },
            reserved: 0,
            defaults: rules::strictest_defaults(&list.defaults),
            unknown_start,
            starts: self.index,
            protected_rules: list.protected,
            privileges: self
                .layers
                .iter()
                .map(|manifest| privileges(manifest))
                .fold(u32::MAX, |all, own| all & own),
            flags: 0,
            connect: NetRoots {
                v4: connect.0,
                v6: connect.1,
            },
            listen: NetRoots {
                v4: listen.0,
                v6: listen.1,
            },
        })
    }
}

/// The privileges that the kernel programs ask for, as bits of the record.
fn privileges(manifest: &Manifest) -> u32 {
    manifest
        .permissions
        .privileges
        .iter()
        .map(|privilege| match privilege.value {
            manifest::Privilege::PtraceOutside => privilege::PTRACE_OUTSIDE,
            manifest::Privilege::SignalOutside => privilege::SIGNAL_OUTSIDE,
            manifest::Privilege::Mount => privilege::MOUNT,
            manifest::Privilege::Namespaces => privilege::NAMESPACES,
            manifest::Privilege::Bpf => privilege::BPF,
            manifest::Privilege::Modules => privilege::MODULES,
            manifest::Privilege::RawSockets => privilege::RAW_SOCKETS,
            manifest::Privilege::KernelSettings => privilege::KERNEL_SETTINGS,
            manifest::Privilege::Devices => privilege::DEVICES,
            manifest::Privilege::Handoff => privilege::HANDOFF,
            manifest::Privilege::Setuid => privilege::SETUID,
            // Rules about names, which are left out.
            manifest::Privilege::Persistence => 0,
        })
        .fold(0, |bits, bit| bits | bit)
}

/// The rule limits, which are over all agents.
fn too_many_rules(set: &[(u32, Arc<Manifest>)]) -> Option<Diagnostic> {
    let (mut paths, mut nets) = (0, 0);
    for (_, manifest) in set {
        paths += manifest.permissions.path_rule_count();
        nets += manifest.permissions.net_rule_count();
        let over = [
            (paths, limits::PATH_RULES, "path"),
            (nets, limits::NET_RULES, "network"),
        ]
        .into_iter()
        .find(|(count, limit, _)| count > limit);
        if let Some((_, limit, kind)) = over {
            let text =
                format!("more than {limit} {kind} rules over all agents, counted up to this one");
            return Some(Diagnostic::about_manifest(manifest, &text));
        }
    }
    None
}

/// The manifest's word for a verb.
#[must_use]
pub fn manifest_verb(verb: Verb) -> manifest::Verb {
    match verb {
        Verb::Read => manifest::Verb::Read,
        Verb::Write => manifest::Verb::Write,
        Verb::Create => manifest::Verb::Create,
        Verb::Delete => manifest::Verb::Delete,
        Verb::Attributes => manifest::Verb::Attributes,
        Verb::Exec => manifest::Verb::Exec,
        Verb::Connect => manifest::Verb::Connect,
        Verb::Listen => manifest::Verb::Listen,
    }
}

/// The kernel's word for a verdict.
#[must_use]
pub fn common_verdict(verdict: manifest::Verdict) -> Verdict {
    match verdict {
        manifest::Verdict::Allow => Verdict::Allow,
        manifest::Verdict::Ask => Verdict::Ask,
        manifest::Verdict::Deny => Verdict::Deny,
    }
}

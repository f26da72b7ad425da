//! From checked manifests to the tables that the kernel programs walk.
//!
//! Everything is rebuilt for every generation: the tables of a policy set are
//! made from nothing but the manifests and the mounts, so what is in force can
//! always be told from these. [`tables`] also answers in userspace, with the
//! same code as the kernel's, so an explanation cannot differ from a verdict.

mod globs;
pub mod named;
mod nets;
mod paths;
pub mod protected;
pub mod rules;
pub mod tables;
#[cfg(test)]
mod tests;
mod unsupported;

use std::sync::Arc;

use agentguard_common::identity::{NetRoots, PolicyRecord, policy_flag, privilege};
use agentguard_common::limits;
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

/// Compiles a set of manifests, each with its kernel index, for these mounts. `own` are
/// the daemon's own places, where they are not the usual ones.
///
/// # Errors
/// Limits of [`agentguard_common::limits`] that the set does not keep, each with
/// the manifest that goes beyond.
pub fn compile(
    set: &[(u32, Arc<Manifest>)],
    mounts: &MountTable,
    own: &[protected::Protection],
    generation: u32,
) -> Result<Compiled, Vec<Diagnostic>> {
    let mut builder = tables::Builder::default();
    let mut agents = Vec::new();
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    let mut links = rules::Links::default();
    if let Some(error) = too_many_rules(set) {
        return Err(vec![error]);
    }
    for (index, manifest) in set {
        warnings.extend(unsupported::findings(manifest));
        let list = rules::RuleList::of(manifest, own, &mut links, &mut warnings);
        let default = manifest
            .permissions
            .default_verdict(manifest::Verb::Connect);
        let names = NameRules::of(&list.connect, common_verdict(default));
        warnings.extend(unsupported::crowded(manifest, &names));
        let mut record = match agent(&mut builder, *index, manifest, &list, mounts, generation) {
            Ok(record) => record,
            Err(full) => {
                errors.push(Diagnostic::about_manifest(manifest, &full.to_string()));
                continue;
            }
        };
        if !names.is_empty() {
            record.flags |= policy_flag::NAMES;
        }
        agents.push(CompiledAgent {
            index: *index,
            manifest: Arc::clone(manifest),
            rules: list.names(),
            record,
            names: Arc::new(names),
        });
    }
    if errors.is_empty() {
        agents.sort_by_key(|agent| agent.index);
        let tables = Arc::new(builder.finish());
        Ok(Compiled {
            generation,
            agents,
            mounts: mounts.clone(),
            tables,
            warnings,
        })
    } else {
        Err(errors)
    }
}

/// Compiles one agent into the common tables.
fn agent(
    builder: &mut tables::Builder,
    index: u32,
    manifest: &Manifest,
    list: &rules::RuleList,
    mounts: &MountTable,
    generation: u32,
) -> Result<PolicyRecord, tables::Full> {
    let mut defaults = 0;
    for verb in Verb::ALL {
        let verdict = manifest.permissions.default_verdict(manifest_verb(verb));
        defaults |= (common_verdict(verdict) as u16) << (2 * verb as u16);
    }
    let unknown_start = paths::compile(builder, index, list, defaults, mounts)?;
    let connect = nets::compile(builder, &list.connect)?;
    let listen = nets::compile(builder, &list.listen)?;
    Ok(PolicyRecord {
        generation,
        mode: match manifest.mode {
            manifest::Mode::Observe => Mode::Observe as u8,
            manifest::Mode::Enforce => Mode::Enforce as u8,
        },
        reserved: 0,
        defaults,
        unknown_start,
        starts: index,
        protected_rules: list.protected,
        privileges: privileges(manifest),
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

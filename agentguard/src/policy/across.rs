//! What is only seen over all files: who is declared twice, whose processes
//! are claimed twice, who is named and not declared, and how much there is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::check::Identity;
use super::diagnostic::{Diagnostic, MAX_DIAGNOSTICS_PER_FILE, Severity};
use super::manifest::Manifest;
use super::source::{SourceFile, Span};

/// Agents over all files.
pub const MAX_AGENTS: usize = 1_022;
/// Path rules over all agents.
pub const MAX_PATH_RULES: usize = 16_384;
/// Network rules over all agents.
pub const MAX_NET_RULES: usize = 16_384;

/// What all files hold together.
pub(super) struct Across<'a> {
    pub(super) sources: &'a BTreeMap<Arc<Path>, SourceFile>,
    pub(super) manifests: &'a [Manifest],
    pub(super) identities: &'a [Identity],
}

impl Across<'_> {
    /// All findings, of each kind as many as are shown for one file.
    pub(super) fn findings(&self) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        findings.extend(self.identities_twice());
        findings.extend(self.matches_twice());
        findings.extend(self.unknown_delegates());
        findings.extend(self.too_much());
        findings
    }

    /// The same name in two environments is two identities; twice in one is an error.
    fn identities_twice(&self) -> Vec<Diagnostic> {
        let mut first = HashMap::new();
        let mut findings = Vec::new();
        for identity in self.identities {
            let key = (identity.name.as_str(), identity.environment);
            let Some(earlier) = first.get(&key) else {
                first.insert(key, &identity.location);
                continue;
            };
            let message = format!(
                "agent `{}` ({}) is declared twice; the other is at {earlier}",
                identity.name, identity.environment
            );
            let help = "rename one of them, remove one, or give it another environment";
            let source = self.sources.get(&identity.location.file);
            findings.extend(source.map(|source| error(source, identity.span, message, help)));
            if findings.len() == MAX_DIAGNOSTICS_PER_FILE {
                break;
            }
        }
        findings
    }

    /// A process cannot become two agents at once.
    fn matches_twice(&self) -> Vec<Diagnostic> {
        let mut first = HashMap::new();
        let mut findings = Vec::new();
        let all = self
            .manifests
            .iter()
            .flat_map(|manifest| manifest.matches.iter().map(move |item| (manifest, item)));
        for (manifest, item) in all {
            let key = (
                &item.exe,
                &item.user,
                item.sha256,
                &item.systemd_unit,
                &item.cgroup,
            );
            let Some(&(owner, earlier)) = first.get(&key) else {
                first.insert(key, (manifest, item));
                continue;
            };
            let message = format!(
                "the same processes match agent `{}` ({}) at {}",
                owner.name, owner.environment, earlier.location
            );
            let help = "a process becomes one agent: make the matches differ, or remove one";
            let source = self.sources.get(&item.location.file);
            findings.extend(
                source.map(|source| error(source, source.span_of(&item.location), message, help)),
            );
            if findings.len() == MAX_DIAGNOSTICS_PER_FILE {
                break;
            }
        }
        findings
    }

    fn unknown_delegates(&self) -> Vec<Diagnostic> {
        let known: HashSet<_> = self
            .identities
            .iter()
            .map(|identity| (identity.name.as_str(), identity.environment))
            .collect();
        let all = self
            .manifests
            .iter()
            .flat_map(|manifest| manifest.delegates.iter().map(move |item| (manifest, item)));
        all.filter(|(manifest, item)| !known.contains(&(item.value.as_str(), manifest.environment)))
            .filter_map(|(manifest, item)| {
                let source = self.sources.get(&item.location.file)?;
                let message = format!(
                    "no manifest declares agent `{}` in {}",
                    item.value, manifest.environment
                );
                let help = "until one does, starting it as a sub-agent is refused".to_owned();
                let span = source.span_of(&item.location);
                Some(source.diagnostic(Severity::Warning, span, message, Some(help)))
            })
            .take(MAX_DIAGNOSTICS_PER_FILE)
            .collect()
    }

    fn too_much(&self) -> Vec<Diagnostic> {
        let sum = |count: fn(&Manifest) -> usize| self.manifests.iter().map(count).sum::<usize>();
        let path_rules = sum(|manifest| manifest.permissions.path_rule_count());
        let net_rules = sum(|manifest| manifest.permissions.net_rule_count());
        let sizes = [
            ("agents", self.identities.len(), MAX_AGENTS),
            ("path rules", path_rules, MAX_PATH_RULES),
            ("network rules", net_rules, MAX_NET_RULES),
        ];
        let Some(file) = self.sources.keys().next() else {
            return Vec::new();
        };
        let excess = sizes.into_iter().filter(|(_, count, max)| count > max);
        excess
            .map(|(what, count, max)| {
                Diagnostic::about_file(
                    Severity::Error,
                    file.parent().unwrap_or(file),
                    format!(
                        "the manifests hold {count} {what}; the limit over all agents is {max}"
                    ),
                    "remove agents that no longer run, or use patterns instead of lists",
                )
            })
            .collect()
    }
}

fn error(source: &SourceFile, span: Span, message: String, help: &str) -> Diagnostic {
    source.diagnostic(Severity::Error, span, message, Some(help.to_owned()))
}

//! Compiled policies.

use std::sync::Arc;

use agentguard_common::verb::Verb;
use agentguard_common::verdict::Verdict;

use super::Diagnostic;
use super::manifest::Manifest;
use crate::mounts::MountTable;

/// A compiled policy set.
pub struct Compiled {
    /// Policy generation.
    pub generation: u32,
    /// Agents.
    pub agents: Vec<CompiledAgent>,
    /// Mounts it was compiled for.
    pub mounts: MountTable,
}

/// One agent of it.
pub struct CompiledAgent {
    /// Kernel index.
    pub index: u32,
    /// Manifest.
    pub manifest: Arc<Manifest>,
    /// What kernel rule index i means.
    pub rules: Vec<RuleRef>,
}

/// A rule as events name it.
pub struct RuleRef {
    /// The rule's text.
    pub text: String,
    /// `file:line` or `built-in:NAME`.
    pub at: String,
    /// Verb.
    pub verb: Verb,
    /// Verdict.
    pub verdict: Verdict,
}

/// Compiles.
///
/// # Errors
/// Diagnostics.
pub fn compile(
    set: &[(u32, Arc<Manifest>)],
    mounts: &MountTable,
    generation: u32,
) -> Result<Compiled, Vec<Diagnostic>> {
    Ok(Compiled {
        generation,
        agents: set
            .iter()
            .map(|(index, manifest)| CompiledAgent {
                index: *index,
                manifest: Arc::clone(manifest),
                rules: Vec::new(),
            })
            .collect(),
        mounts: mounts.clone(),
    })
}

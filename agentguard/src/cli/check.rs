//! `agentguard policy check` and `agentguard policy reload`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::output::Output;
use super::{Ending, Exit, Outcome, client};
use crate::api::Reloaded;
use crate::mounts::MountTable;
use crate::policy::compile::{Set, lineage};
use crate::policy::manifest::Manifest;
use crate::policy::{self, Diagnostic, LoadOptions};

/// The JSON form of a check.
#[derive(Serialize)]
struct Report {
    /// Whether the daemon would load this.
    ok: bool,
    agents: Vec<Agent>,
    diagnostics: Vec<Diagnostic>,
}

#[derive(Serialize)]
struct Agent {
    agent: String,
    environment: String,
    agent_version: String,
    mode: &'static str,
    manifest: String,
}

pub(super) fn run(paths: &[PathBuf], json: bool) -> Outcome {
    let report = check(paths);
    let mut out = Output::new();
    if json {
        out.json(&report)?;
    } else {
        show(&mut out, &report)?;
    }
    out.flush()?;
    if report.ok {
        Ok(())
    } else {
        Err(Ending::silent(Exit::Problems))
    }
}

fn check(paths: &[PathBuf]) -> Report {
    let loaded = policy::load_paths(paths, LoadOptions::default());
    let set = match loaded {
        Ok(set) => set,
        Err(problems) => {
            return Report {
                ok: false,
                agents: Vec::new(),
                diagnostics: problems.0,
            };
        }
    };
    let manifests: Vec<Arc<Manifest>> = set.manifests.into_iter().map(Arc::new).collect();
    let mut diagnostics = set.warnings;
    let compiled = compile(&manifests);
    let ok = !compiled.iter().any(Diagnostic::is_error);
    diagnostics.extend(compiled);
    Report {
        ok,
        agents: manifests.iter().map(|manifest| agent(manifest)).collect(),
        diagnostics,
    }
}

/// Compiles as the daemon would, for the mounts that this process sees: some
/// limits show only then.
fn compile(manifests: &[Arc<Manifest>]) -> Vec<Diagnostic> {
    // Without /proc there are no mounts to be seen: then nothing is compiled,
    // and the daemon checks the limits when it loads.
    let Ok(mounts) = MountTable::read(Path::new("/proc/self/mountinfo")) else {
        return Vec::new();
    };
    let places = match lineage::places(manifests) {
        Ok(places) => places,
        Err(error) => {
            let first = manifests.first();
            let about = |manifest| Diagnostic::about_manifest(manifest, &error.to_string());
            return first.map(|manifest| about(manifest)).into_iter().collect();
        }
    };
    let mut indexes = 1..;
    let set = Set {
        agents: indexes
            .by_ref()
            .zip(manifests.iter().map(Arc::clone))
            .collect(),
        places: indexes.zip(places).collect(),
    };
    match policy::compile::compile(&set, &mounts, &[], 1) {
        Ok(compiled) => compiled.warnings,
        Err(errors) => errors,
    }
}

fn agent(manifest: &Manifest) -> Agent {
    Agent {
        agent: manifest.name.clone(),
        environment: manifest.environment.as_str().to_owned(),
        agent_version: manifest.version.clone(),
        mode: manifest.mode.as_str(),
        manifest: manifest.source.file_line(),
    }
}

fn show(out: &mut Output, report: &Report) -> std::io::Result<()> {
    for diagnostic in &report.diagnostics {
        for line in diagnostic.to_string().lines() {
            out.line(line)?;
        }
        out.line("")?;
    }
    let errors = report
        .diagnostics
        .iter()
        .filter(|problem| problem.is_error())
        .count();
    let warnings = report.diagnostics.len() - errors;
    if report.ok {
        let agents = report.agents.len();
        out.line(&format!("ok: agents: {agents}, warnings: {warnings}"))
    } else {
        out.line(&format!(
            "not loadable: errors: {errors}, warnings: {warnings}"
        ))
    }
}

pub(super) fn reload(socket: &Path, json: bool) -> Outcome {
    let loaded: Reloaded = client::post(socket, "/v1/policy/reload", None::<&()>)?;
    let mut out = Output::new();
    if json {
        out.json(&loaded)?;
    } else {
        out.line(&format!(
            "policy generation {} in force, agents: {}",
            loaded.policy_generation, loaded.agents
        ))?;
    }
    Ok(out.flush()?)
}

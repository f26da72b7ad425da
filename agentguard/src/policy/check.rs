//! From a tree of located nodes to checked manifests, with every problem of
//! the file reported at once.

use super::diagnostic::Diagnostic;
use super::manifest::{Environment, Location, Manifest};
use super::source::Span;
use super::text::quote;
use super::yaml::{Node, Parsed};
use fields::Checker;

mod agent;
mod canonical;
pub(crate) mod fields;
mod permissions;
mod words;

/// What one file holds.
#[derive(Debug)]
pub struct Checked {
    /// The manifests without errors.
    pub manifests: Vec<Manifest>,
    /// Who is declared, also by manifests with errors.
    pub identities: Vec<Identity>,
    /// All findings.
    pub diagnostics: Vec<Diagnostic>,
}

/// A declared identity and where.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The agent's name.
    pub name: String,
    /// Its environment.
    pub environment: Environment,
    /// Where the name is written.
    pub span: Span,
    /// The same with the file.
    pub location: Location,
}

/// Checks every document of a file.
#[must_use]
pub fn check(parsed: &Parsed) -> Checked {
    let mut checked = Checked {
        manifests: Vec::new(),
        identities: Vec::new(),
        diagnostics: Vec::new(),
    };
    let mut checker = Checker::new(&parsed.source);
    for document in &parsed.documents {
        let errors_before = checker.error_count();
        let (identity, manifest) = check_document(&mut checker, document);
        checked.identities.extend(identity);
        if checker.error_count() == errors_before {
            checked.manifests.extend(manifest);
        }
    }
    checked.diagnostics = checker.finish();
    checked
}

fn check_document(
    checker: &mut Checker<'_>,
    document: &Node,
) -> (Option<Identity>, Option<Manifest>) {
    let keys = ["apiVersion", "kind", "metadata", "spec"];
    let Some(top) = checker.mapping(document, document.span, "the manifest", &keys) else {
        return (None, None);
    };
    for (key, expected) in [("apiVersion", "agentguard/v1"), ("kind", "Agent")] {
        let help = format!("write `{key}: {expected}`");
        if let Some(field) = checker.required(&top, key, &help)
            && let Some(text) = checker.text(field.value, key)
            && text != expected
        {
            let message = format!("unsupported {key} {}", quote(text));
            checker.error(field.value.span, message, Some(help));
        }
    }
    let name = checker
        .required(&top, "metadata", "write `metadata: { name: … }`")
        .and_then(|field| agent::name(checker, field));
    let spec = checker
        .required(
            &top,
            "spec",
            "the agent's registration stands under `spec:`",
        )
        .and_then(|field| agent::spec(checker, field));
    let environment = spec.as_ref().and_then(|spec| spec.environment);
    let source = checker.source();
    let identity = name
        .zip(environment)
        .map(|(node_name, environment)| Identity {
            name: node_name.value.to_owned(),
            environment,
            span: node_name.span,
            location: source.location(node_name.span),
        });
    let manifest = identity.as_ref().zip(spec).and_then(|(identity, spec)| {
        let mut manifest = spec.into_manifest(&identity.name, source.location(document.span))?;
        manifest.version = canonical::version(&manifest);
        Some(manifest)
    });
    (identity, manifest)
}

//! From the bytes of one file to a tree of located nodes.
//!
//! Why this library, and what its limits are there for: docs/adr/0001-yaml-library.md.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::budget::BudgetBreach;
use serde_yaml::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};

use super::diagnostic::{Diagnostic, Severity};
use super::source::{SourceFile, Span};
use super::text::{quote, yaml_quoted};

/// A larger file is refused without being read.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Lists and mappings within each other; a manifest needs six levels.
pub const MAX_DEPTH: usize = 32;
/// Scalars, lists and mappings in one file.
pub const MAX_NODES: usize = 100_000;
/// Agents in one file.
pub const MAX_DOCUMENTS: usize = 256;
/// Anchors (`&name`) and aliases (`*name`) in one file.
pub const MAX_ALIASES: usize = 256;
/// What all aliases of a file may stand for, in parser events (about one a node).
pub const MAX_ALIAS_EVENTS: usize = 20_000;

/// A file that is well-formed YAML.
#[derive(Debug)]
pub struct Parsed {
    /// The file's name and text.
    pub source: SourceFile,
    /// Its documents, at least one.
    pub documents: Vec<Node>,
}

/// One value and where it stands.
#[derive(Debug)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it stands; for what comes through an alias, where it was written.
    pub span: Span,
    /// The bytes of a scalar in the file, quotes included.
    pub bytes: Range<usize>,
}

/// A value. Numbers keep no value of their own: what a manifest means by them
/// is read from the text, where `1.10` and `0755` have not yet lost anything.
#[derive(Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// Text.
    Text(String),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values, in order; keys may repeat.
    Mapping(Vec<(Node, Node)>),
}

/// Reads one file.
///
/// # Errors
/// One diagnostic: a file that is too large, not UTF-8, empty or not
/// well-formed YAML ends the reading.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, Box<Diagnostic>> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(Box::new(too_large(path, bytes.len() as u64)));
    }
    let source = decode(path, bytes)?;
    let documents = serde_yaml::from_multiple_with_options::<Node>(source.text(), options())
        .map_err(|error| Box::new(explain(&source, &error)))?;
    if documents.is_empty() {
        return Err(Box::new(Diagnostic::about_file(
            Severity::Error,
            path,
            "the file is empty: it declares no agent",
            "write a manifest, or remove the file",
        )));
    }
    Ok(Parsed { source, documents })
}

pub(super) fn too_large(path: &Path, size: u64) -> Diagnostic {
    Diagnostic::about_file(
        Severity::Error,
        path,
        format!("the file has {size} bytes; a manifest file has at most {MAX_FILE_BYTES}"),
        "split it into one file for each agent",
    )
}

fn decode(path: &Path, bytes: &[u8]) -> Result<SourceFile, Box<Diagnostic>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(SourceFile::new(path, text.to_owned())),
        Err(error) => {
            let offset = error.valid_up_to();
            let source = SourceFile::new(path, String::from_utf8_lossy(bytes).into_owned());
            // Up to the offset nothing was replaced, so it is the same in both.
            let span = source.span_at(offset);
            let message = format!(
                "the file is not UTF-8: byte 0x{:02x} at offset {offset}",
                bytes.get(offset).copied().unwrap_or_default()
            );
            let help = "save the file as UTF-8; in a rule write such a byte as `\\xHH`".to_owned();
            Err(Box::new(source.diagnostic(
                Severity::Error,
                span,
                message,
                Some(help),
            )))
        }
    }
}

fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_documents: MAX_DOCUMENTS,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_recorded_anchor_events: MAX_NODES,
            max_recorded_anchor_bytes: 8 * MAX_FILE_BYTES,
            // The three limits above are hard; the ratio would refuse fair use.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: MAX_ALIAS_EVENTS,
            max_replay_stack_depth: 8,
        },
        // The checker reports all duplicates and merge keys of a file at once.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// The library's error in the words of this program.
fn explain(source: &SourceFile, error: &serde_yaml::Error) -> Diagnostic {
    use serde_yaml::Error;
    let (error, place) = match error {
        // What is wrong with an alias is told where it is used.
        Error::AliasError {
            error, locations, ..
        } => (&**error, Some(locations.reference_location)),
        error => (error, error.location()),
    };
    let span = place.map_or_else(Span::start, span_of);
    let (message, help) = match error {
        Error::Budget { breach, .. } => over_budget(breach),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => (
            format!("the file's aliases stand for more than {MAX_ALIAS_EVENTS} values"),
            "write the lists out",
        ),
        Error::RecursiveReferencesRequireWeakTypes { .. } => (
            "this alias stands for a value that it is part of".to_owned(),
            "write the list out",
        ),
        Error::UnknownAnchor { .. } => return unknown_anchor(source, span),
        other => {
            let text = other.to_string();
            // The place is said in front, as for every other diagnostic.
            let text = text.split(" at line ").next().unwrap_or_default();
            if text.contains("recursion limit") {
                too_deep()
            } else {
                let help = if text.contains(" tab") {
                    "indent with spaces"
                } else {
                    ""
                };
                (format!("this is not well-formed YAML: {text}"), help)
            }
        }
    };
    let help = (!help.is_empty()).then(|| help.to_owned());
    source.diagnostic(Severity::Error, span, message, help)
}

/// A pattern without quotes: YAML takes `*` for the beginning of an alias.
fn unknown_anchor(source: &SourceFile, span: Span) -> Diagnostic {
    let word = source.word_at(span);
    let message = format!(
        "{} is a YAML alias, and no anchor has that name",
        quote(word)
    );
    let quoted = yaml_quoted(word).unwrap_or_else(|| "\"…\"".to_owned());
    let help = format!("to write a pattern, put it in quotes: {quoted}");
    let span = Span {
        width: narrow(word.chars().count() as u64),
        ..span
    };
    source.diagnostic(Severity::Error, span, message, Some(help))
}

fn span_of(place: serde_yaml::Location) -> Span {
    Span {
        line: narrow(place.line()).max(1),
        column: narrow(place.column()).max(1),
        width: narrow(place.span().len()),
    }
}

fn narrow(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn too_deep() -> (String, &'static str) {
    (
        format!("lists and mappings nest deeper than {MAX_DEPTH} levels"),
        "a manifest needs six",
    )
}

fn over_budget(breach: &BudgetBreach) -> (String, &'static str) {
    const SPLIT: &str = "split the file into one for each agent";
    match breach {
        BudgetBreach::Depth { .. } => too_deep(),
        BudgetBreach::Documents { .. } => (
            format!("the file has more than {MAX_DOCUMENTS} documents"),
            SPLIT,
        ),
        BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } => (
            format!("the file has more than {MAX_ALIASES} anchors or aliases"),
            "write the lists out",
        ),
        BudgetBreach::RecordedAnchorEvents { .. } | BudgetBreach::RecordedAnchorBytes { .. } => (
            "the file's anchors hold too much".to_owned(),
            "write the lists out",
        ),
        _ => (format!("the file has more than {MAX_NODES} values"), SPLIT),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_yaml::Spanned::<Value>::deserialize(deserializer)?;
        let at = spanned.defined;
        let bytes = match (at.span().byte_offset(), at.span().byte_len()) {
            (Some(offset), Some(length)) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                start..start.saturating_add(length)
            }
            _ => 0..0,
        };
        Ok(Self {
            value: spanned.value,
            span: span_of(at),
            bytes,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Bool)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Mapping(entries))
    }
}

//! Taking a node tree apart: each helper reports what does not fit and goes on.

use super::super::diagnostic::{Diagnostic, MAX_DIAGNOSTICS_PER_FILE, Severity};
use super::super::source::{SourceFile, Span};
use super::super::text::{TextError, quote, suggestion, yaml_quoted};
use super::super::yaml::{Node, Value};

/// Keys that belong elsewhere than where people put them.
const HOMES: &[(&str, &str)] = &[
    ("name", "metadata"),
    ("owner", "spec"),
    ("environment", "spec"),
    ("authority", "spec"),
    ("mode", "spec"),
    ("lease", "spec"),
    ("description", "spec"),
    ("enrol", "spec"),
    ("permissions", "spec"),
    ("delegates", "spec"),
    ("limits", "spec"),
    ("approvals", "spec"),
    ("tests", "spec"),
    ("launch", "spec.enrol"),
    ("match", "spec.enrol"),
    ("privileges", "spec.permissions"),
    ("approvers", "spec.approvals"),
    ("on_limit", "spec.limits"),
];

/// Collects the findings about one file.
pub struct Checker<'a> {
    source: &'a SourceFile,
    diagnostics: Vec<Diagnostic>,
    error_count: usize,
}

/// A mapping whose keys are known and unique.
pub struct Fields<'n> {
    /// The mapping's name in messages.
    path: String,
    /// Where to report what is missing.
    span: Span,
    entries: Vec<Field<'n>>,
}

/// One entry of a mapping.
#[derive(Clone, Copy)]
pub struct Field<'n> {
    /// The key.
    pub name: &'n str,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: &'n Node,
}

/// A piece of text and where it stands.
#[derive(Clone, Copy)]
pub struct Word<'n> {
    /// The text.
    pub value: &'n str,
    /// Where it stands.
    pub span: Span,
}

impl<'n> Fields<'n> {
    /// The entry with this key.
    pub fn get(&self, name: &str) -> Option<Field<'n>> {
        self.entries
            .iter()
            .copied()
            .find(|field| field.name == name)
    }

    /// The entries, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = Field<'n>> + '_ {
        self.entries.iter().copied()
    }
}

impl<'a> Checker<'a> {
    /// Starts on a file.
    pub fn new(source: &'a SourceFile) -> Self {
        Self {
            source,
            diagnostics: Vec::new(),
            error_count: 0,
        }
    }

    /// The file.
    pub fn source(&self) -> &'a SourceFile {
        self.source
    }

    /// How many errors there are so far.
    pub fn error_count(&self) -> usize {
        self.error_count
    }

    /// The findings, in the order of the file; at most [`MAX_DIAGNOSTICS_PER_FILE`]
    /// and a note.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        // In the order of the file, not in that of checking.
        self.diagnostics
            .sort_by_key(|item| (item.line, item.column));
        if self.diagnostics.len() > MAX_DIAGNOSTICS_PER_FILE {
            self.diagnostics.truncate(MAX_DIAGNOSTICS_PER_FILE);
            self.diagnostics.push(Diagnostic::about_file(
                Severity::Error,
                &self.source.path,
                format!("more than {MAX_DIAGNOSTICS_PER_FILE} problems; the rest is not shown"),
                "correct these first",
            ));
        }
        self.diagnostics
    }

    /// Reports an error.
    pub fn error(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.error_count += 1;
        self.report(Severity::Error, span, message.into(), help);
    }

    /// Reports a warning.
    pub fn warn(&mut self, span: Span, message: impl Into<String>, help: &str) {
        self.report(Severity::Warning, span, message.into(), Some(help.into()));
    }

    /// Reports why a text is not what it should be.
    pub fn text_error(&mut self, span: Span, error: TextError) {
        self.error(span, error.message, error.help);
    }

    fn report(&mut self, severity: Severity, span: Span, message: String, help: Option<String>) {
        // One more than is shown tells `finish` that there are more.
        if self.diagnostics.len() <= MAX_DIAGNOSTICS_PER_FILE {
            let diagnostic = self.source.diagnostic(severity, span, message, help);
            self.diagnostics.push(diagnostic);
        }
    }

    /// The text of a scalar as it stands in the file.
    fn raw(&self, node: &Node) -> &'a str {
        self.source
            .text()
            .get(node.bytes.clone())
            .unwrap_or_default()
    }

    fn describe(&self, node: &Node) -> String {
        match &node.value {
            Value::Null => "nothing".into(),
            Value::Bool => format!("the truth value {}", quote(self.raw(node))),
            Value::Number => format!("the number {}", quote(self.raw(node))),
            Value::Text(text) => format!("the text {}", quote(text)),
            Value::Sequence(_) => "a list".into(),
            Value::Mapping(_) => "a mapping".into(),
        }
    }

    fn wrong_type(&mut self, node: &Node, path: &str, expected: &str, help: Option<String>) {
        let found = self.describe(node);
        let help = match (&node.value, help) {
            (Value::Bool | Value::Number, None) if expected == "text" => {
                yaml_quoted(self.raw(node)).map(|text| format!("put it in quotes: {text}"))
            }
            (_, help) => help,
        };
        self.error(
            node.span,
            format!("{path} must be {expected}, not {found}"),
            help,
        );
    }

    /// A mapping with none but these keys, each at most once.
    pub fn mapping<'n>(
        &mut self,
        node: &'n Node,
        span: Span,
        path: &str,
        keys: &[&str],
    ) -> Option<Fields<'n>> {
        let Value::Mapping(entries) = &node.value else {
            self.wrong_type(
                node,
                path,
                "a mapping",
                Some(format!("keys here: {}", keys.join(", "))),
            );
            return None;
        };
        let mut fields = Fields {
            path: path.to_owned(),
            span,
            entries: Vec::new(),
        };
        for (key, value) in entries {
            let Value::Text(name) = &key.value else {
                let found = self.describe(key);
                let help = format!("valid here: {}", keys.join(", "));
                self.error(
                    key.span,
                    format!("a key in {path} must be text, not {found}"),
                    Some(help),
                );
                continue;
            };
            if let Some(earlier) = fields.get(name) {
                let message = format!("duplicate key {} in {path}", quote(name));
                let line = earlier.key_span.line;
                self.error(
                    key.span,
                    message,
                    Some(format!("it is already on line {line}")),
                );
            } else if keys.contains(&name.as_str()) {
                fields.entries.push(Field {
                    name,
                    key_span: key.span,
                    value,
                });
            } else {
                self.unknown_key(key.span, name, path, keys);
            }
        }
        Some(fields)
    }

    fn unknown_key(&mut self, span: Span, name: &str, path: &str, keys: &[&str]) {
        let home = HOMES
            .iter()
            .find(|&&(key, home)| key == name && home != path);
        let help = if name == "<<" {
            "merge keys are not supported; write the keys out".to_owned()
        } else if let Some((_, home)) = home {
            format!("it belongs in {home}")
        } else {
            suggestion(name, keys)
        };
        self.error(
            span,
            format!("unknown key {} in {path}", quote(name)),
            Some(help),
        );
    }

    /// The entry with this key, which must be there.
    pub fn required<'n>(
        &mut self,
        fields: &Fields<'n>,
        name: &str,
        help: &str,
    ) -> Option<Field<'n>> {
        let field = fields.get(name);
        if field.is_none() {
            let message = format!("missing key `{name}` in {}", fields.path);
            self.error(fields.span, message, Some(help.to_owned()));
        }
        field
    }

    /// Text.
    pub fn text<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            _ => {
                self.wrong_type(node, path, "text", None);
                None
            }
        }
    }

    /// Text, or a number that is meant as text: an account's number, a digest.
    pub fn word<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n str>
    where
        'a: 'n,
    {
        match &node.value {
            Value::Number => Some(self.raw(node)),
            _ => self.text(node, path),
        }
    }

    /// `true` or `false`.
    pub fn truth(&mut self, node: &Node, path: &str) -> Option<bool> {
        if let Value::Bool = node.value {
            return Some(self.raw(node).eq_ignore_ascii_case("true"));
        }
        let help = Some("write true or false".to_owned());
        self.wrong_type(node, path, "true or false", help);
        None
    }

    /// A whole number within bounds.
    pub fn number(&mut self, node: &Node, path: &str, min: u32, max: u32) -> Option<u32> {
        let bounds = Some(format!("write a whole number from {min} to {max}"));
        let Value::Number = node.value else {
            self.wrong_type(node, path, "a number", bounds);
            return None;
        };
        let text = self.raw(node);
        let is_plain = text.bytes().all(|b| b.is_ascii_digit());
        let value = text
            .parse()
            .ok()
            .filter(|n| is_plain && (min..=max).contains(n));
        if value.is_none() {
            self.error(
                node.span,
                format!("{path} cannot be {}", quote(text)),
                bounds,
            );
        }
        value
    }

    /// The items of a list; none where it is not one.
    pub fn items<'n>(&mut self, node: &'n Node, path: &str) -> &'n [Node] {
        match &node.value {
            Value::Sequence(items) => items,
            Value::Text(text) => {
                let item = yaml_quoted(text).unwrap_or_else(|| "…".to_owned());
                let help = format!("write a list: [{item}]");
                self.wrong_type(node, path, "a list", Some(help));
                &[]
            }
            _ => {
                self.wrong_type(node, path, "a list", Some("an empty list is `[]`".into()));
                &[]
            }
        }
    }

    /// The text items of a list, each of which `read` must accept.
    pub fn texts<'n, T>(
        &mut self,
        node: &'n Node,
        path: &str,
        read: impl Fn(&str) -> Result<T, TextError>,
    ) -> Vec<(Word<'n>, T)>
    where
        'a: 'n,
    {
        let mut values = Vec::new();
        for item in self.items(node, path) {
            let Some(text) = self.word(item, &format!("an item of {path}")) else {
                continue;
            };
            match read(text) {
                Ok(value) => values.push((
                    Word {
                        value: text,
                        span: item.span,
                    },
                    value,
                )),
                Err(error) => self.text_error(item.span, error),
            }
        }
        values
    }

    /// One of a fixed set of words.
    pub fn keyword<T: Copy>(
        &mut self,
        node: &Node,
        path: &str,
        all: &[T],
        spelling: fn(T) -> &'static str,
    ) -> Option<T> {
        let text = self.text(node, path)?;
        let found = all.iter().copied().find(|&item| spelling(item) == text);
        if found.is_none() {
            let words: Vec<_> = all.iter().map(|&item| spelling(item)).collect();
            let message = format!("{path} cannot be {}", quote(text));
            self.error(node.span, message, Some(suggestion(text, &words)));
        }
        found
    }

    /// A text that `read` must accept.
    pub fn parsed<T>(
        &mut self,
        node: &Node,
        path: &str,
        read: impl Fn(&str) -> Result<T, TextError>,
    ) -> Option<T> {
        let text = match &node.value {
            Value::Number => self.raw(node),
            _ => self.text(node, path)?,
        };
        match read(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.text_error(node.span, error);
                None
            }
        }
    }
}

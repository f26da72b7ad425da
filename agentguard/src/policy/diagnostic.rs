//! What is wrong with a policy, where, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::manifest::Location;

/// A source line is shown to this many characters, around the place that is meant.
const MAX_SHOWN_LINE: usize = 120;
/// Text from a file that is repeated in a message is cut after this many characters.
const MAX_QUOTED: usize = 80;
/// A file's diagnostics are cut after this many: nobody reads more, and a
/// hostile file must not be able to fill memory or the journal with them.
pub const MAX_DIAGNOSTICS_PER_FILE: usize = 200;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy cannot be used.
    Error,
    /// The policy can be used, but probably means something else.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file or directory, as it was named to the loader.
    #[serde(serialize_with = "lossy_path")]
    pub file: PathBuf,
    /// The line, from 1; `None` where the whole file is meant.
    pub line: Option<u32>,
    /// The column in characters, from 1.
    pub column: Option<u32>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The line's text.
    pub source_line: Option<String>,
    /// How many characters of the line are meant.
    #[serde(skip)]
    pub width: u32,
}

fn lossy_path<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

impl Diagnostic {
    /// A finding about a whole file or directory.
    #[must_use]
    pub fn about_file(
        severity: Severity,
        file: &Path,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            file: file.to_path_buf(),
            line: None,
            column: None,
            message: message.into(),
            help: Some(help.into()),
            source_line: None,
            width: 0,
        }
    }

    /// Whether the policy cannot be used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = escape_control(&self.file.to_string_lossy());
        write!(f, "{}: {file}", self.severity)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        if let (Some(line), Some(column), Some(text)) = (self.line, self.column, &self.source_line)
        {
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            let (shown, before, width) = excerpt(text, column, self.width);
            write!(f, "\n{margin} |\n{number} | {shown}\n{margin} | ")?;
            write!(f, "{}{}", " ".repeat(before), "^".repeat(width))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

/// The part of a line that is shown, how many characters stand before the
/// marker in it, and how wide the marker is.
fn excerpt(line: &str, column: u32, width: u32) -> (String, usize, usize) {
    // One character for one keeps the marker under what it marks.
    let chars: Vec<char> = line
        .chars()
        .map(|c| match c {
            '\t' => ' ',
            c if is_unprintable(c) => '\u{fffd}',
            c => c,
        })
        .collect();
    let at = (column.max(1) as usize - 1).min(chars.len());
    let start = if at < MAX_SHOWN_LINE * 2 / 3 {
        0
    } else {
        at - MAX_SHOWN_LINE / 3
    };
    let end = chars.len().min(start + MAX_SHOWN_LINE);
    let mut shown = String::new();
    if start > 0 {
        shown.push('…');
    }
    shown.extend(&chars[start..end]);
    if end < chars.len() {
        shown.push('…');
    }
    let before = at - start + usize::from(start > 0);
    let width = (width as usize).clamp(1, (end - at).max(1));
    (shown.trim_end().to_owned(), before, width)
}

/// A set of findings: why a policy was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// How many errors there are.
    #[must_use]
    pub fn error_count(&self) -> usize {
        self.0.iter().filter(|item| item.is_error()).count()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{item}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Why a piece of text is not what it should be: a rule, a duration, a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TextError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl TextError {
    /// An error without advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    /// The same with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Where a node stands in its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// How many characters it takes on that line.
    pub width: u32,
}

impl Span {
    /// The beginning of a file.
    #[must_use]
    pub const fn start() -> Self {
        Self {
            line: 1,
            column: 1,
            width: 1,
        }
    }
}

/// A file's name and text, to make diagnostics from.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The file, as it was named to the loader.
    pub path: Arc<Path>,
    text: String,
    line_starts: Vec<usize>,
}

impl SourceFile {
    /// Takes a file's text.
    #[must_use]
    pub fn new(path: &Path, text: String) -> Self {
        let mut line_starts = vec![0];
        let bytes = text.as_bytes();
        for (index, &byte) in bytes.iter().enumerate() {
            // YAML breaks lines at LF, CR and CR LF.
            let lone_return = byte == b'\r' && bytes.get(index + 1) != Some(&b'\n');
            if byte == b'\n' || lone_return {
                line_starts.push(index + 1);
            }
        }
        Self {
            path: Arc::from(path),
            text,
            line_starts,
        }
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// One line, from 1, without its end.
    #[must_use]
    pub fn line(&self, number: u32) -> Option<&str> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let start = *self.line_starts.get(index)?;
        let end = self.line_starts.get(index + 1).copied();
        let line = self.text.get(start..end.unwrap_or(self.text.len()))?;
        let line = line.trim_end_matches(['\r', '\n']);
        Some(line.strip_prefix('\u{feff}').unwrap_or(line))
    }

    /// The place of a byte of the text.
    #[must_use]
    pub fn span_at(&self, offset: usize) -> Span {
        let index = self.line_starts.partition_point(|&start| start <= offset) - 1;
        let before = self.text.get(self.line_starts[index]..offset);
        let before = before.unwrap_or_default().trim_start_matches('\u{feff}');
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span {
            line: narrow(index + 1),
            column: narrow(before.chars().count() + 1),
            width: 1,
        }
    }

    /// The characters from a place to the next space, comma or bracket.
    #[must_use]
    pub fn word_at(&self, span: Span) -> &str {
        let line = self.line(span.line).unwrap_or_default();
        let start = line.char_indices().nth(span.column.max(1) as usize - 1);
        let rest = start.map_or("", |(index, _)| &line[index..]);
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}'));
        &rest[..end.unwrap_or(rest.len())]
    }

    /// The place of a span, to keep with a checked value.
    #[must_use]
    pub fn location(&self, span: Span) -> Location {
        Location {
            file: Arc::clone(&self.path),
            line: span.line,
            column: span.column,
        }
    }

    /// A kept place as a span, from there to the end of what is written there.
    #[must_use]
    pub fn span_of(&self, location: &Location) -> Span {
        let span = Span {
            line: location.line,
            column: location.column,
            width: 1,
        };
        let width = self.word_at(span).chars().count().max(1);
        Span {
            width: u32::try_from(width).unwrap_or(1),
            ..span
        }
    }

    /// A finding at a span.
    #[must_use]
    pub fn diagnostic(
        &self,
        severity: Severity,
        span: Span,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Diagnostic {
        Diagnostic {
            severity,
            file: self.path.to_path_buf(),
            line: Some(span.line),
            column: Some(span.column),
            message: message.into(),
            help,
            source_line: self.line(span.line).map(str::to_owned),
            width: span.width,
        }
    }
}

/// Text from a file, fit for a message: in backticks, without control
/// characters (a policy file must not be able to drive a terminal), not too long.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_QUOTED).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("`{}`", escape_control(&shown))
}

fn escape_control(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Control characters, and those that reorder or hide what is around them.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The valid word that is nearest to a wrong one, if any is near enough to be meant.
#[must_use]
pub fn nearest<'a>(wrong: &str, valid: &[&'a str]) -> Option<&'a str> {
    if wrong.len() > MAX_QUOTED {
        return None;
    }
    let wrong = wrong.to_ascii_lowercase().replace('_', "-");
    valid
        .iter()
        .map(|&word| {
            let distance = strsim::osa_distance(&wrong, &word.replace('_', "-").to_lowercase());
            (distance, word)
        })
        .filter(|&(distance, word)| distance <= (word.len() / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}

/// Advice for a wrong word: the nearest valid one, or all of them.
#[must_use]
pub fn suggestion(wrong: &str, valid: &[&str]) -> String {
    match nearest(wrong, valid) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("valid here: {}", valid.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_as_yaml_ends_them() {
        let source = SourceFile::new(Path::new("f"), "\u{feff}a\r\nb\rc\nd".into());
        let lines: Vec<_> = (1..=5).map(|n| source.line(n)).collect();
        assert_eq!(
            lines,
            [Some("a"), Some("b"), Some("c"), Some("d"), None],
            "CR LF, CR and LF each end a line"
        );
        assert_eq!(source.line(0), None);
    }

    #[test]
    fn the_marker_stands_under_what_it_marks() {
        let (shown, before, width) = excerpt("\tkey: välue", 7, 5);
        assert_eq!(shown, " key: välue");
        assert_eq!((before, width), (6, 5));
    }

    #[test]
    fn a_long_line_is_cut_around_the_marker() {
        let line = format!("{}HERE{}", "x".repeat(500), "y".repeat(500));
        let (shown, before, width) = excerpt(&line, 501, 4);
        assert!(shown.chars().count() <= MAX_SHOWN_LINE + 2);
        let marked: String = shown.chars().skip(before).take(width).collect();
        assert_eq!(marked, "HERE");
    }

    #[test]
    fn a_marker_beyond_the_line_still_shows() {
        let (shown, before, width) = excerpt("ab", 99, 0);
        assert_eq!((shown.as_str(), before, width), ("ab", 2, 1));
    }

    #[test]
    fn a_file_cannot_drive_a_terminal() {
        assert_eq!(quote("a\u{1b}[31mb"), "`a\\u{1b}[31mb`");
        assert_eq!(quote(&"x".repeat(100)).chars().count(), MAX_QUOTED + 3);
        let (shown, ..) = excerpt("a\u{1b}[31m", 1, 1);
        assert!(!shown.contains('\u{1b}'));
    }

    #[test]
    fn suggestions_are_near_or_complete() {
        let verbs = ["connect", "listen", "read"];
        assert_eq!(nearest("conect", &verbs), Some("connect"));
        assert_eq!(nearest("Read", &verbs), Some("read"));
        assert_eq!(nearest("banana", &verbs), None);
        assert_eq!(suggestion("x", &verbs), "valid here: connect, listen, read");
    }
}

//! What is wrong with a policy, where, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::text::{escape_unprintable, is_unprintable};

/// A source line is shown to this many characters, around the place that is meant.
const MAX_SHOWN_LINE: usize = 120;
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
    /// The line's text; of a very long line, what is around the place.
    pub source_line: Option<String>,
    /// Which character of `source_line` is meant, from 1: the column, unless
    /// the line is a part of a longer one.
    #[serde(skip)]
    pub marker: u32,
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
            marker: 1,
            width: 0,
        }
    }

    /// A finding about a place in a manifest, made after the file was read: it
    /// shows no source line.
    #[must_use]
    pub fn at(
        severity: Severity,
        place: &super::manifest::Location,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            line: Some(place.line),
            column: Some(place.column),
            ..Self::about_file(severity, &place.file, message, help)
        }
    }

    /// A manifest that goes beyond a limit.
    #[must_use]
    pub fn about_manifest(manifest: &super::manifest::Manifest, message: &str) -> Self {
        let help = "split the agent's rules over fewer patterns, or remove agents";
        Self::at(
            Severity::Error,
            &manifest.source,
            format!("agent {}: {message}", manifest.name),
            help,
        )
    }

    /// Whether the policy cannot be used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = escape_unprintable(&self.file.to_string_lossy());
        write!(f, "{}: {file}", self.severity)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        if let (Some(line), Some(text)) = (self.line, &self.source_line) {
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            let (shown, before, width) = excerpt(text, self.marker, self.width);
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_line_cannot_drive_a_terminal() {
        let (shown, ..) = excerpt("a\u{1b}[31m\u{202e}", 1, 1);
        assert!(!shown.contains(['\u{1b}', '\u{202e}']));
    }
}

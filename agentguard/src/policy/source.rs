//! The text of a file, and places in it.

use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Severity};
use super::manifest::Location;

/// Of longer lines only a part is kept: two hundred findings on one line of a
/// mebibyte must not take two hundred mebibytes.
const MAX_KEPT_LINE: usize = 1_000;

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

/// Whether a line ends a document.
fn is_mark(line: &str) -> bool {
    let rest = line
        .strip_prefix("---")
        .or_else(|| line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
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

    /// The text of the document that begins at a place: up to the next document.
    #[must_use]
    pub fn document_at(&self, begin: &Location) -> String {
        let mut text = String::new();
        for number in begin.line.. {
            let Some(line) = self.line(number) else {
                break;
            };
            if number == begin.line {
                // It may follow `---` on the same line.
                let before = begin.column.max(1) as usize - 1;
                text.extend(line.chars().skip(before));
            } else if is_mark(line) {
                break;
            } else {
                text.push_str(line);
            }
            text.push('\n');
        }
        text
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
        let (source_line, marker) = match self.line(span.line) {
            Some(line) => {
                let (part, marker) = around(line, span.column);
                (Some(part), marker)
            }
            None => (None, 1),
        };
        Diagnostic {
            severity,
            file: self.path.to_path_buf(),
            line: Some(span.line),
            column: Some(span.column),
            message: message.into(),
            help,
            source_line,
            marker,
            width: span.width,
        }
    }
}

/// A line, or, of one that is too long to be kept with each finding, the part
/// around a column; and which character of it the column is.
fn around(line: &str, column: u32) -> (String, u32) {
    if line.len() <= MAX_KEPT_LINE {
        return (line.to_owned(), column);
    }
    let before = MAX_KEPT_LINE / 4;
    let skipped = (column as usize).saturating_sub(before);
    let part = line.chars().skip(skipped).take(MAX_KEPT_LINE / 2);
    let marker = column - u32::try_from(skipped).unwrap_or(column);
    (part.collect(), marker.max(1))
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
    fn of_a_long_line_the_part_around_the_place_is_kept() {
        let line = format!("{}HERE{}", "ä".repeat(5_000), "y".repeat(5_000));
        let source = SourceFile::new(Path::new("f"), line);
        for (column, expected) in [(1, 'ä'), (300, 'ä'), (5_001, 'H'), (5_003, 'R')] {
            let span = Span {
                line: 1,
                column,
                width: 1,
            };
            let found = source.diagnostic(Severity::Error, span, "x", None);
            assert_eq!(found.column, Some(column));
            let kept = found.source_line.unwrap();
            assert!(kept.len() <= MAX_KEPT_LINE);
            let marked = kept.chars().nth(found.marker as usize - 1);
            assert_eq!(marked, Some(expected), "column {column}");
        }
    }

    #[test]
    fn places_count_characters() {
        let source = SourceFile::new(Path::new("f"), "\u{feff}ä: b\nc: [d, e]\n".into());
        let at = |text| source.span_at(source.text().find(text).unwrap());
        assert_eq!((at("b").line, at("b").column), (1, 4));
        assert_eq!((at("d").line, at("d").column), (2, 5));
        assert_eq!(source.word_at(at("d")), "d");
        assert_eq!(
            source.word_at(Span {
                column: 99,
                ..at("d")
            }),
            ""
        );
    }
}

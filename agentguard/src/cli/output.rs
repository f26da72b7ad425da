//! Writing for people: tables, colours, and nothing that drives a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::clock::Timestamp;
use crate::policy::text::escape_unprintable;

/// Colours of words with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Plain,
    Good,
    Doubtful,
    Bad,
    Head,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Doubtful => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Head => "\x1b[1m",
        }
    }

    /// Of a verdict.
    pub fn of_verdict(verdict: &str) -> Self {
        match verdict {
            "deny" => Self::Bad,
            "ask" => Self::Doubtful,
            _ => Self::Plain,
        }
    }

    /// Of a protection's status.
    pub fn of_status(status: &str) -> Self {
        match status {
            "enforcing" => Self::Good,
            "degraded" => Self::Doubtful,
            _ => Self::Bad,
        }
    }
}

/// Standard output, with or without colours.
pub(super) struct Output {
    out: io::BufWriter<io::StdoutLock<'static>>,
    coloured: bool,
}

impl Output {
    pub fn new() -> Self {
        let stdout = io::stdout();
        let coloured = stdout.is_terminal() && colours_wanted();
        Self {
            out: io::BufWriter::new(stdout.lock()),
            coloured,
        }
    }

    /// A line.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", escape_unprintable(text))
    }

    /// A line of parts with colours.
    pub fn parts(&mut self, parts: &[(Colour, String)]) -> io::Result<()> {
        for (colour, text) in parts {
            self.part(*colour, &escape_unprintable(text))?;
        }
        writeln!(self.out)
    }

    fn part(&mut self, colour: Colour, text: &str) -> io::Result<()> {
        if self.coloured && colour != Colour::Plain && !text.trim().is_empty() {
            write!(self.out, "{}{text}\x1b[0m", colour.code())
        } else {
            write!(self.out, "{text}")
        }
    }

    /// A JSON document.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.out, value)?;
        writeln!(self.out)
    }

    /// Bytes as they are, for JSON lines that come from the daemon.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// A table; the last column is as wide as it likes.
    pub fn table(&mut self, table: &Table) -> io::Result<()> {
        let widths = table.widths();
        let head = table
            .head
            .iter()
            .map(|text| (Colour::Head, (*text).to_owned()));
        let head: Vec<_> = head.collect();
        for row in std::iter::once(&head).chain(&table.rows) {
            for (column, (colour, text)) in row.iter().enumerate() {
                let last = column + 1 == row.len();
                let width = if last { 0 } else { widths[column] };
                let gap = if last { "" } else { "  " };
                self.part(*colour, &format!("{text:width$}"))?;
                write!(self.out, "{gap}")?;
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// Hands everything to the reader now.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// <https://no-color.org>: any value but none.
fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A table under construction.
pub(super) struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<(Colour, String)>>,
}

impl Table {
    pub const fn new(head: &'static [&'static str]) -> Self {
        Self {
            head,
            rows: Vec::new(),
        }
    }

    /// A row without colours.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.coloured_row(cells.map(|cell| (Colour::Plain, cell)));
    }

    pub fn coloured_row<const N: usize>(&mut self, cells: [(Colour, String); N]) {
        let clean = |(colour, text): (Colour, String)| {
            let text = if text.is_empty() {
                "-".to_owned()
            } else {
                escape_unprintable(&text)
            };
            (colour, text)
        };
        self.rows.push(cells.map(clean).into());
    }

    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].1.chars().count());
            cells.chain([self.head[column].len()]).max().unwrap_or(0)
        };
        (0..self.head.len()).map(width).collect()
    }
}

/// An error on standard error.
pub(super) fn complain(message: &str) {
    let mut clean = String::new();
    for (number, line) in message.lines().enumerate() {
        let newline = if number > 0 { "\n" } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(clean, "{newline}{}", escape_unprintable(line));
    }
    // Nobody to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "agentguard: {clean}");
}

/// A time for people: without the fraction.
pub(super) fn time(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// A command line for people, quoted where needed.
pub(super) fn command(arguments: &[String]) -> String {
    let quoted = arguments.iter().map(|argument| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The same, cut for a table.
pub(super) fn short_command(arguments: &[String]) -> String {
    const WIDTH: usize = 72;
    let text = command(arguments);
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_for_a_shell() {
        let arguments = ["sh", "-c", "echo 'hi' > x", ""].map(str::to_owned);
        assert_eq!(command(&arguments), r"sh -c 'echo '\''hi'\'' > x' ''");
    }

    #[test]
    fn tables_measure_characters_and_escape_terminals() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["välue".to_owned(), "x\x1b[31m".to_owned()]);
        assert_eq!(table.widths()[0], 5);
        assert_eq!(table.rows[0][1].1, "x\\u{1b}[31m");
    }
}

//! Reading the newest records back, for `agentguard events` and `runs show`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use uuid::Uuid;

use super::recover;
use crate::files::FileError;
use crate::sinks::subscribers::Filter;

/// Files that are searched, newest first: a question about the past is bounded
/// to this many times [`FILE_BYTES`](super::FILE_BYTES).
const FILES: usize = 8;

/// What to read.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Which records.
    pub filter: Filter,
    /// How many at most, the newest.
    pub last: usize,
}

/// The fields that records are selected by.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default, borrow)]
    agent: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    run: Option<Uuid>,
    #[serde(default, borrow)]
    verdict: Option<std::borrow::Cow<'a, str>>,
}

impl Selection {
    fn selects(&self, line: &[u8]) -> bool {
        let filter = &self.filter;
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else {
            return false;
        };
        filter.scope.covers(line.run, None)
            && (filter.agent.is_none() || filter.agent.as_deref() == line.agent.as_deref())
            && (filter.run.is_none() || filter.run == line.run)
            && filter
                .verdict
                .is_none_or(|verdict| line.verdict.as_deref() == Some(verdict.name()))
    }
}

/// The newest records that are selected, oldest first, each with its newline.
///
/// # Errors
/// The ledger cannot be read.
pub fn tail(directory: &Path, selection: &Selection) -> Result<Vec<Vec<u8>>, FileError> {
    let files = recover::files(directory)?;
    let mut found: VecDeque<Vec<u8>> = VecDeque::new();
    for (_, path) in files.iter().rev().take(FILES) {
        let room = selection.last - found.len();
        let older = newest_of(path, selection, room)
            .map_err(|source| FileError::new("read", path, source))?;
        for line in older.into_iter().rev() {
            found.push_front(line);
        }
        if found.len() >= selection.last {
            break;
        }
    }
    Ok(found.into())
}

fn newest_of(path: &Path, selection: &Selection, room: usize) -> io::Result<VecDeque<Vec<u8>>> {
    let mut lines = VecDeque::new();
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        // A line without its newline is still being written.
        if line.ends_with(b"\n") && selection.selects(&line) {
            if lines.len() == room {
                lines.pop_front();
            }
            if room > 0 {
                lines.push_back(std::mem::take(&mut line));
            }
        }
        line.clear();
    }
    Ok(lines)
}

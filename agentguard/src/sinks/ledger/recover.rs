//! What is found at start: where numbers go on, what a crash left half written,
//! and how many records the ledger holds of runs that may still be alive.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files::{self, Durability, FileError};

/// Prefix and suffix around the first sequence number in a file's name.
const NAME: (&str, &str) = ("agentguard-", ".jsonl");

/// Bytes of a torn record that are kept as text.
const FRAGMENT_BYTES: usize = 4_096;

/// What was found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The next sequence number.
    pub next_seq: u64,
    /// The file to go on with, if there is one.
    pub file: Option<PathBuf>,
    /// A record that was half written.
    pub torn: Option<Torn>,
    /// Kernel records and counted repeats that the ledger holds, by run, of runs of which it
    /// holds the beginning and not the end.
    pub recorded: HashMap<Uuid, u64>,
}

/// A record that was half written, now removed from its file.
#[derive(Debug, PartialEq, Eq)]
pub struct Torn {
    /// File name.
    pub file: String,
    /// Bytes removed.
    pub bytes: u64,
    /// Their beginning, as text.
    pub fragment: String,
}

/// Counts up to a sequence number, so that a start need not read all files.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// The last record counted.
    pub seq: u64,
    /// Kernel records by run.
    pub runs: HashMap<Uuid, u64>,
}

impl Checkpoint {
    fn path(directory: &Path) -> PathBuf {
        directory.join("checkpoint.json")
    }

    /// An unreadable checkpoint only makes the start slower: everything is counted anew.
    fn load(directory: &Path) -> Self {
        fs::read(Self::path(directory))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    pub fn save(&self, directory: &Path) -> Result<(), FileError> {
        let path = Self::path(directory);
        let bytes = serde_json::to_vec(self)
            .map_err(|source| FileError::new("write", &path, source.into()))?;
        files::replace(&path, &bytes, Durability::Process)
    }
}

/// The fields that recovery reads of a record.
#[derive(Deserialize)]
struct Line {
    seq: u64,
    #[serde(default)]
    run: Option<Uuid>,
    #[serde(default)]
    run_seq: Option<u64>,
    #[serde(default)]
    count: Option<u64>,
    #[serde(default)]
    pid: Option<u32>,
    kind: String,
}

/// The name of the file that begins with this record.
pub(super) fn file_name(first_seq: u64) -> String {
    format!("{}{first_seq:020}{}", NAME.0, NAME.1)
}

/// The ledger's files with their first sequence numbers, oldest first.
pub(super) fn files(directory: &Path) -> Result<Vec<(u64, PathBuf)>, FileError> {
    let fail = |source| FileError::new("list", directory, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let first = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix(NAME.0)?.strip_suffix(NAME.1))
            .and_then(|number| number.parse().ok());
        if let Some(first) = first {
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Mends the last file and counts what is in the ledger.
pub(super) fn recover(directory: &Path) -> Result<Recovered, FileError> {
    let files = files(directory)?;
    let Some((first, last)) = files.last() else {
        return Ok(Recovered {
            next_seq: 1,
            ..Recovered::default()
        });
    };
    let torn = cut_torn_end(last)?;
    let checkpoint = Checkpoint::load(directory);
    let mut recovered = Recovered {
        next_seq: (*first).max(checkpoint.seq + 1),
        file: Some(last.clone()),
        torn,
        recorded: checkpoint.runs,
    };
    // The file that holds the first uncounted record is the last one that
    // begins at or before it.
    let begin = files
        .partition_point(|(first, _)| *first <= checkpoint.seq + 1)
        .saturating_sub(1);
    for (_, file) in &files[begin..] {
        count(file, checkpoint.seq, &mut recovered)
            .map_err(|source| FileError::new("read", file, source))?;
    }
    Ok(recovered)
}

/// Removes what follows the last newline.
fn cut_torn_end(path: &Path) -> Result<Option<Torn>, FileError> {
    let fail = |source| FileError::new("mend", path, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    let whole = end_of_last_line(&mut file, length).map_err(fail)?;
    if whole == length {
        return Ok(None);
    }
    let mut fragment = vec![0; FRAGMENT_BYTES.min(usize::try_from(length - whole).unwrap_or(0))];
    file.seek(SeekFrom::Start(whole)).map_err(fail)?;
    file.read_exact(&mut fragment).map_err(fail)?;
    file.set_len(whole).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    Ok(Some(Torn {
        file: path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        bytes: length - whole,
        fragment: String::from_utf8_lossy(&fragment).into_owned(),
    }))
}

/// Offset after the last newline, looking back from the end.
fn end_of_last_line(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut chunk = [0; 4_096];
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let part = &mut chunk[..usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Adds the records after `counted` in one file. A line that is not a record is
/// passed over: verifying the ledger is another command's work.
fn count(path: &Path, counted: u64, into: &mut Recovered) -> io::Result<()> {
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        let Ok(line) = serde_json::from_slice::<Line>(&line?) else {
            continue;
        };
        into.next_seq = into.next_seq.max(line.seq + 1);
        let Some(run) = line.run.filter(|_| line.seq > counted) else {
            continue;
        };
        if line.kind == "run-ended" {
            into.recorded.remove(&run);
        } else {
            let stands_for = match line.kind.as_str() {
                // The resolver's: no record of the kernel.
                "decision" if line.pid.is_none() => 0,
                // Repeats that were counted have no number of their own.
                "decision" | "flow" => line.count.unwrap_or(1),
                _ => u64::from(line.run_seq.is_some()),
            };
            if stands_for > 0 || line.kind == "run-started" {
                *into.recorded.entry(run).or_default() += stands_for;
            }
        }
    }
    Ok(())
}

//! Work on a tree like a kernel's: unpacked, searched and removed.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use crate::measure::with_children;

/// The argument that asks for this.
pub const FLAG: &str = "tree";

/// In no file.
const SOUGHT: &str = "a text that is nowhere";

/// Where the file system is kept: in memory, so that no disk is waited for.
const IMAGE: &str = "/dev/shm/agentguard-bench.ext4";

/// Mounts a new ext4 there. The machine's own has no journal, and without one ext4 looks
/// at every file removed in the last half minute before it makes another.
///
/// # Errors
/// It cannot be made or mounted.
pub fn mount(directory: &str) -> Result<()> {
    fs::create_dir_all(directory)?;
    File::create(IMAGE)?.set_len(1 << 30)?;
    let options = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    for (program, options) in [
        ("modprobe", vec!["loop"]),
        ("mkfs.ext4", [&options[..], &[IMAGE]].concat()),
        ("mount", vec!["-o", "loop", IMAGE, directory]),
    ] {
        let status = Command::new(program)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .with_context(|| format!("cannot start {program}"))?;
        ensure!(status.success(), "{program}: {status}");
    }
    Ok(())
}

/// Unpacks `archive` below `directory`, searches and removes it; prints one JSON object.
///
/// # Errors
/// One of the programs fails.
pub fn main(archive: &str, directory: &str) -> Result<()> {
    let tree = format!("{directory}/linux");
    let programs = [
        ("untar", vec!["tar", "-xf", archive, "-C", directory], 0),
        // 1: found nowhere, and every file could be read.
        ("grep", vec!["grep", "-rF", SOUGHT, &tree], 1),
        ("rm", vec!["rm", "-r", &tree], 0),
    ];
    let mut results = Map::new();
    for (name, words, code) in programs {
        // What the last one left to be written is not this one's.
        nix::unistd::sync();
        let start = with_children()?;
        let status = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .with_context(|| format!("cannot start {}", words[0]))?;
        ensure!(status.code() == Some(code), "{words:?}: {status}");
        let took = with_children()? - start;
        results.insert(name.to_owned(), json!(took));
    }
    ensure!(!Path::new(&tree).exists(), "{tree} is still there");
    println!("{}", Value::Object(results));
    Ok(())
}

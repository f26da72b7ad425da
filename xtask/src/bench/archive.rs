//! An archive of a tree like a kernel's: 20,000 files of a few kilobytes in 2,220 directories.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::host::Host;
use crate::sh::Tool;

/// Its name in the directory that the machine gets.
pub const NAME: &str = "tree.tar";

/// Top directories; directories in each, directories in those, and files in those.
const FAN_OUT: [usize; 4] = [20, 10, 10, 10];
/// One more than the largest size. The mean, 6 KiB, is below a kernel's, so that there is more
/// to decide about for a byte than there.
const SIZE: usize = 12 * 1024 + 1;
/// Spreads the sizes: prime, so that every size comes.
const STEP: usize = 7_919;

/// Makes the archive in `dir`.
pub fn make(host: &Host, dir: &Path) -> Result<()> {
    host.timed("making a tree of 20,000 files", || {
        let scratch = host.scratch()?;
        let root = scratch.path().join("linux");
        let mut number = 0;
        let [tops, middles, lows, files] = FAN_OUT;
        for path in (0..tops).flat_map(|top| {
            (0..middles).flat_map(move |middle| {
                (0..lows).map(move |low| format!("driver-{top}/family-{middle}/chip-{low}"))
            })
        }) {
            let directory = root.join(path);
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
            for file in 0..files {
                let path = directory.join(format!("part-{file}.c"));
                fs::write(&path, content(number))
                    .with_context(|| format!("cannot write {}", path.display()))?;
                number += 1;
            }
        }
        Tool::new("tar")
            .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0"])
            .args(["--format=ustar", "-cf"])
            .arg(dir.join(NAME))
            .arg("-C")
            .arg(scratch.path())
            .arg("linux")
            .run()
    })
}

/// Lines of text.
fn content(number: usize) -> String {
    let size = number * STEP % SIZE;
    let mut text = String::new();
    while text.len() < size {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "\tregister_{number}_write(device, {}, mask);",
            text.len()
        );
    }
    text.truncate(size);
    text
}

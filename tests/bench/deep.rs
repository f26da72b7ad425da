//! Files at several depths.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Names from the root directory to the file.
pub const DEPTHS: [u32; 3] = [3, 10, 40];

/// The file so deep.
#[must_use]
pub fn file(depth: u32) -> String {
    let mut path = "/srv/agentguard-bench".to_owned();
    // The two above, and the file's own name.
    for level in 3..depth {
        // Writing to a string does not fail.
        let _ = write!(path, "/level-{level}");
    }
    path + "/file"
}

/// Makes them.
///
/// # Errors
/// One cannot be made.
pub fn make() -> Result<()> {
    for path in DEPTHS.map(file) {
        let parent = Path::new(&path)
            .parent()
            .context("a file in no directory")?;
        fs::create_dir_all(parent)?;
        fs::write(&path, "content\n").with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

//! What the kernel's verifier took to accept each program: close to its limit of a
//! million instructions a program is refused, on one kernel sooner than on another.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, loaded_programs};

use crate::held::{Figures, Held};

/// Instructions that the verifier processed, by program.
pub const COUNTS: Held = Held {
    file: "tests/verifier.json",
    text: include_str!("../verifier.json"),
    renew: "cargo xtask verifier --renew",
    // The same program on the same kernel takes the same.
    noise: |_| 0.0,
};

/// The counts of the programs whose links are pinned below `pins`: all that are attached.
///
/// # Errors
/// A link cannot be opened, or the kernel does not tell.
pub fn counts(pins: &Path) -> Result<Figures> {
    let programs: BTreeMap<u32, ProgramInfo> = loaded_programs()
        // One that cannot be asked about has just gone, and is nobody's pinned one.
        .filter_map(Result::ok)
        .map(|program| (program.id(), program))
        .collect();
    let links = pins.join("links");
    let mut counts = Figures::new();
    for entry in fs::read_dir(&links).with_context(|| links.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().context("a link without a name")?;
        let link: FdLink = PinnedLink::from_pin(&path)
            .with_context(|| format!("cannot open the link {}", path.display()))?
            .into();
        let count = programs
            .get(&link.info()?.program_id())
            .and_then(ProgramInfo::verified_instruction_count)
            .with_context(|| format!("the kernel does not tell of {}", path.display()))?;
        counts.insert(name.to_string_lossy().into_owned(), count.into());
    }
    ensure!(!counts.is_empty(), "no program in {}", links.display());
    Ok(counts)
}

//! The empty LSM programs: attached until dropped.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::Lsm;
use aya::{Btf, Ebpf};

/// Loads and attaches every program of the object.
///
/// # Errors
/// The kernel refuses one.
pub fn attach(object: &Path) -> Result<Ebpf> {
    let mut object =
        Ebpf::load_file(object).with_context(|| format!("cannot load {}", object.display()))?;
    let types = Btf::from_sys_fs().context("the kernel has no type information")?;
    for (name, program) in object.programs_mut() {
        let program: &mut Lsm = program.try_into()?;
        program
            .load(name, &types)
            .with_context(|| format!("the kernel refuses the empty program {name}"))?;
        program.attach()?;
    }
    Ok(object)
}

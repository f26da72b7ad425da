//! aya implementation of the port.

use super::{KernelError, Options, Port};

/// Loads or takes over the kernel side.
///
/// # Errors
/// Why not.
pub fn open(_options: &Options) -> Result<Box<dyn Port>, KernelError> {
    Err(KernelError::Failed {
        what: "load the kernel programs".into(),
        cause: "not in this build".into(),
        next: "merge the kernel side".into(),
    })
}

/// Removes everything from the kernel; says what.
///
/// # Errors
/// Why not.
pub fn unload(_options: &Options) -> Result<Vec<String>, KernelError> {
    Ok(Vec::new())
}

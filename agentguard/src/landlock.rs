//! Landlock confinement of launched runs.

use serde::{Deserialize, Serialize};

use crate::policy::manifest::Manifest;

/// What a launched run may do to files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {}

impl Rules {
    /// The rules of a manifest.
    #[must_use]
    pub fn of(_manifest: &Manifest) -> Self {
        Self {}
    }
}

/// Confines this process.
///
/// # Errors
/// Not possible here.
pub fn confine(_rules: &Rules) -> Result<(), String> {
    Ok(())
}

//! Policy: the manifests that say who an agent is and what it may do.
//!
//! The way of a manifest is bytes, then a tree of located nodes, then the
//! checked types of [`manifest`], which the compiler turns into kernel tables.

pub mod compile;
pub mod manifest;
mod net;
mod path;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use self::manifest::Manifest;

/// A problem in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The message.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Loads all manifests of a directory.
///
/// # Errors
/// All problems.
pub fn load_dir(_dir: &Path) -> Result<Vec<Arc<Manifest>>, Vec<Diagnostic>> {
    Ok(Vec::new())
}

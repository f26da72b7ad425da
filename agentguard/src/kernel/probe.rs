//! What the host offers.

use super::Protection;

/// The protections this host can offer.
#[must_use]
pub fn host() -> Vec<Protection> {
    Vec::new()
}

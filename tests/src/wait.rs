//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The longest that anything may take. Emulated machines are slow; a test that
/// passes never waits this long.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Polls until `look` returns something. An error is final.
///
/// # Errors
/// The deadline passed, or `look` failed.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("{what}: not so within {DEADLINE:?}");
        }
        std::thread::sleep(POLL);
    }
}

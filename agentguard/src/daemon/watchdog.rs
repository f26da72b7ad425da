//! Signs of life for the service manager, sent only while the engine and the
//! pipeline answer: a process that merely exists is not one that works.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::engine::Handle;
use crate::notify::Notifier;

/// Sends a sign of life at half of what the manager asks for, as long as both
/// answer within a quarter of it.
pub(super) async fn run(notifier: Arc<Notifier>, engine: Handle, limit: Duration) {
    let mut ticks = tokio::time::interval(limit / 2);
    loop {
        ticks.tick().await;
        match timeout(limit / 4, engine.ping()).await {
            Ok(Ok(())) => notifier.alive(),
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::error!(
                    "the engine or the event pipeline does not answer; the service manager is not told that all is well"
                );
            }
        }
    }
}

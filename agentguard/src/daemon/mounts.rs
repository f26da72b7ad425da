//! Watching the host's mounts: file rules are compiled for the file systems
//! that are mounted, so a change of mounts is a change of policy.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::engine::Loader;

/// Least time between two compilations: a container host mounts in bursts.
const PAUSE: Duration = Duration::from_millis(250);

/// A mountinfo file, which the kernel reports as "in an exceptional state"
/// whenever mounts have changed since it was last asked.
pub(super) struct Mounts(AsyncFd<File>);

impl Mounts {
    pub fn watch(mountinfo: &Path) -> io::Result<Self> {
        let file = File::open(mountinfo)?;
        // SAFETY: the file belongs to the AsyncFd, which never gives it away: its
        // descriptor stays open and the same for as long as it is registered.
        unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY | Interest::ERROR) }
            .map(Self)
            .map_err(Into::into)
    }

    async fn changed(&self) -> io::Result<()> {
        let mut guard = self.0.ready(Interest::PRIORITY | Interest::ERROR).await?;
        guard.clear_ready();
        Ok(())
    }
}

/// Compiles anew whenever mounts change.
pub(super) async fn follow(mounts: Mounts, loader: Arc<Loader>) {
    loop {
        if let Err(error) = mounts.changed().await {
            tracing::error!(
                "mounts are not watched any more: {error}; reload the policy after mounting (`agentguard policy reload`)"
            );
            return;
        }
        // A refusal is logged and recorded where it is found.
        let _ = loader.follow_mounts().await;
        tokio::time::sleep(PAUSE).await;
    }
}

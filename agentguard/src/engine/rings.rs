//! Waiting for the kernel's rings.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::task::Poll;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Descriptors that become readable when a ring holds records.
pub(super) struct Rings(Vec<AsyncFd<Borrowed>>);

/// The descriptor belongs to the kernel side, which outlives the waiting.
struct Borrowed(RawFd);

impl AsRawFd for Borrowed {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Rings {
    pub fn watch(fds: &[RawFd]) -> io::Result<Self> {
        let watch = |fd: &RawFd| AsyncFd::with_interest(Borrowed(*fd), Interest::READABLE);
        fds.iter().map(watch).collect::<io::Result<_>>().map(Self)
    }

    /// Waits until one is readable. Whoever waited must empty the rings before
    /// waiting again.
    pub async fn readable(&self) {
        poll_fn(|context| {
            let mut any = false;
            for fd in &self.0 {
                if let Poll::Ready(guard) = fd.poll_read_ready(context) {
                    any = true;
                    if let Ok(mut guard) = guard {
                        guard.clear_ready();
                    }
                }
            }
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

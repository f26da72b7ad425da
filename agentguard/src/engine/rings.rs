//! Waiting for the kernel's rings.

use std::future::poll_fn;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::task::Poll;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Descriptors that become readable when a ring holds records.
pub(super) struct Rings(Vec<AsyncFd<OwnedFd>>);

impl Rings {
    /// Watches copies of these descriptors, which must be open.
    pub fn watch(fds: &[RawFd]) -> io::Result<Self> {
        fds.iter()
            .map(|fd| watch(*fd))
            .collect::<io::Result<_>>()
            .map(Self)
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

fn watch(fd: RawFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the kernel side, which the caller holds, keeps its rings open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    // SAFETY: the copy belongs to the AsyncFd, which never gives it away: it
    // stays open and the same for as long as it is registered.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

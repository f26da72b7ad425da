//! Connections on the unix socket.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Control;
use super::peer::Peer;
use crate::files::FileError;
use crate::stall::StallGuard;

/// Time for a client to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Time that a client may refuse to read.
const STALL: Duration = Duration::from_secs(30);

/// Time for clients to read what is left when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Connections of one user at once. One more is closed: a user can only keep
/// itself out.
const CONNECTIONS_PER_USER: usize = 64;

/// The socket, removed when it is dropped.
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds the socket. One that a dead daemon left behind is replaced; one
    /// that answers is not.
    ///
    /// # Errors
    /// The path is in use or cannot be bound.
    pub fn bind(path: &Path) -> Result<Self, FileError> {
        let fail = |what| move |error| FileError::new(what, path, error);
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                let error = io::Error::other("something else than a socket is there");
                return Err(fail("bind")(error));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                let error = io::Error::other(
                    "another daemon answers on it; stop that one, or choose another --runtime",
                );
                return Err(fail("bind")(error));
            }
            fs::remove_file(path).map_err(fail("remove the old socket"))?;
        }
        let socket = UnixListener::bind(path).map_err(fail("bind"))?;
        // Everyone may connect, so the owner and the group do not matter; see the
        // module `control` for why.
        fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(fail("open up"))?;
        Ok(Self {
            socket,
            path: path.to_owned(),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may be gone with its directory already.
        let _ = fs::remove_file(&self.path);
    }
}

/// The API being served.
pub struct Serving {
    accepting: JoinHandle<()>,
    slots: Arc<Slots>,
    #[cfg(test)]
    pub(crate) control: Arc<Control>,
}

impl Serving {
    /// Serves connections from now on.
    #[must_use]
    pub fn start(listener: Listener, control: Arc<Control>) -> Self {
        let slots = Arc::new(Slots::default());
        Self {
            #[cfg(test)]
            control: Arc::clone(&control),
            accepting: tokio::spawn(accept(listener, control, Arc::clone(&slots))),
            slots,
        }
    }

    /// Removes the socket. Those who are connected already are still served.
    pub fn accept_no_more(&self) {
        self.accepting.abort();
    }

    /// Waits for those who are still connected, for a short time.
    pub async fn finished(self) {
        // Who does not read its last line is left.
        let _ = tokio::time::timeout(FAREWELL, self.slots.all_free()).await;
    }
}

async fn accept(listener: Listener, control: Arc<Control>, slots: Arc<Slots>) {
    loop {
        match listener.socket.accept().await {
            Ok((stream, _)) => admit(stream, &control, &slots),
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn admit(stream: UnixStream, control: &Arc<Control>, slots: &Arc<Slots>) {
    let peer = match Peer::of(stream.as_fd()) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::debug!("a connection was closed: {error}");
            return;
        }
    };
    let Some(slot) = Slots::take(slots, peer.uid) else {
        tracing::debug!(
            "user {} has {CONNECTIONS_PER_USER} connections; one more was closed",
            peer.uid
        );
        return;
    };
    let control = Arc::clone(control);
    tokio::spawn(async move {
        let _slot = slot;
        let service = service_fn(|request| {
            let (control, peer) = (&control, &peer);
            async move {
                let answer = control.answer(peer, request).await;
                Ok::<_, Infallible>(answer.unwrap_or_else(super::answers::Failed::into_response))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIME)
            .keep_alive(false)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(StallGuard::new(stream, STALL)), service);
        if let Err(error) = connection.await {
            tracing::debug!("a connection ended early: {error}");
        }
    });
}

/// Connections by user.
#[derive(Default)]
struct Slots {
    taken: Mutex<HashMap<u32, usize>>,
    freed: Notify,
}

struct Slot {
    slots: Arc<Slots>,
    uid: u32,
}

impl Slots {
    fn take(slots: &Arc<Self>, uid: u32) -> Option<Slot> {
        let mut taken = slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(uid).or_default();
        if *count >= CONNECTIONS_PER_USER {
            return None;
        }
        *count += 1;
        Some(Slot {
            slots: Arc::clone(slots),
            uid,
        })
    }

    async fn all_free(&self) {
        loop {
            let freed = self.freed.notified();
            if self
                .taken
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_empty()
            {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self
            .slots
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.uid);
                self.slots.freed.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_by_user() {
        let slots = Arc::new(Slots::default());
        let mut held: Vec<Slot> = (0..CONNECTIONS_PER_USER)
            .map(|_| Slots::take(&slots, 5).unwrap())
            .collect();
        assert!(Slots::take(&slots, 5).is_none());
        assert!(Slots::take(&slots, 6).is_some());
        held.pop();
        assert!(Slots::take(&slots, 5).is_some());
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        let error = Listener::bind(&path).err().unwrap().to_string();
        assert!(error.contains("another daemon answers"), "{error}");
        drop(listener);
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        assert!(Listener::bind(&path).is_err());
    }
}

//! Telling systemd how the service does: the `sd_notify` datagrams.
//!
//! Outside systemd there is no socket to tell, and every call does nothing.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::time::{ClockId, clock_gettime};

/// The connection to the service manager.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// From the environment that systemd gives a service.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        let socket = variable("NOTIFY_SOCKET").and_then(|address| match connect(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(
                    "cannot reach the service manager at NOTIFY_SOCKET={address}: {error}"
                );
                None
            }
        });
        let for_us =
            variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = variable("WATCHDOG_USEC")
            .filter(|_| for_us)
            .and_then(|micros| micros.parse().ok())
            .map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// How often the manager wants a sign of life, if at all. Signs are to be
    /// sent at half of it.
    #[must_use]
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The service works.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// The service reads its configuration again; [`ready`](Self::ready) follows.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .map_or(0, |time| time.tv_sec() * 1_000_000 + time.tv_nsec() / 1_000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// The service stops.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// A sign of life.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Has the manager keep descriptors under a name, in the place of those that it kept: the
    /// next process of the service gets them ([`kept`]).
    pub fn keep(&self, name: &str, descriptors: &[BorrowedFd<'_>]) {
        let Some(socket) = &self.socket else {
            return;
        };
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let message = format!("FDSTORE=1\nFDNAME={name}");
        let sent = sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(message.as_bytes())],
            &[ControlMessage::ScmRights(&raw)],
            MsgFlags::empty(),
            None,
        );
        if let Err(error) = sent {
            tracing::warn!("the service manager does not keep {name} over a restart: {error}");
        }
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::debug!("the service manager was not told `{message}`: {error}");
        }
    }
}

/// The descriptors that the manager kept under this name (`sd_listen_fds_with_names(3)`). To be
/// called once: they are the caller's from then on.
#[must_use]
pub fn kept(name: &str) -> Vec<OwnedFd> {
    /// The first of those that are passed on.
    const FIRST: RawFd = 3;
    let variable = |name| std::env::var(name).ok();
    let for_us = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let count = variable("LISTEN_FDS").and_then(|count| count.parse::<RawFd>().ok());
    let (true, Some(count)) = (for_us, count) else {
        return Vec::new();
    };
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    (FIRST..FIRST.saturating_add(count))
        .zip(names.split(':'))
        .filter(|(_, of)| *of == name)
        // SAFETY: the manager passed it on to this process, and nobody else takes it.
        .map(|(fd, _)| unsafe { OwnedFd::from_raw_fd(fd) })
        // What this daemon starts does not get it.
        .filter(|fd| fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).is_ok())
        .collect()
}

/// A leading `@` stands for the abstract name space.
fn connect(address: &str) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that does not read must not hold the daemon up.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn sends_what_systemd_expects() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier {
            socket: Some(connect(path.to_str().unwrap()).unwrap()),
            watchdog: None,
        };
        let mut buffer = [0; 256];
        let mut received = || {
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        notifier.ready("3 agents");
        assert_eq!(received(), "READY=1\nSTATUS=3 agents");
        notifier.reloading();
        assert!(received().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        notifier.alive();
        assert_eq!(received(), "WATCHDOG=1");
    }

    #[test]
    fn descriptors_are_kept_by_name() {
        use nix::sys::socket::{ControlMessageOwned, recvmsg};
        let (manager, ours) = UnixDatagram::pair().unwrap();
        let notifier = Notifier {
            socket: Some(ours),
            watchdog: None,
        };
        let file = std::fs::File::open("/dev/null").unwrap();
        notifier.keep("sockets", &[file.as_fd(), file.as_fd()]);
        let mut text = [0; 64];
        let length = manager.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"FDSTOREREMOVE=1\nFDNAME=sockets");
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let mut parts = [io::IoSliceMut::new(&mut text)];
        let fd = manager.as_raw_fd();
        let got = recvmsg::<()>(fd, &mut parts, Some(&mut space), MsgFlags::empty()).unwrap();
        let rights = got.cmsgs().unwrap().next();
        let Some(ControlMessageOwned::ScmRights(fds)) = rights else {
            panic!("no descriptors: {rights:?}");
        };
        assert_eq!(fds.len(), 2);
        let length = got.bytes;
        assert_eq!(&text[..length], b"FDSTORE=1\nFDNAME=sockets");
        Notifier::default().keep("sockets", &[file.as_fd()]);
    }

    #[test]
    fn abstract_names_and_no_manager() {
        let name = format!("agentguard-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        connect(&format!("@{name}")).unwrap().send(b"x").unwrap();
        assert_eq!(manager.recv(&mut [0; 8]).unwrap(), 1);
        Notifier::default().ready("nobody listens");
    }
}

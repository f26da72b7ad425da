//! Who is at the other end of a connection, by the kernel's word.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock;

/// `SO_PEERPIDFD`, since Linux 6.5; not in libc's headers everywhere.
const SO_PEERPIDFD: libc::c_int = 77;

/// Supplementary groups that are looked at. A user in more groups than this
/// operates through its primary group or not at all.
const GROUPS: usize = 256;

/// The process that connected. It may have passed the connection on; what it
/// holds is decided by who connected.
#[derive(Debug)]
pub struct Peer {
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Group ids, the primary one first.
    pub groups: Vec<u32>,
    pidfd: OwnedFd,
}

impl Peer {
    /// Reads it from a connected socket.
    ///
    /// # Errors
    /// The process is gone, cannot be seen from here, or is not the one that connected.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut credentials = libc::ucred {
            pid: 0,
            uid: u32::MAX,
            gid: u32::MAX,
        };
        get_option(
            socket,
            libc::SO_PEERCRED,
            std::slice::from_mut(&mut credentials),
        )?;
        let pid = u32::try_from(credentials.pid).unwrap_or(0);
        if pid == 0 {
            return Err(io::Error::other(
                "the process that connected cannot be seen from the daemon's PID namespace",
            ));
        }
        let mut groups = vec![credentials.gid];
        groups.extend(supplementary_groups(socket)?);
        Ok(Self {
            pid,
            uid: credentials.uid,
            groups,
            pidfd: peer_pidfd(socket, pid, credentials.uid)?,
        })
    }

    /// A descriptor that means this process and no later one with its id.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether the process still lives. One that has ended may have left the
    /// connection to another, which is not asked for its name here.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }

    /// Number of its threads.
    ///
    /// # Errors
    /// It is gone.
    pub fn threads(&self) -> io::Result<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        status_field(&status, "Threads:")
            .and_then(|threads| threads.parse().ok())
            .ok_or_else(|| io::Error::other("its status has no number of threads"))
    }

    /// This process, as if it had connected as this user.
    #[cfg(test)]
    pub fn this_process(uid: u32, groups: Vec<u32>) -> Self {
        Self::process(std::process::id(), uid, groups)
    }

    /// A process, as if it had connected as this user.
    #[cfg(test)]
    pub fn process(pid: u32, uid: u32, groups: Vec<u32>) -> Self {
        Self {
            pid,
            uid,
            groups,
            pidfd: pidfd_open(pid).unwrap(),
        }
    }
}

/// The kernel's own descriptor of the peer where it gives one. Older kernels
/// give only the id: then the process is taken if it has the peer's user and
/// was there before this connection was accepted, so that an id given anew
/// since then is noticed.
fn peer_pidfd(socket: BorrowedFd<'_>, pid: u32, uid: u32) -> io::Result<OwnedFd> {
    let mut fd: [RawFd; 1] = [-1];
    match get_option(socket, SO_PEERPIDFD, &mut fd) {
        Ok(_) => {
            // SAFETY: the kernel has just made this descriptor for us.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd[0]) });
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {}
        Err(error) => return Err(error),
    }
    let now = Duration::from_nanos(clock::boot_ns());
    let pidfd = pidfd_open(pid)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    // Real, effective, saved and file system user; connections have the effective one.
    let effective = status_field(&status, "Uid:")
        .and_then(|uids| uids.split_whitespace().nth(1))
        .and_then(|uid| uid.parse().ok());
    if effective != Some(uid) || started(pid)? > now {
        return Err(io::Error::other(format!(
            "process {pid} is not the one that connected any more"
        )));
    }
    Ok(pidfd)
}

/// When a process started, since boot.
fn started(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name, in parentheses, can hold anything; the rest cannot.
    let ticks = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|ticks| ticks.parse::<u64>().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood")))?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?
        .and_then(|ticks| u64::try_from(ticks).ok())
        .filter(|ticks| *ticks > 0)
        .unwrap_or(100);
    Ok(Duration::from_millis(
        ticks.saturating_mul(1_000) / per_second,
    ))
}

fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

fn supplementary_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = [0_u32; GROUPS];
    match get_option(socket, libc::SO_PEERGROUPS, &mut groups) {
        Ok(count) => Ok(groups[..count].to_vec()),
        // More groups than fit: none of them counts.
        Err(error) if error.raw_os_error() == Some(libc::ERANGE) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Reads a socket option into a slice; returns how many elements were written.
fn get_option<T: Copy>(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    into: &mut [T],
) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(size_of_val(into)).unwrap_or(0);
    // SAFETY: `into` is valid for writes of `length` bytes, and every type that
    // this module reads (ucred, u32, RawFd) is made of integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            into.as_mut_ptr().cast(),
            &mut length,
        )
    };
    Errno::result(result)?;
    Ok(length as usize / size_of::<T>())
}

/// A descriptor of a process.
///
/// # Errors
/// There is no such process.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::other("not a descriptor"))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process of a descriptor, which cannot mean another meanwhile.
///
/// # Errors
/// The kernel's answer: ESRCH when it has ended.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal takes a descriptor, a signal, no information, no flags.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            no_info,
            0,
        )
    };
    Ok(Errno::result(sent).map(drop)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_peer_is_known_by_the_kernels_word() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(ours.as_fd()).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(peer.groups[0], nix::unistd::getegid().as_raw());
        assert!(peer.is_alive());
        assert!(peer.threads().unwrap() > 1, "the test harness has threads");
    }

    #[test]
    fn a_process_that_ended_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let peer = Peer {
            pid: child.id(),
            uid: 0,
            groups: Vec::new(),
            pidfd: pidfd_open(child.id()).unwrap(),
        };
        child.wait().unwrap();
        assert!(!peer.is_alive());
        assert!(pidfd_open(child.id()).is_err());
    }

    #[test]
    fn start_times_lie_in_the_past() {
        let now = Duration::from_nanos(clock::boot_ns());
        let started = started(std::process::id()).unwrap();
        assert!(
            started > Duration::ZERO && started <= now,
            "{started:?} {now:?}"
        );
    }
}

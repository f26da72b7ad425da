//! Tagged processes, by asking the kernel about every process there is.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use agentguard_common::identity::Tag;

use super::peer::{pidfd_open, pidfd_signal};
use crate::engine::{Handle, Stopped};

/// Processes asked about at once: each takes a descriptor meanwhile.
const AT_ONCE: usize = 128;

/// A tagged process.
#[derive(Debug)]
pub(super) struct Tagged {
    pub pid: u32,
    pub tag: Tag,
}

/// What `/proc` says of a process.
#[derive(Debug, Default)]
pub struct Details {
    /// Parent.
    pub ppid: u32,
    /// User id of its `/proc` directory.
    pub uid: u32,
    /// How many threads it has.
    pub threads: u32,
    /// Its program.
    pub exe: Option<String>,
    /// Its arguments.
    pub command: Vec<String>,
}

/// All tagged processes.
pub(super) async fn tagged(engine: &Handle) -> Result<Vec<Tagged>, Stopped> {
    let found = look(engine, |_| true, |_| {}).await?;
    Ok(found)
}

/// What became of the processes of runs that were revoked.
#[derive(Debug, Default)]
pub(super) struct Killed {
    /// How many got the signal.
    pub killed: usize,
    /// How many were still there at the last look.
    pub left: usize,
}

/// Looks for processes at most, when those of a run are killed: each can have forked
/// before the signal came to it.
const LOOKS: usize = 10;

/// Kills every process of these runs, also those that they make meanwhile.
pub(super) async fn kill(engine: &Handle, runs: &[u64]) -> Result<Killed, Stopped> {
    let mut signalled = std::collections::BTreeSet::new();
    let mut left = 0;
    for _ in 0..LOOKS {
        if runs.is_empty() {
            break;
        }
        let found = look(
            engine,
            |tagged| runs.contains(&tagged.tag.run_serial) && is_alive(tagged.pid),
            // One that ended meanwhile needs no signal.
            |pidfd| drop(pidfd_signal(pidfd, nix::libc::SIGKILL)),
        )
        .await?;
        left = found.len();
        if left == 0 {
            break;
        }
        signalled.extend(found.iter().map(|tagged| tagged.pid));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(Killed {
        killed: signalled.len(),
        left,
    })
}

/// Whether a process is more than an entry that waits for its parent to read it.
fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| !state.trim_start().starts_with(['Z', 'X']))
}

/// The tagged processes that are wanted; each is handed over by the descriptor by which
/// its tag was read.
async fn look(
    engine: &Handle,
    wanted: impl Fn(&Tagged) -> bool,
    each: impl Fn(BorrowedFd<'_>),
) -> Result<Vec<Tagged>, Stopped> {
    let mut found = Vec::new();
    for pids in all_pids().chunks(AT_ONCE) {
        // One that ends meanwhile has no tag any more.
        let open: Vec<(u32, OwnedFd)> = pids
            .iter()
            .filter_map(|pid| Some((*pid, pidfd_open(*pid).ok()?)))
            .collect();
        let tagged = engine.call(move |engine| {
            let tag = |(pid, pidfd): (u32, OwnedFd)| {
                let tag = engine.port().tag_of(pidfd.as_fd()).ok()??;
                Some((Tagged { pid, tag }, pidfd))
            };
            open.into_iter().filter_map(tag).collect::<Vec<_>>()
        });
        for (tagged, pidfd) in tagged.await? {
            if wanted(&tagged) {
                each(pidfd.as_fd());
                found.push(tagged);
            }
        }
    }
    Ok(found)
}

/// Why a process must not become an agent with all its descendants, if so.
pub(super) fn not_to_be_adopted(pid: u32) -> Option<&'static str> {
    // The daemon's parents, as far up as they are seen.
    let mut at = std::process::id();
    while at > 1 && at != pid {
        at = details(at).ppid;
    }
    if pid == 0 || at == pid {
        return Some("it is the daemon's own, or one that the daemon descends from");
    }
    // Kernel threads have no memory of their own, and so no program: neither has what has ended.
    if details(pid).exe.is_none() {
        return Some("it has no program: it has ended, or is the kernel's");
    }
    None
}

/// The session of a process, if it is still there.
pub(super) fn session(pid: u32) -> Option<i32> {
    let pid = i32::try_from(pid).ok()?;
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid)));
    session.ok().map(nix::unistd::Pid::as_raw)
}

pub(super) fn all_pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

/// Details for people; nothing is decided by them.
#[must_use]
pub fn details(pid: u32) -> Details {
    let directory = format!("/proc/{pid}");
    let status = fs::read_to_string(format!("{directory}/status")).unwrap_or_default();
    let number = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0)
    };
    let command = fs::read(format!("{directory}/cmdline")).unwrap_or_default();
    Details {
        ppid: number("PPid:"),
        threads: number("Threads:"),
        uid: fs::metadata(&directory).map_or(0, |metadata| metadata.uid()),
        exe: fs::read_link(format!("{directory}/exe"))
            .ok()
            .map(|path| path.to_string_lossy().into_owned()),
        command: command
            .split(|byte| *byte == 0)
            .filter(|argument| !argument.is_empty())
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_daemons_line_nor_the_kernels_threads_are_adopted() {
        let own = std::process::id();
        assert!(not_to_be_adopted(own).is_some());
        assert!(not_to_be_adopted(details(own).ppid).is_some());
        assert!(not_to_be_adopted(0).is_some());
        assert!(not_to_be_adopted(u32::MAX).is_some());
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert_eq!(not_to_be_adopted(child.id()), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

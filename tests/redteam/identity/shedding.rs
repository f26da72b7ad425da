//! Ways to become a process without the tag, each followed by reading what must not be read.

use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc::{self, O_DIRECTORY, O_RDONLY};

use crate::attempt::{Attempt, read};
use crate::executor;
use crate::field::{Field, User};
use crate::sys::{self, Child, Fail, Try, call, content};

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Children of a storm.
const STORM: usize = 100;
/// Refusals of a flood.
const FLOOD: usize = 1_000;
const PR_SET_NAME: i32 = 15;
const PR_SET_DUMPABLE: i32 = 4;
const PR_SET_NO_NEW_PRIVS: i32 = 38;
const PR_SET_CHILD_SUBREAPER: i32 = 36;

pub const ATTEMPTS: &[Attempt] = &[
    read("identity-shed-fork", |field| {
        in_child(field, |_| sys::done())
    }),
    read("identity-shed-fork-many", |field| generations(field, 20)),
    // All at once, and each tries.
    read("identity-shed-storm", |field| {
        through_pipe(|to| {
            let mut children = Vec::new();
            for _ in 0..STORM {
                children.push(sys::fork(|| tell(to, &field.file()))?);
            }
            for child in &children {
                child.wait()?;
            }
            Ok(0)
        })
    }),
    // After more refusals than the rings hold.
    read("identity-shed-flood", |field| {
        let missing = field.dir.join("not-there");
        for _ in 0..FLOOD {
            let _ = call!(SYS_mkdir, &missing, 0o755);
            let _ = call!(SYS_rmdir, &missing);
        }
        content(&field.file())
    }),
    read("identity-shed-double-fork", |field| {
        through_pipe(|to| {
            sys::fork(|| {
                sys::fork(|| {
                    call!(SYS_setsid)?;
                    tell(to, &field.file())
                })?;
                sys::done()
            })?
            .wait()
        })
    }),
    read("identity-shed-session", |field| {
        in_child(field, |_| {
            call!(SYS_setsid)?;
            sys::done()
        })
    }),
    read("identity-shed-vfork", |field| {
        // The library starts programs by a clone that shares memory until they run.
        let output = Command::new("/bin/cat").arg(field.file()).output()?;
        refused_or(output.stdout, &output.stderr)
    }),
    read("identity-shed-thread", |field| {
        let file = field.file();
        joined(move || content(&file))
    }),
    read("identity-shed-exec-by-thread", |field| {
        let (from, to) = sys::pipe()?;
        let file = field.file();
        let child = sys::fork(|| {
            joined(move || {
                let error = Command::new("/bin/cat")
                    .arg(&file)
                    .stdout(Stdio::from(to))
                    .stderr(Stdio::null())
                    .exec();
                Err(error.into())
            })
        })?;
        // The other end is in the child alone: it was moved there.
        let status = child.wait()?;
        let bytes = if status == 0 {
            sys::read(&from)?
        } else {
            Vec::new()
        };
        refused_or(bytes, b"Operation not permitted")
    }),
    read("identity-shed-clone-into-cgroup", |field| {
        let cgroup = sys::open("/sys/fs/cgroup".as_ref(), O_RDONLY | O_DIRECTORY)?;
        through_pipe(|to| {
            let mut arguments = sys::words(&[CLONE_INTO_CGROUP, 0, 0, 0]);
            arguments.extend(sys::words(&[libc::SIGCHLD as u64, 0, 0, 0, 0, 0]));
            arguments.extend(sys::words(&[u64::from(cgroup.as_raw_fd().cast_unsigned())]));
            match call!(SYS_clone3, &arguments[..], arguments.len())? {
                0 => {
                    let _ = tell(to, &field.file());
                    // SAFETY: ends this process; nothing has to be flushed.
                    unsafe { libc::_exit(0) }
                }
                pid => Child { pid: pid as i32 }.wait(),
            }
        })
    })
    .root_only("another's cgroup belongs to root"),
    read("identity-shed-user", |field| {
        in_child(field, |_| {
            let uid = User::Ordinary.uid();
            call!(SYS_setresgid, uid, uid, uid)?;
            call!(SYS_setresuid, uid, uid, uid)?;
            sys::done()
        })
    }),
    read("identity-shed-name", |field| {
        in_child(field, |_| {
            call!(SYS_prctl, PR_SET_NAME, c"agentguard")?;
            call!(SYS_prctl, PR_SET_DUMPABLE, 0)?;
            call!(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)?;
            sys::done()
        })
    }),
    read("identity-shed-subreaper", |field| {
        in_child(field, |_| {
            call!(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1)?;
            sys::done()
        })
    }),
    read("identity-shed-processes-of-own", |field| {
        in_child(field, |field| {
            let user = if field.user == User::Root {
                0
            } else {
                libc::CLONE_NEWUSER
            };
            call!(SYS_unshare, user | libc::CLONE_NEWPID)?;
            sys::done()
        })
    }),
];

/// Reads in a child that has done something first; and in a child of that.
fn in_child(field: &Field, first: fn(&Field) -> Try) -> Try {
    through_pipe(|to| {
        sys::fork(|| {
            first(field)?;
            sys::fork(|| tell(to, &field.file()))?.wait()?;
            sys::done()
        })?
        .wait()
    })
}

fn generations(field: &Field, left: u32) -> Try {
    through_pipe(|to| descend(field, left, to))
}

fn descend(field: &Field, left: u32, to: i32) -> Try<i32> {
    sys::fork(|| {
        if left == 0 {
            return tell(to, &field.file());
        }
        descend(field, left - 1, to)?;
        sys::done()
    })?
    .wait()
}

fn joined(work: impl FnOnce() -> Try + Send + 'static) -> Try {
    let thread = std::thread::spawn(work);
    thread
        .join()
        .unwrap_or_else(|_| Err(Fail::new("a thread", 0)))
}

/// Writes what can be read there, or why nothing can.
fn tell(to: i32, file: &Path) -> Try {
    let message = match content(file) {
        Ok(bytes) => bytes,
        Err(fail) => format!("!{}", fail.errno).into_bytes(),
    };
    call!(SYS_write, to, &message[..], message.len())?;
    sys::done()
}

/// What descendants wrote into a pipe until its last writer's end.
fn through_pipe(work: impl FnOnce(i32) -> Try<i32>) -> Try {
    let (from, to) = sys::pipe()?;
    work(to.as_raw_fd())?;
    drop(to);
    let message = executor::read_all(from.as_raw_fd())?;
    match message.strip_prefix(b"!") {
        Some(errno) => {
            // Of several, the first.
            let errno = String::from_utf8_lossy(errno);
            let errno = errno.split('!').next().unwrap_or_default();
            let errno = errno.parse().unwrap_or(0);
            Err(Fail::new("reading in a descendant", errno))
        }
        None => Ok(message),
    }
}

/// What a program printed, or its refusal.
fn refused_or(bytes: Vec<u8>, error: &[u8]) -> Try {
    let refused = String::from_utf8_lossy(error).contains("not permitted");
    if bytes.is_empty() && refused {
        return Err(Fail::new("cat", libc::EPERM));
    }
    Ok(bytes)
}

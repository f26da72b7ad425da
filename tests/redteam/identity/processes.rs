//! Other processes: tracing, limits, priorities, what `/proc` lets root change.

use std::fs;
use std::path::PathBuf;

use nix::libc::{self, O_WRONLY};

use super::{deed, proof, target};
use crate::attempt::{Attempt, Maker};
use crate::field::Field;
use crate::stage;
use crate::sys::{self, Try, call};
use crate::victim;

const PTRACE_SEIZE: i32 = 0x4206;
const RLIMIT_NOFILE: u32 = 7;
const SCHED_IDLE: i32 = 5;
const IOPRIO_WHO_PROCESS: i32 = 1;
const IOPRIO_LOWEST: i32 = 3 << 13;
const KCMP_FILE: i32 = 0;
const MADV_COLD: i32 = 20;
/// The lookup in /proc turns a refusal into this one.
const IN_PROC: i32 = libc::EACCES;
const ROOTS: &str = "the daemon belongs to root";

const fn at(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    deed(id, attack)
        .prepare(victim::untagged)
        .look(victim::settings)
}

pub const ATTEMPTS: &[Attempt] = &[
    at("identity-ptrace-seize", |field| {
        call!(SYS_ptrace, PTRACE_SEIZE, target(field), 0, 0)?;
        proof()
    }),
    at("identity-ptrace-traced-by-init", |_| traced_by_init()),
    at("identity-process-limits", |field| {
        let least = sys::words(&[16, 16]);
        call!(SYS_prlimit64, target(field), RLIMIT_NOFILE, &least[..], 0)?;
        sys::done()
    }),
    at("identity-process-priority", |field| {
        call!(SYS_setpriority, libc::PRIO_PROCESS, target(field), 7)?;
        sys::done()
    }),
    at("identity-process-priority-group", |field| {
        call!(SYS_setpriority, libc::PRIO_PGRP, target(field), 9)?;
        sys::done()
    }),
    at("identity-process-scheduler", |field| {
        let none = [0; 4];
        call!(SYS_sched_setscheduler, target(field), SCHED_IDLE, &none[..])?;
        sys::done()
    }),
    at("identity-process-scheduler-attributes", |field| {
        let mut attributes = sys::halves(&[48, SCHED_IDLE.cast_unsigned()]);
        attributes.resize(48, 0);
        call!(SYS_sched_setattr, target(field), &attributes[..], 0)?;
        sys::done()
    }),
    at("identity-process-processors", |field| {
        let mut set = [0; 128];
        call!(SYS_sched_getaffinity, target(field), 128, &mut set[..])?;
        call!(SYS_sched_setaffinity, target(field), 128, &set[..])?;
        proof()
    }),
    at("identity-process-io-priority", |field| {
        call!(
            SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            target(field),
            IOPRIO_LOWEST
        )?;
        proof()
    }),
    at("identity-process-pages", |field| {
        let nodes = sys::words(&[1]);
        call!(SYS_migrate_pages, target(field), 64, &nodes[..], &nodes[..])?;
        proof()
    })
    .lacks(&[(libc::ENOSYS, "the kernel does not move pages")]),
    at("identity-process-madvise", |field| {
        let process = sys::owned(call!(SYS_pidfd_open, target(field), 0)?);
        let range = sys::words(&[field.noted("address") & !0xfff, 4096]);
        call!(SYS_process_madvise, &process, &range[..], 1, MADV_COLD, 0)?;
        proof()
    })
    .refused_as(libc::EACCES)
    .root_only("advice for others wants CAP_SYS_NICE"),
    at("identity-process-compare", |field| {
        let own = std::process::id();
        call!(SYS_kcmp, target(field), own, KCMP_FILE, 0, 0)?;
        proof()
    })
    .lacks(&[(libc::ENOSYS, "the kernel does not compare processes")]),
    deed("identity-daemon-memory", |field| of_daemon(field, "mem"))
        .never()
        .refused_as(IN_PROC)
        .root_only(ROOTS),
    deed("identity-daemon-first-to-go", |field| {
        let of = match field.is_control() {
            true => "self".to_owned(),
            false => stage::daemon(&field.root).to_string(),
        };
        fs::write(format!("/proc/{of}/oom_score_adj"), "900")?;
        proof()
    })
    .control_by(Maker::Wide)
    .root_only(ROOTS),
    deed("identity-daemon-group-priority", |field| {
        of_daemon(field, "autogroup")
    })
    .never()
    .lacks(&[(libc::ENOENT, "the kernel does not group by session")])
    .root_only(ROOTS),
];

/// Opens a file of the daemon's in `/proc` for writing, and writes nothing.
fn of_daemon(field: &Field, name: &str) -> Try {
    let path = PathBuf::from(format!("/proc/{}/{name}", stage::daemon(&field.root)));
    sys::open(&path, O_WRONLY)?;
    proof()
}

/// Asks to be traced by the parent, when that is one outside the run.
fn traced_by_init() -> Try {
    let (from, to) = sys::pipe()?;
    let middle = sys::fork(|| {
        let parent = std::process::id();
        sys::fork(|| {
            while std::os::unix::process::parent_id() == parent {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let answer = call!(SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0);
            let errno = answer.err().map_or(0, |fail| fail.errno);
            call!(SYS_write, &to, &errno.to_ne_bytes()[..], 4)?;
            sys::done()
        })?;
        sys::done()
    })?;
    drop(to);
    middle.wait()?;
    match sys::read(&from)?.as_slice() {
        [0, 0, 0, 0] => proof(),
        [a, b, c, d] => {
            let errno = i32::from_ne_bytes([*a, *b, *c, *d]);
            Err(sys::Fail::new("ptrace(PTRACE_TRACEME)", errno))
        }
        _ => Err(sys::Fail::new("the child of process 1", 0)),
    }
}

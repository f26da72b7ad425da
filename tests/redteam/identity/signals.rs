//! Signals to processes outside the run, and to the daemon.

use std::os::fd::OwnedFd;

use nix::libc::{self, O_RDONLY, SIGCHLD, SIGCONT, SIGKILL, SIGSTOP, SIGURG, SIGWINCH};

use super::{deed, proof, target};
use crate::attempt::{Attempt, write};
use crate::field::{Field, User};
use crate::stage;
use crate::sys::{self, Try, call};
use crate::victim;

const F_SETOWN: i32 = 8;
const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;
const F_OWNER_PID: u32 = 1;
const FIOSETOWN: u32 = 0x8901;
const SIOCSPGRP: u32 = 0x8902;
const O_ASYNC: i32 = 0o20000;

const fn at(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    deed(id, attack)
        .prepare(victim::untagged)
        .look(victim::state)
}

pub const ATTEMPTS: &[Attempt] = &[
    // By the agent whose control is a process of its own run.
    write("identity-kill-own-run-only", |field| {
        let victim = victim::of(field, O_RDONLY)?;
        call!(SYS_kill, victim.pid, SIGKILL)?;
        if field.is_control() {
            return proof();
        }
        sys::done()
    })
    .prepare(|field| victim::place(field, O_RDONLY))
    .look(victim::state),
    at("identity-kill", |field| {
        sent(call!(SYS_kill, target(field), SIGKILL))
    }),
    at("identity-kill-stop", |field| {
        sent(call!(SYS_kill, target(field), SIGSTOP))
    }),
    at("identity-kill-continue", |field| {
        sent(call!(SYS_kill, target(field), SIGCONT))
    })
    .prepare(|field| {
        victim::untagged(field)?;
        call!(SYS_kill, target(field), SIGSTOP)?;
        Ok(())
    }),
    at("identity-kill-group", |field| {
        sent(call!(SYS_kill, -target(field).cast_signed(), SIGKILL))
    }),
    // Everybody, by signals that nobody minds; victims hold them back, so that they show.
    at("identity-kill-everybody", |field| {
        // Each hits the victims of the others.
        let signal = match (field.user, field.is_control()) {
            (User::Root, true) => SIGURG,
            (User::Root, false) => SIGWINCH,
            (User::Ordinary, true) => SIGCHLD,
            (User::Ordinary, false) => SIGCONT,
        };
        sent(call!(SYS_kill, -1, signal))
    }),
    at("identity-tkill", |field| {
        sent(call!(SYS_tkill, target(field), SIGKILL))
    }),
    at("identity-tgkill", |field| {
        sent(call!(SYS_tgkill, target(field), target(field), SIGKILL))
    }),
    at("identity-sigqueue", |field| {
        let info = information(SIGKILL);
        sent(call!(
            SYS_rt_sigqueueinfo,
            target(field),
            SIGKILL,
            &info[..]
        ))
    }),
    at("identity-sigqueue-thread", |field| {
        let (info, pid) = (information(SIGKILL), target(field));
        sent(call!(SYS_rt_tgsigqueueinfo, pid, pid, SIGKILL, &info[..]))
    }),
    at("identity-pidfd-signal", |field| {
        let process = sys::owned(call!(SYS_pidfd_open, target(field), 0)?);
        sent(call!(SYS_pidfd_send_signal, &process, SIGKILL, 0, 0))
    }),
    at("identity-pidfd-signal-received", |field| {
        let _ = field;
        let process = stage::receive()?;
        sent(call!(SYS_pidfd_send_signal, &process, SIGKILL, 0, 0))
    })
    .receives(|field| Ok(sys::owned(call!(SYS_pidfd_open, target(field), 0)?))),
    at("identity-signal-by-owner", |field| {
        let (from, to) = owned_by(field, libc::SIGIO)?;
        call!(SYS_fcntl, &from, F_SETOWN, target(field))?;
        ready(&from, &to)
    }),
    at("identity-signal-by-owner-group", |field| {
        let (from, to) = owned_by(field, libc::SIGIO)?;
        call!(SYS_fcntl, &from, F_SETOWN, -target(field).cast_signed())?;
        ready(&from, &to)
    }),
    at("identity-signal-by-owner-structure", |field| {
        let (from, to) = owned_by(field, libc::SIGIO)?;
        let owner = sys::halves(&[F_OWNER_PID, target(field) as u32]);
        call!(SYS_fcntl, &from, F_SETOWN_EX, &owner[..])?;
        ready(&from, &to)
    }),
    at("identity-signal-by-owner-chosen", |field| {
        let (from, to) = owned_by(field, SIGKILL)?;
        call!(SYS_fcntl, &from, F_SETOWN, target(field))?;
        ready(&from, &to)
    }),
    at("identity-signal-by-ioctl-owner", |field| {
        by_ioctl(field, FIOSETOWN)
    }),
    at("identity-signal-by-ioctl-group", |field| {
        by_ioctl(field, SIOCSPGRP)
    }),
    deed("identity-signal-daemon", |field| {
        call!(SYS_kill, stage::daemon(&field.root), SIGURG)?;
        proof()
    })
    .root_only("the daemon belongs to root"),
    deed("identity-signal-init", |_| {
        call!(SYS_kill, 1, SIGURG)?;
        proof()
    })
    .root_only("process 1 belongs to root"),
];

fn sent(result: Try<i64>) -> Try {
    result?;
    sys::done()
}

/// A `siginfo_t` as a program may send it (`SI_QUEUE`).
fn information(signal: i32) -> Vec<u8> {
    let mut info = sys::halves(&[signal.cast_unsigned(), 0, (-1_i32).cast_unsigned()]);
    info.resize(128, 0);
    info
}

/// A pair of sockets, of which the first sends this signal when there is something to read.
fn owned_by(_: &Field, signal: i32) -> Try<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 8];
    call!(
        SYS_socketpair,
        libc::AF_UNIX,
        libc::SOCK_STREAM,
        0,
        &mut ends[..]
    )?;
    let end = |at: usize| i32::from_ne_bytes([ends[at], ends[at + 1], ends[at + 2], ends[at + 3]]);
    let (from, to) = (sys::owned(end(0).into()), sys::owned(end(4).into()));
    call!(SYS_fcntl, &from, F_SETSIG, signal)?;
    Ok((from, to))
}

fn ready(from: &OwnedFd, to: &OwnedFd) -> Try {
    call!(SYS_fcntl, from, libc::F_SETFL, O_ASYNC)?;
    sys::mark(to)
}

fn by_ioctl(field: &Field, command: u32) -> Try {
    let (from, to) = owned_by(field, libc::SIGIO)?;
    let who = (target(field) as u32).to_ne_bytes();
    call!(SYS_ioctl, &from, command, &who[..])?;
    ready(&from, &to)
}

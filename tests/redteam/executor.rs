//! The process that carries attempts out: tagged, or without a tag to see whether a
//! technique works here at all. Each attempt is made in a child of its own, which
//! has the tag from birth and takes what it did to itself along when it ends.

use std::io::{self, BufRead as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::libc;
use serde_json::{Value, json};

use crate::attempt::Attempt;
use crate::field::{Field, Side, User};
use crate::sys::{self, Child, Fail, Try, call};

/// The first argument that makes the program this.
pub const WORD: &str = "execute";
/// Tells the descriptors from before the tag: `id/side=number` each.
pub const INHERITED: &str = "REDTEAM_INHERITED";
/// Tells the descriptor of the socket on which others are sent.
pub const SOCKET: &str = "REDTEAM_SOCKET";
/// Seconds after which an attempt is taken to hang.
const PATIENCE: u32 = 10;
/// Time between two looks at a child that says nothing.
const LOOK_MILLISECONDS: i32 = 50;

/// Does what its input says, until that ends.
pub fn main(arguments: &[String]) -> Result<std::process::ExitCode> {
    let [root, user] = arguments else {
        anyhow::bail!("{WORD}: DIRECTORY USER");
    };
    let user = User::BOTH
        .into_iter()
        .find(|known| known.name() == user)
        .context("no such user")?;
    let attempts = crate::attempts();
    say(&json!({ "pid": std::process::id(), "run": std::env::var("AGENTGUARD_RUN_ID").ok() }))?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (id, side) = line.split_once(' ').context("ID SIDE")?;
        let attempt = attempts
            .iter()
            .find(|attempt| attempt.id == id)
            .context("no such attempt")?;
        let side = Side::BOTH
            .into_iter()
            .find(|known| known.name() == side)
            .context("no such side")?;
        let mut field = Field::new(Path::new(root), attempt, user, side);
        field.inherited = inherited(id, side);
        let outcome = in_child(attempt, &field);
        drain();
        say(&answer(outcome))?;
    }
    Ok(std::process::ExitCode::SUCCESS)
}

fn say(value: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

fn answer(outcome: Try) -> Value {
    match outcome {
        Ok(data) => json!({ "ok": true, "data": String::from_utf8_lossy(&data) }),
        Err(fail) => json!({ "ok": false, "step": fail.step, "errno": fail.errno }),
    }
}

fn inherited(id: &str, side: Side) -> i32 {
    let wanted = format!("{id}/{}", side.name());
    std::env::var(INHERITED)
        .unwrap_or_default()
        .split(',')
        .filter_map(|entry| entry.split_once('='))
        .find(|(name, _)| *name == wanted)
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(-1)
}

/// The socket on which the driver sends descriptors.
pub fn socket() -> i32 {
    std::env::var(SOCKET)
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(-1)
}

/// Throws away what an attempt did not take.
fn drain() {
    let mut room = [0; 64];
    while call!(
        SYS_recvfrom,
        socket(),
        &mut room[..],
        64,
        libc::MSG_DONTWAIT,
        0,
        0
    )
    .is_ok()
    {}
}

/// Makes the attempt in a child, and gives back what the child reports.
fn in_child(attempt: &Attempt, field: &Field) -> Try {
    let (from, to) = sys::pipe()?;
    let child = sys::fork(|| {
        // A group of its own: what it leaves running goes with it.
        call!(SYS_setpgid, 0, 0)?;
        call!(SYS_alarm, PATIENCE)?;
        let outcome = (attempt.attack)(field);
        let (kind, bytes) = match &outcome {
            Ok(data) => (b'o', data.clone()),
            Err(fail) => (b'f', format!("{} {}", fail.errno, fail.step).into_bytes()),
        };
        let mut message = vec![kind];
        message.extend(bytes);
        let mut rest = &message[..];
        while !rest.is_empty() {
            let written = call!(SYS_write, &to, rest, rest.len())?;
            rest = &rest[written as usize..];
        }
        sys::done()
    })?;
    drop(to);
    let (message, status) = report(from.as_raw_fd(), &child)?;
    match message.split_first() {
        Some((b'o', data)) => Ok(data.to_vec()),
        Some((_, text)) => {
            let text = String::from_utf8_lossy(text);
            let (errno, step) = text.split_once(' ').unwrap_or(("0", &text));
            Err(Fail::new(step, errno.parse().unwrap_or(0)))
        }
        None => Err(Fail::new(
            format!("the attempt's process (wait status {status:#x})"),
            0,
        )),
    }
}

/// What the child says, and its wait status. What it leaves running is ended: it may hold
/// the pipe open.
fn report(fd: i32, child: &Child) -> Try<(Vec<u8>, i32)> {
    let mut message = Vec::new();
    let mut ended = None;
    loop {
        let mut wanted = sys::halves(&[fd.cast_unsigned(), u32::from(libc::POLLIN as u16)]);
        if call!(SYS_poll, &mut wanted[..], 1, LOOK_MILLISECONDS)? > 0 {
            let some = sys::read_raw(fd)?;
            if some.is_empty() {
                break;
            }
            message.extend(some);
        }
        if ended.is_none() {
            ended = child.ended()?;
        }
        if ended.is_some() {
            let _ = call!(SYS_kill, -child.pid, libc::SIGKILL);
        }
    }
    let status = match ended {
        Some(status) => status,
        None => child.wait()?,
    };
    let _ = call!(SYS_kill, -child.pid, libc::SIGKILL);
    Ok((message, status))
}

/// Everything until the end of a pipe.
pub fn read_all(fd: i32) -> Try {
    let mut all = Vec::new();
    loop {
        let some = sys::read_raw(fd)?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}

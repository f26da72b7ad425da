//! Processes that attempts are made on: untagged ones for the denied side, a child of
//! the tagged process for the control. Both hold the same things: the token in memory
//! and environment, the file open, its directory as the working directory.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use serde_json::Value;

use crate::field::Field;
use crate::sys::{self, Fail, Map, Try, call};

/// The first argument that makes the program this.
pub const WORD: &str = "victim";
/// The variable that holds the token.
pub const VARIABLE: &str = "REDTEAM_TOKEN";
/// Length of the memory that attempts read and write.
pub const MEMORY: usize = 256;
/// `prctl` option and value by which Yama lets others trace a process.
const PR_SET_PTRACER: i32 = 0x5961_6d61;

/// The longest that a signal takes to show.
const SETTLING: std::time::Duration = std::time::Duration::from_millis(20);

/// What an attempt has to know of a victim.
#[derive(Clone, Copy, Debug)]
pub struct Victim {
    /// Its process.
    pub pid: u64,
    /// Where its memory is.
    pub address: u64,
    /// Its descriptor of the file.
    pub fd: u64,
}

/// Stands there until its input ends.
pub fn main(arguments: &[String]) -> Result<ExitCode> {
    let [flags, path] = arguments else {
        anyhow::bail!("{WORD}: FLAGS PATH");
    };
    call!(SYS_prctl, PR_SET_PTRACER, -1_i64).ok();
    hold_back()?;
    let token = std::env::var(VARIABLE).unwrap_or_default();
    let file = sys::open(path.as_ref(), flags.parse()?)?;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let memory = Map::new(MEMORY, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)?;
    memory.store(token.as_bytes());
    let mapped = Map::new(
        MEMORY,
        libc::PROT_READ,
        libc::MAP_SHARED,
        file.as_raw_fd(),
        0,
    );
    println!(
        "{{\"pid\":{},\"address\":{},\"fd\":{}}}",
        std::process::id(),
        memory.address as u64,
        file.as_raw_fd()
    );
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(mapped);
    Ok(ExitCode::SUCCESS)
}

/// Holds back the signals that attempts send to everybody: so they show, and do nothing.
fn hold_back() -> Result<()> {
    let held = [libc::SIGURG, libc::SIGWINCH, libc::SIGCHLD, libc::SIGCONT];
    let bits = held
        .iter()
        .fold(0_u64, |bits, signal| bits | 1 << (signal - 1));
    let set = sys::words(&[bits]);
    call!(SYS_rt_sigprocmask, libc::SIG_BLOCK, &set[..], 0, set.len())?;
    Ok(())
}

fn command(field: &Field, flags: i32) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(WORD)
        .arg(flags.to_string())
        .arg(field.file())
        .env_clear()
        .current_dir(&field.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    Ok(command)
}

/// Has an untagged victim for the denied side; it goes when the driver does.
pub fn place(field: &Field, flags: i32) -> Result<()> {
    if field.is_control() {
        return Ok(());
    }
    start(field, flags)
}

/// Has one for either side, in a process group of its own.
pub fn untagged(field: &Field) -> Result<()> {
    start(field, libc::O_RDONLY)
}

fn start(field: &Field, flags: i32) -> Result<()> {
    let uid = field.user.uid();
    let mut child = command(field, flags)?
        .env(VARIABLE, &field.token)
        .uid(uid)
        .gid(uid)
        .process_group(0)
        .spawn()
        .context("cannot start a victim")?;
    let mut line = String::new();
    let out = child.stdout.take().context("no output")?;
    BufReader::new(out).read_line(&mut line)?;
    let facts: Value = serde_json::from_str(&line).context("the victim says nothing")?;
    ensure!(facts["pid"].as_u64() == Some(child.id().into()), "{facts}");
    field.note(&facts)?;
    // Held until the driver's end, which closes it, which ends the victim.
    std::mem::forget(child.stdin.take());
    Ok(())
}

/// The one for this side; for the control a child of this process is started.
pub fn of(field: &Field, flags: i32) -> Try<Victim> {
    if !field.is_control() {
        return Ok(Victim {
            pid: field.noted("pid"),
            address: field.noted("address"),
            fd: field.noted("fd"),
        });
    }
    let start = || -> Result<Victim> {
        let content = std::fs::read_to_string(field.file())?;
        let mut child = command(field, flags)?
            .env(VARIABLE, content.trim())
            .spawn()?;
        std::mem::forget(child.stdin.take());
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let facts: Value = serde_json::from_str(&line)?;
        let number = |name: &str| facts[name].as_u64().context("missing");
        Ok(Victim {
            pid: number("pid")?,
            address: number("address")?,
            fd: number("fd")?,
        })
    };
    start().map_err(|error| Fail::new(format!("the control's victim: {error:#}"), 0))
}

/// Whether the untagged victim runs, and which signals it has been sent.
pub fn state(field: &Field) -> Result<String> {
    let pid = field.noted("pid");
    if pid == 0 {
        // The control's is a child of the tagged process.
        return Ok(String::new());
    }
    // One that was killed is for a moment neither told of it nor gone.
    std::thread::sleep(SETTLING);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut text = String::new();
    for line in status.lines() {
        let state = line.strip_prefix("State:").map(str::trim);
        match state.and_then(|state| state.chars().next()) {
            Some('Z' | 'X') => text.push_str("ended\n"),
            Some('T' | 't') => text.push_str("stopped\n"),
            Some(_) => text.push_str("runs\n"),
            None if line.starts_with("SigPnd:") || line.starts_with("ShdPnd:") => {
                text.push_str(line);
                text.push('\n');
            }
            None => {}
        }
    }
    Ok(text)
}

/// Limits, priority and scheduler of the untagged victim.
pub fn settings(field: &Field) -> Result<String> {
    let pid = field.noted("pid");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let number = |at: usize| fields.get(at).copied().unwrap_or_default();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    // proc(5) counts them from 1, with the number and the name in front.
    Ok(format!(
        "nice {} policy {}\n{limits}",
        number(17),
        number(39)
    ))
}

/// What the memory of the untagged victim holds now.
pub fn look_at_memory(field: &Field) -> Result<String> {
    if field.is_control() {
        return Ok(String::new());
    }
    let mut room = [0; MEMORY];
    let memory = std::fs::File::open(format!("/proc/{}/mem", field.noted("pid")))?;
    memory.read_exact_at(&mut room, field.noted("address"))?;
    Ok(String::from_utf8_lossy(&room).into_owned())
}

impl Victim {
    /// Reads its memory in one call.
    pub fn memory(&self) -> Try {
        let mut room = vec![0; MEMORY];
        let local = sys::words(&[room.as_mut_ptr() as u64, MEMORY as u64]);
        let remote = sys::words(&[self.address, MEMORY as u64]);
        let (local, remote) = (&local[..], &remote[..]);
        call!(SYS_process_vm_readv, self.pid, local, 1, remote, 1, 0)?;
        Ok(room)
    }

    /// A file of it in `/proc`.
    pub fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}

/// For the control of writing to memory: what it holds now, if that is the mark.
pub fn memory_of_child(field: &Field, victim: &Victim) -> Try {
    if !field.is_control() {
        return sys::done();
    }
    if victim.memory()?.starts_with(sys::MARK) {
        return Ok(PROOF.to_vec());
    }
    Err(Fail::new(
        "the memory of the control's victim is unchanged",
        0,
    ))
}

/// Shown only when something took effect that no directory shows.
pub const PROOF: &[u8] = b"the effect is there";

//! What `/proc` and the tracing calls offer.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::libc::{self, O_PATH, O_RDONLY, O_RDWR, O_WRONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::sys::{self, Fail, MARK, Try, call};
use crate::victim::{self, MEMORY, PROOF};

const DOMAIN: &str = "/proc/sys/kernel/domainname";
const CORE: &str = "/proc/sys/kernel/core_pattern";
const SETTINGS: &str = "only root changes the kernel's settings";

pub const ATTEMPTS: &[Attempt] = &[
    write("proc-self-root", |field| {
        let below = field.file();
        let path = Path::new("/proc/self/root").join(below.strip_prefix("/").unwrap_or(&below));
        sys::mark(&sys::open(&path, O_WRONLY)?)
    }),
    write("proc-self-cwd", |field| {
        call!(SYS_chdir, &field.dir)?;
        sys::mark(&sys::open(Path::new("/proc/self/cwd/f"), O_WRONLY)?)
    }),
    write("proc-fd-reopen", |field| {
        let fd = sys::open(&field.file(), O_RDONLY)?;
        reopened(fd.as_raw_fd(), O_WRONLY)
    }),
    write("proc-fd-reopen-path-descriptor", |field| {
        let fd = sys::open(&field.file(), O_PATH)?;
        reopened(fd.as_raw_fd(), O_RDWR)
    }),
    write("proc-fd-reopen-inherited", |field| {
        reopened(field.inherited, O_WRONLY)
    })
    .inherits(|field| Ok(sys::open(&field.file(), O_PATH)?)),
    write("proc-mem-write", |field| {
        let victim = victim::of(field, O_RDONLY)?;
        let memory = sys::open(&of(victim.pid, "mem"), O_WRONLY)?;
        call!(SYS_pwrite64, &memory, MARK, MARK.len(), victim.address)?;
        victim::memory_of_child(field, &victim)
    })
    // The lookup in /proc turns the refusal into this one.
    .refused_as(libc::EACCES)
    .prepare(reader)
    .look(victim::look_at_memory),
    write("process-vm-writev", |field| {
        let victim = victim::of(field, O_RDONLY)?;
        let remote = sys::words(&[victim.address, MARK.len() as u64]);
        let local = sys::iovec(MARK);
        call!(
            SYS_process_vm_writev,
            victim.pid,
            &local[..],
            1,
            &remote[..],
            1,
            0
        )?;
        victim::memory_of_child(field, &victim)
    })
    .prepare(reader)
    .look(victim::look_at_memory),
    write("ptrace-poke", |field| {
        let victim = victim::of(field, O_RDONLY)?;
        attach(victim.pid)?;
        for (at, word) in MARK.chunks_exact(8).enumerate() {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            let word = u64::from_ne_bytes(bytes);
            let address = victim.address + at as u64 * 8;
            call!(SYS_ptrace, libc::PTRACE_POKEDATA, victim.pid, address, word)?;
        }
        call!(SYS_ptrace, libc::PTRACE_DETACH, victim.pid, 0, 0)?;
        victim::memory_of_child(field, &victim)
    })
    .prepare(reader)
    .look(victim::look_at_memory),
    read("read-proc-mem", |field| {
        let victim = victim::of(field, O_RDONLY)?;
        let memory = sys::open(&of(victim.pid, "mem"), O_RDONLY)?;
        let mut room = [0; MEMORY];
        call!(SYS_pread64, &memory, &mut room[..], MEMORY, victim.address)?;
        Ok(room.to_vec())
    })
    // The lookup in /proc turns the refusal into this one.
    .refused_as(libc::EACCES)
    .prepare(reader),
    read("read-process-vm-readv", |field| {
        let victim = victim::of(field, O_RDONLY)?;
        let mut room = vec![0; MEMORY];
        let local = sys::words(&[room.as_mut_ptr() as u64, MEMORY as u64]);
        let remote = sys::words(&[victim.address, MEMORY as u64]);
        call!(
            SYS_process_vm_readv,
            victim.pid,
            &local[..],
            1,
            &remote[..],
            1,
            0
        )?;
        Ok(room)
    })
    .prepare(reader),
    read("read-ptrace-peek", peek).prepare(reader),
    read("read-proc-environ", |field| {
        sys::read(&sys::open(
            &of(victim::of(field, O_RDONLY)?.pid, "environ"),
            O_RDONLY,
        )?)
    })
    // The lookup in /proc turns the refusal into this one.
    .refused_as(libc::EACCES)
    .prepare(reader),
    read("read-proc-maps", |field| {
        let maps = sys::open(&of(victim::of(field, O_RDONLY)?.pid, "maps"), O_RDONLY)?;
        let text = String::from_utf8_lossy(&sys::read(&maps)?).into_owned();
        if text.contains(&*field.dir.to_string_lossy()) {
            return Ok(PROOF.to_vec());
        }
        Err(Fail::new("maps without the file", 0))
    })
    // The lookup in /proc turns the refusal into this one.
    .refused_as(libc::EACCES)
    .prepare(reader),
    read("read-proc-fd", |field| {
        let victim = victim::of(field, O_RDONLY)?;
        sys::read(&sys::open(
            &of(victim.pid, &format!("fd/{}", victim.fd)),
            O_RDONLY,
        )?)
    })
    // The lookup in /proc turns the refusal into this one.
    .refused_as(libc::EACCES)
    .prepare(reader),
    read("read-proc-root", |field| {
        let file = field.file();
        let below = Path::new("root").join(file.strip_prefix("/").unwrap_or(&file));
        let victim = victim::of(field, O_RDONLY)?;
        sys::read(&sys::open(
            &of(victim.pid, &below.to_string_lossy()),
            O_RDONLY,
        )?)
    })
    // The lookup in /proc turns the refusal into this one.
    .refused_as(libc::EACCES)
    .prepare(reader),
    read("read-proc-cwd", |field| {
        let victim = victim::of(field, O_RDONLY)?;
        sys::read(&sys::open(&of(victim.pid, "cwd/f"), O_RDONLY)?)
    })
    // The lookup in /proc turns the refusal into this one.
    .refused_as(libc::EACCES)
    .prepare(reader),
    read("read-proc-map-files", map_files)
        // The lookup in /proc turns the refusal into this one.
        .refused_as(libc::EACCES)
        .prepare(reader)
        .root_only("map_files wants CAP_CHECKPOINT_RESTORE"),
    write("kernel-setting-domainname", |field| set(field, DOMAIN))
        .look(|_| Ok(fs::read_to_string(DOMAIN)?))
        .root_only(SETTINGS)
        .lifted(),
    write("kernel-setting-core-pattern", |field| set(field, CORE))
        .look(|_| Ok(fs::read_to_string(CORE)?))
        .root_only(SETTINGS)
        .lifted(),
    write("core-dump", dump),
    write("process-accounting", |field| {
        call!(SYS_acct, &field.file())?;
        sys::fork(sys::done)?.wait()?;
        call!(SYS_acct, 0)?;
        sys::done()
    })
    .root_only("accounting is switched on with CAP_SYS_PACCT")
    .lacks(&[(libc::ENOSYS, "the kernel has no process accounting")]),
];

/// An untagged process that has the file open for reading.
fn reader(field: &Field) -> Result<()> {
    victim::place(field, O_RDONLY)
}

fn of(pid: u64, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

fn reopened(fd: i32, flags: i32) -> Try {
    sys::mark(&sys::open(
        Path::new(&format!("/proc/self/fd/{fd}")),
        flags,
    )?)
}

fn attach(pid: u64) -> Try {
    call!(SYS_ptrace, libc::PTRACE_ATTACH, pid, 0, 0)?;
    call!(SYS_wait4, pid, 0, libc::__WALL, 0)?;
    sys::done()
}

fn peek(field: &Field) -> Try {
    let victim = victim::of(field, O_RDONLY)?;
    attach(victim.pid)?;
    let mut bytes = Vec::new();
    for at in (0..MEMORY as u64).step_by(8) {
        let mut word = [0; 8];
        let address = victim.address + at;
        call!(
            SYS_ptrace,
            libc::PTRACE_PEEKDATA,
            victim.pid,
            address,
            &mut word[..]
        )?;
        bytes.extend(word);
    }
    call!(SYS_ptrace, libc::PTRACE_DETACH, victim.pid, 0, 0)?;
    Ok(bytes)
}

/// Opens the file by its place in the victim's memory.
fn map_files(field: &Field) -> Try {
    let victim = victim::of(field, O_RDONLY)?;
    for entry in fs::read_dir(of(victim.pid, "map_files"))? {
        let path = entry?.path();
        if fs::read_link(&path).is_ok_and(|target| target == field.file()) {
            return sys::read(&sys::open(&path, O_RDONLY)?);
        }
    }
    Err(Fail::new("map_files without the file", 0))
}

fn set(field: &Field, setting: &str) -> Try {
    let fd = sys::open(Path::new(setting), O_WRONLY)?;
    let value = format!("redteam-{}\n", field.side.name());
    call!(SYS_write, &fd, value.as_bytes(), value.len())?;
    sys::done()
}

/// Has the kernel write the memory of a process into the directory.
fn dump(field: &Field) -> Try {
    let child = sys::fork(|| {
        call!(SYS_chdir, &field.dir)?;
        let most = sys::words(&[1 << 26, 1 << 26]);
        call!(SYS_setrlimit, libc::RLIMIT_CORE, &most[..])?;
        call!(SYS_kill, i64::from(std::process::id()), libc::SIGABRT)?;
        sys::done()
    })?;
    match child.wait()? {
        status if libc::WIFSIGNALED(status) => sys::done(),
        status => Err(Fail::new("the process that dumps", status >> 8)),
    }
}

//! What `/proc` and the tracing calls offer.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Result;
use nix::libc::{self, O_PATH, O_RDONLY, O_RDWR, O_WRONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::sys::{self, Fail, MARK, Try, call, content};
use crate::victim::{self, MEMORY, PROOF, Victim};

const DOMAIN: &str = "/proc/sys/kernel/domainname";
const CORE: &str = "/proc/sys/kernel/core_pattern";
/// The lookup in /proc turns a refusal into this one.
const IN_PROC: i32 = libc::EACCES;
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
        let memory = sys::open(&victim.proc("mem"), O_WRONLY)?;
        call!(SYS_pwrite64, &memory, MARK, MARK.len(), victim.address)?;
        victim::memory_of_child(field, &victim)
    })
    .refused_as(IN_PROC)
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
        memory(&victim, "mem")
    })
    .refused_as(IN_PROC)
    .prepare(reader),
    read("read-process-vm-readv", |field| {
        victim::of(field, O_RDONLY)?.memory()
    })
    .prepare(reader),
    read("read-ptrace-peek", peek).prepare(reader),
    read("read-proc-environ", |field| of_victim(field, "environ"))
        .refused_as(IN_PROC)
        .prepare(reader),
    read("read-proc-auxv", |field| named(field, "auxv", b"\x21"))
        .refused_as(IN_PROC)
        .prepare(reader),
    read("read-proc-maps", |field| {
        named(field, "maps", field.dir.as_os_str().as_bytes())
    })
    .refused_as(IN_PROC)
    .prepare(reader),
    read("read-proc-smaps", |field| {
        named(field, "smaps", b"Private_Dirty")
    })
    .refused_as(IN_PROC)
    .prepare(reader),
    read("read-proc-fd", |field| {
        let victim = victim::of(field, O_RDONLY)?;
        content(&victim.proc(&format!("fd/{}", victim.fd)))
    })
    .refused_as(IN_PROC)
    .prepare(reader),
    read("read-proc-root", |field| {
        let file = field.file();
        let below = Path::new("root").join(file.strip_prefix("/").unwrap_or(&file));
        of_victim(field, &below.to_string_lossy())
    })
    .refused_as(IN_PROC)
    .prepare(reader),
    read("read-proc-cwd", |field| of_victim(field, "cwd/f"))
        .refused_as(IN_PROC)
        .prepare(reader),
    read("read-proc-task-mem", |field| {
        let victim = victim::of(field, O_RDONLY)?;
        memory(&victim, &format!("task/{}/mem", victim.pid))
    })
    .refused_as(IN_PROC)
    .prepare(reader),
    read("read-proc-map-files", map_files)
        .refused_as(IN_PROC)
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
    .lifted()
    .lacks(&[(libc::ENOSYS, "the kernel has no process accounting")]),
];

/// An untagged process that has the file open for reading.
fn reader(field: &Field) -> Result<()> {
    victim::place(field, O_RDONLY)
}

/// Reads a file of the victim's.
fn of_victim(field: &Field, name: &str) -> Try {
    content(&victim::of(field, O_RDONLY)?.proc(name))
}

/// Reads a file of the victim's in which some bytes have to be.
fn named(field: &Field, name: &str, bytes: &[u8]) -> Try {
    let content = of_victim(field, name)?;
    if content.windows(bytes.len()).any(|window| window == bytes) {
        return Ok(PROOF.to_vec());
    }
    Err(Fail::new(format!("{name} without what it should have"), 0))
}

fn memory(victim: &Victim, name: &str) -> Try {
    let memory = sys::open(&victim.proc(name), O_RDONLY)?;
    let mut room = [0; MEMORY];
    call!(SYS_pread64, &memory, &mut room[..], MEMORY, victim.address)?;
    Ok(room.to_vec())
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
    for entry in fs::read_dir(victim.proc("map_files"))? {
        let path = entry?.path();
        if fs::read_link(&path)? == field.file() {
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

//! Executing what must not be executed.

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::Result;
use nix::libc::{self, AT_EMPTY_PATH, MAP_PRIVATE, O_PATH, O_RDONLY, PROT_EXEC, PROT_READ};

use crate::attempt::{Attempt, exec};
use crate::executor;
use crate::field::Field;
use crate::stage::receive;
use crate::sys::{self, Map, Try, call};
use crate::victim::PROOF;

/// Prints its arguments.
const PROGRAM: &str = "/bin/echo";
/// Runs dynamically linked programs that it is given.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

pub const ATTEMPTS: &[Attempt] = &[
    exec("execve", |field| ran(|| start(&field.at("p"), &[]))).prepare(program),
    exec("execveat-directory", |field| {
        let directory = sys::open(&field.dir, O_PATH)?;
        ran(|| start_at(directory.as_raw_fd(), Path::new("p"), 0))
    })
    .prepare(program),
    exec("execveat-path-descriptor", |field| {
        let file = sys::open(&field.at("p"), O_PATH)?;
        ran(|| start_at(file.as_raw_fd(), Path::new(""), AT_EMPTY_PATH))
    })
    .prepare(program),
    exec("execveat-inherited", |field| {
        ran(|| start_at(field.inherited, Path::new(""), AT_EMPTY_PATH))
    })
    .prepare(program)
    .inherits(opened),
    exec("execveat-received", |_| {
        let file = receive()?;
        ran(|| start_at(file.as_raw_fd(), Path::new(""), AT_EMPTY_PATH))
    })
    .prepare(program)
    .receives(opened),
    exec("execve-by-proc", |field| {
        let file = sys::open(&field.at("p"), O_PATH)?;
        ran(|| start(&sys::by_proc(&file), &[]))
    })
    .prepare(program),
    exec("execve-by-symlink", |field| {
        call!(SYS_symlink, &field.at("p"), &field.scratch("link"))?;
        ran(|| start(&field.scratch("link"), &[]))
    })
    .prepare(program),
    exec("execve-by-hard-link", |field| {
        ran(|| start(&field.scratch("link"), &[]))
    })
    .prepare(|field| {
        program(field)?;
        Ok(fs::hard_link(field.at("p"), field.scratch("link"))?)
    }),
    exec("execve-as-interpreter", |field| {
        let script = field.scratch("script");
        fs::write(&script, format!("#!{}\n", field.at("p").display()))?;
        call!(SYS_chmod, &script, 0o755)?;
        // It prints its own name: the script's.
        ran(|| start(&script, &[]))
    })
    .prepare(program),
    exec("execute-by-loader", |field| {
        let program = sys::c_path(&field.at("p"));
        ran(|| start(Path::new(LOADER), &[&program]))
    })
    // The loader says what happened to it on standard error, and ends with this code.
    .refused_as(127)
    .prepare(program)
    .lacks(&[(libc::ENOENT, "this host has no dynamic loader")]),
    exec("mmap-executable", |field| {
        mapped(&sys::open(&field.at("p"), O_RDONLY)?)
    })
    .prepare(program),
    exec("mmap-executable-inherited", |field| {
        let copy = sys::owned(call!(SYS_dup, field.inherited)?);
        mapped(&copy)
    })
    .prepare(program)
    .inherits(|field| Ok(sys::open(&field.at("p"), O_RDONLY)?)),
    exec("mprotect-executable", |field| {
        let fd = sys::open(&field.at("p"), O_RDONLY)?;
        let map = Map::new(4096, PROT_READ, MAP_PRIVATE, fd.as_raw_fd(), 0)?;
        call!(
            SYS_mprotect,
            map.address as u64,
            4096,
            PROT_READ | PROT_EXEC
        )?;
        Ok(PROOF.to_vec())
    })
    .prepare(program),
    exec("execute-copy", |field| {
        fs::copy(field.at("p"), field.scratch("copy"))?;
        ran(|| start(&field.scratch("copy"), &[]))
    })
    .prepare(program),
    exec("execute-memfd", |field| {
        let bytes = fs::read(field.at("p"))?;
        let memory = sys::owned(call!(SYS_memfd_create, c"copy", 0)?);
        call!(SYS_write, &memory, &bytes[..], bytes.len())?;
        ran(|| start_at(memory.as_raw_fd(), Path::new(""), AT_EMPTY_PATH))
    })
    .prepare(program),
];

fn program(field: &Field) -> Result<()> {
    field.put_program(&field.at("p"), PROGRAM)
}

fn opened(field: &Field) -> Result<OwnedFd> {
    Ok(sys::open(&field.at("p"), O_PATH)?)
}

/// Runs something with its output read, and gives back that output.
fn ran(start: impl FnOnce() -> Try) -> Try {
    let (from, to) = sys::pipe()?;
    let child = sys::fork(|| {
        call!(SYS_dup2, &to, 1)?;
        start()
    })?;
    drop(to);
    let output = executor::read_all(from.as_raw_fd())?;
    let status = child.wait()?;
    if status != 0 {
        return Err(sys::Fail::new("execve", status >> 8));
    }
    Ok(output)
}

/// Becomes the program, which then prints the proof.
fn start(path: &Path, first: &[&CStr]) -> Try {
    let arguments = arguments(first);
    let environment = sys::words(&[0]);
    call!(SYS_execve, path, &arguments[..], &environment[..])?;
    sys::done()
}

fn start_at(directory: i32, path: &Path, flags: i32) -> Try {
    let arguments = arguments(&[]);
    let environment = sys::words(&[0]);
    call!(
        SYS_execveat,
        directory,
        path,
        &arguments[..],
        &environment[..],
        flags
    )?;
    sys::done()
}

const PROOF_TEXT: &CStr = c"the effect is there";

/// The argument vector: a name, what comes first, the proof.
fn arguments(first: &[&CStr]) -> Vec<u8> {
    let mut addresses = vec![c"echo".as_ptr() as u64];
    addresses.extend(first.iter().map(|text| text.as_ptr() as u64));
    addresses.extend([PROOF_TEXT.as_ptr() as u64, 0]);
    sys::words(&addresses)
}

/// Maps its beginning executable: a loader of the agent's own would go on from there.
fn mapped(fd: &OwnedFd) -> Try {
    Map::new(4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd.as_raw_fd(), 0)?;
    Ok(PROOF.to_vec())
}

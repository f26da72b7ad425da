//! io_uring: the same operations without a system call for each.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::Result;
use nix::libc::{self, AT_FDCWD, O_RDONLY, O_RDWR, O_WRONLY};
use serde_json::json;

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::ring::{ASYNC, Entry, FIXED_FILE, Ring, SQPOLL, op};
use crate::sys::{self, MARK, Try, call};
use crate::victim::PROOF;

const LACKS: &[(i32, &str)] = &[
    (libc::ENOSYS, "the kernel has no such io_uring operation"),
    (
        libc::EPERM,
        "io_uring is switched off (kernel.io_uring_disabled)",
    ),
];
const XATTR: &[u8] = b"user.redteam\0";

pub const ATTEMPTS: &[Attempt] = &[
    write("uring-openat", |field| opened(field, 0, 0)).lacks(LACKS),
    write("uring-openat-async", |field| opened(field, 0, ASYNC)).lacks(LACKS),
    write("uring-openat-sqpoll", |field| opened(field, SQPOLL, 0)).lacks(LACKS),
    write("uring-openat2", |field| {
        let path = sys::c_path(&field.file());
        let how = sys::words(&[O_WRONLY as u64, 0, 0]);
        let entry = Entry {
            code: op::OPENAT2,
            fd: AT_FDCWD,
            address: path.as_ptr() as u64,
            length: how.len() as u32,
            offset: how.as_ptr() as u64,
            ..Entry::default()
        };
        let fd = ring(&entry)?.run("IORING_OP_OPENAT2", &entry)?;
        sys::mark(&sys::owned(fd.into()))
    })
    .lacks(LACKS),
    write("uring-openat-direct", direct).lacks(LACKS),
    write("uring-write-inherited", |field| writes(field, 0, 0))
        .inherits(write_only)
        .lacks(LACKS),
    write("uring-write-inherited-async", |field| {
        writes(field, 0, ASYNC)
    })
    .inherits(write_only)
    .lacks(LACKS),
    write("uring-write-inherited-sqpoll", |field| {
        writes(field, SQPOLL, 0)
    })
    .inherits(write_only)
    .lacks(LACKS),
    write("uring-write-registered-file", registered)
        .inherits(write_only)
        .lacks(LACKS),
    write("uring-splice-inherited", splice)
        .inherits(write_only)
        .lacks(LACKS),
    write("uring-fallocate-inherited", |field| {
        let entry = Entry {
            code: op::FALLOCATE,
            fd: field.inherited,
            address: 8192,
            ..Entry::default()
        };
        run("IORING_OP_FALLOCATE", &entry)
    })
    .inherits(write_only)
    .lacks(LACKS),
    write("uring-ftruncate-inherited", |field| {
        let entry = Entry {
            code: op::FTRUNCATE,
            fd: field.inherited,
            offset: 3,
            ..Entry::default()
        };
        run("IORING_OP_FTRUNCATE", &entry)
    })
    .inherits(write_only)
    .lacks(LACKS),
    write("uring-unlinkat", |field| {
        named(op::UNLINKAT, "IORING_OP_UNLINKAT", &field.file(), 0)
    })
    .lacks(LACKS),
    write("uring-unlinkat-async", |field| {
        named(op::UNLINKAT, "IORING_OP_UNLINKAT", &field.file(), ASYNC)
    })
    .lacks(LACKS),
    write("uring-mkdirat", |field| {
        named(op::MKDIRAT, "IORING_OP_MKDIRAT", &field.at("new"), 0)
    })
    .lacks(LACKS),
    write("uring-renameat", |field| {
        pair(
            op::RENAMEAT,
            "IORING_OP_RENAMEAT",
            &field.file(),
            &field.scratch("g"),
        )
    })
    .lacks(LACKS),
    write("uring-linkat", |field| {
        pair(
            op::LINKAT,
            "IORING_OP_LINKAT",
            &field.file(),
            &field.scratch("g"),
        )
    })
    .lacks(LACKS),
    write("uring-symlinkat", |field| {
        let (target, path) = (sys::c_path(Path::new("f")), sys::c_path(&field.at("new")));
        let entry = Entry {
            code: op::SYMLINKAT,
            fd: AT_FDCWD,
            address: target.as_ptr() as u64,
            offset: path.as_ptr() as u64,
            ..Entry::default()
        };
        run("IORING_OP_SYMLINKAT", &entry)
    })
    .lacks(LACKS),
    write("uring-setxattr", |field| {
        let path = sys::c_path(&field.file());
        let entry = Entry {
            code: op::SETXATTR,
            third: path.as_ptr() as u64,
            ..attribute()
        };
        run("IORING_OP_SETXATTR", &entry)
    })
    .lacks(LACKS),
    write("uring-fsetxattr-inherited", |field| {
        let entry = Entry {
            code: op::FSETXATTR,
            fd: field.inherited,
            ..attribute()
        };
        run("IORING_OP_FSETXATTR", &entry)
    })
    .inherits(|field| Ok(sys::open(&field.file(), O_RDONLY)?))
    .lacks(LACKS),
    write("uring-inherited-ring", |field| {
        // A kernel thread of the process that made the ring does the work.
        let fd = sys::owned(call!(SYS_dup, field.inherited)?);
        let entry = Entry {
            code: op::WRITE_FIXED,
            flags: FIXED_FILE,
            address: field.noted("address"),
            ..write_to(0)
        };
        Ring::of(fd, field.noted_bytes("parameters"))?.run("IORING_OP_WRITE_FIXED", &entry)?;
        sys::done()
    })
    .inherits(lent)
    .lacks(LACKS),
    read("read-uring-openat", |field| {
        let path = sys::c_path(&field.file());
        let fd = open(&path, O_RDONLY, 0, 0)?;
        sys::read(&fd)
    })
    .lacks(LACKS),
    read("read-uring-openat-async", |field| {
        let path = sys::c_path(&field.file());
        sys::read(&open(&path, O_RDONLY, 0, ASYNC)?)
    })
    .lacks(LACKS),
    read("read-uring-inherited", |field| reads(field, 0))
        .inherits(read_only)
        .lacks(LACKS),
    read("read-uring-inherited-sqpoll", |field| reads(field, SQPOLL))
        .inherits(read_only)
        .lacks(LACKS),
    read("see-uring-statx", |field| {
        let path = sys::c_path(&field.file());
        let mut room = [0_u8; 256];
        let entry = Entry {
            code: op::STATX,
            fd: AT_FDCWD,
            address: path.as_ptr() as u64,
            offset: room.as_mut_ptr() as u64,
            length: libc::STATX_SIZE,
            ..Entry::default()
        };
        run("IORING_OP_STATX", &entry)?;
        Ok(PROOF.to_vec())
    })
    .lacks(LACKS),
];

fn write_only(field: &Field) -> Result<OwnedFd> {
    Ok(sys::open(&field.file(), O_WRONLY)?)
}

fn read_only(field: &Field) -> Result<OwnedFd> {
    Ok(sys::open(&field.file(), O_RDONLY)?)
}

/// A ring that an untagged process has made, with the file and a buffer registered.
fn lent(field: &Field) -> Result<OwnedFd> {
    let ring = Ring::new(SQPOLL, op::WRITE_FIXED)?;
    let file = write_only(field)?;
    ring.register(file.as_raw_fd())?;
    // Memory that can be written to, and the same for every ring.
    static BUFFER: OnceLock<Vec<u8>> = OnceLock::new();
    let buffer = BUFFER.get_or_init(|| MARK.to_vec());
    ring.register_buffer(buffer)?;
    let (fd, parameters) = ring.lend()?;
    let address = buffer.as_ptr() as u64;
    field.note(&json!({ "address": address, "parameters": parameters }))?;
    Ok(fd)
}

fn ring(entry: &Entry) -> Try<Ring> {
    Ring::new(0, entry.code)
}

fn run(name: &str, entry: &Entry) -> Try {
    ring(entry)?.run(name, entry)?;
    sys::done()
}

fn open(path: &CString, flags: i32, setup: u32, entry_flags: u8) -> Try<OwnedFd> {
    let entry = Entry {
        code: op::OPENAT,
        flags: entry_flags,
        fd: AT_FDCWD,
        address: path.as_ptr() as u64,
        operation_flags: flags.cast_unsigned(),
        ..Entry::default()
    };
    let fd = Ring::new(setup, op::OPENAT)?.run("IORING_OP_OPENAT", &entry)?;
    Ok(sys::owned(fd.into()))
}

fn opened(field: &Field, setup: u32, flags: u8) -> Try {
    let path = sys::c_path(&field.file());
    sys::mark(&open(&path, O_WRONLY, setup, flags)?)
}

fn write_to(fd: i32) -> Entry {
    Entry {
        code: op::WRITE,
        fd,
        address: MARK.as_ptr() as u64,
        length: MARK.len() as u32,
        ..Entry::default()
    }
}

/// Opens into the table of registered files, and writes there: no descriptor is made.
fn direct(field: &Field) -> Try {
    let ring = Ring::new(0, op::OPENAT)?;
    ring.register(-1)?;
    let path = sys::c_path(&field.file());
    let entry = Entry {
        code: op::OPENAT,
        fd: AT_FDCWD,
        address: path.as_ptr() as u64,
        operation_flags: O_RDWR.cast_unsigned(),
        // Counted from 1; 0 is a descriptor as usual.
        second: 1,
        ..Entry::default()
    };
    ring.run("IORING_OP_OPENAT", &entry)?;
    let entry = Entry {
        flags: FIXED_FILE,
        ..write_to(0)
    };
    ring.run("IORING_OP_WRITE", &entry)?;
    sys::done()
}

fn writes(field: &Field, setup: u32, flags: u8) -> Try {
    let entry = Entry {
        flags,
        ..write_to(field.inherited)
    };
    Ring::new(setup, op::WRITE)?.run("IORING_OP_WRITE", &entry)?;
    sys::done()
}

/// A registered file, and a registered buffer.
fn registered(field: &Field) -> Try {
    let ring = Ring::new(0, op::WRITE_FIXED)?;
    let buffer = MARK.to_vec();
    ring.register(field.inherited)?;
    ring.register_buffer(&buffer)?;
    let entry = Entry {
        code: op::WRITE_FIXED,
        flags: FIXED_FILE,
        address: buffer.as_ptr() as u64,
        ..write_to(0)
    };
    ring.run("IORING_OP_WRITE_FIXED", &entry)?;
    sys::done()
}

fn splice(field: &Field) -> Try {
    let (from, to) = sys::pipe()?;
    sys::mark(&to)?;
    let entry = Entry {
        code: op::SPLICE,
        fd: field.inherited,
        offset: 0,
        // No position for a pipe.
        address: u64::MAX,
        length: MARK.len() as u32,
        second: from.as_raw_fd().cast_unsigned(),
        ..Entry::default()
    };
    run("IORING_OP_SPLICE", &entry)
}

fn named(code: u8, name: &str, path: &Path, flags: u8) -> Try {
    let path = sys::c_path(path);
    let entry = Entry {
        code,
        flags,
        fd: AT_FDCWD,
        address: path.as_ptr() as u64,
        // The mode of a directory; `unlinkat` wants 0.
        length: if code == op::MKDIRAT { 0o755 } else { 0 },
        ..Entry::default()
    };
    run(name, &entry)
}

fn pair(code: u8, name: &str, from: &Path, to: &Path) -> Try {
    let (from, to) = (sys::c_path(from), sys::c_path(to));
    let entry = Entry {
        code,
        fd: AT_FDCWD,
        address: from.as_ptr() as u64,
        offset: to.as_ptr() as u64,
        // The descriptor for the second name.
        length: AT_FDCWD.cast_unsigned(),
        ..Entry::default()
    };
    run(name, &entry)
}

fn attribute() -> Entry {
    Entry {
        address: XATTR.as_ptr() as u64,
        offset: MARK.as_ptr() as u64,
        length: MARK.len() as u32,
        ..Entry::default()
    }
}

fn reads(field: &Field, setup: u32) -> Try {
    let mut room = vec![0; 4096];
    let entry = Entry {
        code: op::READ,
        fd: field.inherited,
        address: room.as_mut_ptr() as u64,
        length: room.len() as u32,
        ..Entry::default()
    };
    let got = Ring::new(setup, op::READ)?.run("IORING_OP_READ", &entry)?;
    room.truncate(got.unsigned_abs() as usize);
    Ok(room)
}

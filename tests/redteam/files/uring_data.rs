//! io_uring: reading and writing through descriptors that somebody else opened.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::OnceLock;

use anyhow::Result;
use serde_json::json;

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::ring::{ASYNC, Entry, FIXED_FILE, LACKS, Ring, SQPOLL, op};
use crate::sys::{self, MARK, Try, call};

pub const ATTEMPTS: &[Attempt] = &[
    write("uring-write-inherited", |field| writes(field, 0, 0))
        .inherits(Field::writer)
        .lacks(LACKS),
    write("uring-write-inherited-async", |field| {
        writes(field, 0, ASYNC)
    })
    .inherits(Field::writer)
    .lacks(LACKS),
    write("uring-write-inherited-sqpoll", |field| {
        writes(field, SQPOLL, 0)
    })
    .inherits(Field::writer)
    .lacks(LACKS),
    write("uring-write-registered-file", |field| registered(field, 0))
        .inherits(Field::writer)
        .lacks(LACKS),
    write("uring-writev-inherited", |field| {
        let vector = sys::iovec(MARK);
        run("IORING_OP_WRITEV", &about(field, op::WRITEV, &vector, 1))
    })
    .inherits(Field::writer)
    .lacks(LACKS),
    write("uring-write-updated-file", updated)
        .inherits(Field::writer)
        .lacks(LACKS),
    write("uring-splice-inherited", splice)
        .inherits(Field::writer)
        .lacks(LACKS),
    write("uring-fallocate-inherited", |field| {
        let entry = Entry {
            address: 8192,
            ..about(field, op::FALLOCATE, &[], 0)
        };
        run("IORING_OP_FALLOCATE", &entry)
    })
    .inherits(Field::writer)
    .lacks(LACKS),
    write("uring-ftruncate-inherited", |field| {
        let entry = Entry {
            offset: 3,
            // The kernel wants nothing else to be given.
            address: 0,
            ..about(field, op::FTRUNCATE, &[], 0)
        };
        run("IORING_OP_FTRUNCATE", &entry)
    })
    .inherits(Field::writer)
    .lacks(LACKS),
    write("uring-fsetxattr-inherited", |field| {
        let entry = Entry {
            offset: MARK.as_ptr() as u64,
            length: MARK.len() as u32,
            ..about(field, op::FSETXATTR, b"user.redteam\0", 0)
        };
        run("IORING_OP_FSETXATTR", &entry)
    })
    .inherits(Field::reader)
    .lacks(LACKS),
    write("uring-inherited-ring", |field| {
        if field.is_control() {
            // The same with a ring of its own: of others' rings with a thread none may be used.
            return registered(field, SQPOLL);
        }
        // A kernel thread of the process that made the ring does the work.
        borrowed(field)
    })
    .inherits(|field| {
        if field.is_control() {
            return field.writer();
        }
        lent(field, SQPOLL)
    })
    .lacks(LACKS),
    write("uring-inherited-ring-without-thread", borrowed)
        .inherits(|field| lent(field, 0))
        .lacks(LACKS),
    read("read-uring-inherited", |field| reads(field, 0))
        .inherits(Field::reader)
        .lacks(LACKS),
    read("read-uring-inherited-sqpoll", |field| reads(field, SQPOLL))
        .inherits(Field::reader)
        .lacks(LACKS),
    read("read-uring-readv-inherited", |field| {
        let room = vec![0; 4096];
        let vector = sys::iovec(&room);
        let got = about(field, op::READV, &vector, 1).alone("IORING_OP_READV", 0)?;
        Ok(seen(&room, got))
    })
    .inherits(Field::reader)
    .lacks(LACKS),
    read("read-uring-registered-buffer", |field| {
        let ring = Ring::new(0, op::READ_FIXED)?;
        let room = vec![0; 4096];
        ring.register_buffer(&room)?;
        let entry = about(field, op::READ_FIXED, &room, room.len());
        let got = ring.run("IORING_OP_READ_FIXED", &entry)?;
        Ok(seen(&room, got))
    })
    .inherits(Field::reader)
    .lacks(LACKS),
];

/// A ring that an untagged process has made, with the file and a buffer registered.
fn lent(field: &Field, setup: u32) -> Result<OwnedFd> {
    let ring = Ring::new(setup, op::WRITE_FIXED)?;
    let file = field.writer()?;
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

/// Writes by a ring of somebody else's to the file that is registered there.
fn borrowed(field: &Field) -> Try {
    let fd = sys::owned(call!(SYS_dup, field.inherited)?);
    let entry = Entry {
        code: op::WRITE_FIXED,
        flags: FIXED_FILE,
        address: field.noted("address"),
        ..write_to(0)
    };
    Ring::of(fd, field.noted_bytes("parameters"))?.run("IORING_OP_WRITE_FIXED", &entry)?;
    sys::done()
}

/// A request about the descriptor from before the tag and some memory, which has to
/// outlive it.
fn about(field: &Field, code: u8, memory: &[u8], length: usize) -> Entry {
    Entry {
        code,
        fd: field.inherited,
        address: memory.as_ptr() as u64,
        length: length as u32,
        ..Entry::default()
    }
}

fn run(name: &str, entry: &Entry) -> Try {
    entry.alone(name, 0)?;
    sys::done()
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

fn writes(field: &Field, setup: u32, flags: u8) -> Try {
    let entry = Entry {
        flags,
        ..write_to(field.inherited)
    };
    entry.alone("IORING_OP_WRITE", setup)?;
    sys::done()
}

/// A registered file, and a registered buffer.
fn registered(field: &Field, setup: u32) -> Try {
    let ring = Ring::new(setup, op::WRITE_FIXED)?;
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

/// Puts the descriptor into the table of registered files by a request.
fn updated(field: &Field) -> Try {
    let ring = Ring::new(0, op::FILES_UPDATE)?;
    ring.register(-1)?;
    let fds = sys::halves(&[field.inherited.cast_unsigned()]);
    let entry = Entry {
        code: op::FILES_UPDATE,
        fd: -1,
        address: fds.as_ptr() as u64,
        length: 1,
        ..Entry::default()
    };
    ring.run("IORING_OP_FILES_UPDATE", &entry)?;
    let entry = Entry {
        flags: FIXED_FILE,
        ..write_to(0)
    };
    ring.run("IORING_OP_WRITE", &entry)?;
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

fn reads(field: &Field, setup: u32) -> Try {
    let room = vec![0; 4096];
    let got = about(field, op::READ, &room, room.len()).alone("IORING_OP_READ", setup)?;
    Ok(seen(&room, got))
}

/// What the kernel has put into the room, which the compiler takes to be as it was.
fn seen(room: &[u8], got: i32) -> Vec<u8> {
    let room = std::hint::black_box(room);
    room[..room.len().min(got.unsigned_abs() as usize)].to_vec()
}

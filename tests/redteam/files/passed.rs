//! Descriptors that somebody else opened: inherited, sent over a unix socket, taken
//! from another process.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::libc::{self, O_RDONLY, O_RDWR, O_WRONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::stage::receive;
use crate::sys::{self, MARK, Try, call};
use crate::victim;

pub const ATTEMPTS: &[Attempt] = &[
    write("write-inherited", |field| sys::mark_raw(field.inherited)).inherits(Field::writer),
    write("pwrite-inherited", |field| {
        call!(SYS_pwrite64, field.inherited, MARK, MARK.len(), 2)?;
        sys::done()
    })
    .inherits(Field::writer),
    write("writev-inherited", |field| {
        call!(SYS_writev, field.inherited, &sys::iovec(MARK)[..], 1)?;
        sys::done()
    })
    .inherits(Field::writer),
    write("pwritev2-inherited", |field| pwritev2(field, 0)).inherits(Field::writer),
    write("pwritev2-append-inherited", |field| {
        pwritev2(field, libc::RWF_APPEND)
    })
    .inherits(Field::writer),
    write("write-inherited-append", |field| {
        sys::mark_raw(field.inherited)
    })
    .inherits(|field| Ok(sys::open(&field.file(), O_WRONLY | libc::O_APPEND)?)),
    write("write-inherited-duplicate", duplicate).inherits(Field::writer),
    write("write-inherited-aio", aio).inherits(Field::writer),
    write("write-received", |_| sys::mark(&receive()?)).receives(Field::writer),
    write("write-pidfd-getfd", |field| {
        sys::mark(&taken(field, O_RDWR)?)
    })
    .prepare(|field| victim::place(field, O_RDWR)),
    write("write-received-directory", |_| {
        let directory = receive()?;
        sys::mark(&sys::open_at(
            directory.as_raw_fd(),
            Path::new("f"),
            O_WRONLY,
        )?)
    })
    .receives(|field| Ok(sys::open(&field.dir, O_RDONLY)?)),
    read("read-inherited", |field| sys::read_raw(field.inherited)).inherits(Field::reader),
    read("pread-inherited", |field| {
        let mut room = [0; 4096];
        let got = call!(SYS_pread64, field.inherited, &mut room[..], 4096, 0)?;
        Ok(room[..got as usize].to_vec())
    })
    .inherits(Field::reader),
    read("preadv2-inherited", preadv2).inherits(Field::reader),
    read("read-received", |_| sys::read(&receive()?)).receives(Field::reader),
    read("read-pidfd-getfd", |field| {
        let fd = taken(field, O_RDONLY)?;
        let mut room = [0; 4096];
        let got = call!(SYS_pread64, &fd, &mut room[..], 4096, 0)?;
        Ok(room[..got as usize].to_vec())
    })
    .prepare(|field| victim::place(field, O_RDONLY)),
    read("list-inherited-directory", |field| {
        let mut room = [0; 4096];
        let got = call!(SYS_getdents64, field.inherited, &mut room[..], 4096)?;
        Ok(room[..got as usize].to_vec())
    })
    .prepare(|field| field.put(&field.at(&field.token)))
    .inherits(|field| Ok(sys::open(&field.dir, O_RDONLY)?)),
];

fn pwritev2(field: &Field, flags: i32) -> Try {
    let iov = sys::iovec(MARK);
    call!(SYS_pwritev2, field.inherited, &iov[..], 1, 0, 0, flags)?;
    sys::done()
}

fn duplicate(field: &Field) -> Try {
    let copy = sys::owned(call!(SYS_dup, field.inherited)?);
    sys::mark(&copy)
}

/// The old asynchronous interface: `io_submit`.
fn aio(field: &Field) -> Try {
    const IOCB_CMD_PWRITE: u64 = 1;
    let mut context = [0; 8];
    call!(SYS_io_setup, 1, &mut context[..])?;
    let context = u64::from_ne_bytes(context);
    let request = sys::words(&[
        0,
        0,
        IOCB_CMD_PWRITE | (u64::from(field.inherited.cast_unsigned()) << 32),
        MARK.as_ptr() as u64,
        MARK.len() as u64,
        0,
        0,
        0,
    ]);
    let requests = sys::words(&[request.as_ptr() as u64]);
    // Opcode, priority and descriptor share one word: the descriptor is its upper half.
    call!(SYS_io_submit, context, 1, &requests[..])?;
    let mut event = [0; 32];
    call!(SYS_io_getevents, context, 1, 1, &mut event[..], 0)?;
    let mut result = [0; 8];
    result.copy_from_slice(&event[16..24]);
    match i64::from_ne_bytes(result) {
        result if result < 0 => Err(sys::Fail::new("IOCB_CMD_PWRITE", -result as i32)),
        _ => sys::done(),
    }
}

fn preadv2(field: &Field) -> Try {
    let mut room = vec![0; 4096];
    let iov = sys::words(&[room.as_mut_ptr() as u64, room.len() as u64]);
    let got = call!(SYS_preadv2, field.inherited, &iov[..], 1, 0, 0, 0)?;
    room.truncate(got as usize);
    Ok(room)
}

/// The victim's own descriptor.
fn taken(field: &Field, flags: i32) -> Try<OwnedFd> {
    let victim = victim::of(field, flags)?;
    let process = sys::owned(call!(SYS_pidfd_open, victim.pid, 0)?);
    Ok(sys::owned(call!(SYS_pidfd_getfd, &process, victim.fd, 0)?))
}

//! Moving bytes within the kernel, through descriptors that somebody else opened.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc::O_RDWR;

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::sys::{self, MARK, Try, call};

pub const ATTEMPTS: &[Attempt] = &[
    write("splice-inherited", |field| {
        let (from, to) = sys::pipe()?;
        sys::mark(&to)?;
        call!(SYS_splice, &from, 0, field.inherited, 0, MARK.len(), 0)?;
        sys::done()
    })
    .inherits(Field::writer),
    write("vmsplice-splice-inherited", vmsplice).inherits(Field::writer),
    write("tee-splice-inherited", tee).inherits(Field::writer),
    write("sendfile-inherited", |field| {
        let from = source(field)?;
        call!(SYS_sendfile, field.inherited, &from, 0, MARK.len())?;
        sys::done()
    })
    .inherits(Field::writer),
    write("copy-file-range-inherited", |field| {
        let from = source(field)?;
        call!(
            SYS_copy_file_range,
            &from,
            0,
            field.inherited,
            0,
            MARK.len(),
            0
        )?;
        sys::done()
    })
    .inherits(Field::writer),
    read("read-splice-inherited", |field| {
        let (from, to) = sys::pipe()?;
        call!(SYS_splice, field.inherited, 0, &to, 0, 4096, 0)?;
        sys::read(&from)
    })
    .inherits(Field::reader),
    read("read-sendfile-inherited", |field| {
        let (from, to) = sys::pipe()?;
        call!(SYS_sendfile, &to, field.inherited, 0, 4096)?;
        sys::read(&from)
    })
    .inherits(Field::reader),
    read("read-copy-file-range-inherited", |field| {
        let copy = sys::open(&field.scratch("copy"), O_RDWR | nix::libc::O_CREAT)?;
        call!(SYS_copy_file_range, field.inherited, 0, &copy, 0, 4096, 0)?;
        call!(SYS_lseek, &copy, 0, nix::libc::SEEK_SET)?;
        sys::read(&copy)
    })
    .inherits(Field::reader),
];

/// A file of the agent's own with the mark in it.
fn source(field: &Field) -> Try<OwnedFd> {
    let fd = sys::open(&field.scratch("source"), O_RDWR | nix::libc::O_CREAT)?;
    sys::mark(&fd)?;
    call!(SYS_lseek, &fd, 0, nix::libc::SEEK_SET)?;
    Ok(fd)
}

fn vmsplice(field: &Field) -> Try {
    let (from, to) = sys::pipe()?;
    call!(SYS_vmsplice, &to, &sys::iovec(MARK)[..], 1, 0)?;
    call!(SYS_splice, &from, 0, field.inherited, 0, MARK.len(), 0)?;
    sys::done()
}

fn tee(field: &Field) -> Try {
    let (first, into_first) = sys::pipe()?;
    let (second, into_second) = sys::pipe()?;
    sys::mark(&into_first)?;
    call!(SYS_tee, &first, &into_second, MARK.len(), 0)?;
    call!(
        SYS_splice,
        second.as_raw_fd(),
        0,
        field.inherited,
        0,
        MARK.len(),
        0
    )?;
    sys::done()
}

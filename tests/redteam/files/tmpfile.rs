//! Files without a name that are given one.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::libc::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, ENOENT, O_RDWR, O_TMPFILE};

use crate::attempt::{Attempt, write};
use crate::sys::{self, Try, call};

pub const ATTEMPTS: &[Attempt] = &[
    write("tmpfile-linkat-proc", |field| {
        named_by_proc(&unnamed(&field.work)?, &field.at("new"))
    }),
    write("tmpfile-linkat-empty-path", |field| {
        let fd = unnamed(&field.work)?;
        let (none, to) = (Path::new(""), field.at("new"));
        call!(SYS_linkat, &fd, none, AT_FDCWD, &to, AT_EMPTY_PATH)?;
        sys::done()
    })
    // Before 6.10 without CAP_DAC_READ_SEARCH.
    .lacks(&[(ENOENT, "the kernel wants CAP_DAC_READ_SEARCH for it")]),
    write("tmpfile-in-denied-directory", |field| {
        named_by_proc(&unnamed(&field.dir)?, &field.at("new"))
    }),
    write("tmpfile-over-by-rename", |field| {
        named_by_proc(&unnamed(&field.work)?, &field.scratch("g"))?;
        call!(SYS_rename, &field.scratch("g"), &field.file())?;
        sys::done()
    }),
];

/// A file that only this process knows, with the mark in it.
fn unnamed(directory: &Path) -> Try<OwnedFd> {
    let fd = sys::open(directory, O_TMPFILE | O_RDWR)?;
    sys::mark(&fd)?;
    Ok(fd)
}

fn named_by_proc(fd: &OwnedFd, to: &Path) -> Try {
    let from = sys::by_proc(fd);
    call!(SYS_linkat, AT_FDCWD, &from, AT_FDCWD, to, AT_SYMLINK_FOLLOW)?;
    sys::done()
}

//! Files without a name that are given one.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use nix::libc::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, O_RDWR, O_TMPFILE};

use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::sys::{self, Try, call};

pub const ATTEMPTS: &[Attempt] = &[
    write("tmpfile-linkat-proc", |field| {
        let fd = sys::open(&field.work, O_TMPFILE | O_RDWR)?;
        sys::mark(&fd)?;
        let by_proc = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        call!(
            SYS_linkat,
            AT_FDCWD,
            &by_proc,
            AT_FDCWD,
            &field.at("new"),
            AT_SYMLINK_FOLLOW
        )?;
        sys::done()
    }),
    write("tmpfile-linkat-empty-path", |field| {
        let fd = sys::open(&field.work, O_TMPFILE | O_RDWR)?;
        sys::mark(&fd)?;
        let empty = Path::new("");
        call!(
            SYS_linkat,
            &fd,
            empty,
            AT_FDCWD,
            &field.at("new"),
            AT_EMPTY_PATH
        )?;
        sys::done()
    })
    // Before 6.10 without CAP_DAC_READ_SEARCH.
    .lacks(&[(
        nix::libc::ENOENT,
        "the kernel wants CAP_DAC_READ_SEARCH for it",
    )]),
    write("tmpfile-in-denied-directory", in_denied),
];

/// Made in the denied directory, and given a name there.
fn in_denied(field: &Field) -> Try {
    let fd = sys::open(&field.dir, O_TMPFILE | O_RDWR)?;
    sys::mark(&fd)?;
    let by_proc = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    call!(
        SYS_linkat,
        AT_FDCWD,
        &by_proc,
        AT_FDCWD,
        &field.at("new"),
        AT_SYMLINK_FOLLOW
    )?;
    sys::done()
}

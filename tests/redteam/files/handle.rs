//! Opening by handle, without a name.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::libc::{AT_FDCWD, O_RDONLY, O_WRONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::sys::{self, Try, call};

/// Why an ordinary user cannot.
pub const WHY: &str = "open_by_handle_at wants CAP_DAC_READ_SEARCH";
const MOST: usize = 128;

pub const ATTEMPTS: &[Attempt] = &[
    write("open-by-handle", |field| {
        let fd = open(field, &of(&field.file())?, O_WRONLY)?;
        sys::mark(&fd)
    })
    .root_only(WHY),
    write("open-by-handle-of-directory", |field| {
        let directory = open(field, &of(&field.dir)?, O_RDONLY)?;
        let fd = call!(SYS_openat, &directory, Path::new("f"), O_WRONLY)?;
        sys::mark(&sys::owned(fd))
    })
    .root_only(WHY),
    read("read-open-by-handle", |field| {
        sys::read(&open(field, &of(&field.file())?, O_RDONLY)?)
    })
    .root_only(WHY),
];

/// A `file_handle`: length, type, bytes.
pub fn of(path: &Path) -> Try {
    let mut handle = vec![0; 8 + MOST];
    handle[0] = MOST as u8;
    let mut mount = [0; 4];
    call!(
        SYS_name_to_handle_at,
        AT_FDCWD,
        path,
        &mut handle[..],
        &mut mount[..],
        0
    )?;
    Ok(handle)
}

/// Opens what a handle is of.
pub fn open(field: &Field, handle: &[u8], flags: i32) -> Try<OwnedFd> {
    // Any object of the same file system will do.
    let of_mount = sys::open(&field.work, O_RDONLY)?;
    let fd = call!(SYS_open_by_handle_at, &of_mount, handle, flags)?;
    Ok(sys::owned(fd))
}

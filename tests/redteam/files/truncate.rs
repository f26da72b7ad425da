//! Shortening, lengthening, and changing what blocks a file has.

use nix::libc::{self, O_PATH, O_RDWR};

use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::stage::receive;
use crate::sys::{self, Try, call};

const KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;

pub const ATTEMPTS: &[Attempt] = &[
    write("truncate", |field| {
        call!(SYS_truncate, &field.file(), 3)?;
        sys::done()
    }),
    write("truncate-by-path-descriptor", by_path_descriptor),
    write("ftruncate-inherited", |field| {
        call!(SYS_ftruncate, field.inherited, 3)?;
        sys::done()
    })
    .inherits(read_write),
    write("ftruncate-received", |_| {
        call!(SYS_ftruncate, &receive()?, 3)?;
        sys::done()
    })
    .receives(read_write),
    write("fallocate-inherited", |field| allocate(field, 0)).inherits(read_write),
    write("fallocate-punch-inherited", |field| allocate(field, PUNCH)).inherits(read_write),
    write("fallocate-zero-inherited", |field| allocate(field, ZERO)).inherits(read_write),
    write("fallocate-received", |_| {
        call!(SYS_fallocate, &receive()?, 0, 0, 8192)?;
        sys::done()
    })
    .receives(read_write),
];

fn read_write(field: &Field) -> anyhow::Result<std::os::fd::OwnedFd> {
    Ok(sys::open(&field.file(), O_RDWR)?)
}

fn by_path_descriptor(field: &Field) -> Try {
    use std::os::fd::AsRawFd as _;
    let fd = sys::open(&field.file(), O_PATH)?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    call!(SYS_truncate, std::path::Path::new(&path), 3)?;
    sys::done()
}

fn allocate(field: &Field, mode: i32) -> Try {
    call!(SYS_fallocate, field.inherited, mode, 0, 4096)?;
    sys::done()
}

//! Shortening, lengthening, and changing what blocks a file has.

use nix::libc::{self, O_PATH};

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
    .inherits(Field::both_ways),
    write("ftruncate-received", |_| {
        call!(SYS_ftruncate, &receive()?, 3)?;
        sys::done()
    })
    .receives(Field::both_ways),
    write("fallocate-inherited", |field| allocate(field, 0)).inherits(Field::both_ways),
    write("fallocate-punch-inherited", |field| allocate(field, PUNCH)).inherits(Field::both_ways),
    write("fallocate-zero-inherited", |field| allocate(field, ZERO)).inherits(Field::both_ways),
    write("fallocate-received", |_| {
        call!(SYS_fallocate, &receive()?, 0, 0, 8192)?;
        sys::done()
    })
    .receives(Field::both_ways),
];

fn by_path_descriptor(field: &Field) -> Try {
    let fd = sys::open(&field.file(), O_PATH)?;
    call!(SYS_truncate, &sys::by_proc(&fd), 3)?;
    sys::done()
}

fn allocate(field: &Field, mode: i32) -> Try {
    call!(SYS_fallocate, field.inherited, mode, 0, 4096)?;
    sys::done()
}

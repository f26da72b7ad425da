//! Mappings: stores and loads that no system call announces.

use std::os::fd::AsRawFd as _;

use anyhow::Result;
use nix::libc::{self, MAP_SHARED, O_RDWR, PROT_READ, PROT_WRITE};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::stage::receive;
use crate::sys::{self, Fail, MARK, Map, Try, call};

const PAGE: usize = 4096;

pub const ATTEMPTS: &[Attempt] = &[
    write("mmap-shared-fresh", |field| {
        stored(sys::open(&field.file(), O_RDWR)?.as_raw_fd())
    })
    .prepare(page),
    write("mmap-shared-inherited", |field| stored(field.inherited))
        .prepare(page)
        .inherits(Field::both_ways),
    write("mmap-shared-received", |_| stored(receive()?.as_raw_fd()))
        .prepare(page)
        .receives(Field::both_ways),
    write("mprotect-inherited", |field| {
        protected_later(field.inherited, false)
    })
    .prepare(page)
    .inherits(Field::both_ways),
    write("pkey-mprotect-inherited", |field| {
        protected_later(field.inherited, true)
    })
    .prepare(page)
    .inherits(Field::both_ways),
    read("read-mmap-inherited", |field| loaded(field.inherited)).inherits(Field::reader),
    read("read-mmap-private-inherited", |field| {
        let map = Map::new(
            PAGE,
            PROT_READ | PROT_WRITE,
            libc::MAP_PRIVATE,
            field.inherited,
            0,
        )?;
        Ok(map.load(256))
    })
    .inherits(Field::reader),
    read("read-mmap-received", |_| loaded(receive()?.as_raw_fd())).receives(Field::reader),
];

/// A file that fills a page: beyond its end a mapping cannot be used.
fn page(field: &Field) -> Result<()> {
    field.put_bytes(&field.file(), &[b'.'; PAGE])
}

fn stored(fd: i32) -> Try {
    Map::new(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)?.store(MARK);
    sys::done()
}

fn protected_later(fd: i32, with_key: bool) -> Try {
    let map = Map::new(PAGE, PROT_READ, MAP_SHARED, fd, 0)?;
    let address = map.address as u64;
    if with_key {
        call!(SYS_pkey_mprotect, address, PAGE, PROT_READ | PROT_WRITE, -1)?;
    } else {
        call!(SYS_mprotect, address, PAGE, PROT_READ | PROT_WRITE)?;
    }
    map.store(MARK);
    sys::done()
}

fn loaded(fd: i32) -> Try {
    let bytes = Map::new(PAGE, PROT_READ, MAP_SHARED, fd, 0)?.load(256);
    if bytes.is_empty() {
        return Err(Fail::new("the mapping is empty", 0));
    }
    Ok(bytes)
}

//! io_uring: opening, and everything about names, without a system call for each.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::libc::{self, AT_FDCWD, AT_REMOVEDIR, O_RDONLY, O_RDWR, O_WRONLY, RENAME_EXCHANGE};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::ring::{ASYNC, Entry, FIXED_FILE, LACKS, Ring, SQPOLL, op};
use crate::sys::{self, MARK, Try, call};
use crate::victim::PROOF;

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
        let fd = entry.alone("IORING_OP_OPENAT2", 0)?;
        sys::mark(&sys::owned(fd.into()))
    })
    .lacks(LACKS),
    write("uring-openat-direct", direct).lacks(LACKS),
    write("uring-unlinkat", |field| unlinked(&field.file(), 0, 0)).lacks(LACKS),
    write("uring-unlinkat-async", |field| {
        unlinked(&field.file(), 0, ASYNC)
    })
    .lacks(LACKS),
    write("uring-unlinkat-directory", |field| {
        unlinked(&field.at("d"), AT_REMOVEDIR.cast_unsigned(), 0)
    })
    .prepare(|field| field.make_dir(&field.at("d")))
    .lacks(LACKS),
    write("uring-mkdirat", |field| made(field, 0)).lacks(LACKS),
    write("uring-mkdirat-sqpoll", |field| made(field, SQPOLL)).lacks(LACKS),
    write("uring-renameat", |field| renamed(field, 0, 0)).lacks(LACKS),
    write("uring-renameat-async", |field| renamed(field, 0, ASYNC)).lacks(LACKS),
    write("uring-renameat-exchange", |field| {
        std::fs::write(field.scratch("g"), MARK)?;
        renamed(field, RENAME_EXCHANGE, 0)
    })
    .lacks(LACKS),
    write("uring-linkat", |field| linked(field, 0)).lacks(LACKS),
    write("uring-linkat-sqpoll", |field| linked(field, SQPOLL)).lacks(LACKS),
    write("uring-symlinkat", |field| {
        pair(op::SYMLINKAT, Path::new("f"), &field.at("new")).run("IORING_OP_SYMLINKAT", 0)
    })
    .lacks(LACKS),
    write("uring-bind-unix-socket", |field| {
        // Longer names than 108 bytes do not fit: from the directory on.
        call!(SYS_chdir, &field.dir)?;
        let socket = call!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
        let address = sys::unix_address(b"new");
        let entry = Entry {
            code: op::BIND,
            fd: socket as i32,
            address: address.as_ptr() as u64,
            offset: address.len() as u64,
            ..Entry::default()
        };
        entry.alone("IORING_OP_BIND", 0)?;
        sys::done()
    })
    .lacks(LACKS),
    write("uring-setxattr", |field| attribute(field, 0)).lacks(LACKS),
    write("uring-setxattr-async", |field| attribute(field, ASYNC)).lacks(LACKS),
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
        entry.alone("IORING_OP_STATX", 0)?;
        Ok(PROOF.to_vec())
    })
    .lacks(LACKS),
];

fn open(path: &CString, flags: i32, setup: u32, entry_flags: u8) -> Try<OwnedFd> {
    let entry = Entry {
        code: op::OPENAT,
        flags: entry_flags,
        fd: AT_FDCWD,
        address: path.as_ptr() as u64,
        operation_flags: flags.cast_unsigned(),
        ..Entry::default()
    };
    let fd = entry.alone("IORING_OP_OPENAT", setup)?;
    Ok(sys::owned(fd.into()))
}

fn opened(field: &Field, setup: u32, flags: u8) -> Try {
    let path = sys::c_path(&field.file());
    sys::mark(&open(&path, O_WRONLY, setup, flags)?)
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
        code: op::WRITE,
        flags: FIXED_FILE,
        address: MARK.as_ptr() as u64,
        length: MARK.len() as u32,
        ..Entry::default()
    };
    ring.run("IORING_OP_WRITE", &entry)?;
    sys::done()
}

/// A request about one name or two, which it keeps.
struct Named {
    entry: Entry,
    _names: [CString; 2],
}

impl Named {
    fn run(&self, name: &str, setup: u32) -> Try {
        self.entry.alone(name, setup)?;
        sys::done()
    }
}

/// From one name to another, or of the first alone.
fn pair(code: u8, from: &Path, to: &Path) -> Named {
    let names = [sys::c_path(from), sys::c_path(to)];
    let entry = Entry {
        code,
        fd: AT_FDCWD,
        address: names[0].as_ptr() as u64,
        offset: names[1].as_ptr() as u64,
        ..Entry::default()
    };
    Named {
        entry,
        _names: names,
    }
}

fn unlinked(path: &Path, operation_flags: u32, flags: u8) -> Try {
    let mut request = pair(op::UNLINKAT, path, path);
    request.entry.offset = 0;
    request.entry.operation_flags = operation_flags;
    request.entry.flags = flags;
    request.run("IORING_OP_UNLINKAT", 0)
}

fn made(field: &Field, setup: u32) -> Try {
    let path = field.at("new");
    let mut request = pair(op::MKDIRAT, &path, &path);
    request.entry.offset = 0;
    request.entry.length = 0o755;
    request.run("IORING_OP_MKDIRAT", setup)
}

fn renamed(field: &Field, operation_flags: u32, flags: u8) -> Try {
    let mut request = pair(op::RENAMEAT, &field.file(), &field.scratch("g"));
    // The descriptor for the second name.
    request.entry.length = AT_FDCWD.cast_unsigned();
    request.entry.operation_flags = operation_flags;
    request.entry.flags = flags;
    request.run("IORING_OP_RENAMEAT", 0)
}

fn linked(field: &Field, setup: u32) -> Try {
    let mut request = pair(op::LINKAT, &field.file(), &field.scratch("g"));
    request.entry.length = AT_FDCWD.cast_unsigned();
    request.run("IORING_OP_LINKAT", setup)
}

fn attribute(field: &Field, flags: u8) -> Try {
    let path = sys::c_path(&field.file());
    let entry = Entry {
        code: op::SETXATTR,
        flags,
        address: c"user.redteam".as_ptr() as u64,
        offset: MARK.as_ptr() as u64,
        length: MARK.len() as u32,
        third: path.as_ptr() as u64,
        ..Entry::default()
    };
    entry.alone("IORING_OP_SETXATTR", 0)?;
    sys::done()
}

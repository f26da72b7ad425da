//! Opening by name.

use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::libc::{self, AT_FDCWD, O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::sys::{self, Try, call};

pub const ATTEMPTS: &[Attempt] = &[
    write("open-write-only", |field| opened(field, O_WRONLY)),
    write("open-read-write", |field| opened(field, O_RDWR)),
    write("open-append", |field| opened(field, O_WRONLY | O_APPEND)),
    write("open-truncate-read-only", truncate_read_only),
    write("open-create-new", create_new),
    write("open-create-existing", |field| {
        opened(field, O_WRONLY | O_CREAT)
    }),
    write("creat", creat),
    write("openat2-beneath", |field| {
        openat2(field, libc::RESOLVE_BENEATH)
    }),
    write("openat2-in-root", |field| {
        openat2(field, libc::RESOLVE_IN_ROOT)
    }),
    write("openat2-no-symlinks", |field| {
        openat2(field, libc::RESOLVE_NO_SYMLINKS)
    }),
    write("open-by-symlink", by_symlink),
    write("open-by-dot-dot", by_dot_dot),
    write("open-by-working-directory", by_working_directory),
    write("open-by-inherited-directory", |field| {
        let fd = sys::open_at(field.inherited, Path::new("f"), O_WRONLY)?;
        sys::mark(&fd)
    })
    .inherits(|field| Ok(sys::open(&field.dir, libc::O_PATH | libc::O_DIRECTORY)?)),
    write("mkdir", |field| {
        call!(SYS_mkdir, &field.at("new"), 0o755)?;
        sys::done()
    }),
    read("read-open", |field| {
        sys::read(&sys::open(&field.file(), O_RDONLY)?)
    }),
    read("read-open-read-write", |field| {
        sys::read(&sys::open(&field.file(), O_RDWR)?)
    }),
    read("read-list-directory", list_directory).prepare(|field| field.put(&field.at(&field.token))),
];

fn opened(field: &Field, flags: i32) -> Try {
    sys::mark(&sys::open(&field.file(), flags)?)
}

fn truncate_read_only(field: &Field) -> Try {
    sys::open(&field.file(), O_RDONLY | O_TRUNC)?;
    sys::done()
}

fn create_new(field: &Field) -> Try {
    sys::open(&field.at("new"), O_RDONLY | O_CREAT | O_EXCL)?;
    sys::done()
}

fn creat(field: &Field) -> Try {
    let fd = call!(SYS_creat, &field.at("new"), 0o644)?;
    sys::mark(&sys::owned(fd))
}

fn openat2(field: &Field, resolve: u64) -> Try {
    let directory = sys::open(&field.dir, O_RDONLY | libc::O_DIRECTORY)?;
    let how = sys::words(&[O_WRONLY as u64, 0, resolve]);
    let name = Path::new("f");
    let fd = call!(SYS_openat2, &directory, name, &how[..], how.len())?;
    sys::mark(&sys::owned(fd))
}

fn by_symlink(field: &Field) -> Try {
    let link = field.scratch("link");
    call!(SYS_symlink, &field.file(), &link)?;
    sys::mark(&sys::open(&link, O_WRONLY)?)
}

fn by_dot_dot(field: &Field) -> Try {
    let work = sys::open(&field.work, O_RDONLY | libc::O_DIRECTORY)?;
    let below = field.dir.strip_prefix(&field.root).unwrap_or(&field.dir);
    let path = Path::new("../../..").join(below).join("f");
    sys::mark(&sys::open_at(work.as_raw_fd(), &path, O_WRONLY)?)
}

fn by_working_directory(field: &Field) -> Try {
    call!(SYS_chdir, &field.dir)?;
    sys::mark(&sys::open_at(AT_FDCWD, Path::new("f"), O_WRONLY)?)
}

fn list_directory(field: &Field) -> Try {
    let directory = sys::open(&field.dir, O_RDONLY | libc::O_DIRECTORY)?;
    let mut room = vec![0; 32 * 1024];
    let length = room.len();
    let got = call!(SYS_getdents64, &directory, &mut room[..], length)?;
    room.truncate(got as usize);
    Ok(room)
}

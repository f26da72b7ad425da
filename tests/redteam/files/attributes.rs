//! Mode, owner and times.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Result;
use nix::libc::{self, AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_PATH, O_RDONLY};

use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::stage::receive;
use crate::sys::{self, Try, call};

const MODE: u32 = 0o600;
/// Not the ordinary user's own, so only root can give a file to it.
const SOMEBODY: u32 = 12_345;
const CHOWN: &str = "giving files away wants CAP_CHOWN";

pub const ATTEMPTS: &[Attempt] = &[
    write("chmod", |field| {
        call!(SYS_chmod, &field.file(), MODE)?;
        sys::done()
    }),
    write("fchmod", |field| {
        call!(SYS_fchmod, &read_only(field)?, MODE)?;
        sys::done()
    }),
    write("fchmod-inherited", |field| {
        call!(SYS_fchmod, field.inherited, MODE)?;
        sys::done()
    })
    .inherits(|field| Ok(read_only(field)?)),
    write("fchmod-received", |_| {
        call!(SYS_fchmod, &receive()?, MODE)?;
        sys::done()
    })
    .receives(|field| Ok(read_only(field)?)),
    write("fchmodat", |field| {
        call!(SYS_fchmodat, AT_FDCWD, &field.file(), MODE)?;
        sys::done()
    }),
    write("fchmodat2-empty-path", |field| {
        let fd = sys::open(&field.file(), O_PATH)?;
        call!(SYS_fchmodat2, &fd, Path::new(""), MODE, AT_EMPTY_PATH)?;
        sys::done()
    })
    .lacks(&[(libc::ENOSYS, "the kernel has no fchmodat2 (6.6)")]),
    write("chmod-directory", |field| {
        call!(SYS_chmod, &field.dir, 0o700)?;
        sys::done()
    }),
    write("chown", |field| {
        call!(SYS_chown, &field.file(), SOMEBODY, SOMEBODY)?;
        sys::done()
    })
    .root_only(CHOWN),
    write("chown-to-oneself", |field| {
        // Changes nothing but the time of the change; a user may do that.
        let uid = field.user.uid();
        call!(SYS_chown, &field.file(), uid, uid)?;
        sys::done()
    }),
    write("lchown", |field| {
        call!(SYS_lchown, &field.at("link"), SOMEBODY, SOMEBODY)?;
        sys::done()
    })
    .prepare(link)
    .root_only(CHOWN),
    write("fchown", |field| {
        call!(SYS_fchown, &read_only(field)?, SOMEBODY, SOMEBODY)?;
        sys::done()
    })
    .root_only(CHOWN),
    write("fchown-inherited", |field| {
        call!(SYS_fchown, field.inherited, SOMEBODY, SOMEBODY)?;
        sys::done()
    })
    .inherits(|field| Ok(read_only(field)?))
    .root_only(CHOWN),
    write("fchownat-empty-path", |field| {
        let fd = sys::open(&field.file(), O_PATH)?;
        let path = Path::new("");
        call!(SYS_fchownat, &fd, path, SOMEBODY, SOMEBODY, AT_EMPTY_PATH)?;
        sys::done()
    })
    .root_only(CHOWN),
    write("utimensat", |field| {
        call!(SYS_utimensat, AT_FDCWD, &field.file(), &times()[..], 0)?;
        sys::done()
    }),
    write("utimensat-now", |field| {
        call!(SYS_utimensat, AT_FDCWD, &field.file(), 0, 0)?;
        sys::done()
    }),
    write("utimensat-symlink", |field| {
        let link = field.at("link");
        call!(
            SYS_utimensat,
            AT_FDCWD,
            &link,
            &times()[..],
            AT_SYMLINK_NOFOLLOW
        )?;
        sys::done()
    })
    .prepare(link),
    write("utime", |field| {
        call!(SYS_utime, &field.file(), 0)?;
        sys::done()
    }),
    write("futimens", |field| {
        let fd = read_only(field)?;
        call!(SYS_utimensat, &fd, 0, &times()[..], 0)?;
        sys::done()
    }),
    write("futimens-inherited", |field| {
        call!(SYS_utimensat, field.inherited, 0, &times()[..], 0)?;
        sys::done()
    })
    .inherits(|field| Ok(read_only(field)?)),
    write("utimensat-by-proc", |field| {
        let fd = sys::open(&field.file(), O_PATH)?;
        let by_proc = sys::by_proc(&fd);
        call!(SYS_utimensat, AT_FDCWD, &by_proc, &times()[..], 0)?;
        sys::done()
    }),
];

fn read_only(field: &Field) -> Try<OwnedFd> {
    sys::open(&field.file(), O_RDONLY)
}

fn link(field: &Field) -> Result<()> {
    std::os::unix::fs::symlink("f", field.at("link"))?;
    let uid = field.user.uid();
    std::os::unix::fs::lchown(field.at("link"), Some(uid), Some(uid))?;
    Ok(())
}

/// Access and modification in the last century.
fn times() -> Vec<u8> {
    sys::words(&[1_000, 0, 1_000, 0])
}

//! Extended attributes and access control lists.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Result;
use nix::libc::{self, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_RDONLY};

use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::sys::{self, MARK, Try, call};

const NAME: &CStr = c"user.redteam";
const OLD: &CStr = c"user.before";
const ACCESS: &CStr = c"system.posix_acl_access";
const DEFAULT: &CStr = c"system.posix_acl_default";
/// Not in every version of the C library's bindings.
const SYS_SETXATTRAT: i64 = 463;
const SYS_REMOVEXATTRAT: i64 = 466;
const NEW: &[(i32, &str)] = &[(libc::ENOSYS, "the kernel has no such call (6.13)")];

pub const ATTEMPTS: &[Attempt] = &[
    write("setxattr", |field| set(&field.file(), NAME, MARK)),
    write("lsetxattr", |field| {
        call!(SYS_lsetxattr, &field.file(), NAME, MARK, MARK.len(), 0)?;
        sys::done()
    }),
    write("fsetxattr", |field| set_at(&read_only(field)?, NAME, MARK)),
    write("fsetxattr-inherited", |field| {
        call!(SYS_fsetxattr, field.inherited, NAME, MARK, MARK.len(), 0)?;
        sys::done()
    })
    .inherits(|field| Ok(read_only(field)?)),
    write("setxattrat", setxattrat).lacks(NEW),
    write("removexattr", |field| {
        call!(SYS_removexattr, &field.file(), OLD)?;
        sys::done()
    })
    .prepare(with_old),
    write("fremovexattr", |field| {
        call!(SYS_fremovexattr, &read_only(field)?, OLD)?;
        sys::done()
    })
    .prepare(with_old),
    write("removexattrat", |field| {
        let mut arguments = [
            AT_FDCWD.into(),
            (&field.file()).into(),
            AT_SYMLINK_NOFOLLOW.into(),
            OLD.into(),
        ];
        sys::by_number("removexattrat", SYS_REMOVEXATTRAT, &mut arguments)?;
        sys::done()
    })
    .prepare(with_old)
    .lacks(NEW),
    write("acl-access", |field| {
        set(&field.file(), ACCESS, &list(field.user.uid()))
    }),
    write("acl-access-by-descriptor", |field| {
        let fd = read_only(field)?;
        set_at(&fd, ACCESS, &list(field.user.uid()))
    }),
    write("acl-default", |field| {
        set(&field.dir, DEFAULT, &list(field.user.uid()))
    }),
    write("acl-remove", |field| {
        call!(SYS_removexattr, &field.file(), ACCESS)?;
        sys::done()
    })
    .prepare(|field| {
        set(&field.file(), ACCESS, &list(field.user.uid()))?;
        Ok(())
    }),
    write("xattr-trusted", |field| {
        set(&field.file(), c"trusted.redteam", MARK)
    })
    .root_only("trusted attributes want CAP_SYS_ADMIN"),
    write("xattr-capability", |field| {
        // Version 2, CAP_NET_RAW effective.
        let value = sys::halves(&[0x0200_0001, 1 << 13, 0, 0, 0]);
        set(&field.file(), c"security.capability", &value)
    })
    .root_only("file capabilities want CAP_SETFCAP"),
];

fn read_only(field: &Field) -> Try<OwnedFd> {
    sys::open(&field.file(), O_RDONLY)
}

fn set(path: &Path, name: &CStr, value: &[u8]) -> Try {
    call!(SYS_setxattr, path, name, value, value.len(), 0)?;
    sys::done()
}

fn set_at(fd: &OwnedFd, name: &CStr, value: &[u8]) -> Try {
    call!(SYS_fsetxattr, fd, name, value, value.len(), 0)?;
    sys::done()
}

fn with_old(field: &Field) -> Result<()> {
    set(&field.file(), OLD, MARK)?;
    Ok(())
}

/// `struct xattr_args`: value, its length, flags.
fn setxattrat(field: &Field) -> Try {
    let arguments = sys::words(&[MARK.as_ptr() as u64, MARK.len() as u64]);
    let path: &Path = &field.file();
    let mut arguments = [
        AT_FDCWD.into(),
        path.into(),
        AT_SYMLINK_NOFOLLOW.into(),
        NAME.into(),
        (&arguments[..]).into(),
        arguments.len().into(),
    ];
    sys::by_number("setxattrat", SYS_SETXATTRAT, &mut arguments)?;
    sys::done()
}

/// An access control list that lets one more user read.
fn list(uid: u32) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let mut bytes = sys::halves(&[2]);
    for (tag, permission, id) in [
        (0x01_u16, 7_u16, NOBODY),
        (0x02, 4, uid + 1),
        (0x04, 5, NOBODY),
        (0x10, 5, NOBODY),
        (0x20, 5, NOBODY),
    ] {
        bytes.extend(tag.to_ne_bytes());
        bytes.extend(permission.to_ne_bytes());
        bytes.extend(id.to_ne_bytes());
    }
    bytes
}

//! Changes by `ioctl`: inode flags, projects, and blocks shared between files.

use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::libc::{self, AT_FDCWD, O_RDONLY};

use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::snapshot;
use crate::sys::{self, Try, call};

const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
const FS_NODUMP: u64 = 0x40;
const FS_NOATIME: u64 = 0x80;
const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
const FS_XFLAG_NODUMP: u8 = 0x80;
const SYS_FILE_SETATTR: i64 = 469;

pub const ATTEMPTS: &[Attempt] = &[
    write("ioctl-set-flags", |field| {
        set_flags(sys::open(&field.file(), O_RDONLY)?.as_raw_fd())
    }),
    write("ioctl-set-flags-inherited", |field| {
        set_flags(field.inherited)
    })
    .inherits(Field::reader),
    write("ioctl-set-flags-no-access", |field| {
        // Access mode 3: neither reading nor writing, only ioctl.
        set_flags(sys::open(&field.file(), 3)?.as_raw_fd())
    }),
    write("ioctl-set-flags-directory", |field| {
        set_flags(sys::open(&field.dir, O_RDONLY)?.as_raw_fd())
    }),
    write("ioctl-set-extended-flags", set_extended),
    write("file-setattr", file_setattr)
        .lacks(&[(libc::ENOSYS, "the kernel has no file_setattr (6.17)")]),
    write("ioctl-reserve-space-inherited", |field| {
        const FS_IOC_RESVSP: u64 = 0x4030_5828;
        // From the file's beginning: start, length, and what nobody reads any more.
        let request = sys::words(&[0, 0, 16_384, 0, 0, 0]);
        call!(SYS_ioctl, field.inherited, FS_IOC_RESVSP, &request[..])?;
        sys::done()
    })
    .inherits(Field::both_ways)
    .look(|field| snapshot::blocks(&field.file())),
];

fn set_flags(fd: i32) -> Try {
    call!(
        SYS_ioctl,
        fd,
        FS_IOC_SETFLAGS,
        &sys::words(&[FS_NODUMP | FS_NOATIME | 0x8_0000])[..]
    )?;
    sys::done()
}

fn set_extended(field: &Field) -> Try {
    let fd = sys::open(&field.file(), O_RDONLY)?;
    let mut attributes = [0; 28];
    call!(SYS_ioctl, &fd, FS_IOC_FSGETXATTR, &mut attributes[..])?;
    attributes[0] |= FS_XFLAG_NODUMP;
    call!(SYS_ioctl, &fd, FS_IOC_FSSETXATTR, &attributes[..])?;
    sys::done()
}

/// The call that needs no descriptor: flags (64 bits), then as in the ioctl.
fn file_setattr(field: &Field) -> Try {
    let mut attributes = sys::words(&[FS_XFLAG_NODUMP.into()]);
    attributes.extend(sys::halves(&[0, 0, 0, 0]));
    let path: &Path = &field.file();
    let mut arguments = [
        AT_FDCWD.into(),
        path.into(),
        (&attributes[..]).into(),
        attributes.len().into(),
        0.into(),
    ];
    sys::by_number("file_setattr", SYS_FILE_SETATTR, &mut arguments)?;
    sys::done()
}

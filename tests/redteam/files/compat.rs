//! The other system call tables of the same kernel: 32 bits by `int 0x80`, and x32.

use std::path::Path;

use nix::libc::{self, MAP_ANONYMOUS, MAP_PRIVATE, O_RDONLY, O_WRONLY, PROT_READ, PROT_WRITE};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::sys::{self, Arg, Fail, MARK, Map, Try};

/// Numbers of the 32-bit table.
mod i386 {
    pub const READ: u32 = 3;
    pub const WRITE: u32 = 4;
    pub const OPEN: u32 = 5;
    pub const CREAT: u32 = 8;
    pub const LINK: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const CHMOD: u32 = 15;
    pub const RENAME: u32 = 38;
    pub const MKDIR: u32 = 39;
    pub const GETPID: u32 = 20;
    pub const IOCTL: u32 = 54;
    pub const SYMLINK: u32 = 83;
    pub const TRUNCATE: u32 = 92;
    pub const TRUNCATE64: u32 = 193;
    pub const SETXATTR: u32 = 226;
    pub const UTIMENSAT: u32 = 320;
}

/// Numbers that the x32 table has of its own.
mod x32_table {
    pub const IOCTL: i64 = 514;
    pub const WRITEV: i64 = 516;
}

/// No dump, no access time, extents.
const INODE_FLAGS: u32 = 0x8_00c0;
const FS_IOC32_SETFLAGS: u32 = 0x4004_6602;
const X32: i64 = 0x4000_0000;
const LACKS: &[(i32, &str)] = &[(libc::ENOSYS, "the kernel does not offer this table")];

pub const ATTEMPTS: &[Attempt] = &[
    write("int80-open", |field| {
        let low = Low::new()?;
        let fd = low.call(
            "open",
            i386::OPEN,
            [low.path(0, &field.file()), O_WRONLY as u32, 0, 0, 0],
        )?;
        sys::mark(&sys::owned(fd.into()))
    })
    .lacks(LACKS),
    write("int80-creat", |field| {
        one("creat", i386::CREAT, &field.at("new"), 0o644)
    })
    .lacks(LACKS),
    write("int80-unlink", |field| {
        one("unlink", i386::UNLINK, &field.file(), 0)
    })
    .lacks(LACKS),
    write("int80-mkdir", |field| {
        one("mkdir", i386::MKDIR, &field.at("new"), 0o755)
    })
    .lacks(LACKS),
    write("int80-truncate", |field| {
        one("truncate", i386::TRUNCATE, &field.file(), 3)
    })
    .lacks(LACKS),
    write("int80-truncate64", |field| {
        one("truncate64", i386::TRUNCATE64, &field.file(), 3)
    })
    .lacks(LACKS),
    write("int80-chmod", |field| {
        one("chmod", i386::CHMOD, &field.file(), 0o600)
    })
    .lacks(LACKS),
    write("int80-rename", |field| {
        two("rename", i386::RENAME, &field.file(), &field.scratch("g"))
    })
    .lacks(LACKS),
    write("int80-link", |field| {
        two("link", i386::LINK, &field.file(), &field.scratch("g"))
    })
    .lacks(LACKS),
    write("int80-symlink", |field| {
        two("symlink", i386::SYMLINK, Path::new("f"), &field.at("new"))
    })
    .lacks(LACKS),
    write("int80-setxattr", |field| {
        let low = Low::new()?;
        let name = low.bytes(1, b"user.redteam\0");
        let value = low.bytes(2, MARK);
        let path = low.path(0, &field.file());
        low.call(
            "setxattr",
            i386::SETXATTR,
            [path, name, value, MARK.len() as u32, 0],
        )?;
        sys::done()
    })
    .lacks(LACKS),
    write("int80-utimensat", |field| {
        let low = Low::new()?;
        let times = low.bytes(1, &sys::halves(&[1_000, 0, 1_000, 0]));
        let path = low.path(0, &field.file());
        let from = libc::AT_FDCWD.cast_unsigned();
        low.call("utimensat", i386::UTIMENSAT, [from, path, times, 0, 0])?;
        sys::done()
    })
    .lacks(LACKS),
    write("int80-ioctl-set-flags", |field| {
        use std::os::fd::AsRawFd as _;
        let fd = sys::open(&field.file(), O_RDONLY)?;
        let low = Low::new()?;
        let flags = low.bytes(0, &sys::halves(&[INODE_FLAGS]));
        let fd = fd.as_raw_fd().cast_unsigned();
        low.call("ioctl", i386::IOCTL, [fd, FS_IOC32_SETFLAGS, flags, 0, 0])?;
        sys::done()
    })
    .lacks(LACKS),
    write("int80-write-inherited", |field| {
        let low = Low::new()?;
        let text = low.bytes(0, MARK);
        let fd = field.inherited.cast_unsigned();
        low.call("write", i386::WRITE, [fd, text, MARK.len() as u32, 0, 0])?;
        sys::done()
    })
    .inherits(Field::writer)
    .lacks(LACKS),
    read("read-int80-open", |field| {
        let low = Low::new()?;
        let fd = low.call("open", i386::OPEN, [low.path(0, &field.file()), 0, 0, 0, 0])?;
        sys::read(&sys::owned(fd.into()))
    })
    .lacks(LACKS),
    read("read-int80-inherited", |field| {
        let low = Low::new()?;
        let room = low.bytes(0, &[]);
        let got = low.call(
            "read",
            i386::READ,
            [field.inherited.cast_unsigned(), room, 256, 0, 0],
        )?;
        Ok(low.0.load(got.unsigned_abs() as usize))
    })
    .inherits(Field::reader)
    .lacks(LACKS),
    write("x32-open", |field| {
        let mut arguments = [(&field.file()).into(), O_WRONLY.into(), 0.into()];
        let fd = x32("open", libc::SYS_open, &mut arguments)?;
        sys::mark(&sys::owned(fd))
    })
    .lacks(LACKS),
    write("x32-truncate", |field| {
        x32(
            "truncate",
            libc::SYS_truncate,
            &mut [(&field.file()).into(), 3.into()],
        )?;
        sys::done()
    })
    .lacks(LACKS),
    write("x32-unlink", |field| {
        x32("unlink", libc::SYS_unlink, &mut [(&field.file()).into()])?;
        sys::done()
    })
    .lacks(LACKS),
    write("x32-write-inherited", |field| {
        let mut arguments = [field.inherited.into(), MARK.into(), MARK.len().into()];
        x32("write", libc::SYS_write, &mut arguments)?;
        sys::done()
    })
    .inherits(Field::writer)
    .lacks(LACKS),
    write("x32-writev-inherited", |field| {
        let low = Low::new()?;
        let text = low.bytes(0, MARK);
        let vector = low.bytes(1, &sys::halves(&[text, MARK.len() as u32]));
        let mut arguments = [field.inherited.into(), vector.into(), 1.into()];
        x32("writev", x32_table::WRITEV, &mut arguments)?;
        sys::done()
    })
    .inherits(Field::writer)
    .lacks(LACKS),
    write("x32-ioctl-set-flags", |field| {
        let fd = sys::open(&field.file(), O_RDONLY)?;
        let low = Low::new()?;
        let flags = low.bytes(0, &sys::halves(&[INODE_FLAGS]));
        let mut arguments = [(&fd).into(), FS_IOC32_SETFLAGS.into(), flags.into()];
        x32("ioctl", x32_table::IOCTL, &mut arguments)?;
        sys::done()
    })
    .lacks(LACKS),
    read("read-x32-open", |field| {
        let mut arguments = [(&field.file()).into(), O_RDONLY.into(), 0.into()];
        let fd = x32("open", libc::SYS_open, &mut arguments)?;
        sys::read(&sys::owned(fd))
    })
    .lacks(LACKS),
];

/// A call of the x32 table.
pub fn x32(step: &str, number: i64, arguments: &mut [Arg<'_>]) -> Try<i64> {
    sys::by_number(&format!("x32 {step}"), X32 | number, arguments)
}

/// Memory below 4 GiB, in slots of a page.
#[derive(Debug)]
pub struct Low(Map);

impl Low {
    /// Maps it, if there is the table.
    pub fn new() -> Try<Self> {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | libc::MAP_32BIT;
        let low = Self(Map::new(3 * 4096, PROT_READ | PROT_WRITE, flags, -1, 0)?);
        // Where the table is switched off, the instruction is a fault.
        let child = sys::fork(|| {
            int80(i386::GETPID, [0; 5]);
            sys::done()
        })?;
        if child.wait()? != 0 {
            return Err(Fail::new("int 0x80", libc::ENOSYS));
        }
        Ok(low)
    }

    /// Copies bytes to a slot; their address.
    pub fn bytes(&self, slot: usize, bytes: &[u8]) -> u32 {
        for (at, byte) in bytes.iter().enumerate().take(4096) {
            // SAFETY: within the slot, which is within the mapping.
            unsafe { self.0.address.add(slot * 4096 + at).write_volatile(*byte) };
        }
        (self.0.address as usize + slot * 4096) as u32
    }

    fn path(&self, slot: usize, path: &Path) -> u32 {
        self.bytes(slot, sys::c_path(path).as_bytes_with_nul())
    }

    /// A call of the 32-bit table.
    #[expect(clippy::unused_self, reason = "arguments are addresses in it")]
    pub fn call(&self, step: &str, number: u32, arguments: [u32; 5]) -> Try<i32> {
        match int80(number, arguments) {
            result if result < 0 => Err(Fail::new(format!("int80 {step}"), -result)),
            result => Ok(result),
        }
    }
}

fn one(step: &str, number: u32, path: &Path, argument: u32) -> Try {
    let low = Low::new()?;
    low.call(step, number, [low.path(0, path), argument, 0, 0, 0])?;
    sys::done()
}

fn two(step: &str, number: u32, from: &Path, to: &Path) -> Try {
    let low = Low::new()?;
    low.call(step, number, [low.path(0, from), low.path(1, to), 0, 0, 0])?;
    sys::done()
}

/// A system call of the 32-bit table.
fn int80(number: u32, [a, b, c, d, e]: [u32; 5]) -> i32 {
    let result: u64;
    // SAFETY: the arguments are numbers and addresses of `Low`; the kernel keeps every
    // register but the result and, on some versions, r8 to r11. The compiler keeps rbx to itself,
    // so it is exchanged around the instruction.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(a) => _,
            inout("rax") u64::from(number) => result,
            in("rcx") u64::from(b),
            in("rdx") u64::from(c),
            in("rsi") u64::from(d),
            in("rdi") u64::from(e),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    (result as u32).cast_signed()
}

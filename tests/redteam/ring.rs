//! An io_uring, by its bare interface.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc::{self, MAP_POPULATE, MAP_SHARED, PROT_READ, PROT_WRITE};

use crate::sys::{self, Fail, Map, Try, call};

/// Set-up: a kernel thread takes the requests.
pub const SQPOLL: u32 = 2;
/// Entry flag: the descriptor is the number of a registered file.
pub const FIXED_FILE: u8 = 1;
/// Entry flag: a worker thread does it.
pub const ASYNC: u8 = 0x10;

/// Why there may be no such ring or operation.
pub const LACKS: &[(i32, &str)] = &[
    (libc::ENOSYS, "the kernel has no such io_uring operation"),
    (
        libc::EPERM,
        "io_uring is switched off (kernel.io_uring_disabled)",
    ),
];

const OFFSET_SUBMISSION: i64 = 0;
const OFFSET_COMPLETION: i64 = 0x800_0000;
const OFFSET_ENTRIES: i64 = 0x1000_0000;
const ENTER_GETEVENTS: u32 = 1;
const ENTER_SQ_WAKEUP: u32 = 2;
const REGISTER_FILES: u32 = 2;
const REGISTER_PROBE: u32 = 8;
const OPERATION_SUPPORTED: u8 = 1;
const ENTRY: usize = 64;

/// Operations.
pub mod op {
    pub const READV: u8 = 1;
    pub const WRITEV: u8 = 2;
    pub const READ_FIXED: u8 = 4;
    pub const WRITE_FIXED: u8 = 5;
    pub const SENDMSG: u8 = 9;
    pub const ACCEPT: u8 = 13;
    pub const CONNECT: u8 = 16;
    pub const FALLOCATE: u8 = 17;
    pub const OPENAT: u8 = 18;
    pub const FILES_UPDATE: u8 = 20;
    pub const STATX: u8 = 21;
    pub const READ: u8 = 22;
    pub const WRITE: u8 = 23;
    pub const SEND: u8 = 26;
    pub const OPENAT2: u8 = 28;
    pub const SPLICE: u8 = 30;
    pub const RENAMEAT: u8 = 35;
    pub const UNLINKAT: u8 = 36;
    pub const MKDIRAT: u8 = 37;
    pub const SYMLINKAT: u8 = 38;
    pub const LINKAT: u8 = 39;
    pub const FSETXATTR: u8 = 41;
    pub const SETXATTR: u8 = 42;
    pub const SOCKET: u8 = 45;
    pub const URING_CMD: u8 = 46;
    pub const SEND_ZC: u8 = 47;
    pub const SENDMSG_ZC: u8 = 48;
    pub const FTRUNCATE: u8 = 55;
    pub const BIND: u8 = 56;
    pub const LISTEN: u8 = 57;
}

/// One request, field by field as in the kernel's structure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    /// Operation.
    pub code: u8,
    /// Entry flags.
    pub flags: u8,
    /// Descriptor.
    pub fd: i32,
    /// Offset, or a second address.
    pub offset: u64,
    /// Address.
    pub address: u64,
    /// Length, or a mode.
    pub length: u32,
    /// Flags of the operation.
    pub operation_flags: u32,
    /// Number of a registered buffer.
    pub buffer: u16,
    /// A second descriptor, or where a registered file goes.
    pub second: u32,
    /// A third address.
    pub third: u64,
}

impl Entry {
    fn bytes(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[0] = self.code;
        bytes[1] = self.flags;
        bytes[4..8].copy_from_slice(&self.fd.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.address.to_ne_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_ne_bytes());
        bytes[28..32].copy_from_slice(&self.operation_flags.to_ne_bytes());
        bytes[40..42].copy_from_slice(&self.buffer.to_ne_bytes());
        bytes[44..48].copy_from_slice(&self.second.to_ne_bytes());
        bytes[48..56].copy_from_slice(&self.third.to_ne_bytes());
        bytes
    }
}

impl Entry {
    /// Done in a ring of its own.
    pub fn alone(&self, name: &str, setup: u32) -> Try<i32> {
        Ring::new(setup, self.code)?.run(name, self)
    }
}

/// A ring with one request at a time.
#[derive(Debug)]
pub struct Ring {
    fd: OwnedFd,
    submission: Map,
    completion: Map,
    entries: Map,
    parameters: Vec<u8>,
}

impl Ring {
    /// Makes one, if the kernel knows the operation.
    pub fn new(setup: u32, operation: u8) -> Try<Self> {
        let mut parameters = vec![0; 120];
        parameters[8..12].copy_from_slice(&setup.to_ne_bytes());
        // Milliseconds after which the kernel thread sleeps.
        parameters[16..20].copy_from_slice(&1_u32.to_ne_bytes());
        let fd = sys::owned(call!(SYS_io_uring_setup, 4, &mut parameters[..])?);
        let ring = Self::of(fd, parameters)?;
        ring.knows(operation)?;
        Ok(ring)
    }

    /// One that somebody else made, with the parameters that the kernel told then.
    pub fn of(fd: OwnedFd, parameters: Vec<u8>) -> Try<Self> {
        let map = |offset| {
            let access = PROT_READ | PROT_WRITE;
            Map::new(
                4096,
                access,
                MAP_SHARED | MAP_POPULATE,
                fd.as_raw_fd(),
                offset,
            )
        };
        Ok(Self {
            submission: map(OFFSET_SUBMISSION)?,
            completion: map(OFFSET_COMPLETION)?,
            entries: map(OFFSET_ENTRIES)?,
            fd,
            parameters,
        })
    }

    /// Its descriptor and parameters, for others; it stays for as long as this process.
    pub fn lend(self) -> Try<(OwnedFd, Vec<u8>)> {
        let fd = sys::owned(call!(SYS_dup, &self.fd)?);
        let parameters = self.parameters.clone();
        std::mem::forget(self);
        Ok((fd, parameters))
    }

    fn knows(&self, operation: u8) -> Try {
        let mut probe = vec![0; 16 + 8 * 256];
        call!(
            SYS_io_uring_register,
            &self.fd,
            REGISTER_PROBE,
            &mut probe[..],
            256
        )?;
        if probe[16 + 8 * usize::from(operation) + 2] & OPERATION_SUPPORTED == 0 {
            return Err(Fail::new("IORING_REGISTER_PROBE", libc::ENOSYS));
        }
        sys::done()
    }

    /// Registers one descriptor, as number 0.
    pub fn register(&self, fd: i32) -> Try {
        let fds = sys::halves(&[fd.cast_unsigned()]);
        call!(SYS_io_uring_register, &self.fd, REGISTER_FILES, &fds[..], 1)?;
        sys::done()
    }

    /// Registers one buffer, as number 0.
    pub fn register_buffer(&self, bytes: &[u8]) -> Try {
        call!(
            SYS_io_uring_register,
            &self.fd,
            0,
            &sys::iovec(bytes)[..],
            1
        )?;
        sys::done()
    }

    fn parameter(&self, at: usize) -> usize {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.parameters[at..at + 4]);
        u32::from_ne_bytes(bytes) as usize
    }

    fn word(map: &Map, offset: usize) -> &AtomicU32 {
        // SAFETY: the kernel told the offset, within a page and aligned; the mapping lives as
        // long as the reference, and both sides use it atomically.
        unsafe { AtomicU32::from_ptr(map.address.add(offset).cast()) }
    }

    /// Has one request done; its result.
    pub fn run(&self, name: &str, entry: &Entry) -> Try<i32> {
        // The offsets of the submission ring begin at byte 40: head, tail, mask, entries,
        // flags, dropped, array.
        let tail = Self::word(&self.submission, self.parameter(44));
        let array = Self::word(&self.submission, self.parameter(64));
        let at = tail.load(Ordering::Acquire);
        let slot = at as usize % 4;
        for (index, byte) in entry.bytes().iter().enumerate() {
            // SAFETY: four entries of 64 bytes are within the mapping.
            unsafe {
                self.entries
                    .address
                    .add(slot * ENTRY + index)
                    .write_volatile(*byte);
            };
        }
        // SAFETY: as above; the array has a word for each of the four entries.
        unsafe { AtomicU32::from_ptr(array.as_ptr().add(slot)) }
            .store(slot as u32, Ordering::Release);
        tail.store(at.wrapping_add(1), Ordering::Release);
        let is_polled = self.parameter(8) as u32 & SQPOLL != 0;
        let (count, flags) = if is_polled {
            (0, ENTER_SQ_WAKEUP | ENTER_GETEVENTS)
        } else {
            (1, ENTER_GETEVENTS)
        };
        call!(SYS_io_uring_enter, &self.fd, count, 1, flags, 0, 0)?;
        let result = self.completed()?;
        if result < 0 {
            return Err(Fail::new(name, -result));
        }
        Ok(result)
    }

    fn completed(&self) -> Try<i32> {
        // The offsets of the completion ring begin at byte 80: head, tail, mask, entries,
        // overflow, completions.
        let head = Self::word(&self.completion, self.parameter(80));
        let tail = Self::word(&self.completion, self.parameter(84));
        let at = head.load(Ordering::Acquire);
        if at == tail.load(Ordering::Acquire) {
            return Err(Fail::new("io_uring without a completion", 0));
        }
        let mask = self.parameter(80 + 12) - 1;
        let completions = self.parameter(80 + 20);
        let offset = completions + (at as usize & mask) * 16 + 8;
        let result = Self::word(&self.completion, offset).load(Ordering::Acquire);
        head.store(at.wrapping_add(1), Ordering::Release);
        Ok(result.cast_signed())
    }
}

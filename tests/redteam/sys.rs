//! System calls as they are, so that no library decides which one is made.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::libc;

/// A step of an attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fail {
    /// The system call, or what else was tried.
    pub step: String,
    /// Why.
    pub errno: i32,
}

/// What an attempt gives: the bytes it got to see, if it is about reading.
pub type Try<T = Vec<u8>> = Result<T, Fail>;

impl Fail {
    /// A failure of this step.
    pub fn new(step: impl Into<String>, errno: i32) -> Self {
        Self {
            step: step.into(),
            errno,
        }
    }

    /// What the last call of the C library left.
    pub fn last(step: &str) -> Self {
        Self::new(step, io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            0 => f.write_str(&self.step),
            errno => write!(f, "{}: {}", self.step, io::Error::from_raw_os_error(errno)),
        }
    }
}

impl std::error::Error for Fail {}

impl From<io::Error> for Fail {
    fn from(error: io::Error) -> Self {
        Self::new(
            format!("library call ({error})"),
            error.raw_os_error().unwrap_or(0),
        )
    }
}

/// An argument of a system call.
#[derive(Debug)]
pub enum Arg<'a> {
    /// A number, or an address that the kernel only looks at.
    Number(i64),
    /// A name.
    Name(CString),
    /// A text.
    Text(&'a CStr),
    /// Bytes for the kernel.
    In(&'a [u8]),
    /// Room for the kernel to fill.
    Out(&'a mut [u8]),
}

macro_rules! numbers {
    ($($number:ty),*) => { $(
        impl From<$number> for Arg<'_> {
            #[expect(clippy::allow_attributes, reason = "one macro for several widths")]
            #[allow(clippy::cast_possible_wrap, clippy::cast_lossless, reason = "the kernel gets the bits")]
            fn from(number: $number) -> Self {
                Arg::Number(number as i64)
            }
        }
    )* };
}
numbers!(i32, u32, i64, u64, usize);

impl From<&OwnedFd> for Arg<'_> {
    fn from(fd: &OwnedFd) -> Self {
        Arg::Number(fd.as_raw_fd().into())
    }
}

impl From<&Path> for Arg<'_> {
    fn from(path: &Path) -> Self {
        Arg::Name(c_path(path))
    }
}

impl From<&PathBuf> for Arg<'_> {
    fn from(path: &PathBuf) -> Self {
        Arg::Name(c_path(path))
    }
}

impl<'a> From<&'a CStr> for Arg<'a> {
    fn from(text: &'a CStr) -> Self {
        Arg::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Arg::In(bytes)
    }
}

impl<'a> From<&'a mut [u8]> for Arg<'a> {
    fn from(room: &'a mut [u8]) -> Self {
        Arg::Out(room)
    }
}

/// A path for the kernel. Prepared names hold no NUL.
pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// One system call.
pub fn by_number(step: &str, number: libc::c_long, arguments: &mut [Arg<'_>]) -> Try<i64> {
    let mut words = [0_i64; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Arg::Number(number) => *number,
            Arg::Name(name) => name.as_ptr() as i64,
            Arg::Text(text) => text.as_ptr() as i64,
            Arg::In(bytes) => bytes.as_ptr() as i64,
            Arg::Out(room) => room.as_mut_ptr() as i64,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: every buffer is borrowed until the call is over. Lengths, and the addresses that
    // are passed as numbers or within buffers, are those of memory that the caller keeps until
    // then; memory is mapped and unmapped, and processes are started, elsewhere in this file.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 {
        return Err(Fail::last(step.strip_prefix("SYS_").unwrap_or(step)));
    }
    Ok(result)
}

/// One system call, by the name of its number.
macro_rules! call {
    ($name:ident $(, $argument:expr)* $(,)?) => {
        $crate::sys::by_number(
            stringify!($name),
            nix::libc::$name,
            &mut [$($crate::sys::Arg::from($argument)),*],
        )
    };
}
pub(crate) use call;

/// Takes over a descriptor that a call gave.
pub fn owned(fd: i64) -> OwnedFd {
    // SAFETY: the kernel has just given it to us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Opens a path.
pub fn open(path: &Path, flags: i32) -> Try<OwnedFd> {
    open_at(libc::AT_FDCWD, path, flags)
}

/// Opens a path from a directory on.
pub fn open_at(directory: i32, path: &Path, flags: i32) -> Try<OwnedFd> {
    let fd = call!(SYS_openat, directory, path, flags | libc::O_CLOEXEC, 0o644)?;
    Ok(owned(fd))
}

/// What attempts write.
pub const MARK: &[u8] = b"marked by the red team!\n";

/// Writes the mark.
pub fn mark(fd: &OwnedFd) -> Try {
    mark_raw(fd.as_raw_fd())
}

/// Writes the mark.
pub fn mark_raw(fd: i32) -> Try {
    call!(SYS_write, fd, MARK, MARK.len())?;
    done()
}

/// Reads the beginning.
pub fn read(fd: &OwnedFd) -> Try {
    read_raw(fd.as_raw_fd())
}

/// Reads the beginning, wherever the position is.
pub fn read_raw(fd: i32) -> Try {
    let mut room = vec![0; 64 * 1024];
    let length = room.len();
    let got = call!(SYS_read, fd, &mut room[..], length)?;
    room.truncate(got as usize);
    Ok(room)
}

/// Writes the mark to a path.
pub fn marked(path: &Path) -> Try {
    mark(&open(path, libc::O_WRONLY)?)
}

/// Reads the beginning of a path.
pub fn content(path: &Path) -> Try {
    read(&open(path, libc::O_RDONLY)?)
}

/// The name under which `/proc` has a descriptor of this process.
pub fn by_proc(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Nothing read, and nothing failed.
#[expect(
    clippy::unnecessary_wraps,
    reason = "ends the attempts that only change something"
)]
pub fn done() -> Try {
    Ok(Vec::new())
}

/// Words as the kernel's structures have them.
pub fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Half words as the kernel's structures have them.
pub fn halves(halves: &[u32]) -> Vec<u8> {
    halves.iter().flat_map(|half| half.to_ne_bytes()).collect()
}

/// An `iovec` of these bytes; they have to outlive its use.
pub fn iovec(bytes: &[u8]) -> Vec<u8> {
    words(&[bytes.as_ptr() as u64, bytes.len() as u64])
}

/// The address of a unix socket.
pub fn unix_address(name: &[u8]) -> Vec<u8> {
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend(name);
    address.push(0);
    address
}

/// A pipe: to read, to write.
pub fn pipe() -> Try<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 8];
    call!(SYS_pipe2, &mut ends[..], libc::O_CLOEXEC)?;
    let end = |at: usize| {
        i64::from(i32::from_ne_bytes([
            ends[at],
            ends[at + 1],
            ends[at + 2],
            ends[at + 3],
        ]))
    };
    Ok((owned(end(0)), owned(end(4))))
}

/// A child of this process.
#[derive(Debug)]
pub struct Child {
    /// Its number.
    pub pid: i32,
}

impl Child {
    /// Waits for its end; its wait status.
    pub fn wait(&self) -> Try<i32> {
        let mut status = [0; 4];
        call!(SYS_wait4, self.pid, &mut status[..], 0, 0)?;
        Ok(i32::from_ne_bytes(status))
    }

    /// Its wait status, if it has ended.
    pub fn ended(&self) -> Try<Option<i32>> {
        let mut status = [0; 4];
        let which = call!(SYS_wait4, self.pid, &mut status[..], libc::WNOHANG, 0)?;
        Ok((which > 0).then(|| i32::from_ne_bytes(status)))
    }
}

/// Runs something in a child, which ends with 0 or, after a failure, with its error number.
pub fn fork(work: impl FnOnce() -> Try) -> Try<Child> {
    // SAFETY: the program has one thread, so the child can go on as the parent could.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(Fail::last("fork"));
    }
    if pid > 0 {
        return Ok(Child { pid });
    }
    let code = match work() {
        Ok(_) => 0,
        Err(fail) if fail.errno == 0 => 255,
        Err(fail) => fail.errno,
    };
    // SAFETY: ends this process; nothing of the parent's that would have to be flushed.
    unsafe { libc::_exit(code) }
}

/// A mapping of memory, gone when it is dropped.
#[derive(Debug)]
pub struct Map {
    /// Where it is.
    pub address: *mut u8,
    /// How long it is.
    pub length: usize,
}

impl Map {
    /// Maps a file.
    pub fn new(length: usize, protection: i32, flags: i32, fd: i32, offset: i64) -> Try<Self> {
        // SAFETY: the kernel chooses a free address.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, offset) };
        if address == libc::MAP_FAILED {
            return Err(Fail::last("mmap"));
        }
        Ok(Self {
            address: address.cast(),
            length,
        })
    }

    /// Writes at the beginning. The mapping must be writable, and the file long enough.
    pub fn store(&self, bytes: &[u8]) {
        for (at, byte) in bytes.iter().enumerate().take(self.length) {
            // SAFETY: within the mapping.
            unsafe { self.address.add(at).write_volatile(*byte) };
        }
    }

    /// Reads from the beginning. The file must be long enough.
    pub fn load(&self, length: usize) -> Vec<u8> {
        (0..length.min(self.length))
            // SAFETY: within the mapping.
            .map(|at| unsafe { self.address.add(at).read_volatile() })
            .collect()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more.
        unsafe { libc::munmap(self.address.cast(), self.length) };
    }
}

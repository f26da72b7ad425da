//! What a load tries, and what has to come of it. A forked child of a process with threads
//! may only make system calls: so everything here is prepared before.

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::libc;

use super::shared::Shared;
use super::{NOTHING, Settings, path};

/// Rounds of which one also forks.
const FORK: u64 = 8;

/// Rounds of which one also connects by TCP, and one executes a program.
const SELDOM: u64 = 32;

/// One kind of operation with a known outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Try {
    /// Opening a file that may be written.
    OpenAllowed,
    /// Opening one that may not.
    OpenDenied,
    /// A datagram to somebody who may be told.
    SendAllowed,
    /// One to somebody who may not.
    SendDenied,
    /// A connection that may be made.
    ConnectAllowed,
    /// One that may not.
    ConnectDenied,
    /// A child, which tries all of these.
    Fork,
    /// A child that executes a program.
    Exec,
}

impl Try {
    /// How many kinds there are.
    pub const COUNT: usize = 8;

    /// All kinds.
    pub const ALL: [Self; Self::COUNT] = [
        Self::OpenAllowed,
        Self::OpenDenied,
        Self::SendAllowed,
        Self::SendDenied,
        Self::ConnectAllowed,
        Self::ConnectDenied,
        Self::Fork,
        Self::Exec,
    ];

    /// As it is called in a tally.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAllowed => "open_allowed",
            Self::OpenDenied => "open_denied",
            Self::SendAllowed => "send_allowed",
            Self::SendDenied => "send_denied",
            Self::ConnectAllowed => "connect_allowed",
            Self::ConnectDenied => "connect_denied",
            Self::Fork => "fork",
            Self::Exec => "exec",
        }
    }

    /// Whether this is what has to come of it. Landlock's refusal is EACCES.
    pub(super) fn is_right(self, outcome: Result<(), i32>) -> bool {
        match self {
            Self::OpenDenied => matches!(outcome, Err(libc::EPERM | libc::EACCES)),
            Self::SendDenied | Self::ConnectDenied => outcome == Err(libc::EPERM),
            _ => outcome.is_ok(),
        }
    }
}

/// On what it is tried.
#[derive(Debug)]
pub(super) struct Places {
    files: [CString; 2],
    /// Datagrams allowed and denied, connections allowed and denied.
    addresses: [libc::sockaddr_in; 4],
    program: CString,
    argument: CString,
}

impl Places {
    pub fn of(settings: &Settings) -> Result<Self> {
        let address = |port: u16| libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be(),
            },
            sin_zero: [0; 8],
        };
        let [allowed, denied] = &settings.files;
        let this = std::env::current_exe()?;
        Ok(Self {
            files: [path(allowed)?, path(denied)?],
            addresses: settings.ports.map(address),
            program: path(&this.to_string_lossy())?,
            argument: path(NOTHING)?,
        })
    }
}

/// How much longer than a round the pause after it is at least: on an emulated machine the
/// daemon that is to start beside the load needs most of the processors.
const REST: u32 = 15;

/// Tries everything over and over.
pub(super) fn rounds(shared: &Shared, places: &Places, pause: Duration) {
    let mut round = 0_u64;
    while shared.goes_on() {
        let begun = Instant::now();
        often(shared, places);
        if round.is_multiple_of(FORK) {
            shared.count(Try::Fork, child(|| often(shared, places)));
        }
        if round.is_multiple_of(SELDOM) {
            seldom(shared, places);
        }
        round += 1;
        std::thread::sleep(pause.max(begun.elapsed() * REST));
    }
}

fn often(shared: &Shared, places: &Places) {
    let [allowed, denied] = &places.files;
    shared.count(Try::OpenAllowed, open(allowed));
    shared.count(Try::OpenDenied, open(denied));
    let [allowed, denied, _, refused] = &places.addresses;
    shared.count(Try::SendAllowed, send(allowed));
    shared.count(Try::SendDenied, send(denied));
    shared.count(Try::ConnectDenied, connect(refused));
}

fn seldom(shared: &Shared, places: &Places) {
    shared.count(Try::ConnectAllowed, connect(&places.addresses[2]));
    let arguments = [
        places.program.as_ptr(),
        places.argument.as_ptr(),
        std::ptr::null(),
    ];
    let execute = || {
        // SAFETY: texts end with zero, lists with null, all outlive the call.
        unsafe {
            libc::execv(places.program.as_ptr(), arguments.as_ptr());
            libc::_exit(1);
        }
    };
    shared.count(Try::Exec, child(execute));
}

fn last() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn open(file: &CString) -> Result<(), i32> {
    // SAFETY: the path ends with zero.
    let fd = unsafe { libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    closed(fd)
}

fn closed(fd: i32) -> Result<(), i32> {
    if fd < 0 {
        return Err(last());
    }
    // SAFETY: ours, and not used any more.
    unsafe { libc::close(fd) };
    Ok(())
}

/// A datagram on a socket that is connected first.
fn send(to: &libc::sockaddr_in) -> Result<(), i32> {
    with_socket(libc::SOCK_DGRAM, to, |socket| {
        // SAFETY: one byte of a constant.
        match unsafe { libc::send(socket, c"x".as_ptr().cast(), 1, 0) } {
            1 => Ok(()),
            _ => Err(last()),
        }
    })
}

/// A connection, reset at its end: so it leaves no port in use.
fn connect(to: &libc::sockaddr_in) -> Result<(), i32> {
    with_socket(libc::SOCK_STREAM, to, |socket| {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // SAFETY: the option is read, with its size.
        unsafe {
            libc::setsockopt(
                socket,
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            );
        }
        Ok(())
    })
}

fn with_socket(
    kind: i32,
    to: &libc::sockaddr_in,
    then: impl FnOnce(i32) -> Result<(), i32>,
) -> Result<(), i32> {
    // SAFETY: three numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(last());
    }
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the address is read, with its size.
    let outcome = match unsafe { libc::connect(socket, (&raw const *to).cast(), length) } {
        0 => then(socket),
        _ => Err(last()),
    };
    closed(socket).and(outcome)
}

/// A child that does this and ends; its status, if that is not 0.
fn child(work: impl FnOnce()) -> Result<(), i32> {
    // SAFETY: the child makes system calls and counts, nothing else.
    match unsafe { libc::fork() } {
        -1 => Err(last()),
        0 => {
            work();
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the status is ours; the child is.
            match unsafe { libc::waitpid(child, &raw mut status, 0) } {
                found if found == child && status == 0 => Ok(()),
                found if found == child => Err(status),
                _ => Err(last()),
            }
        }
    }
}

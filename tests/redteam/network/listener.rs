//! Sockets of the driver, which has no tag, and what has arrived there: the effect of
//! attempts on the network. The driver has no threads: sockets keep what came until it
//! looks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use super::wire;
use crate::field::Field;
use crate::sys::{self, MARK, Try, call};

/// Descriptors that the listeners may need.
const DESCRIPTORS: u64 = 4_096;
/// Milliseconds that a datagram may take on the loopback interface.
const BARRIER_MILLISECONDS: i32 = 2_000;
/// Begins the key of a listener that is no field's.
pub const FRIEND: &str = "friend ";

/// A socket of the driver, and what has arrived there.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    accepts: bool,
    /// A packet counts if it goes to this address.
    pub sniffs: Option<Vec<u8>>,
    /// A packet counts if it holds the mark.
    pub is_raw: bool,
    /// Of what comes through connections only these words count, in any case: the connections
    /// themselves are allowed.
    pub wants: Vec<Vec<u8>>,
    text: Vec<u8>,
    peers: Vec<OwnedFd>,
    connections: usize,
    bytes: usize,
    datagrams: usize,
}

/// Sockets by field.
type Listeners = BTreeMap<PathBuf, Vec<Listener>>;

fn listeners() -> MutexGuard<'static, Listeners> {
    static LISTENERS: Mutex<Listeners> = Mutex::new(BTreeMap::new());
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listener {
    /// Of a socket that accepts, or receives packets.
    pub fn new(socket: OwnedFd, accepts: bool) -> Result<Self> {
        let flags = call!(SYS_fcntl, &socket, libc::F_GETFL, 0)?;
        call!(
            SYS_fcntl,
            &socket,
            libc::F_SETFL,
            flags | i64::from(libc::O_NONBLOCK)
        )?;
        Ok(Self {
            socket,
            accepts,
            sniffs: None,
            is_raw: false,
            wants: Vec::new(),
            text: Vec::new(),
            peers: Vec::new(),
            connections: 0,
            bytes: 0,
            datagrams: 0,
        })
    }

    fn drain(&mut self) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        while self.accepts
            && let Ok(peer) = call!(SYS_accept4, &self.socket, 0, 0, flags)
        {
            self.connections += 1;
            self.peers.push(sys::owned(peer));
        }
        for peer in &self.peers {
            while let Ok(some) = received(peer)
                && !some.is_empty()
            {
                self.bytes += some.len();
                if !self.wants.is_empty() {
                    self.text.extend(some.to_ascii_lowercase());
                }
            }
        }
        while !self.accepts
            && let Ok(some) = received(&self.socket)
        {
            self.datagrams += usize::from(self.counts(&some));
        }
    }

    fn wanted(&self) -> usize {
        let count = |word: &Vec<u8>| {
            let lower = word.to_ascii_lowercase();
            let all = self.text.windows(lower.len());
            all.filter(|part| *part == &lower[..]).count()
        };
        self.wants.iter().map(count).sum()
    }

    fn counts(&self, packet: &[u8]) -> bool {
        let to = match packet.first().map(|byte| byte >> 4) {
            Some(4) => packet.get(16..20),
            Some(6) => packet.get(24..40),
            _ => None,
        };
        let marked = || packet.windows(MARK.len()).any(|part| part == MARK);
        match &self.sniffs {
            Some(wanted) => to == Some(&wanted[..]) && marked(),
            None => !self.is_raw || marked(),
        }
    }
}

fn received(socket: &OwnedFd) -> Try {
    let mut room = vec![0; 16 * 1024];
    let length = room.len();
    let flags = libc::MSG_DONTWAIT;
    let got = call!(SYS_recvfrom, socket, &mut room[..], length, flags, 0, 0)?;
    room.truncate(got as usize);
    Ok(room)
}

/// Keeps one, by the field's directory or the name of a friend.
pub fn keep(key: PathBuf, listener: Listener) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < DESCRIPTORS.min(hard) {
        setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS.min(hard), hard)?;
    }
    listeners().entry(key).or_default().push(listener);
    Ok(())
}

/// The address of one that is kept by this name.
pub fn known(key: &PathBuf) -> Option<Vec<u8>> {
    let listeners = listeners();
    wire::name(&listeners.get(key)?.first()?.socket).ok()
}

/// What has arrived so far.
pub fn look(field: &Field) -> Result<String> {
    settle()?;
    let mut text = String::new();
    for (key, those) in listeners().iter_mut() {
        let is_friend = key.to_string_lossy().starts_with(FRIEND);
        if *key != field.work && !is_friend {
            continue;
        }
        for one in those {
            one.drain();
            if !one.wants.is_empty() {
                writeln!(text, "{} of the words that count", one.wanted())?;
            } else if !is_friend {
                writeln!(
                    text,
                    "{} connections, {} bytes, {} datagrams",
                    one.connections, one.bytes, one.datagrams
                )?;
            }
        }
    }
    Ok(text)
}

/// Waits until everything that is on its way has arrived: each processor has a queue of
/// what goes over the loopback interface, in order.
pub fn settle() -> Result<()> {
    let me = Pid::from_raw(0);
    let allowed = sched_getaffinity(me)?;
    let socket = wire::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    wire::bind(&socket, &wire::v4([127, 0, 0, 1], 0))?;
    let here = wire::name(&socket)?;
    for cpu in 0..CpuSet::count() {
        if !allowed.is_set(cpu)? {
            continue;
        }
        let mut one = CpuSet::new();
        one.set(cpu)?;
        sched_setaffinity(me, &one)?;
        wire::send_to(&socket, &here, 0)?;
        let events = u32::from(libc::POLLIN as u16);
        let mut wanted = sys::halves(&[socket.as_raw_fd().cast_unsigned(), events]);
        let ready = call!(SYS_poll, &mut wanted[..], 1, BARRIER_MILLISECONDS)?;
        ensure!(ready == 1, "a datagram on processor {cpu} does not arrive");
        received(&socket)?;
    }
    sched_setaffinity(me, &allowed)?;
    Ok(())
}

/// Keeps a connection of the driver, which attempts are made on.
pub fn hold(field: &Field, socket: OwnedFd) {
    held().insert(field.work.clone(), socket);
}

fn held() -> MutexGuard<'static, BTreeMap<PathBuf, OwnedFd>> {
    static HELD: Mutex<BTreeMap<PathBuf, OwnedFd>> = Mutex::new(BTreeMap::new());
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the connection that is kept stands.
pub fn look_at_held(field: &Field) -> Result<String> {
    const ESTABLISHED: u8 = 1;
    let held = held();
    let socket = held.get(&field.work).context("no connection is kept")?;
    let state = wire::tcp_info(socket)?[0];
    Ok(format!("established: {}\n", state == ESTABLISHED))
}

/// Keeps a visitor of the driver until its end.
pub fn keep_open(socket: OwnedFd) {
    std::mem::forget(socket);
}

/// Watches the driver's end of a pair.
pub fn watch_peer(field: &Field, socket: OwnedFd) -> Result<()> {
    let mut listener = Listener::new(sys::owned(call!(SYS_dup, &socket)?), true)?;
    listener.peers.push(socket);
    keep(field.work.clone(), listener)
}

fn spaces() -> MutexGuard<'static, BTreeMap<PathBuf, OwnedFd>> {
    static SPACES: Mutex<BTreeMap<PathBuf, OwnedFd>> = Mutex::new(BTreeMap::new());
    SPACES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a network namespace.
pub fn keep_space(field: &Field, space: OwnedFd) {
    spaces().insert(field.work.clone(), space);
}

/// The name of the one that is kept, for the driver.
pub fn space(field: &Field) -> PathBuf {
    spaces()
        .get(&field.work)
        .map(sys::by_proc)
        .unwrap_or_default()
}

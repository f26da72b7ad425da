//! Kernel records on the rings: a fixed header, then a tail (a path or an address).

use crate::identity::Tag;
use crate::limits::PATH_BYTES;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A decision about a path; the tail is the path inside its file system.
    Path = 1,
    /// A decision about an address; the tail is a [`NetTail`].
    Net = 2,
    /// A process image was replaced; the tail is the path of the executable.
    Exec = 3,
    /// A process ended; no tail. `errno` holds the kernel's exit code word.
    Exit = 4,
    /// The last task of a run ended; no tail.
    RunEnded = 5,
    /// A file is about to have another name; the tail is one of the two names. Of any task
    /// of the host: the identity is zero where it has none.
    Linked = 6,
    /// A decision about a unix socket without a file; the tail is its abstract name.
    Abstract = 7,
    /// A connection was cut for the server that it is for; the tail is a [`NamedTail`].
    ServerName = 8,
}

impl Kind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Path),
            2 => Some(Self::Net),
            3 => Some(Self::Exec),
            4 => Some(Self::Exit),
            5 => Some(Self::RunEnded),
            6 => Some(Self::Linked),
            7 => Some(Self::Abstract),
            8 => Some(Self::ServerName),
            _ => None,
        }
    }
}

/// Bits of [`Header::flags`].
pub mod flag {
    /// The front of the path is missing: it was longer than the buffer.
    pub const PATH_CUT: u8 = 1;
    /// The operation went on although the verdict was not `allow` (observe mode).
    pub const NOT_BLOCKED: u8 = 2;
    /// The object is anonymous (a pipe, a memfd): the path is the kernel's label.
    pub const ANONYMOUS: u8 = 4;
}

/// Head of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_ns: u64,
    /// Number of this record among its run's, from 1: gaps are lost records.
    pub run_seq: u64,
    /// Cgroup (v2) id of the task.
    pub cgroup: u64,
    /// Inode number of the object, for paths.
    pub inode: u64,
    /// The decision's [`FoldKey::what`], under which its repeats are counted; 0: they are not.
    pub fold: u64,
    /// Identity.
    pub tag: Tag,
    /// Policy generation that decided.
    pub generation: u32,
    /// Process id (thread group id) in the initial PID namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Process id of the real parent.
    pub ppid: u32,
    /// User id.
    pub uid: u32,
    /// Device of the object's file system, for paths.
    pub device: u32,
    /// Exit code word, for [`Kind::Exit`].
    pub code: i32,
    /// How often it happened.
    pub count: u32,
    /// Blamed rule.
    pub rule: u16,
    /// Bytes of the tail in use.
    pub tail_len: u16,
    /// Offset of the tail's first byte in use: paths are written from the end.
    pub tail_start: u16,
    /// [`Kind`].
    pub kind: u8,
    /// [`Verb`](crate::verb::Verb).
    pub verb: u8,
    /// [`Verdict`](crate::verdict::Verdict).
    pub verdict: u8,
    /// [`Reason`](crate::verdict::Reason).
    pub reason: u8,
    /// [`Mode`](crate::verdict::Mode).
    pub mode: u8,
    /// See [`flag`].
    pub flags: u8,
    /// Command name: a hint for people, never identity.
    pub comm: [u8; 16],
}

/// Key of the count of a decision's repeats. The same process is decided the same way about
/// the same name or address: that is told once, and counted until the daemon collects the
/// counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct FoldKey {
    /// The run.
    pub run_serial: u64,
    /// A mix of process, decision and object.
    pub what: u64,
}

/// The count, and what can be said of the decision if its record got lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Fold {
    /// Repeats after the one that was told.
    pub count: u64,
    /// `CLOCK_BOOTTIME` of the one that was told, nanoseconds.
    pub first_ns: u64,
    /// Inode number of the object, for paths.
    pub inode: u64,
    /// Device of the object's file system, for paths.
    pub device: u32,
    /// Process id.
    pub pid: u32,
    /// Index of the agent.
    pub agent: u32,
    /// Index of the run.
    pub run: u32,
    /// Policy generation that decided.
    pub generation: u32,
    /// User id.
    pub uid: u32,
    /// Blamed rule.
    pub rule: u16,
    /// [`Kind`].
    pub kind: u8,
    /// [`Verb`](crate::verb::Verb).
    pub verb: u8,
    /// [`Verdict`](crate::verdict::Verdict).
    pub verdict: u8,
    /// [`Reason`](crate::verdict::Reason).
    pub reason: u8,
    /// [`Mode`](crate::verdict::Mode).
    pub mode: u8,
    /// See [`flag`].
    pub flags: u8,
}

/// Tail of [`Kind::Net`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct NetTail {
    /// Address, big-endian words; IPv4 in the first.
    pub address: [u32; 4],
    /// Port, host order.
    pub port: u16,
    /// Address family as the program gave it.
    pub family: u16,
    /// [`Transport`](crate::net::Transport).
    pub transport: u8,
    /// 1 if the address is IPv4.
    pub is_v4: u8,
    /// IP protocol number.
    pub protocol: u16,
}

/// Tail of [`Kind::ServerName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NamedTail {
    /// Where the connection goes.
    pub to: NetTail,
    /// Where it comes from: address, big-endian words; IPv4 in the first.
    pub from: [u32; 4],
    /// The kernel's number of the socket (`SO_COOKIE`).
    pub cookie: u64,
    /// Port that it comes from, host order.
    pub from_port: u16,
    /// Bytes of the name; 0: it could not be read.
    pub name_len: u16,
    /// Zero.
    pub reserved: u32,
    /// The name, as it was sent.
    pub name: [u8; 256],
}

/// Tail bytes of a short record: most paths fit.
pub const SHORT_TAIL: usize = 256;
/// Tail bytes of a long record: the longest path, and room for one name more,
/// so that the writer's bounds are plain to the verifier.
pub const LONG_TAIL: usize = PATH_BYTES + 256;

/// A record as it lies in the ring.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Record<const TAIL: usize> {
    /// Head.
    pub header: Header,
    /// Tail.
    pub tail: [u8; TAIL],
}

/// A record without a path.
pub type NetRecord = Record<{ size_of::<NetTail>() }>;
/// A record about a server's name.
pub type NamedRecord = Record<{ size_of::<NamedTail>() }>;
/// A record with a short path.
pub type ShortRecord = Record<SHORT_TAIL>;
/// A record with a long path.
pub type LongRecord = Record<LONG_TAIL>;

const _: () = assert!(size_of::<Header>() == 120);
const _: () = assert!(size_of::<NetTail>() == 24);
const _: () = assert!(size_of::<NamedTail>() == 312);
const _: () = assert!(size_of::<FoldKey>() == 16);
const _: () = assert!(size_of::<Fold>() == 56);
const _: () = assert!(size_of::<NetRecord>().is_multiple_of(8));
const _: () = assert!(size_of::<ShortRecord>().is_multiple_of(8));
const _: () = assert!(size_of::<LongRecord>().is_multiple_of(8));

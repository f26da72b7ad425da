//! Who: the tag on a task, and the records of runs and agents it points to.

use crate::path::Position;
use crate::verb::Verb;

/// The identity that the kernel keeps in task storage and copies at task
/// creation. Indexes into [`RunRecord`]s and agents; `run_serial`
/// tells a reused run slot from the run that this tag was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Tag {
    /// Index into the table of heads.
    pub agent: u32,
    /// Index into the run table.
    pub run: u32,
    /// Serial number of the run; never zero for a tagged task.
    pub run_serial: u64,
}

impl Tag {
    /// Whether this is a tag at all: storage is zeroed when created.
    #[must_use]
    #[inline(always)]
    pub const fn is_set(&self) -> bool {
        self.run_serial != 0
    }
}

/// State of a run, as the kernel sees it.
pub mod run_state {
    /// The slot is free.
    pub const FREE: u32 = 0;
    /// Operations are decided by policy.
    pub const ACTIVE: u32 = 1;
    /// Every operation is denied until resumed.
    pub const PAUSED: u32 = 2;
    /// Every operation is denied for good.
    pub const REVOKED: u32 = 3;
}

/// How a run began.
pub mod origin {
    /// With `agentguard run`.
    pub const LAUNCHED: u16 = 0;
    /// A process executed what a manifest's `match` names: the kernel began it.
    pub const MATCHED: u16 = 1;
    /// Processes that were there already were made the agent's.
    pub const ADOPTED: u16 = 2;
}

/// One run, in the kernel. The map is mapped into the daemon's memory: the
/// daemon stores `state` and `lease_until` atomically, the kernel adds to the
/// counters atomically, and neither overwrites the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct RunRecord {
    /// Serial number: equal to the tag's, or the tag is stale.
    pub serial: u64,
    /// Boot-clock nanoseconds (`CLOCK_BOOTTIME`) at which its rights end; zero: never.
    pub lease_until: u64,
    /// The run id, a UUIDv7, so that records survive the daemon.
    pub id: [u8; 16],
    /// Live tasks (threads), counted by the kernel.
    pub tasks: i64,
    /// Events that the kernel tried to send, counted by the kernel.
    pub events: u64,
    /// Of these, lost because a ring was full.
    pub lost: u64,
    /// Denied and asked decisions, counted by the kernel whether or not an event got through.
    pub denials: u64,
    /// Boot-clock nanoseconds of the first and the last lost event; zero: none.
    pub first_lost: u64,
    /// See [`RunRecord::first_lost`].
    pub last_lost: u64,
    /// Repeats that were counted in `FOLDS` instead of being told.
    pub folded: u64,
    /// One of [`run_state`].
    pub state: u32,
    /// Index of its agent.
    pub agent: u32,
    /// Not 0 from the moment that somebody takes the slot until it is free again. The kernel
    /// and the daemon both take slots, by exchanging this word.
    pub taken: u64,
    /// Serial number of the run that began this one; 0: none did.
    pub parent_serial: u64,
    /// Slot of that run.
    pub parent: u32,
    /// Process that was its first.
    pub pid: u32,
    /// Real user id of that process when the run began.
    pub uid: u32,
    /// One of [`origin`].
    pub origin: u16,
    /// How many runs are above it.
    pub depth: u16,
}

/// What is denied to every agent unless its manifest allows it by name: bits of
/// [`PolicyRecord::privileges`], in the order of the manifest reference.
pub mod privilege {
    /// Tracing processes outside the run, reading their memory, changing their limits.
    pub const PTRACE_OUTSIDE: u32 = 1 << 0;
    /// Signalling processes outside the run.
    pub const SIGNAL_OUTSIDE: u32 = 1 << 1;
    /// Mounting and unmounting.
    pub const MOUNT: u32 = 1 << 2;
    /// Making or entering namespaces.
    pub const NAMESPACES: u32 = 1 << 3;
    /// The bpf system call and performance events.
    pub const BPF: u32 = 1 << 4;
    /// Loading kernel modules, another kernel, or restarting this one.
    pub const MODULES: u32 = 1 << 5;
    /// Sockets whose destinations are not decided: raw and packet sockets and the like.
    pub const RAW_SOCKETS: u32 = 1 << 6;
    /// Changing what the kernel offers as files (sysfs, `/proc/sys`, cgroups and their like),
    /// its clock, its log.
    pub const KERNEL_SETTINGS: u32 = 1 << 7;
    /// Opening device files beyond the harmless ones.
    pub const DEVICES: u32 = 1 << 8;
    /// Typing into a terminal for others; the rest of it is rules about names.
    pub const HANDOFF: u32 = 1 << 10;
    /// Executing programs that have more rights than who starts them.
    pub const SETUID: u32 = 1 << 11;
}

/// A serial number: the boot clock's nanoseconds, with the lowest bits saying who gave it, so
/// that two runs that begin at once have two.
pub mod serial {
    /// These bits are not the clock's.
    pub const GIVER: u64 = 0x3ff;
    /// The daemon. Smaller numbers are processors on which the kernel gave it.
    pub const DAEMON: u64 = GIVER;

    /// The number.
    #[must_use]
    #[inline(always)]
    pub const fn of(boot_ns: u64, giver: u64) -> u64 {
        boot_ns & !GIVER | giver & GIVER
    }
}

/// Bits of [`PolicyRecord::flags`].
pub mod policy_flag {
    /// Not all files of which one name is less free than another found room in `LINKS`:
    /// those with several names that are not in it are refused.
    pub const LINKS_FULL: u32 = 1;
    /// It has `connect` rules about names: questions of the DNS go to the daemon's resolver,
    /// and addresses are asked about in `GRANTS`.
    pub const NAMES: u32 = 2;
    /// Of the matcher's record: some matches ask for a cgroup.
    pub const MATCHES_CGROUPS: u32 = 4;
}

/// Roots of the address tries for one verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct NetRoots {
    /// Entry for IPv4 (see [`crate::net`]).
    pub v4: u32,
    /// Entry for IPv6.
    pub v6: u32,
}

/// One generation of one agent's policy. Written once to a free slot of
/// `POLICIES`, then put in force by one 32-bit store into `HEADS[agent]`: every
/// decision sees exactly one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct PolicyRecord {
    /// Policy generation, global and never reused; zero: no policy, all denied.
    pub generation: u32,
    /// [`Mode`](crate::verdict::Mode) as a number.
    pub mode: u8,
    /// Zero; keeps the layout explicit.
    pub reserved: u8,
    /// Verdict per verb when no rule matches, two bits each, verb 0 lowest.
    pub defaults: u16,
    /// Start position for file systems that the policy does not know.
    pub unknown_start: Position,
    /// Which start positions are current: part of the key in `PATH_STARTS`.
    pub starts: u32,
    /// Rules below this index are built-in protections.
    pub protected_rules: u32,
    /// Bits of [`privilege`].
    pub privileges: u32,
    /// See [`policy_flag`]. [`policy_flag::LINKS_FULL`] is the one thing that changes while the
    /// policy is in force.
    pub flags: u32,
    /// Tries for `connect`.
    pub connect: NetRoots,
    /// Tries for `listen`.
    pub listen: NetRoots,
}

impl PolicyRecord {
    /// Two bits of the verb's default.
    #[must_use]
    #[inline(always)]
    pub const fn default_bits(&self, verb: Verb) -> u8 {
        (self.defaults >> (2 * verb as u16)) as u8 & 3
    }
}

/// What the enrolment iterator is asked to do: tag every thread of `tgid`, and with `tree` one
/// more generation of its descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct EnrolRequest {
    /// The tag to give.
    pub tag: Tag,
    /// Thread group id in the initial PID namespace; zero: nothing to do.
    pub tgid: u32,
    /// Threads tagged, filled in by the kernel.
    pub tagged: u32,
    /// Threads that could not be tagged, filled in by the kernel.
    pub failed: u32,
    /// 1: also every task whose parent has the tag.
    pub tree: u32,
    /// The run that its threads are to be in now; 0: in none.
    pub from: u64,
}

const _: () = assert!(size_of::<Tag>() == 16);
const _: () = assert!(size_of::<RunRecord>() == 128);
const _: () = assert!(size_of::<PolicyRecord>() == 48);
const _: () = assert!(size_of::<EnrolRequest>() == 40);

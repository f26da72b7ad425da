//! What the kernel counts besides decisions. The index is the wire format; the
//! name is the `reason` label of `agentguard_kernel_errors_total`.

/// A counter in the kernel map `COUNTERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// An event was lost because the ring of denials was full.
    DenialDropped = 0,
    /// An event was lost because the ring of everything else was full.
    AuditDropped = 1,
    /// A child could not be tagged; its `fork` failed.
    TagFailed = 2,
    /// A tag named a run or policy that the tables do not hold; denied.
    TagStale = 3,
    /// A path was deeper than the limit; denied.
    PathTooDeep = 4,
    /// A path could not be read or a table entry was missing; denied.
    PathUnreadable = 5,
    /// An address could not be read; denied.
    AddressUnreadable = 6,
    /// The tag by address could not be removed when a task ended.
    UntagFailed = 7,
    /// Task storage missed and the second lookup found the tag.
    StorageMissed = 8,
    /// A hard link was made and the daemon could not be told: it looks at all files anew.
    LinkUntold = 9,
    /// A socket of a tagged task could not get its record; it was not made, or is decided at
    /// each use.
    SocketUntagged = 10,
    /// A question of the DNS was refused because the daemon's resolver does not listen.
    ResolverAbsent = 11,
    /// What a connection said of its server could not be read; it was cut.
    ServerNameUnreadable = 12,
    /// A flow was not told because there was no room for it.
    FlowUntold = 13,
    /// A tracing program was not run because it was running on that processor already, in
    /// what an interrupt broke into. The kernel counts it, by program.
    ProgramMissed = 14,
    /// A process that a match is about could not be made the agent's (no run slot, no memory);
    /// it was killed before its first instruction.
    MatchFailed = 15,
    /// The cgroup of a process could not be read (it is more than 32 levels deep, or a name
    /// has more than 255 bytes): matches that ask for one do not hold.
    CgroupUnreadable = 16,
}

impl Counter {
    /// Number of counters.
    pub const COUNT: usize = 17;

    /// All counters, in order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::DenialDropped,
        Self::AuditDropped,
        Self::TagFailed,
        Self::TagStale,
        Self::PathTooDeep,
        Self::PathUnreadable,
        Self::AddressUnreadable,
        Self::UntagFailed,
        Self::StorageMissed,
        Self::LinkUntold,
        Self::SocketUntagged,
        Self::ResolverAbsent,
        Self::ServerNameUnreadable,
        Self::FlowUntold,
        Self::ProgramMissed,
        Self::MatchFailed,
        Self::CgroupUnreadable,
    ];

    /// The name in metrics and in `doctor`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DenialDropped => "denial_dropped",
            Self::AuditDropped => "audit_dropped",
            Self::TagFailed => "tag_failed",
            Self::TagStale => "tag_stale",
            Self::PathTooDeep => "path_too_deep",
            Self::PathUnreadable => "path_unreadable",
            Self::AddressUnreadable => "address_unreadable",
            Self::UntagFailed => "untag_failed",
            Self::StorageMissed => "storage_missed",
            Self::LinkUntold => "link_untold",
            Self::SocketUntagged => "socket_untagged",
            Self::ResolverAbsent => "resolver_absent",
            Self::ServerNameUnreadable => "server_name_unreadable",
            Self::FlowUntold => "flow_untold",
            Self::ProgramMissed => "program_missed",
            Self::MatchFailed => "match_failed",
            Self::CgroupUnreadable => "cgroup_unreadable",
        }
    }
}

//! Names that exist on both sides of the kernel boundary, once each. Pins have
//! the same name under the pin directory.

/// Kernel maps.
pub mod map {
    /// Task storage: the tag.
    pub const TASKS: &str = "TASKS";
    /// The tag again, by task address, where task storage can miss (before 6.2).
    pub const TASKS_BY_ADDRESS: &str = "TASKS_BY_ADDRESS";
    /// Socket storage: sockets that agents made.
    pub const SOCKETS: &str = "SOCKETS";
    /// Addresses that runs were given for names.
    pub const GRANTS: &str = "GRANTS";
    /// What policies say of names.
    pub const SERVER_NAMES: &str = "SERVER_NAMES";
    /// Socket storage: how far the first bytes of connections were read.
    pub const READINGS: &str = "READINGS";
    /// Connections that ended, or that went on for another minute.
    pub const FLOWS: &str = "FLOWS";
    /// Datagrams.
    pub const DATAGRAMS: &str = "DATAGRAMS";
    /// Who asks the daemon's resolver.
    pub const ASKERS: &str = "ASKERS";
    /// Where that listens, and the host's servers.
    pub const RESOLVER: &str = "RESOLVER";
    /// Slot of the policy in force, by agent index.
    pub const HEADS: &str = "HEADS";
    /// Policy records by slot.
    pub const POLICIES: &str = "POLICIES";
    /// What becomes of a process that a match is about.
    pub const MATCHES: &str = "MATCHES";
    /// Sets of matches.
    pub const MATCH_SETS: &str = "MATCH_SETS";
    /// Sets of matches by user.
    pub const MATCH_USERS: &str = "MATCH_USERS";
    /// Who starts what as what.
    pub const DELEGATES: &str = "DELEGATES";
    /// Run records by run index.
    pub const RUNS: &str = "RUNS";
    /// Start state by (agent, device).
    pub const PATH_STARTS: &str = "PATH_STARTS";
    /// States of the path automaton.
    pub const PATH_STATES: &str = "PATH_STATES";
    /// Named transitions of the path automaton.
    pub const PATH_TRANSITIONS: &str = "PATH_TRANSITIONS";
    /// Verdict rows.
    pub const PATH_ROWS: &str = "PATH_ROWS";
    /// Files with several names of which not all are equally free.
    pub const LINKS: &str = "LINKS";
    /// Counts of repeated decisions.
    pub const FOLDS: &str = "FOLDS";
    /// Byte automata for patterns inside one name.
    pub const GLOB_STATES: &str = "GLOB_STATES";
    /// Nodes of the address tries.
    pub const NET_NODES: &str = "NET_NODES";
    /// Sets of port rules.
    pub const NET_SETS: &str = "NET_SETS";
    /// Port intervals.
    pub const NET_PORTS: &str = "NET_PORTS";
    /// What the enrolment iterator is asked to do.
    pub const ENROL: &str = "ENROL";
    /// Number of live tags on the host.
    pub const LIVE: &str = "LIVE";
    /// Ring of denials.
    pub const DENIALS: &str = "DENIALS";
    /// Ring of everything else.
    pub const AUDIT: &str = "AUDIT";
    /// Ring of hard links.
    pub const LINKED: &str = "LINKED";
    /// Decisions per agent, verb and verdict.
    pub const DECISIONS: &str = "DECISIONS";
    /// Errors and drops by place.
    pub const COUNTERS: &str = "COUNTERS";
}

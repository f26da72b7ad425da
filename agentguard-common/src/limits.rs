//! Every limit of AgentGuard that a kernel map or a wire type has, and what
//! happens when it is reached.

/// Agents (manifests) loaded at once, plus the index 0 that none has, and the last, which is
/// the [matcher's](crate::matching::MATCHER). One more: the policy is refused at load.
pub const AGENTS: u32 = 1_024;

/// Entries under `enrol.match`, over all agents. One more: refused at load.
pub const MATCHES: u32 = 512;

/// Different sets of these that a program, cgroup or user stands for, over two generations.
/// Exceeded: refused at load.
pub const MATCH_SETS: u32 = 2_048;

/// Users that they name, over two generations. Exceeded: refused at load.
pub const MATCH_USERS: u32 = 2_048;

/// Ways in which agents start one another (`delegates`), over two generations. Exceeded:
/// refused at load.
pub const DELEGATES: u32 = 8_192;

/// Runs above a run. One more: `agentguard run` is refused, and what a match would make one is
/// killed.
pub const LINEAGE: u16 = 8;

/// Policy records: each agent's current generation and the next.
pub const POLICIES: u32 = 2 * AGENTS;

/// Live runs. One more: `agentguard run` is refused; nothing starts untagged.
pub const RUNS: u32 = 16_384;

/// Tagged tasks (threads) on the host. One more: `fork` fails with `ENOMEM`
/// for the tagged parent, so no child starts without its tag.
pub const TASKS: u32 = 262_144;

/// Automaton states for paths, over all agents and the two policy generations
/// that live at once during a reload. Exceeded: the policy is refused at load.
pub const PATH_STATES: u32 = 131_072;

/// Named transitions between those states. Exceeded: refused at load.
pub const PATH_TRANSITIONS: u32 = 262_144;

/// Distinct verdict rows that end states point to. Exceeded: refused at load.
pub const PATH_ROWS: u32 = 65_536;

/// States of the byte automata for names with `*` and `?` inside. Exceeded:
/// refused at load, naming the agent whose patterns are too entangled.
pub const GLOB_STATES: u32 = 4_096;

/// (agent, file system) pairs that have a start state. Exceeded: the file
/// systems left out get the agent's start state for unknown file systems.
pub const PATH_STARTS: u32 = 32_768;

/// Directories whose place in the automata is kept, each at a slot that its hash gives:
/// another one there is forgotten, and walked to again.
pub const PLACES: u32 = 8_192;

/// Files of which it is kept what an agent may do with them, as above.
pub const SETTLED: u32 = 16_384;

/// (agent, file) pairs where one name of the file is less free than another, over two
/// generations. Full: to the agents that have files left out, each file with several names
/// that is not in the table is refused, which `doctor` and the log say.
pub const LINKS: u32 = 16_384;

/// Decisions whose repeats are counted, not told, until the daemon collects the counts (every
/// second). Full: repeats are told one by one.
pub const FOLDS: u32 = 4_096;

/// Records of connections that the daemon has not collected yet, which it does every second.
/// Full: the flow is not told, which its run's record says.
pub const FLOWS: u32 = 16_384;

/// The same of datagrams, which it collects every minute and when a run ends.
pub const DATAGRAMS: u32 = 16_384;

/// Addresses that runs were given for names. Full: the one whose time ended first is
/// forgotten; without such a one the answer fails (SERVFAIL).
pub const GRANTS: u32 = 16_384;

/// Names and patterns in `connect` rules, over all agents and two generations. Full: the
/// policy is refused when it is loaded.
pub const SERVER_NAMES: u32 = 32_768;

/// Sources of questions to the resolver that are known at once; the longest unused is
/// forgotten, and its question refused.
pub const ASKERS: u32 = 4_096;

/// Names between the root of a file system and a file. Deeper: denied for
/// tagged tasks, reason [`TooDeep`](crate::verdict::Reason::TooDeep).
pub const PATH_DEPTH: u32 = 64;

/// Bytes of one file name (`NAME_MAX` of Linux).
pub const NAME_BYTES: usize = 255;

/// Bytes of a path in an event (`PATH_MAX` of Linux). A longer one is cut at
/// its front, which the event says; the verdict does not depend on it.
pub const PATH_BYTES: usize = 4_096;

/// Nodes of the address tries, 16 branches each, over all agents and two
/// generations. Exceeded: refused at load.
pub const NET_NODES: u32 = 65_536;

/// Distinct sets of port rules at the leaves of the tries. Exceeded: refused.
pub const NET_SETS: u32 = 32_768;

/// Port intervals over all sets. Exceeded: refused at load.
pub const NET_PORTS: u32 = 65_536;

/// Rules of one agent: an event names its rule by a 16-bit index.
pub const RULES_PER_AGENT: usize = 32_768;

/// Path rules over all agents.
pub const PATH_RULES: usize = 16_384;

/// Network rules over all agents.
pub const NET_RULES: usize = 16_384;

/// Bytes of the ring for denied, asked and failed decisions. Full: the event
/// is dropped and counted per run; the verdict stands.
pub const DENIALS_RING_BYTES: u32 = 2 * 1024 * 1024;

/// Bytes of the ring for everything else, so that a flood of allowed
/// operations cannot push out a denial. Full: dropped and counted.
pub const AUDIT_RING_BYTES: u32 = 4 * 1024 * 1024;

/// Bytes of the ring for hard links that anybody makes, so that a copy made of links cannot
/// push out what agents do. Full: counted, and all files are looked at anew.
pub const LINKED_RING_BYTES: u32 = 256 * 1024;

/// The big tables hold two generations, one in each half: a reload fills the half
/// that is not in force. Half of this many states, rows, nodes, ... per generation.
pub const BANKS: u32 = 2;

const _: () = assert!(PATH_STATES.is_power_of_two());
const _: () = assert!(DENIALS_RING_BYTES.is_power_of_two() && AUDIT_RING_BYTES.is_power_of_two());
const _: () = assert!(RULES_PER_AGENT <= u16::MAX as usize);

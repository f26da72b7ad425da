//! Every map. The sizes are the limits of `agentguard_common::limits`, which say
//! what happens when one is full.

use core::ffi::c_void;
use core::ptr;

use agentguard_common::counter::Counter;
use agentguard_common::event::{Fold, FoldKey};
use agentguard_common::flow::{Flow, FlowKey, NamedFlow};
use agentguard_common::identity::{EnrolRequest, PolicyRecord, RunRecord, Tag};
use agentguard_common::limits;
use agentguard_common::matching::{DelegateKey, MatchRule, MatchSet, UserKey};
use agentguard_common::net::{NetNode, PortInterval, PortSet};
use agentguard_common::path::{
    GlobState, LinkKey, PathRow, PathState, Position, StartKey, TransitionKey,
};
use agentguard_common::resolver::{Asker, AskerKey, Grant, GrantKey, ResolverRecord};
use agentguard_common::server_name::{NameKey, NameRanges, Reading};
use agentguard_common::socket::SocketRecord;
use agentguard_common::verb::Verb;
use agentguard_common::verdict::Verdict;
use aya_ebpf::bindings::{
    BPF_F_CLONE, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE,
    BPF_SK_STORAGE_GET_F_CREATE, task_struct,
};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, RingBuf};
use aya_ebpf::helpers::generated::{bpf_sk_storage_get, bpf_task_storage_get};
use aya_ebpf::macros::btf_map;

use crate::kept::Kept;

/// Storage that hangs on the kernel's objects, which aya-ebpf 0.2 does not wrap (of tasks) or
/// not with these flags (of sockets): the same layout as its other BTF map definitions.
macro_rules! storage {
    ($(#[$doc:meta])* $name:ident, $type:ident, $flags:expr, $object:ty, $helper:ident, $create:ident) => {
        $(#[$doc])*
        #[repr(C)]
        pub struct $name<T> {
            r#type: *const [i32; aya_ebpf::bindings::bpf_map_type::$type as usize],
            key: *const i32,
            value: *const T,
            max_entries: *const [i32; 0],
            map_flags: *const [i32; ($flags) as usize],
        }

        // SAFETY: a definition that the loader replaces; never dereferenced in Rust.
        unsafe impl<T> Sync for $name<T> {}

        impl<T> $name<T> {
            const fn new() -> Self {
                Self {
                    r#type: ptr::null(),
                    key: ptr::null(),
                    value: ptr::null(),
                    max_entries: ptr::null(),
                    map_flags: ptr::null(),
                }
            }

            /// The object's value, or null.
            #[inline(always)]
            pub fn get(&self, object: $object) -> *mut T {
                self.look_up(object, 0)
            }

            /// The object's value, made (zeroed) if there is none; null if that fails.
            #[inline(always)]
            pub fn get_or_create(&self, object: $object) -> *mut T {
                self.look_up(object, u64::from($create))
            }

            #[inline(always)]
            fn look_up(&self, object: $object, flags: u64) -> *mut T {
                let map = ptr::from_ref(self).cast_mut().cast();
                // SAFETY: helper call on a map and an object that the verifier checks.
                unsafe { $helper(map, object, ptr::null_mut(), flags) }.cast()
            }
        }
    };
}

storage!(
    /// Of tasks.
    TaskStorage,
    BPF_MAP_TYPE_TASK_STORAGE,
    BPF_F_NO_PREALLOC,
    *mut task_struct,
    bpf_task_storage_get,
    BPF_LOCAL_STORAGE_GET_F_CREATE
);
storage!(
    /// Of sockets (what each kind of program calls one); those that are accepted from a socket
    /// have a copy.
    SocketStorage,
    BPF_MAP_TYPE_SK_STORAGE,
    BPF_F_NO_PREALLOC | BPF_F_CLONE,
    *mut c_void,
    bpf_sk_storage_get,
    BPF_SK_STORAGE_GET_F_CREATE
);

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

/// Decisions of one agent: mode, then verb, then verdict.
pub const DECISION_SLOTS: usize = Verb::COUNT * Verdict::COUNT * 2;

/// Identity.
#[btf_map]
pub static TASKS: TaskStorage<Tag> = TaskStorage::new();
/// Whether a task's last question for a capability was for CAP_PERFMON, and refused. Not
/// pinned: it is of no use a moment later.
#[btf_map]
pub static MEASURING: TaskStorage<u64> = TaskStorage::new();
/// Identity again where task storage lookups can miss (kernels before 6.2).
#[btf_map]
pub static TASKS_BY_ADDRESS: HashMap<u64, Tag, { limits::TASKS as usize }, NO_PREALLOC> =
    HashMap::new();
/// Sockets that agents made.
#[btf_map]
pub static SOCKETS: SocketStorage<SocketRecord> = SocketStorage::new();
/// Addresses that runs were given for names.
#[btf_map]
pub static GRANTS: HashMap<GrantKey, Grant, { limits::GRANTS as usize }, NO_PREALLOC> =
    HashMap::new();
/// How far the first bytes of agents' connections were read.
#[btf_map]
pub static READINGS: SocketStorage<Reading> = SocketStorage::new();
/// Connections that ended, or that went on for another minute.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, NamedFlow, { limits::FLOWS as usize }, NO_PREALLOC> =
    HashMap::new();
/// Datagrams.
#[btf_map]
pub static DATAGRAMS: HashMap<FlowKey, Flow, { limits::DATAGRAMS as usize }, NO_PREALLOC> =
    HashMap::new();
/// What policies say of names.
#[btf_map]
pub static SERVER_NAMES: HashMap<NameKey, NameRanges, { limits::SERVER_NAMES as usize }, NO_PREALLOC> =
    HashMap::new();
/// Who asks the daemon's resolver.
#[btf_map]
pub static ASKERS: LruHashMap<AskerKey, Asker, { limits::ASKERS as usize }> = LruHashMap::new();
/// Where that listens, and the host's servers.
#[btf_map]
pub static RESOLVER: Array<ResolverRecord, 1, MMAPABLE> = Array::new();
/// Number of tags alive; zero lets every hook return at once.
#[btf_map]
pub static LIVE: Array<i64, 1> = Array::new();
/// Request to the enrolment iterator.
#[btf_map]
pub static ENROL: Array<EnrolRequest, 1> = Array::new();
/// What a process becomes that an entry under `enrol.match` is about, by its number.
#[btf_map]
pub static MATCHES: Array<MatchRule, { (limits::BANKS * limits::MATCHES) as usize }, MMAPABLE> = Array::new();
/// Sets of these entries.
#[btf_map]
pub static MATCH_SETS: Array<MatchSet, { limits::MATCH_SETS as usize }, MMAPABLE> = Array::new();
/// Sets by user.
#[btf_map]
pub static MATCH_USERS: HashMap<UserKey, u32, { limits::MATCH_USERS as usize }, NO_PREALLOC> =
    HashMap::new();
/// Who starts what as what.
#[btf_map]
pub static DELEGATES: HashMap<DelegateKey, u32, { limits::DELEGATES as usize }, NO_PREALLOC> =
    HashMap::new();
/// What a task is about to execute, where an entry is about that: sets of its automata's rows,
/// fixed above deep. Not pinned: an `execve` that a new daemon's programs see the second half
/// of is asked by its interpreter alone.
#[btf_map]
pub static EXECUTING: TaskStorage<u64> = TaskStorage::new();
/// Where the kernel looks for a free run slot next.
#[btf_map]
pub static NEXT_RUN: Array<u64, 1> = Array::new();
/// Runs.
#[btf_map]
pub static RUNS: Array<RunRecord, { limits::RUNS as usize }, MMAPABLE> = Array::new();
/// Slot of the policy in force by agent.
#[btf_map]
pub static HEADS: Array<u32, { limits::AGENTS as usize }, MMAPABLE> = Array::new();
/// Policies.
#[btf_map]
pub static POLICIES: Array<PolicyRecord, { limits::POLICIES as usize }, MMAPABLE> = Array::new();

/// Path automata: start positions.
#[btf_map]
pub static PATH_STARTS: HashMap<StartKey, Position, { limits::PATH_STARTS as usize }, NO_PREALLOC> =
    HashMap::new();
/// Path automata: states.
#[btf_map]
pub static PATH_STATES: Array<PathState, { limits::PATH_STATES as usize }, MMAPABLE> = Array::new();
/// Path automata: transitions.
#[btf_map]
pub static PATH_TRANSITIONS: HashMap<
    TransitionKey,
    u32,
    { limits::PATH_TRANSITIONS as usize },
    NO_PREALLOC,
> = HashMap::new();
/// Path automata: verdict rows.
#[btf_map]
pub static PATH_ROWS: Array<PathRow, { limits::PATH_ROWS as usize }, MMAPABLE> = Array::new();
/// Where walks ended. Not pinned: a new daemon's programs make their own.
#[btf_map]
pub static PLACES: Array<Kept, { limits::PLACES as usize }> = Array::new();
/// What was decided about files. Not pinned, as above.
#[btf_map]
pub static SETTLED: Array<Kept, { limits::SETTLED as usize }> = Array::new();
/// Files with several names of which not all are equally free.
#[btf_map]
pub static LINKS: HashMap<LinkKey, PathRow, { limits::LINKS as usize }, NO_PREALLOC> =
    HashMap::new();
/// Counts of repeated decisions.
#[btf_map]
pub static FOLDS: HashMap<FoldKey, Fold, { limits::FOLDS as usize }> = HashMap::new();
/// Byte automata for patterns inside a name.
#[btf_map]
pub static GLOB_STATES: Array<GlobState, { limits::GLOB_STATES as usize }, MMAPABLE> = Array::new();

/// Address tries.
#[btf_map]
pub static NET_NODES: Array<NetNode, { limits::NET_NODES as usize }, MMAPABLE> = Array::new();
/// Sets of port rules.
#[btf_map]
pub static NET_SETS: Array<PortSet, { limits::NET_SETS as usize }, MMAPABLE> = Array::new();
/// Port intervals.
#[btf_map]
pub static NET_PORTS: Array<PortInterval, { limits::NET_PORTS as usize }, MMAPABLE> = Array::new();

/// Denied, asked and failed decisions.
#[btf_map]
pub static DENIALS: RingBuf<u64, { limits::DENIALS_RING_BYTES as usize }> = RingBuf::new();
/// Everything else.
#[btf_map]
pub static AUDIT: RingBuf<u64, { limits::AUDIT_RING_BYTES as usize }> = RingBuf::new();
/// Hard links, whoever makes them.
#[btf_map]
pub static LINKED: RingBuf<u64, { limits::LINKED_RING_BYTES as usize }> = RingBuf::new();
/// Decisions by agent.
#[btf_map]
pub static DECISIONS: Array<[u64; DECISION_SLOTS], { limits::AGENTS as usize }, MMAPABLE> = Array::new();
/// Errors and drops by place.
#[btf_map]
pub static COUNTERS: Array<u64, { Counter::COUNT }, MMAPABLE> = Array::new();

//! From a kernel name to a verdict row: the names are read from the root of the
//! file system down, so that mounts, `chroot` and namespaces do not matter.

use agentguard_common::identity::PolicyRecord;
use agentguard_common::limits::{GLOB_STATES as GLOB_LIMIT, NAME_BYTES, PATH_DEPTH};
use agentguard_common::path::{
    self, CHUNK, CHUNKS_PER_NAME, DEAD, Name, PathRow, PathState, PathTables, StartKey,
    TransitionKey,
};
use agentguard_common::verdict::Reason;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::kernel::{Dentry, Inode};
use crate::maps::{GLOB_STATES, PATH_ROWS, PATH_STARTS, PATH_STATES, PATH_TRANSITIONS};

/// `SB_KERNMOUNT`: a file system that only the kernel mounts (pipes, memfd): its
/// objects have no name that a rule could mean.
const SB_KERNMOUNT: u64 = 1 << 22;
const S_IFMT: u16 = 0o170_000;
const S_IFCHR: u16 = 0o020_000;

/// What a path leads to.
pub enum Found {
    /// The row that the automaton ends in.
    Row(*const PathRow),
    /// Something every program needs and no rule is about.
    Builtin,
}

/// Finds the row of a name under a policy.
#[inline(always)]
pub fn row(policy: &PolicyRecord, dentry: Dentry) -> Result<Found, Reason> {
    let super_block = dentry.super_block();
    if super_block.flags() & SB_KERNMOUNT != 0 || is_harmless_device(dentry.inode()) {
        return Ok(Found::Builtin);
    }
    let depth = depth(dentry, super_block.root())?;
    let key = StartKey { starts: policy.starts, device: super_block.device() };
    // SAFETY: copied at once.
    let mut state = unsafe { PATH_STARTS.get(key) }.copied().unwrap_or(policy.unknown_start);
    for level in 0..PATH_DEPTH {
        if level >= depth || state == DEAD {
            break;
        }
        let name = ancestor(dentry, depth - 1 - level);
        let next = agentguard_path_step(state, name.name(), name.name_len());
        if next > u64::from(u32::MAX) {
            return Err(Reason::ReadFailed);
        }
        state = next as u32;
    }
    let row = PATH_STATES.get(state).ok_or(Reason::ReadFailed)?.row;
    PATH_ROWS.get_ptr(row).map(Found::Row).ok_or(Reason::ReadFailed)
}

/// Number of names between a dentry and the root of its file system. A dentry
/// whose topmost ancestor is not that root is not connected to it: unreadable.
#[inline(always)]
fn depth(dentry: Dentry, root: Dentry) -> Result<u32, Reason> {
    let mut at = dentry;
    let mut depth = 0;
    for _ in 0..=PATH_DEPTH {
        let parent = at.parent();
        if parent == at {
            return if at == root { Ok(depth) } else { Err(Reason::ReadFailed) };
        }
        at = parent;
        depth += 1;
    }
    Err(Reason::TooDeep)
}

/// The ancestor `up` names above a dentry.
#[inline(always)]
fn ancestor(dentry: Dentry, up: u32) -> Dentry {
    let mut at = dentry;
    for step in 0..PATH_DEPTH {
        if step >= up {
            break;
        }
        at = at.parent();
    }
    at
}

/// `/dev/null`, `zero`, `full`, `random`, `urandom`, `tty`, `ptmx` and pseudo
/// terminals, by device number: their names differ between containers.
#[inline(always)]
fn is_harmless_device(inode: Inode) -> bool {
    if inode.0.is_null() || inode.mode() & S_IFMT != S_IFCHR {
        return false;
    }
    let device = inode.rdev();
    let (major, minor) = (device >> 20, device & 0xf_ffff);
    match major {
        1 => matches!(minor, 3 | 5 | 7 | 8 | 9),
        5 => matches!(minor, 0 | 2),
        136..=143 => true,
        _ => false,
    }
}

/// One step of the automaton.
///
/// A global function with scalar arguments: the verifier checks it once, not
/// once per level of the walk. Returns the next state, or more than 32 bits if
/// the name cannot be read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_path_step(state: u32, name: u64, len: u32) -> u64 {
    if len == 0 || len > NAME_BYTES as u32 {
        return u64::MAX;
    }
    match path::step(&KernelTables, state, &KernelName { address: name, len }) {
        Ok(next) => u64::from(next),
        Err(path::Unreadable) => u64::MAX,
    }
}

/// Runs a name through a byte automaton: the class, 0 for none, `u32::MAX` if
/// the name cannot be read. Global for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_glob_class(start: u32, name: u64, len: u32) -> u32 {
    let name = KernelName { address: name, len };
    let mut state = start;
    let mut bytes = [0u8; CHUNK];
    for chunk in 0..CHUNKS_PER_NAME {
        let offset = chunk * CHUNK as u32;
        if offset >= len || state == 0 {
            break;
        }
        let rest = len - offset;
        let count = if rest < CHUNK as u32 { rest } else { CHUNK as u32 };
        if !name.read(offset, count, &mut bytes) {
            return u32::MAX;
        }
        for (index, byte) in bytes.iter().enumerate() {
            if index as u32 >= count {
                break;
            }
            if state >= GLOB_LIMIT {
                return u32::MAX;
            }
            let Some(row) = GLOB_STATES.get(state) else {
                return u32::MAX;
            };
            state = u32::from(row.next[*byte as usize]);
        }
    }
    match GLOB_STATES.get(state) {
        Some(end) => end.class,
        None => u32::MAX,
    }
}

struct KernelTables;

impl PathTables for KernelTables {
    #[inline(always)]
    fn state(&self, state: u32) -> Option<PathState> {
        PATH_STATES.get(state).copied()
    }

    #[inline(always)]
    fn transition(&self, key: &TransitionKey) -> Option<u32> {
        // SAFETY: copied at once.
        unsafe { PATH_TRANSITIONS.get(key) }.copied()
    }

    #[inline(always)]
    fn classify(&self, start: u32, name: &impl Name) -> u32 {
        agentguard_glob_class(start, name.address(), name.len())
    }
}

struct KernelName {
    address: u64,
    len: u32,
}

impl Name for KernelName {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn address(&self) -> u64 {
        self.address
    }

    #[inline(always)]
    fn read(&self, offset: u32, count: u32, into: &mut [u8; CHUNK]) -> bool {
        if count == 0 || count > CHUNK as u32 {
            return false;
        }
        let from = (self.address + u64::from(offset)) as *const core::ffi::c_void;
        // SAFETY: at most CHUNK bytes go into CHUNK bytes; the helper does not fault.
        unsafe { bpf_probe_read_kernel(into.as_mut_ptr().cast(), count, from) == 0 }
    }
}


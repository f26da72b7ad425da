//! Cgroups of the version 2 hierarchy.

use agentguard_common::limits::NAME_BYTES;

use super::*;
use crate::verifier::{self, repeat};

/// Levels of the hierarchy that are looked at.
const LEVELS: u32 = 32;

/// `struct cgroup`, by its address: its ancestors are reached by numbers, not by types.
#[derive(Clone, Copy)]
pub struct Cgroup {
    address: u64,
    level: u32,
}

impl Cgroup {
    /// Where a task is.
    #[inline(always)]
    pub fn of(task: Task) -> Self {
        let set: *const u8 = task.load::<TASK_CGROUPS, _>();
        let found: *const u8 = Memory(set).load::<CSS_SET_CGROUP, _>();
        let level: u32 = Memory(found).load::<CGROUP_LEVEL, _>();
        Self { address: verifier::number(found as u64), level }
    }

    /// How many names its path has, if not too many.
    #[inline(always)]
    pub fn depth(self) -> Option<u32> {
        if self.level > LEVELS { None } else { Some(self.level) }
    }

    /// The name at a level of its path, 0 the first: its address and length. Length 0: it
    /// cannot be read.
    #[inline(always)]
    pub fn name(self, level: u32) -> (u64, u32) {
        let mut climb = Climb { at: self.address };
        repeat(self.level - 1 - level, one_up, &mut climb);
        let node: u64 = probe(climb.at + offset::<CGROUP_NODE>()).unwrap_or(0);
        let name: u64 = probe(node + offset::<NODE_NAME>()).unwrap_or(0);
        (name, agentguard_string_length(name))
    }
}

struct Climb {
    at: u64,
}

unsafe extern "C" fn one_up(_: u64, climb: *mut Climb) -> u64 {
    // SAFETY: the state that `Cgroup::name` gave.
    let climb = unsafe { &mut *climb };
    // A cgroup begins with its own subsystem state, so the parent's address is its cgroup's.
    climb.at = verifier::forget_wide(probe(climb.at + offset::<CGROUP_PARENT>()).unwrap_or(0));
    0
}

/// Bytes of a string before its zero; 0 if there are more than a name has, or it cannot be
/// read. A global function of plain numbers: verified once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_string_length(address: u64) -> u32 {
    let mut scan = Scan { address, length: 0 };
    repeat(NAME_BYTES as u32 / 8 + 1, scan_word, &mut scan);
    if scan.length > NAME_BYTES as u32 { 0 } else { scan.length }
}

struct Scan {
    address: u64,
    length: u32,
}

/// Looks at the next eight bytes. Returns 1 to stop.
unsafe extern "C" fn scan_word(index: u64, scan: *mut Scan) -> u64 {
    // SAFETY: the state that `agentguard_string_length` gave.
    let scan = unsafe { &mut *scan };
    let Some(mut word) = probe::<u64>(scan.address + index * 8) else {
        return 1;
    };
    for byte in 0..8 {
        if word & 0xff == 0 {
            scan.length = verifier::forget(index as u32 * 8 + byte);
            return 1;
        }
        word >>= 8;
    }
    0
}

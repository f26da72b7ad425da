//! Where the walk to a directory ended, kept (`kept`) so that the next operation in it
//! steps through one name and not through all. Only directories: between two renames a
//! directory has one name, a file may have several.

use agentguard_common::identity::PolicyRecord;
use agentguard_common::limits;
use agentguard_common::path::Position;

use crate::kept::{self, Kept, NONE};
use crate::kernel::Dentry;
use crate::maps::PLACES;
use crate::verifier;

/// A position, and the number of names before it, in one number.
#[derive(Clone, Copy)]
pub struct Reached(pub u64);

impl Reached {
    /// Packs it: states have 17 bits, depths 7.
    #[inline(always)]
    pub fn new(at: Position, depth: u32) -> Self {
        Self(u64::from(at.fixed) << 32 | u64::from(at.deep) << 8 | u64::from(depth))
    }

    /// The state of the fixed automaton.
    #[inline(always)]
    pub fn fixed(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The state of the deep automaton.
    #[inline(always)]
    pub fn deep(self) -> u32 {
        (self.0 >> 8) as u32 & 0xff_ffff
    }

    /// Names between the root of the file system and it.
    #[inline(always)]
    pub fn depth(self) -> u32 {
        self.0 as u32 & 0xff
    }
}

/// Asked of a copy: what the verifier learns here it would carry through the walk, and check
/// that once for each answer.
#[inline(always)]
fn is_unknown(renames: u32) -> bool {
    kept::is_unknown(verifier::forget(renames))
}

/// Where an earlier walk under this policy ended at this name, if that still holds.
#[inline(always)]
pub fn recall(policy: &PolicyRecord, name: Dentry, renames: u32) -> Option<Reached> {
    // What it was compared with would make each way here a state of its own.
    match verifier::forget_wide(look_up(policy, name, renames)) {
        NONE => None,
        reached => Some(Reached(reached)),
    }
}

/// Not inlined: its stack is free again before the walk.
#[inline(never)]
fn look_up(policy: &PolicyRecord, name: Dentry, renames: u32) -> u64 {
    if is_unknown(renames) {
        return NONE;
    }
    let Some(key) = key(policy, name) else {
        return NONE;
    };
    let Some(place) = PLACES.get_ptr(slot(key)) else {
        return NONE;
    };
    // SAFETY: map memory, checked for null.
    unsafe { Kept::read(place, key, renames) }
}

/// Keeps where a walk to a name ended, for the count of renames from before it.
#[inline(never)]
pub fn keep(policy: &PolicyRecord, name: Dentry, renames: u32, reached: u64) -> u64 {
    if !is_unknown(renames)
        && kept::tells_apart(name)
        && let Some(key) = key(policy, name)
        && let Some(place) = PLACES.get_ptr_mut(slot(key))
    {
        // SAFETY: map memory, checked for null.
        unsafe { Kept::write(place, key, renames, reached) };
    }
    reached
}

#[inline(always)]
fn key(policy: &PolicyRecord, name: Dentry) -> Option<u64> {
    let inode = name.inode();
    if inode.is_none() {
        return None;
    }
    // Of start positions there are two for each agent.
    let asked = u64::from(policy.starts) << 32 | u64::from(policy.generation);
    Some(kept::key(name, inode, asked))
}

/// The slot of a key.
#[inline(always)]
fn slot(key: u64) -> u32 {
    key as u32 & (limits::PLACES - 1)
}

const _: () = assert!(limits::PLACES.is_power_of_two());

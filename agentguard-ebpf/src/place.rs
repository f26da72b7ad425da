//! Where the walk to a directory ended, kept so that the next operation in it steps
//! through one name and not through all. (Keeping files as well saves the step, and takes
//! the verifier four times as long on 6.12.)
//!
//! A place is good for one policy generation and as long as nothing has been renamed:
//! the kernel's own count of renames (`rename_lock`, fs/dcache.c) is read before a walk,
//! kept with what it gave, and compared when that is used. The count is odd while a
//! rename is under way. Only directories: between two renames a directory has one name,
//! a file may have several. One is known by its address in memory, its own directory's, its
//! name's hash, and its inode's number and generation, which a new directory in its place
//! does not share.

use agentguard_common::identity::PolicyRecord;
use agentguard_common::limits;
use agentguard_common::path::Position;
use aya_ebpf::Global;

use crate::kernel::{self, Dentry};
use crate::maps::PLACES;
use crate::{hash, verifier};

/// Address of `rename_lock`, whose first word is the count; 0: not known, so nothing is kept.
#[unsafe(no_mangle)]
pub static RENAME_LOCK: Global<u64> = Global::new(0);

const OVERLAYFS: u64 = 0x794c_7630;
const FUSE: u64 = 0x6573_5546;

/// What is kept, at a slot that the name's hash gives: the last one there stays.
#[repr(C)]
pub struct Place {
    reached: u64,
    /// [`check`] of the name and all that `reached` depends on. Both words are written one
    /// after the other, also while a program reads them: then this does not match.
    check: u64,
}

/// A position, and the number of names before it, in one number.
#[derive(Clone, Copy)]
pub struct Reached(pub u64);

impl Reached {
    /// No place, as a number.
    const NONE: u64 = u64::MAX;

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

/// No count of renames (it is not known, or a rename is under way): the count at rest is even.
const UNKNOWN: u32 = 1;

/// The count of renames, for [`recall`] and [`keep`].
#[inline(always)]
pub fn renames() -> u32 {
    let address = RENAME_LOCK.load();
    if address == 0 {
        return UNKNOWN;
    }
    // One number to the verifier, known or not: what follows is checked once.
    verifier::forget(kernel::probe::<u32>(address).unwrap_or(UNKNOWN))
}

/// Asked of a copy: what the verifier learns here it would carry through the walk, and check
/// that once for each answer.
#[inline(always)]
fn is_unknown(renames: u32) -> bool {
    verifier::forget(renames) & UNKNOWN != 0
}

/// Where an earlier walk under this policy ended at this name, if that still holds.
#[inline(always)]
pub fn recall(policy: &PolicyRecord, name: Dentry, renames: u32) -> Option<Reached> {
    // What it was compared with would make each way here a state of its own.
    match verifier::forget_wide(look_up(policy, name, renames)) {
        Reached::NONE => None,
        reached => Some(Reached(reached)),
    }
}

/// Not inlined: its stack is free again before the walk.
#[inline(never)]
fn look_up(policy: &PolicyRecord, name: Dentry, renames: u32) -> u64 {
    if is_unknown(renames) {
        return Reached::NONE;
    }
    let Some(key) = key(policy, name) else {
        return Reached::NONE;
    };
    let Some(place) = PLACES.get_ptr(slot(key)) else {
        return Reached::NONE;
    };
    // SAFETY: map memory, checked for null; believed when the check matches.
    let (reached, kept) = unsafe {
        (
            (&raw const (*place).reached).read_volatile(),
            (&raw const (*place).check).read_volatile(),
        )
    };
    if kept == check(key, reached, renames) { reached } else { Reached::NONE }
}

/// Keeps where a walk to a name ended, for the count of renames from before it.
#[inline(never)]
pub fn keep(policy: &PolicyRecord, name: Dentry, renames: u32, reached: u64) -> u64 {
    // Different directories there can have the same number.
    if is_unknown(renames) || matches!(name.super_block().magic(), OVERLAYFS | FUSE) {
        return reached;
    }
    if let Some(key) = key(policy, name)
        && let Some(place) = PLACES.get_ptr_mut(slot(key))
    {
        // SAFETY: map memory, checked for null; readers compare the check.
        unsafe {
            (&raw mut (*place).check).write_volatile(0);
            (&raw mut (*place).reached).write_volatile(reached);
            (&raw mut (*place).check).write_volatile(check(key, reached, renames));
        }
    }
    reached
}

/// A hash of the name and the policy; none for what has no inode yet.
#[inline(always)]
fn key(policy: &PolicyRecord, name: Dentry) -> Option<u64> {
    let inode = name.inode();
    if inode.0.is_null() {
        return None;
    }
    let mut sum = hash::with(hash::START, verifier::number(name.0 as u64));
    sum = hash::with(sum, verifier::number(name.parent().0 as u64));
    sum = hash::with(sum, name.name_hash());
    sum = hash::with(sum, inode.number());
    sum = hash::with(sum, u64::from(name.super_block().device()) << 32 | u64::from(inode.generation()));
    Some(hash::with(sum, u64::from(policy.generation) << 32 | u64::from(policy.starts)))
}

/// The slot of a key.
#[inline(always)]
fn slot(key: u64) -> u32 {
    key as u32 & (limits::PLACES - 1)
}

#[inline(always)]
fn check(key: u64, reached: u64, renames: u32) -> u64 {
    hash::with(hash::with(key, reached), u64::from(renames))
}

const _: () = assert!(limits::PLACES.is_power_of_two());

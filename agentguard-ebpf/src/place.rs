//! Where the walk to a directory ended, kept so that the next operation in it steps
//! through one name and not through all.
//!
//! A place is good for one policy generation and as long as nothing has been renamed:
//! the kernel's own count of renames (`rename_lock`, fs/dcache.c) is read before a walk,
//! kept with what it gave, and compared when that is used. The count is odd while a
//! rename is under way. Only directories: between two renames a directory has one name,
//! a file may have several. A directory is known by its inode's number and generation,
//! which a new directory in its place does not share, and by its name in memory.

use agentguard_common::identity::PolicyRecord;
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

/// A directory.
#[repr(C)]
pub struct PlaceKey {
    dentry: u64,
    inode: u64,
    device: u32,
    generation: u32,
}

/// What is kept.
#[repr(C)]
pub struct Place {
    reached: u64,
    generation: u32,
    starts: u32,
    renames: u64,
    /// [`mix`] of the key and everything above. The map gives elements that it evicts to
    /// other keys at once, also while a program reads them: then this does not match.
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

/// The count of renames; `None` if it is not known or one is under way.
#[inline(always)]
pub fn renames() -> Option<u32> {
    let address = RENAME_LOCK.load();
    if address == 0 {
        return None;
    }
    kernel::probe::<u32>(address).filter(|count| count & 1 == 0)
}

/// Where an earlier walk under this policy ended at this directory, if that still holds.
#[inline(always)]
pub fn recall(policy: &PolicyRecord, directory: Dentry, renames: u32) -> Option<Reached> {
    match look_up(policy, directory, renames) {
        Reached::NONE => None,
        reached => Some(Reached(reached)),
    }
}

/// Not inlined: its stack is free again before the walk.
#[inline(never)]
fn look_up(policy: &PolicyRecord, directory: Dentry, renames: u32) -> u64 {
    let Some(key) = key(directory) else {
        return Reached::NONE;
    };
    let Some(place) = PLACES.get_ptr(&key) else {
        return Reached::NONE;
    };
    // SAFETY: map memory, checked for null; believed when the check matches.
    let place = unsafe {
        Place {
            reached: (&raw const (*place).reached).read_volatile(),
            generation: (&raw const (*place).generation).read_volatile(),
            starts: (&raw const (*place).starts).read_volatile(),
            renames: (&raw const (*place).renames).read_volatile(),
            check: (&raw const (*place).check).read_volatile(),
        }
    };
    let current = place.generation == policy.generation
        && place.starts == policy.starts
        && place.renames == u64::from(renames);
    if current && place.check == mix(&key, &place) { place.reached } else { Reached::NONE }
}

/// Keeps where a walk to a directory ended, for the count of renames from before it.
#[inline(never)]
pub fn keep(policy: &PolicyRecord, directory: Dentry, renames: u32, reached: u64) -> u64 {
    // Different directories there can have the same number.
    if matches!(directory.super_block().magic(), OVERLAYFS | FUSE) {
        return reached;
    }
    let Some(key) = key(directory) else {
        return reached;
    };
    let mut place = Place {
        reached,
        generation: policy.generation,
        starts: policy.starts,
        renames: u64::from(renames),
        check: 0,
    };
    place.check = mix(&key, &place);
    // A full table evicts; what cannot be kept is walked to again.
    let _ = PLACES.insert(&key, &place, 0);
    reached
}

#[inline(always)]
fn key(directory: Dentry) -> Option<PlaceKey> {
    let inode = directory.inode();
    if inode.0.is_null() {
        return None;
    }
    Some(PlaceKey {
        dentry: verifier::number(directory.0 as u64),
        inode: inode.number(),
        device: directory.super_block().device(),
        generation: inode.generation(),
    })
}

/// Mixes all words of an element into one.
#[inline(always)]
fn mix(key: &PlaceKey, place: &Place) -> u64 {
    let mut sum = hash::with(hash::START, key.dentry);
    sum = hash::with(sum, key.inode);
    sum = hash::with(sum, u64::from(key.device) << 32 | u64::from(key.generation));
    sum = hash::with(sum, place.reached);
    sum = hash::with(sum, u64::from(place.generation) << 32 | u64::from(place.starts));
    hash::with(sum, place.renames)
}

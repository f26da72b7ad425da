//! Where the walk of a name ended, kept with the inode that it ended at, so that the
//! next operation there steps through one name and not through all.
//!
//! A place is good for one policy generation and as long as nothing has been renamed:
//! the kernel's own count of renames (`rename_lock`, fs/dcache.c) is read before a walk,
//! kept with what it gave, and compared when that is used. The count is odd while a
//! rename is under way.

use agentguard_common::identity::PolicyRecord;
use agentguard_common::path::Position;
use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::atomic;
use crate::kernel::{Dentry, Inode};
use crate::maps::PLACES;

/// Address of `rename_lock`, whose first word is the count; 0: not known, so nothing is kept.
#[unsafe(no_mangle)]
pub static RENAME_LOCK: Global<u64> = Global::new(0);

/// What is kept. Written under `writers`, read under `version`, which is odd meanwhile:
/// an entry that two processors write, or that is read while written, counts as none.
/// x86 keeps stores in order, and loads; other processors would need barriers.
#[repr(C)]
pub struct Place {
    version: u64,
    writers: u64,
    dentry: u64,
    generation: u32,
    starts: u32,
    renames: u32,
    depth: u32,
    at: Position,
}

/// A position, and the number of names before it.
#[derive(Clone, Copy)]
pub struct Reached {
    /// Position.
    pub at: Position,
    /// Names between the root of the file system and it.
    pub depth: u32,
}

/// The count of renames; `None` if it is not known or one is under way.
#[inline(always)]
pub fn renames() -> Option<u32> {
    let address = RENAME_LOCK.load();
    if address == 0 {
        return None;
    }
    let mut count = 0_u32;
    // SAFETY: four bytes go into four; the helper does not fault.
    let failed = unsafe {
        bpf_probe_read_kernel(
            (&raw mut count).cast(),
            size_of::<u32>() as u32,
            address as *const core::ffi::c_void,
        )
    };
    if failed != 0 || count & 1 != 0 { None } else { Some(count) }
}

/// Where an earlier walk under this policy ended at this name, if that still holds.
#[inline(always)]
pub fn recall(policy: &PolicyRecord, dentry: Dentry, inode: Inode, renames: u32) -> Option<Reached> {
    if inode.0.is_null() {
        return None;
    }
    // SAFETY: checked for null; storage lives as long as the inode, which the name holds.
    let place = unsafe { PLACES.get_ptr_mut(inode.0.cast_mut().cast()) };
    if place.is_null() {
        return None;
    }
    // SAFETY: map memory; every field is copied, in order, before it is believed.
    unsafe {
        let version = (&raw const (*place).version).read_volatile();
        let known = (&raw const (*place).dentry).read_volatile() == dentry.0 as u64
            && (&raw const (*place).generation).read_volatile() == policy.generation
            && (&raw const (*place).starts).read_volatile() == policy.starts
            && (&raw const (*place).renames).read_volatile() == renames;
        let fixed = (&raw const (*place).at.fixed).read_volatile();
        let deep = (&raw const (*place).at.deep).read_volatile();
        let depth = (&raw const (*place).depth).read_volatile();
        let again = (&raw const (*place).version).read_volatile();
        if !known || version & 1 != 0 || version != again {
            return None;
        }
        Some(Reached { at: Position { fixed, deep }, depth })
    }
}

/// Keeps where a walk ended, for the count of renames from before it.
#[inline(always)]
pub fn keep(policy: &PolicyRecord, dentry: Dentry, inode: Inode, renames: u32, reached: Reached) {
    if inode.0.is_null() {
        return;
    }
    // SAFETY: as in `recall`.
    let place = unsafe { PLACES.get_or_insert_ptr_mut(inode.0.cast_mut().cast(), None) };
    if place.is_null() {
        return;
    }
    // SAFETY: map memory; the first writer alone goes on.
    unsafe {
        if atomic::add(&raw mut (*place).writers, 1) == 0 {
            atomic::add(&raw mut (*place).version, 1);
            (&raw mut (*place).dentry).write_volatile(dentry.0 as u64);
            (&raw mut (*place).generation).write_volatile(policy.generation);
            (&raw mut (*place).starts).write_volatile(policy.starts);
            (&raw mut (*place).renames).write_volatile(renames);
            (&raw mut (*place).depth).write_volatile(reached.depth);
            (&raw mut (*place).at.fixed).write_volatile(reached.at.fixed);
            (&raw mut (*place).at.deep).write_volatile(reached.at.deep);
            atomic::add(&raw mut (*place).version, 1);
        }
        atomic::add(&raw mut (*place).writers, 1_u64.wrapping_neg());
    }
}

//! What was found out about a name, kept until something may have changed: the common part
//! of `place` (where a directory is in the automata) and `settled` (what was decided).
//!
//! What is kept is good for one policy generation and as long as nothing has been renamed:
//! the kernel's own count of renames (`rename_lock`, fs/dcache.c) is read before the
//! question, kept with its answer, and compared when that is used. The count is odd while a
//! rename is under way. A name is known by its address in memory, its directory's, its
//! hash, and its inode's number and generation, which a new file in its place does not
//! share. All of it goes into one number of 64 bits, from a start that only the daemon knows.

use aya_ebpf::Global;

use crate::kernel::{self, Dentry, Inode};
use crate::{hash, verifier};

/// Address of `rename_lock`, whose first word is the count; 0: not known, so nothing is kept.
#[unsafe(no_mangle)]
pub static RENAME_LOCK: Global<u64> = Global::new(0);

/// What the hashes begin with: a random number, so that nobody can look for names that
/// share one.
#[unsafe(no_mangle)]
pub static KEPT_SEED: Global<u64> = Global::new(0);

/// Nothing is kept, as a number.
pub const NONE: u64 = u64::MAX;

/// What is kept, at a slot that the name's hash gives: the last one there stays.
#[repr(C)]
pub struct Kept {
    value: u64,
    /// [`check`] of the name and all that `value` depends on. Both words are written one
    /// after the other, also while a program reads them: then this does not match.
    check: u64,
}

impl Kept {
    /// The value, if it was kept for this key at this count of renames; else [`NONE`].
    ///
    /// # Safety
    /// `slot` points into map memory.
    #[inline(always)]
    pub unsafe fn read(slot: *const Self, key: u64, renames: u32) -> u64 {
        // SAFETY: the caller's; believed when the check matches.
        let (value, kept) = unsafe {
            ((&raw const (*slot).value).read_volatile(), (&raw const (*slot).check).read_volatile())
        };
        if kept == check(key, value, renames) { value } else { NONE }
    }

    /// Keeps a value.
    ///
    /// # Safety
    /// `slot` points into map memory.
    #[inline(always)]
    pub unsafe fn write(slot: *mut Self, key: u64, renames: u32, value: u64) {
        // SAFETY: the caller's; readers compare the check.
        unsafe {
            (&raw mut (*slot).check).write_volatile(0);
            (&raw mut (*slot).value).write_volatile(value);
            (&raw mut (*slot).check).write_volatile(check(key, value, renames));
        }
    }
}

/// No count of renames (it is not known, or a rename is under way): the count at rest is even.
pub const UNKNOWN: u32 = 1;

/// The count of renames, to be read before the question that is asked about a name.
#[inline(always)]
pub fn renames() -> u32 {
    let address = RENAME_LOCK.load();
    if address == 0 {
        return UNKNOWN;
    }
    kernel::probe_or_odd(address)
}

/// Whether nothing can be kept now.
#[inline(always)]
pub fn is_unknown(renames: u32) -> bool {
    renames & UNKNOWN != 0
}

/// Whether names of a file system can be kept: on some, different ones share numbers.
#[inline(always)]
pub fn tells_apart(name: Dentry) -> bool {
    const OVERLAYFS: u64 = 0x794c_7630;
    const FUSE: u64 = 0x6573_5546;
    !matches!(name.super_block().magic(), OVERLAYFS | FUSE)
}

/// A hash of a name, of the inode that it has, and of what is asked.
#[inline(always)]
pub fn key(name: Dentry, inode: Inode, asked: u64) -> u64 {
    let device = u64::from(name.super_block().device());
    let mut sum = hash::with(KEPT_SEED.load(), verifier::number(name.0 as u64));
    sum = hash::with(sum, verifier::number(name.parent().0 as u64));
    sum = hash::with(sum, name.name_hash());
    sum = hash::with(sum, inode.number());
    sum = hash::with(sum, device << 32 | u64::from(inode.generation()));
    hash::with(sum, asked)
}

/// A keyed hash of four words, which is never 0.
#[inline(always)]
pub fn of_words(a: u64, b: u64, c: u64, d: u64) -> u64 {
    let sum = hash::with(hash::with(KEPT_SEED.load(), a), b);
    hash::with(hash::with(sum, c), d) | 1
}

#[inline(always)]
fn check(key: u64, value: u64, renames: u32) -> u64 {
    hash::with(hash::with(key, value), u64::from(renames))
}

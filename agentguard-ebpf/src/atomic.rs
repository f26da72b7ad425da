//! Atomic addition on map memory. `core::sync::atomic` has no `fetch_add` for
//! this target (no compare-and-swap is promised), but the instruction exists
//! (`BPF_ATOMIC | BPF_ADD | BPF_FETCH`, Linux 5.12).

use core::intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg};

/// Adds to a counter in map memory; returns the value before.
#[inline(always)]
pub fn add(counter: *mut u64, by: u64) -> u64 {
    // SAFETY: callers pass aligned map memory that the verifier has checked.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(counter, by) }
}

/// The same for signed counters.
#[inline(always)]
pub fn add_signed(counter: *mut i64, by: i64) -> i64 {
    add(counter.cast(), by as u64) as i64
}

/// Puts a value into map memory; returns the one before.
#[inline(always)]
pub fn put(place: *mut u64, value: u64) -> u64 {
    // SAFETY: as above.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(place, value) }
}

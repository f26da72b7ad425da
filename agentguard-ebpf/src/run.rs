//! Runs that the kernel begins by itself.

use agentguard_common::identity::{RunRecord, Tag, origin, run_state, serial};
use agentguard_common::limits::{LINEAGE, RUNS as SLOTS};
use aya_ebpf::helpers::generated::{bpf_get_current_uid_gid, bpf_get_smp_processor_id};

use crate::kernel::Task;
use crate::maps::{NEXT_RUN, RUNS};
use crate::{atomic, emit, verifier};

/// A run that is about to begin.
pub struct Wanted {
    /// The agent's index, in the place where it is started.
    pub agent: u32,
    /// Longest life, nanoseconds; 0: no end.
    pub lease_ns: u64,
    /// The run that begins it; all zero if none does.
    pub parent: Tag,
}

/// Takes a slot for a run, with this task as its first. `None`: all slots are taken, or there
/// are too many runs above it.
#[inline(never)]
pub fn begin(wanted: &Wanted, task: Task) -> Option<Tag> {
    let above = Above::of(&wanted.parent)?;
    let from = NEXT_RUN.get_ptr_mut(0).map_or(0, |next| atomic::add(next, 1)) as u32;
    let mut search = Search { from: verifier::forget(from), found: 0 };
    verifier::repeat(SLOTS, take_slot, &mut search);
    let slot = verifier::forget(search.found);
    if slot == 0 {
        return None;
    }
    let run = RUNS.get_ptr_mut(slot)?;
    let now = emit::now();
    // SAFETY: helper without arguments.
    let processor = u64::from(unsafe { bpf_get_smp_processor_id() });
    let serial = serial::of(now, processor);
    let lease = if wanted.lease_ns == 0 { 0 } else { now + wanted.lease_ns };
    // SAFETY: map memory; nobody else writes a slot that is taken and has no state yet.
    unsafe {
        (*run).serial = serial;
        (*run).lease_until = above.end_of(lease);
        (*run).agent = wanted.agent;
        (*run).pid = task.tgid();
        // The lower half is the real user id.
        (*run).uid = bpf_get_current_uid_gid() as u32;
        (*run).origin = origin::MATCHED;
        (*run).depth = above.depth;
        (*run).parent = wanted.parent.run;
        (*run).parent_serial = wanted.parent.run_serial;
        (&raw mut (*run).state).write_volatile(above.state);
    }
    // The one above may have been stopped meanwhile, by a daemon that did not see this one yet.
    if let Some(now) = Above::of(&wanted.parent)
        && now.state != above.state
    {
        // SAFETY: as above.
        unsafe { (&raw mut (*run).state).write_volatile(now.state) };
    }
    Some(Tag { agent: wanted.agent, run: slot, run_serial: serial })
}

/// What a run has from the one above it.
struct Above {
    state: u32,
    lease_until: u64,
    /// How many there are.
    depth: u16,
}

impl Above {
    /// None: there are too many, or the run has ended.
    #[inline(always)]
    fn of(parent: &Tag) -> Option<Self> {
        if !parent.is_set() {
            return Some(Self { state: run_state::ACTIVE, lease_until: 0, depth: 0 });
        }
        let run = RUNS.get_ptr(parent.run)?;
        // SAFETY: map memory; read one by one.
        let (serial, state, lease_until, depth) = unsafe {
            (
                (&raw const (*run).serial).read_volatile(),
                (&raw const (*run).state).read_volatile(),
                (&raw const (*run).lease_until).read_volatile(),
                (&raw const (*run).depth).read_volatile(),
            )
        };
        if serial != parent.run_serial || depth >= LINEAGE {
            return None;
        }
        Some(Self { state, lease_until, depth: depth + 1 })
    }

    /// The end of its lease, or of the one above if that is sooner.
    #[inline(always)]
    fn end_of(&self, own: u64) -> u64 {
        if own == 0 || self.lease_until != 0 && self.lease_until < own {
            self.lease_until
        } else {
            own
        }
    }
}

/// Gives a slot back whose run did not come about.
#[inline(always)]
pub fn give_up(tag: &Tag) {
    if let Some(run) = RUNS.get_ptr_mut(tag.run) {
        // SAFETY: map memory of a slot that this program took.
        unsafe {
            (&raw mut (*run).state).write_volatile(run_state::FREE);
            (&raw mut (*run).serial).write_volatile(0);
        }
        atomic::put(taken(run), 0);
    }
}

struct Search {
    from: u32,
    found: u32,
}

/// Takes the next slot, if it is free. Returns 1 to stop.
unsafe extern "C" fn take_slot(index: u64, search: *mut Search) -> u64 {
    // SAFETY: the state that `begin` gave.
    let search = unsafe { &mut *search };
    let slot = search.from.wrapping_add(index as u32) & (SLOTS - 1);
    // Slot 0 is nobody's: it is what a zeroed tag would name.
    if slot == 0 {
        return 0;
    }
    let Some(run) = RUNS.get_ptr_mut(slot) else {
        return 0;
    };
    // SAFETY: map memory.
    if unsafe { taken(run).read_volatile() } != 0 || atomic::put(taken(run), 1) != 0 {
        return 0;
    }
    search.found = slot;
    1
}

#[inline(always)]
fn taken(run: *mut RunRecord) -> *mut u64 {
    // SAFETY: a field of map memory; only its address is taken.
    unsafe { &raw mut (*run).taken }
}

const _: () = assert!(SLOTS.is_power_of_two());

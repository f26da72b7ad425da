//! Runs that the kernel begins by itself.

use agentguard_common::identity::{RunRecord, Tag, origin, run_state, serial};
use agentguard_common::limits::RUNS as SLOTS;
use agentguard_common::matching::MatchRule;
use aya_ebpf::helpers::generated::{bpf_get_current_uid_gid, bpf_get_smp_processor_id};

use crate::kernel::Task;
use crate::maps::{NEXT_RUN, RUNS};
use crate::{atomic, emit, verifier};

/// Takes a slot for a run of what a match is about, with this task as its first. `None`: all
/// slots are taken.
#[inline(never)]
pub fn begin(rule: &MatchRule, task: Task) -> Option<Tag> {
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
    // SAFETY: map memory; nobody else writes a slot that is taken and has no state yet.
    unsafe {
        (*run).serial = serial;
        (*run).lease_until = if rule.lease_ns == 0 { 0 } else { now + rule.lease_ns };
        (*run).agent = rule.agent;
        (*run).pid = task.tgid();
        // The lower half is the real user id.
        (*run).uid = bpf_get_current_uid_gid() as u32;
        (*run).origin = origin::MATCHED;
        (&raw mut (*run).state).write_volatile(run_state::ACTIVE);
    }
    Some(Tag { agent: rule.agent, run: slot, run_serial: serial })
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

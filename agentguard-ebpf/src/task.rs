//! Tags on tasks: the only reader and writer of task storage.

use agentguard_common::counter::Counter;
use agentguard_common::identity::Tag;
use agentguard_common::limits::LINEAGE;

use crate::{atomic, emit, verifier};
use crate::kernel::{STORAGE_CAN_MISS, Task};
use crate::maps::{LIVE, MEASURING, RUNS, TASKS, TASKS_BY_ADDRESS};

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
/// The map's entry must not be there yet.
const BPF_NOEXIST: u64 = 1;

/// Whether any task on the host has a tag.
#[inline(always)]
pub fn any_tagged() -> bool {
    LIVE.get(0).is_some_and(|live| *live != 0)
}

/// The task's tag.
#[inline(always)]
pub fn tag(task: Task) -> Option<Tag> {
    tag_in_place(task).copied()
}

/// The task's tag where it is kept: hooks have little stack to copy it to.
#[inline(always)]
pub fn tag_in_place(task: Task) -> Option<&'static Tag> {
    // Most tasks of a host have no storage at all: one load says so.
    if !task.has_storage() || !any_tagged() {
        return None;
    }
    let stored = TASKS.get(task.as_ptr());
    // SAFETY: checked for null; task storage lives as long as the program runs.
    if let Some(tag) = unsafe { stored.as_ref() }
        && tag.is_set()
    {
        return Some(tag);
    }
    if STORAGE_CAN_MISS.load() != 0
        && let Some(tag) = tag_by_address(task)
    {
        emit::count(Counter::StorageMissed);
        return Some(tag);
    }
    None
}

/// The task's tag by the second lookup, where there is one.
#[inline(always)]
pub fn tag_by_address(task: Task) -> Option<&'static Tag> {
    let address = task.0 as u64;
    // SAFETY: entries are not preallocated, so a removed one stays readable until the
    // program ends.
    unsafe { TASKS_BY_ADDRESS.get(address) }
}

/// Tags a task that has no tag yet. Fails when memory or a limit does.
#[inline(always)]
pub fn set_tag(task: Task, tag: &Tag) -> bool {
    if STORAGE_CAN_MISS.load() != 0 {
        let address = task.0 as u64;
        if TASKS_BY_ADDRESS.insert(address, tag, 0).is_err() {
            return false;
        }
    }
    let stored = TASKS.get_or_create(task.as_ptr());
    // SAFETY: checked for null; nobody else writes this task's storage now.
    let Some(stored) = (unsafe { stored.as_mut() }) else {
        if STORAGE_CAN_MISS.load() != 0 {
            let address = task.0 as u64;
            let _ = TASKS_BY_ADDRESS.remove(address);
        }
        return false;
    };
    *stored = *tag;
    add_live(1);
    add_to_run(tag, 1);
    true
}

/// The same for a task that others can see already: whoever else tags it at the same time,
/// it is counted once.
#[inline(always)]
pub fn set_tag_once(task: Task, tag: &Tag) -> bool {
    if STORAGE_CAN_MISS.load() != 0 {
        let address = task.0 as u64;
        match TASKS_BY_ADDRESS.insert(address, tag, BPF_NOEXIST) {
            Ok(()) => {}
            Err(error) => return error == -EEXIST,
        }
    }
    let stored = TASKS.get_or_create(task.as_ptr());
    // SAFETY: checked for null; the serial number is exchanged below.
    let Some(stored) = (unsafe { stored.as_mut() }) else {
        if STORAGE_CAN_MISS.load() != 0 {
            let address = task.0 as u64;
            let _ = TASKS_BY_ADDRESS.remove(address);
        }
        return false;
    };
    stored.agent = tag.agent;
    stored.run = tag.run;
    let was = atomic::put(&raw mut stored.run_serial, tag.run_serial);
    if STORAGE_CAN_MISS.load() == 0 && was != 0 {
        return was == tag.run_serial;
    }
    add_live(1);
    add_to_run(tag, 1);
    true
}

/// Gives a tagged task the tag of a run that its own one has begun.
#[inline(always)]
pub fn change_tag(task: Task, old: &Tag, new: &Tag) -> bool {
    if STORAGE_CAN_MISS.load() != 0 {
        let address = task.0 as u64;
        if TASKS_BY_ADDRESS.insert(address, new, 0).is_err() {
            return false;
        }
    }
    let stored = TASKS.get(task.as_ptr());
    // SAFETY: checked for null; nobody else writes this task's storage now.
    let Some(stored) = (unsafe { stored.as_mut() }) else {
        if STORAGE_CAN_MISS.load() != 0 {
            let address = task.0 as u64;
            let _ = TASKS_BY_ADDRESS.insert(address, old, 0);
        }
        return false;
    };
    *stored = *new;
    // A run that is below another one counts there as a task does.
    if add_to_run(new, 1) == 1 {
        add_to_run(old, 1);
    }
    add_to_run(old, -1);
    true
}

/// The run above a run, and where it is; none if nobody's.
#[inline(always)]
pub fn above(tag: &Tag) -> Option<Tag> {
    let run = RUNS.get(tag.run)?;
    if run.serial != tag.run_serial || run.parent_serial == 0 {
        return None;
    }
    let parent = RUNS.get(run.parent)?;
    Some(Tag { agent: parent.agent, run: run.parent, run_serial: run.parent_serial })
}

/// Whether a run is somewhere below another one.
#[inline(never)]
pub fn is_below(tag: &Tag, run_serial: u64) -> bool {
    let mut climb = Climb { at: *tag, wanted: run_serial, found: 0 };
    verifier::repeat(u32::from(LINEAGE), one_up, &mut climb);
    climb.found != 0
}

struct Climb {
    at: Tag,
    wanted: u64,
    found: u32,
}

/// Goes to the run above. Returns 1 to stop.
unsafe extern "C" fn one_up(_: u64, climb: *mut Climb) -> u64 {
    // SAFETY: the state that `is_below` gave.
    let climb = unsafe { &mut *climb };
    let Some(parent) = above(&climb.at) else {
        return 1;
    };
    if parent.run_serial == climb.wanted {
        climb.found = 1;
        return 1;
    }
    climb.at = parent;
    0
}

/// Takes one task or run off a run; how many it has left.
#[inline(always)]
pub fn leave(tag: &Tag) -> i64 {
    add_to_run(tag, -1)
}

/// Forgets a task that is being freed; returns its tag and how many tasks its
/// run has left. During an upgrade the old and the new program both come here:
/// only the one that finds the tag and takes it away counts.
#[inline(always)]
pub fn clear_tag(task: Task) -> Option<(Tag, i64)> {
    let tag = tag(task)?;
    if STORAGE_CAN_MISS.load() != 0 {
        let address = task.0 as u64;
        if let Err(error) = TASKS_BY_ADDRESS.remove(address) {
            // Not there any more: the other program took it away, and counted.
            if error != -ENOENT {
                emit::count(Counter::UntagFailed);
            }
            return None;
        }
    } else {
        let stored = TASKS.get(task.as_ptr());
        // SAFETY: checked for null; the task is being freed, nobody else writes.
        let stored = unsafe { stored.as_mut() }?;
        stored.run_serial = 0;
    }
    let left = add_to_run(&tag, -1);
    add_live(-1);
    Some((tag, left))
}

/// Notes whether the running task was refused CAP_PERFMON just now.
#[inline(always)]
pub fn set_asked_to_measure(refused: bool) {
    let task = Task::current().as_ptr();
    let noted = if refused { MEASURING.get_or_create(task) } else { MEASURING.get(task) };
    // SAFETY: checked for null; only the task itself writes its storage.
    if let Some(noted) = unsafe { noted.as_mut() } {
        *noted = u64::from(refused);
    }
}

/// Whether it was, and that is forgotten.
#[inline(always)]
pub fn was_refused_to_measure() -> bool {
    let noted = MEASURING.get(Task::current().as_ptr());
    // SAFETY: as above.
    match unsafe { noted.as_mut() } {
        Some(noted) if *noted != 0 => {
            *noted = 0;
            true
        }
        _ => false,
    }
}

/// Removes what an earlier task at this address left behind when its removal
/// failed ([`Counter::UntagFailed`]): nobody inherits from a task long gone.
#[inline(always)]
pub fn forget_address(task: Task) {
    if STORAGE_CAN_MISS.load() != 0 {
        let address = task.0 as u64;
        // SAFETY: only its presence is looked at.
        if unsafe { TASKS_BY_ADDRESS.get(address) }.is_some() {
            let _ = TASKS_BY_ADDRESS.remove(address);
        }
    }
}

#[inline(always)]
fn add_live(by: i64) {
    if let Some(live) = LIVE.get_ptr_mut(0) {
        atomic::add_signed(live, by);
    }
}

/// Returns the number of tasks after the change; 1 if the run is not that one any more.
#[inline(always)]
fn add_to_run(tag: &Tag, by: i64) -> i64 {
    let Some(run) = RUNS.get_ptr_mut(tag.run) else {
        return 1;
    };
    // SAFETY: map memory; the serial is written before the first task is tagged.
    if unsafe { (*run).serial } != tag.run_serial {
        return 1;
    }
    // SAFETY: a field of map memory; only its address is taken.
    atomic::add_signed(unsafe { &raw mut (*run).tasks }, by) + by
}

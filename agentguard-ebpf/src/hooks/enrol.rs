//! The first tag of a process, written by the kernel on the daemon's request:
//! an iterator over all tasks that tags the threads of one process.

use core::ffi::c_void;

use agentguard_common::identity::Tag;

use crate::kernel::{Argument, LSM_ATTACHED, Task};
use crate::maps::ENROL;
use crate::task;

/// `struct bpf_iter__task`: what the iterator hands over.
#[repr(C)]
struct IterContext {
    meta: *const c_void,
    task: *const c_void,
}

/// Whether a task was made by one with this tag. (Threads have the parent of their process.)
#[inline(always)]
fn is_below(task: Task, tag: &Tag) -> bool {
    task::tag(task.real_parent()) == Some(*tag)
}

/// Whether a task ends and was counted out of its run already, or is about to be: without LSM
/// programs that is when it exits, and not when it is freed.
#[inline(always)]
fn is_counted_out(task: Task) -> bool {
    LSM_ATTACHED.load() == 0 && task.is_exiting()
}

/// Tags every thread of the process that `ENROL` names. A thread that has a tag
/// keeps it and counts as failed: enrolment never changes an identity.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn enrol(ctx: *mut c_void) -> i32 {
    let ctx: *const IterContext = ctx.cast();
    // SAFETY: the context of an iterator program; the task is null at the end.
    let task = Task::from_argument(unsafe { (*ctx).task });
    if task.is_none() {
        return 0;
    }
    let Some(request) = ENROL.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: map memory; the daemon waits for the iterator and runs one at a time.
    let request = unsafe { &mut *request };
    if request.tgid == 0 {
        return 0;
    }
    let tag = request.tag;
    if task.tgid() != request.tgid && (request.tree == 0 || !is_below(task, &tag)) {
        return 0;
    }
    match task::tag(task) {
        Some(old) if old == tag => {}
        // A run below the one that it is in.
        Some(old) if request.from != 0 && old.run_serial == request.from => {
            if task::change_tag(task, &old, &tag) {
                request.tagged += 1;
            } else {
                request.failed += 1;
            }
        }
        Some(_) => request.failed += 1,
        // Nobody would count it out any more.
        None if is_counted_out(task) => {}
        None if request.from == 0 && task::set_tag_once(task, &tag) => {
            request.tagged += 1;
            if is_counted_out(task) {
                task::clear_tag(task);
            }
        }
        None => request.failed += 1,
    }
    0
}

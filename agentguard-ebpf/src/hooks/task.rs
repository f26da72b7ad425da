//! Inheritance: every new task carries its creator's tag from before it is
//! visible to anyone, and is counted out when it is gone.

use agentguard_common::counter::Counter;
use agentguard_common::event::Kind;
use agentguard_common::identity::Tag;
use agentguard_common::limits::LINEAGE;
use aya_ebpf::macros::{btf_tracepoint, lsm};
use aya_ebpf::programs::{BtfTracePointContext, LsmContext};

use crate::emit::{self, Subjected};
use crate::enforce;
use crate::kernel::{Argument, LSM_ATTACHED, Task};
use crate::maps::{HEADS, POLICIES, RUNS};
use crate::{task, verifier};

const ENOMEM: i32 = 12;

/// `int task_alloc(struct task_struct *task, unsigned long clone_flags)`
///
/// Called from `copy_process` for fork, vfork, clone, threads and io_uring
/// workers alike, before the task can run.
#[lsm(hook = "task_alloc")]
pub fn task_alloc(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    if prior != 0 {
        return prior;
    }
    let child = Task::from_argument(ctx.arg(0));
    let Some(tag) = enforce::tagged(prior) else {
        task::forget_address(child);
        return 0;
    };
    // Already there: during an upgrade the old program ran first.
    if task::tag(child) == Some(*tag) || task::set_tag(child, tag) {
        return 0;
    }
    emit::count(Counter::TagFailed);
    -ENOMEM
}

/// `void task_free(struct task_struct *task)`
#[lsm(hook = "task_free")]
pub fn task_free(ctx: LsmContext) -> i32 {
    if task::any_tagged() {
        count_out(Task::from_argument(ctx.arg(0)));
    }
    0
}

/// `void task_newtask(struct task_struct *task, unsigned long clone_flags)`:
/// the last thing `copy_process` does, when the child is in the list of tasks. It
/// cannot fail the fork, so a task that cannot be tagged is counted and reported.
/// It copies the tag where `task_alloc` does not; and where that did not because the
/// parent was adopted in between, for the iterator may have passed the child's place.
#[btf_tracepoint(function = "task_newtask")]
pub fn task_newtask(ctx: BtfTracePointContext) -> i32 {
    if !task::any_tagged() {
        return 0;
    }
    let child = Task::from_argument(ctx.arg(0));
    if let Some(tag) = task::tag(Task::current())
        && task::tag(child).is_none()
        && !task::set_tag_once(child, &tag)
    {
        emit::count(Counter::TagFailed);
    }
    0
}

/// `void sched_process_exit(struct task_struct *p)`
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    if !task::any_tagged() {
        return 0;
    }
    let exiting = Task::from_argument(ctx.arg(0));
    let Some(tag) = task::tag(exiting) else {
        return 0;
    };
    // The leader's end is the process's, as far as people are concerned.
    if exiting.pid() == exiting.tgid()
        && let Some(head) = HEADS.get(tag.agent)
        && let Some(policy) = POLICIES.get(*head)
        && let Some(run) = RUNS.get_ptr_mut(tag.run)
    {
        emit::ended(&Subjected { tag: &tag, policy, run }, Kind::Exit, exiting.exit_code());
    }
    if LSM_ATTACHED.load() == 0 {
        count_out(exiting);
    }
    0
}

/// Counts a task out of its run, and tells when it was the last.
#[inline(always)]
fn count_out(task: Task) {
    let Some(tag) = task::tag(task) else {
        return;
    };
    // Before the last task is counted out: then the daemon may free the slot.
    let mut above = Line::above(&tag);
    let Some((tag, left)) = task::clear_tag(task) else {
        return;
    };
    if left != 0 {
        return;
    }
    tell_end(&tag);
    verifier::repeat(u32::from(LINEAGE), leave_parent, &mut above);
}

/// A run below others that has ended.
struct Line {
    /// The run above it; all zero if there is none.
    parent: Tag,
}

impl Line {
    #[inline(always)]
    fn above(tag: &Tag) -> Self {
        Self { parent: task::above(tag).unwrap_or_default() }
    }
}

/// Counts an ended run out of the one above it. Returns 1 where that goes on.
unsafe extern "C" fn leave_parent(_: u64, line: *mut Line) -> u64 {
    // SAFETY: the state that `count_out` gave.
    let line = unsafe { &mut *line };
    let ended = line.parent;
    if !ended.is_set() {
        return 1;
    }
    line.parent = Line::above(&ended).parent;
    if task::leave(&ended) != 0 {
        return 1;
    }
    tell_end(&ended);
    0
}

/// Tells that a run has no task left.
#[inline(never)]
fn tell_end(tag: &Tag) {
    if let Some(head) = HEADS.get(tag.agent)
        && let Some(policy) = POLICIES.get(*head)
        && let Some(run) = RUNS.get_ptr_mut(tag.run)
    {
        emit::ended(&Subjected { tag, policy, run }, Kind::RunEnded, 0);
    }
}

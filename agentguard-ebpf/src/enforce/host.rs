//! What is about other processes or the host as a whole, and needs a privilege by name.

use agentguard_common::decision::{self, Subject};
use agentguard_common::identity::{PolicyRecord, Tag, privilege};
use agentguard_common::verb::{Verb, Verbs};
use agentguard_common::verdict::{Decision, Reason};

use super::{Settled, conclude, first, records, unknown, verdict_to_errno};
use crate::emit::{self, Subjected};
use crate::kernel::{Dentry, Task};

/// Privileges over processes; the reason of a refusal then says so.
const OVER_PROCESSES: u32 = privilege::PTRACE_OUTSIDE | privilege::SIGNAL_OUTSIDE;

/// Decides about a process outside the run; the record names its program. `quiet`: the
/// kernel only asks whether it could, such as for every line of `ps`; that is no attempt,
/// and neither counted nor told.
#[inline(always)]
pub fn outside(tag: &Tag, other: Task, needed: u32, verb: Verb, quiet: bool) -> i32 {
    privileged(tag, other.program().dentry(), needed, verb, quiet)
}

/// Decides what is about no file; the record names the agent's program.
#[inline(always)]
pub fn of_kernel(tag: &Tag, needed: u32, verb: Verb, quiet: bool) -> i32 {
    privileged(tag, Task::current().program().dentry(), needed, verb, quiet)
}

/// Decides what a privilege allows.
///
/// Not inlined: one copy a program.
#[inline(never)]
pub fn privileged(tag: &Tag, object: Dentry, needed: u32, verb: Verb, quiet: bool) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: map memory that outlives the program; counters in it are atomics.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let decision = match decision::standing(&subject, emit::now) {
        Some(decision) => decision,
        None if policy.privileges & needed != 0 => return 0,
        None if needed & OVER_PROCESSES != 0 => Decision::deny(Reason::OutsideRun),
        None => Decision::deny(Reason::Privilege),
    };
    let settled = Settled::new(decision, verb);
    if quiet {
        return verdict_to_errno(policy, settled);
    }
    conclude(&Subjected { tag, policy, run }, settled, object, false)
}

/// Decides about measuring (CAP_PERFMON), which shows the memory of every process.
#[inline(always)]
pub fn measuring(tag: &Tag) -> i32 {
    of_kernel(tag, privilege::PTRACE_OUTSIDE, Verb::Read, false)
}

/// What becomes of an allowance where the file is a switch of the kernel: it needs the
/// privilege as well, whatever the rules say.
///
/// Not inlined: it is asked at several places of a program.
#[inline(never)]
pub fn setting(policy: &PolicyRecord, dentry: Dentry, wanted: Verbs, settled: u32) -> u32 {
    const CHANGES: Verbs = Verbs::of(Verb::Write)
        .and(Verb::Create)
        .and(Verb::Delete)
        .and(Verb::Attributes);
    if policy.privileges & privilege::KERNEL_SETTINGS != 0 || !Settled(settled).allows() {
        return settled;
    }
    let refused = if wanted.0 & CHANGES.0 != 0 {
        dentry.is_setting()
    } else {
        wanted.has(Verb::Read) && dentry.is_pin()
    };
    if refused {
        return Settled::new(Decision::deny(Reason::Privilege), first(wanted)).0;
    }
    settled
}

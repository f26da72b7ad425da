//! From a hook's facts to its return value: find the subject, ask the decision
//! function of agentguard-common, count, record, and turn the verdict into an
//! errno. No other module returns an errno for a decision.

use agentguard_common::counter::Counter;
use agentguard_common::decision::{self, Subject};
use agentguard_common::identity::{PolicyRecord, RunRecord, Tag, policy_flag, privilege};
use agentguard_common::path::Rows;
use agentguard_common::verb::{Verb, Verbs};
use agentguard_common::verdict::{Decision, Mode, Reason, Verdict};

use crate::emit::{self, Subjected};
use crate::kernel::{Dentry, Task};
use crate::maps::{DECISIONS, HEADS, POLICIES, RUNS};
use crate::settled::Question;
use crate::{atomic, path, task, verifier};

#[path = "enforce/host.rs"]
pub mod host;
#[path = "enforce/net.rs"]
pub mod net;

/// What a refused operation returns.
const EPERM: i32 = 1;

/// The running task's tag, or `None` if this operation is none of our business.
#[inline(always)]
pub fn tagged(prior: i32) -> Option<&'static Tag> {
    // An earlier LSM's refusal stands; deciding again would only blame us for it.
    if prior != 0 {
        return None;
    }
    task::tag_in_place(Task::current())
}

/// The same, and the running task.
#[inline(always)]
pub fn tagged_task(prior: i32) -> Option<(&'static Tag, Task)> {
    if prior != 0 {
        return None;
    }
    let task = Task::current();
    Some((task::tag_in_place(task)?, task))
}

/// The same for programs that may not use task storage: those of the cgroup kind
/// before 7.0.
#[inline(always)]
pub fn tagged_without_storage() -> Option<&'static Tag> {
    if !task::any_tagged() {
        return None;
    }
    task::tag_by_address(Task::current())
}

/// The records a tag points to.
#[inline(always)]
pub fn records(tag: &Tag) -> Option<(&'static PolicyRecord, *mut RunRecord)> {
    let policy = POLICIES.get(*HEADS.get(tag.agent)?)?;
    let run = RUNS.get_ptr_mut(tag.run)?;
    Some((policy, run))
}

/// Decides an operation on a path for a tagged task.
///
/// Not inlined: one copy a program, however many names the operation has.
#[inline(never)]
pub fn path(tag: &Tag, dentry: Dentry, wanted: Verbs) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: map memory that outlives the program; counters in it are atomics.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let settled = judge(&subject, dentry, wanted);
    // Plain reads that are allowed are counted, not told: a build opens a million files.
    let quiet = settled.is(Verb::Read) || settled.because(Reason::Builtin);
    conclude(&Subjected { tag, policy, run }, settled, dentry, quiet)
}

/// Decides what is done through a descriptor. Only refusals are counted and told: it
/// was decided, counted and told when the file was opened.
#[inline(never)]
pub fn descriptor(tag: &Tag, dentry: Dentry, wanted: Verbs) -> i32 {
    // Pipes, sockets and terminals, also of a run that has no rights any more: what goes
    // through a socket is the network's to decide.
    if path::is_builtin(dentry) {
        return 0;
    }
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: as in `path`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let settled = judge(&subject, dentry, wanted);
    if settled.allows() {
        return 0;
    }
    conclude(&Subjected { tag, policy, run }, settled, dentry, false)
}

/// Decides whether a file may be mapped as a program: as `exec`, but only rules count.
/// By its default alone, `exec: deny` would refuse every library.
#[inline(never)]
pub fn mapped_program(tag: &Tag, dentry: Dentry) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: as in `path`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let settled = judge(&subject, dentry, Verbs::of(Verb::Exec));
    if settled.allows() || settled.because(Reason::Default) {
        return 0;
    }
    conclude(&Subjected { tag, policy, run }, settled, dentry, false)
}

/// Decides what the kernel does on a layer of a stacked file system (overlayfs) for a
/// task: the merged name was decided, so of the layer's own name only rules count.
#[inline(never)]
pub fn layer(tag: &Tag, dentry: Dentry, wanted: Verbs) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: as in `path`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let settled = judge(&subject, dentry, wanted);
    if settled.allows() || settled.because(Reason::Default) || settled.because(Reason::Device) {
        return 0;
    }
    conclude(&Subjected { tag, policy, run }, settled, dentry, false)
}

/// Decides, after both names of a move or link, whether the object or something below
/// it would be less restricted under the new name; with `both`, also the other way.
#[inline(never)]
pub fn moved(tag: &Tag, from: Dentry, to: Dentry, directory: bool, both: bool) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    let (old, new) = (path::find(policy, from), path::find(policy, to));
    let (defaults, directory) = (u32::from(policy.defaults), u32::from(directory));
    let mut found = path::agentguard_moves(old, new, defaults, directory);
    if both && found == 0 {
        found = path::agentguard_moves(new, old, defaults, directory);
    }
    let reason = match verifier::forget(found) {
        0 => return 0,
        1 => Reason::ShedsRules,
        _ => Reason::ReadFailed,
    };
    let settled = Settled::new(Decision::deny(reason), Verb::Delete);
    conclude(&Subjected { tag, policy, run }, settled, from, false)
}

/// Decides whether something may be mounted over, or unmounted from, a directory.
/// `unseen`: only the task's own mount namespace shows it.
#[inline(never)]
pub fn mount(tag: &Tag, dentry: Dentry, unseen: bool) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: as in `path`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let (mut decision, verb) = if policy.privileges & privilege::MOUNT == 0 {
        (Decision::deny(Reason::Privilege), Verb::Write)
    } else if unseen {
        // Nobody else sees it, and names are judged inside their file system.
        (Decision::builtin(), Verb::Write)
    } else {
        by_rules(&subject, dentry, Verbs::of(Verb::Write))
    };
    if let Some(standing) = decision::standing(&subject, emit::now) {
        decision = standing;
    }
    if matches!(decision.verdict, Verdict::Allow) && !matches!(decision.reason, Reason::Builtin) {
        // It hides what is below as well.
        match path::position(policy, dentry) {
            Ok(at) if !path::hides_rules(at) => {}
            Ok(_) => decision = Decision::deny(Reason::ShedsRules),
            Err(reason) => decision = Decision::deny(reason),
        }
    }
    let settled = Settled::new(decision, verb);
    let quiet = settled.because(Reason::Builtin);
    conclude(&Subjected { tag, policy, run }, settled, dentry, quiet)
}

/// Decides whether a device file may be made, after its name.
#[inline(never)]
pub fn device(tag: &Tag, dentry: Dentry) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    if policy.privileges & privilege::DEVICES != 0 {
        return 0;
    }
    let settled = Settled::new(Decision::deny(Reason::Device), Verb::Create);
    conclude(&Subjected { tag, policy, run }, settled, dentry, false)
}

/// Decides a change of mounts of which the kernel does not say where it is: agents with the
/// privilege `mount` may where nobody else sees it.
#[inline(never)]
pub fn mount_unnamed(tag: &Tag, unseen: bool) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: as in `path`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let privileged = policy.privileges & privilege::MOUNT != 0;
    let decision = match decision::standing(&subject, emit::now) {
        Some(decision) => decision,
        None if privileged && unseen => return 0,
        None if privileged => Decision::deny(Reason::Forbidden),
        None => Decision::deny(Reason::Privilege),
    };
    let settled = Settled::new(decision, Verb::Write);
    let object = Task::current().program().dentry();
    conclude(&Subjected { tag, policy, run }, settled, object, false)
}

/// Refuses what no agent may do to a file.
#[inline(always)]
pub fn refused(tag: &Tag, object: Dentry, reason: Reason) -> i32 {
    refused_as(tag, object, Verb::Write, reason)
}

/// Refuses what no agent may do.
#[inline(never)]
pub fn refused_as(tag: &Tag, object: Dentry, verb: Verb, reason: Reason) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    let settled = Settled::new(Decision::deny(reason), verb);
    conclude(&Subjected { tag, policy, run }, settled, object, false)
}

/// Asks the rules about a name, after the run's standing, and about the file's other names.
#[inline(always)]
fn judge(subject: &Subject<'_>, dentry: Dentry, wanted: Verbs) -> Settled {
    if let Some(decision) = decision::standing(subject, emit::now) {
        return Settled::new(decision, first(wanted));
    }
    let inode = dentry.inode();
    if inode.is_none() {
        let (decision, verb) = by_rules(subject, dentry, wanted);
        let settled = Settled::new(decision, verb).0;
        return Settled(host::setting(subject.policy, dentry, wanted, settled));
    }
    let question = Question::new(subject, dentry, inode, wanted);
    if !inode.has_other_names()
        && let Some(known) = question.recall()
    {
        return known;
    }
    let (decision, verb) = by_rules(subject, dentry, wanted);
    let settled = Settled::new(decision, verb).0;
    let settled = Settled(host::setting(subject.policy, dentry, wanted, settled));
    if inode.has_other_names() {
        return Settled(with_other_names(subject.policy, dentry, settled.0, wanted));
    }
    if !settled.failed() {
        question.keep(dentry, settled);
    }
    settled
}

/// Not inlined: its stack is free again before the decision is told.
#[inline(never)]
fn with_other_names(policy: &PolicyRecord, dentry: Dentry, settled: u32, wanted: Verbs) -> u32 {
    let Some(others) = path::other_names(policy, dentry) else {
        if policy.flags & policy_flag::LINKS_FULL != 0 && Settled(settled).allows() {
            // Nobody knows what its other names say.
            return Settled::new(Decision::deny(Reason::OtherName), first(wanted)).0;
        }
        return settled;
    };
    let strictest = Settled(settled).verdict();
    match decision::decide_names(strictest, wanted, others) {
        Some((decision, verb)) => Settled::new(decision, verb).0,
        None => settled,
    }
}

/// Asks the rules about a name.
#[inline(always)]
fn by_rules(subject: &Subject<'_>, dentry: Dentry, wanted: Verbs) -> (Decision, Verb) {
    let reason = match path::rows(subject.policy, dentry) {
        Ok(path::Found::Rows(fixed, deep)) => {
            // SAFETY: checked for null; rows of a policy in force are not rewritten.
            if let (Some(fixed), Some(deep)) = unsafe { (fixed.as_ref(), deep.as_ref()) } {
                let rows = Rows { fixed, deep };
                return if dentry.inode().is_device() {
                    decision::decide_device(subject, wanted, rows)
                } else {
                    decision::decide_path(subject, wanted, rows)
                };
            }
            Reason::ReadFailed
        }
        Ok(path::Found::Builtin) => return (Decision::builtin(), first(wanted)),
        Err(reason) => reason,
    };
    emit::count(if matches!(reason, Reason::TooDeep) {
        Counter::PathTooDeep
    } else {
        Counter::PathUnreadable
    });
    (Decision::deny(reason), first(wanted))
}

/// Counts and tells a decision about a name; what the hook returns.
#[inline(always)]
fn conclude(subject: &Subjected<'_>, settled: Settled, dentry: Dentry, quiet: bool) -> i32 {
    settle(subject, settled);
    if !settled.allows() || !quiet {
        emit::path(subject, settled, dentry);
    }
    verdict_to_errno(subject.policy, settled)
}

/// The verb that stands for a set of verbs when no rule is asked.
#[inline(always)]
fn first(wanted: Verbs) -> Verb {
    if wanted.has(Verb::Write) {
        Verb::Write
    } else if wanted.has(Verb::Create) {
        Verb::Create
    } else if wanted.has(Verb::Delete) {
        Verb::Delete
    } else if wanted.has(Verb::Attributes) {
        Verb::Attributes
    } else if wanted.has(Verb::Exec) {
        Verb::Exec
    } else {
        Verb::Read
    }
}

/// Counts a decision: per agent, verb and verdict, and per run if it is not an allowance.
#[inline(always)]
fn settle(subject: &Subjected<'_>, settled: Settled) {
    let mode = (subject.policy.mode == Mode::Enforce as u8) as usize;
    let index = (mode * Verb::COUNT + settled.verb() as usize) * Verdict::COUNT
        + settled.verdict() as usize;
    const LAST: u64 = crate::maps::DECISION_SLOTS as u64 - 1;
    let index = verifier::bounded::<LAST>(index as u64) as usize;
    if let Some(counts) = DECISIONS.get_ptr_mut(subject.tag.agent) {
        // SAFETY: the index is masked to the array's length, a power of two.
        atomic::add(unsafe { counts.cast::<u64>().add(index) }, 1);
    }
    if !settled.allows() {
        // SAFETY: a field of map memory; only its address is taken.
        atomic::add(unsafe { &raw mut (*subject.run).denials }, 1);
    }
}

/// A tag that points nowhere: closed, and counted by place.
#[inline(always)]
fn unknown() -> i32 {
    emit::count(Counter::TagStale);
    verifier::constant::<{ -EPERM as i64 }>()
}

/// The one place where a verdict becomes a return value.
#[inline(always)]
fn verdict_to_errno(policy: &PolicyRecord, settled: Settled) -> i32 {
    let enforced = policy.mode != Mode::Observe as u8 || settled.about_the_run();
    if enforced && !settled.allows() {
        return verifier::constant::<{ -EPERM as i64 }>();
    }
    0
}

/// A decision and its verb in one word, of which the verifier knows nothing:
/// counting and recording are checked once, not once per reason.
#[derive(Clone, Copy)]
pub struct Settled(u32);

impl Settled {
    /// Packs a decision.
    #[inline(always)]
    pub fn new(decision: Decision, verb: Verb) -> Self {
        let word = decision.verdict as u32
            | (verb as u32) << 2
            | (decision.reason as u32) << 8
            | u32::from(decision.rule) << 16;
        Self(verifier::forget(word))
    }

    /// [`Verdict`] as a number.
    #[inline(always)]
    pub fn verdict(self) -> u8 {
        self.0 as u8 & 3
    }

    /// [`Verb`] as a number.
    #[inline(always)]
    pub fn verb(self) -> u8 {
        (self.0 >> 2) as u8 & 7
    }

    /// [`Reason`] as a number.
    #[inline(always)]
    pub fn reason(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// All of it.
    #[inline(always)]
    pub fn word(self) -> u64 {
        u64::from(self.0)
    }

    /// Rule index.
    #[inline(always)]
    pub fn rule(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Whether the operation may go on under an enforced policy.
    #[inline(always)]
    pub fn allows(self) -> bool {
        self.verdict() == Verdict::Allow as u8
    }

    /// Unpacks what [`Settled::word`] gave.
    #[inline(always)]
    pub fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// Whether nothing could be decided.
    #[inline(always)]
    fn failed(self) -> bool {
        self.because(Reason::ReadFailed) || self.because(Reason::TooDeep)
    }

    #[inline(always)]
    fn is(self, verb: Verb) -> bool {
        self.verb() == verb as u8
    }

    #[inline(always)]
    fn because(self, reason: Reason) -> bool {
        self.reason() == reason as u8
    }

    /// Whether this is about the run's right to act at all and not about its
    /// policy: then it is stopped in observe mode too.
    #[inline(always)]
    pub fn about_the_run(self) -> bool {
        self.because(Reason::Revoked)
            || self.because(Reason::Paused)
            || self.because(Reason::LeaseExpired)
            || self.because(Reason::Unknown)
    }
}

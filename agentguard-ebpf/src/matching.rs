//! Which agent a process becomes by the program that it executes: see
//! `agentguard_common::matching`.

use agentguard_common::counter::Counter;
use agentguard_common::identity::{PolicyRecord, policy_flag};
use agentguard_common::limits::{AGENTS, MATCHES as ENTRIES};
use agentguard_common::matching::{self, DelegateKey, MATCHER, MatchRule, MatchSet, SETS, UserKey, WORDS, set};
use agentguard_common::path::{self as tables, DEAD, StartKey};
use agentguard_common::verb::Verb;
use aya_ebpf::helpers::generated::bpf_get_current_uid_gid;

use crate::kernel::{Cgroup, Dentry, Task};
use crate::maps::{
    DELEGATES, EXECUTING, HEADS, MATCH_SETS, MATCH_USERS, MATCHES, PATH_ROWS, PATH_STARTS, PATH_STATES, POLICIES,
};
use crate::{emit, path, verifier};

/// The matcher of the policy in force, and the half of the tables that it is in; none if no
/// manifest matches anything.
#[inline(always)]
fn matcher() -> Option<(&'static PolicyRecord, u32)> {
    let slot = *HEADS.get(MATCHER)?;
    if slot == 0 {
        return None;
    }
    Some((POLICIES.get(slot)?, verifier::forget(slot / AGENTS)))
}

/// Whether any manifest matches anything.
#[inline(always)]
pub fn is_on() -> bool {
    HEADS.get(MATCHER).is_some_and(|slot| *slot != 0)
}

/// Notes what matches say of the file that is about to be executed: the kernel forgets a
/// script when it turns to the interpreter.
#[inline(never)]
pub fn note(program: Dentry) -> i32 {
    let Some((policy, _)) = matcher() else {
        return 0;
    };
    let sets = of_program(policy, program);
    let task = Task::current().as_ptr();
    let noted = if sets == 0 { EXECUTING.get(task) } else { EXECUTING.get_or_create(task) };
    // SAFETY: checked for null; only the task itself writes its storage.
    if let Some(noted) = unsafe { noted.as_mut() } {
        *noted = sets;
    } else if sets != 0 {
        emit::count(Counter::MatchFailed);
        return 1;
    }
    0
}

/// What the running task becomes by the program that it has executed.
#[inline(never)]
pub fn rule(program: Dentry) -> Option<&'static MatchRule> {
    let (policy, bank) = matcher()?;
    let noted = EXECUTING.get(Task::current().as_ptr());
    // SAFETY: checked for null.
    let script = unsafe { noted.as_ref() }.copied().unwrap_or(0);
    let program = of_program(policy, program);
    let cgroup = if policy.flags & policy_flag::MATCHES_CGROUPS != 0 { of_cgroup(policy) } else { 0 };
    // SAFETY: helper without arguments. The lower half is the real user id.
    let uid = unsafe { bpf_get_current_uid_gid() } as u32;
    // SAFETY: copied at once.
    let user = unsafe { MATCH_USERS.get(UserKey { bank, uid }) }.copied().unwrap_or(set::NONE);
    let entry = first(bank, script, program, cgroup, user)?;
    MATCHES.get(bank * ENTRIES + entry)
}

/// The index of an agent when a task of another one starts it; none if that may not.
#[inline(always)]
pub fn started_by(from: u32, agent: u32) -> Option<u32> {
    let (_, bank) = matcher()?;
    let key = DelegateKey { bank, from, agent, reserved: 0 };
    // SAFETY: copied at once.
    unsafe { DELEGATES.get(key) }.copied()
}

/// The first entry that holds.
#[inline(always)]
fn first(bank: u32, script: u64, program: u64, cgroup: u64, user: u32) -> Option<u32> {
    let of = |number: u32| MATCH_SETS.get(bank * SETS + number);
    let (high, low) = (|pair: u64| (pair >> 32) as u32, |pair: u64| pair as u32);
    let programs: [&MatchSet; 5] =
        [of(set::ANY_PROGRAM)?, of(high(program))?, of(low(program))?, of(high(script))?, of(low(script))?];
    let cgroups: [&MatchSet; 3] = [of(set::ANY_CGROUP)?, of(high(cgroup))?, of(low(cgroup))?];
    let users: [&MatchSet; 2] = [of(set::ANY_USER)?, of(user)?];
    for word in 0..WORDS {
        let any = |sets: &[&MatchSet]| sets.iter().fold(0, |bits, set| bits | set.words[word]);
        let holding = matching::holding(any(&programs), any(&cgroups), any(&users));
        if holding != 0 {
            return Some(word as u32 * 64 + matching::lowest(holding));
        }
    }
    None
}

/// The sets of the rows that a program's name ends in, fixed above deep; 0: none.
#[inline(always)]
fn of_program(policy: &PolicyRecord, program: Dentry) -> u64 {
    if program.is_none() || path::is_builtin(program) {
        return 0;
    }
    match path::position(policy, program) {
        Ok(at) => u64::from(set_of(at.fixed)) << 32 | u64::from(set_of(at.deep)),
        Err(_) => {
            emit::count(Counter::PathUnreadable);
            0
        }
    }
}

/// The set of the row of a state.
#[inline(always)]
fn set_of(state: u32) -> u32 {
    let row = PATH_STATES.get(state).and_then(|info| PATH_ROWS.get(info.row));
    match row {
        Some(row) if row.bits(Verb::Exec) != 0 => u32::from(row.rule(Verb::Exec)),
        _ => set::NONE,
    }
}

/// The same of the running task's cgroup.
#[inline(always)]
fn of_cgroup(policy: &PolicyRecord) -> u64 {
    let key = StartKey { starts: policy.starts, device: tables::CGROUPS };
    // SAFETY: copied at once.
    let Some(start) = unsafe { PATH_STARTS.get(key) }.copied() else {
        return 0;
    };
    let cgroup = Cgroup::of(Task::current());
    let Some(depth) = cgroup.depth() else {
        emit::count(Counter::CgroupUnreadable);
        return 0;
    };
    let (fixed, deep) = (verifier::forget(start.fixed), verifier::forget(start.deep));
    let mut walk = Walk { cgroup, depth: verifier::forget(depth), fixed, deep, failed: 0 };
    verifier::repeat(depth, walk_level, &mut walk);
    if walk.failed != 0 {
        emit::count(Counter::CgroupUnreadable);
        return 0;
    }
    u64::from(set_of(walk.fixed)) << 32 | u64::from(set_of(walk.deep))
}

/// A walk down the names of a cgroup.
struct Walk {
    cgroup: Cgroup,
    depth: u32,
    fixed: u32,
    deep: u32,
    failed: u32,
}

/// Steps through the next name. Returns 1 to stop.
unsafe extern "C" fn walk_level(level: u64, walk: *mut Walk) -> u64 {
    // SAFETY: the state that `of_cgroup` gave.
    let walk = unsafe { &mut *walk };
    let level = level as u32;
    if level >= walk.depth || walk.fixed == DEAD && walk.deep == DEAD {
        return 1;
    }
    let (name, len) = walk.cgroup.name(level);
    let fixed = step(walk.fixed, name, len);
    let deep = step(walk.deep, name, len);
    if fixed > u64::from(u32::MAX) || deep > u64::from(u32::MAX) {
        walk.failed = 1;
        return 1;
    }
    walk.fixed = verifier::forget(fixed as u32);
    walk.deep = verifier::forget(deep as u32);
    0
}

#[inline(always)]
fn step(state: u32, name: u64, len: u32) -> u64 {
    if state == DEAD {
        return u64::from(DEAD);
    }
    path::agentguard_path_step(state, name, len)
}

//! Program start.

use agentguard_common::counter::Counter;
use agentguard_common::matching::MatchRule;
use agentguard_common::verb::{Verb, Verbs};
use aya_ebpf::helpers::generated::bpf_send_signal;
use aya_ebpf::macros::{btf_tracepoint, lsm};
use aya_ebpf::programs::{BtfTracePointContext, LsmContext};

use crate::emit::{self, Subjected};
use crate::{enforce, verifier};
use crate::kernel::{Argument, Binprm, Dentry, LSM_ATTACHED, Task};
use crate::maps::{HEADS, POLICIES, RUNS};
use crate::run::{self, Wanted};
use crate::{matching, task};

const ENOMEM: i32 = 12;
const SIGKILL: u32 = 9;

/// `int bprm_check_security(struct linux_binprm *bprm)`: once for the program,
/// once more for each interpreter that a script names.
#[lsm(hook = "bprm_check_security")]
pub fn exec_check(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(1);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let program = Binprm::from_argument(ctx.arg(0)).file();
    enforce::path(tag, program.dentry(), Verbs::of(Verb::Exec))
}

/// `int bprm_creds_for_exec(struct linux_binprm *bprm)`: once, with what is executed, before
/// the kernel looks whether it is a script.
#[lsm(hook = "bprm_creds_for_exec")]
pub fn exec_begins(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(1);
    if prior != 0 || !matching::is_on() {
        return prior;
    }
    let program = Binprm::from_argument(ctx.arg(0)).file();
    if matching::note(program.dentry()) != 0 {
        return verifier::constant::<{ -ENOMEM as i64 }>();
    }
    0
}

/// `void bprm_committed_creds(const struct linux_binprm *bprm)`: the new image is there, the
/// other threads are gone, and nothing of it has run. An LSM program is never left out, as
/// tracing programs are where another task's breaks into one (kernels that can be preempted
/// there).
#[lsm(hook = "bprm_committed_creds")]
pub fn exec_committed(ctx: LsmContext) -> i32 {
    if matching::is_on()
        && let Some(rule) = matching::rule(Binprm::from_argument(ctx.arg(0)).file().dentry())
    {
        become_agent(rule);
    }
    0
}

/// `void sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`:
/// a moment later; where LSM programs are refused, what a match is about becomes an agent here.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let matches = LSM_ATTACHED.load() == 0 && matching::is_on();
    if !matches && !task::any_tagged() {
        return 0;
    }
    let program = Binprm::from_argument(ctx.arg(2)).file().dentry();
    // One after the other, each with the stack for itself.
    if matches
        && let Some(rule) = matching::rule(program)
    {
        become_agent(rule);
    }
    tell(program);
    0
}

/// Tells of the new image of a tagged task.
#[inline(never)]
fn tell(program: Dentry) -> i32 {
    let Some(tag) = task::tag_in_place(Task::current()) else {
        return 0;
    };
    if let Some(head) = HEADS.get(tag.agent)
        && let Some(policy) = POLICIES.get(*head)
        && let Some(run) = RUNS.get_ptr_mut(tag.run)
    {
        emit::exec(&Subjected { tag, policy, run }, program);
    }
    0
}

/// Makes the running task the agent's that a match names. An agent becomes another one only
/// where its manifest says so (`delegates`), in a run below its own.
#[inline(never)]
fn become_agent(rule: &MatchRule) -> i32 {
    let task = Task::current();
    let parent = task::tag(task).unwrap_or_default();
    let agent = if parent.is_set() {
        match matching::started_by(parent.agent, rule.agent) {
            Some(agent) => agent,
            None => return 0,
        }
    } else {
        rule.agent
    };
    let wanted = Wanted { agent, lease_ns: rule.lease_ns, parent };
    if let Some(tag) = run::begin(&wanted, task) {
        let tagged = if parent.is_set() {
            task::change_tag(task, &parent, &tag)
        } else {
            task::set_tag(task, &tag)
        };
        if tagged {
            return 0;
        }
        run::give_up(&tag);
    }
    // It must not run with the rights of less than all of them.
    emit::count(Counter::MatchFailed);
    // SAFETY: helper call with a number.
    unsafe { bpf_send_signal(SIGKILL) };
    0
}

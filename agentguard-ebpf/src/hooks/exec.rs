//! Program start.

use agentguard_common::verb::{Verb, Verbs};
use aya_ebpf::macros::{btf_tracepoint, lsm};
use aya_ebpf::programs::{BtfTracePointContext, LsmContext};

use crate::emit::{self, Subjected};
use crate::enforce;
use crate::kernel::{Argument, Binprm, Task};
use crate::maps::{HEADS, POLICIES, RUNS};
use crate::task;

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

/// `void sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    if !task::any_tagged() {
        return 0;
    }
    let Some(tag) = task::tag(Task::current()) else {
        return 0;
    };
    if let Some(head) = HEADS.get(tag.agent)
        && let Some(policy) = POLICIES.get(*head)
        && let Some(run) = RUNS.get_ptr_mut(tag.run)
    {
        let program = Binprm::from_argument(ctx.arg(2)).file();
        emit::exec(&Subjected { tag: &tag, policy, run }, program.dentry());
    }
    0
}

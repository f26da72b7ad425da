//! Programs that have more rights than who starts them.

use agentguard_common::identity::privilege;
use agentguard_common::verb::Verb;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::enforce;
use crate::kernel::{Argument, Binprm, File};

/// `int bprm_creds_from_file(struct linux_binprm *bprm, const struct file *file)`: the kernel
/// has worked out which credentials the program will have, and can still go back. So what a
/// mount without setuid programs, `no_new_privs` or a script makes of the bits of its mode is
/// not to be guessed.
#[lsm(hook = "bprm_creds_from_file")]
pub fn bprm_creds_from_file(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some((tag, task)) = enforce::tagged_task(prior) else {
        return prior;
    };
    if !Binprm::from_argument(ctx.arg(0)).cred().is_more_than(task.cred()) {
        return 0;
    }
    let program = File::from_argument(ctx.arg(1)).dentry();
    enforce::host::privileged(tag, program, privilege::SETUID, Verb::Exec, false)
}

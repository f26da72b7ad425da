//! The host as a whole: BPF, measuring, modules, the kernel's log, namespaces.

use agentguard_common::identity::privilege;
use agentguard_common::verb::Verb;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::enforce;

/// `int bpf(int cmd, union bpf_attr *attr, unsigned int size, bool kernel)`: every command.
/// Objects of others are reached by number and by pin, AgentGuard's own as well.
#[lsm(hook = "bpf")]
pub fn bpf_command(ctx: LsmContext) -> i32 {
    needs(ctx.arg(4), privilege::BPF)
}

/// The same on kernels that do not say who calls it (before 6.15).
#[lsm(hook = "bpf")]
pub fn bpf_command_plain(ctx: LsmContext) -> i32 {
    needs(ctx.arg(3), privilege::BPF)
}

/// `int perf_event_open(int type)`
#[lsm(hook = "perf_event_open")]
pub fn perf_event_open(ctx: LsmContext) -> i32 {
    needs(ctx.arg(1), privilege::BPF)
}

/// `int perf_event_open(struct perf_event_attr *attr, int type)`, before 6.16
#[lsm(hook = "perf_event_open")]
pub fn perf_event_open_plain(ctx: LsmContext) -> i32 {
    needs(ctx.arg(2), privilege::BPF)
}

/// `int kernel_read_file(struct file *file, enum kernel_read_file_id id, bool contents)`:
/// a module, another kernel, firmware or a policy from a file. What the kernel loads by
/// itself because of an agent, it does in a process of its own.
#[lsm(hook = "kernel_read_file")]
pub fn kernel_read_file(ctx: LsmContext) -> i32 {
    needs(ctx.arg(3), privilege::MODULES)
}

/// `int kernel_load_data(enum kernel_load_data_id id, bool contents)`: the same from memory
#[lsm(hook = "kernel_load_data")]
pub fn kernel_load_data(ctx: LsmContext) -> i32 {
    needs(ctx.arg(2), privilege::MODULES)
}

/// `int syslog(int type)`: reading and clearing the kernel's log, its level on the console
#[lsm(hook = "syslog")]
pub fn syslog(ctx: LsmContext) -> i32 {
    needs(ctx.arg(1), privilege::KERNEL_SETTINGS)
}

/// `int userns_create(const struct cred *cred)`: a user namespace is where everybody may make
/// the others. `capable` decides about those without one.
#[lsm(hook = "userns_create")]
pub fn userns_create(ctx: LsmContext) -> i32 {
    needs(ctx.arg(1), privilege::NAMESPACES)
}

#[inline(always)]
fn needs(prior: i32, privilege: u32) -> i32 {
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    enforce::host::of_kernel(tag, privilege, Verb::Write, false)
}

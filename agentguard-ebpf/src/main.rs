//! The kernel programs of AgentGuard. This page is the table of contents: every
//! attach point, in the order in which a process meets them. A program only
//! gathers who and what; `enforce` decides and is the one place that turns a
//! verdict into a return value; `emit` is the one place that writes to a ring.
//!
//! | attach point | program | job |
//! |---|---|---|
//! | `iter/task` | `enrol` | first tag of a process, on the daemon's request |
//! | `lsm/task_alloc` | `task_alloc` | copy the tag to every new task |
//! | `lsm/task_free` | `task_free` | count it out |
//! | `tp_btf/task_newtask` | `task_newtask` | copy the tag where LSM programs are refused |
//! | `tp_btf/sched_process_exit` | `process_exit` | exit record; count out where LSM programs are refused |
//! | `tp_btf/sched_process_exec` | `process_exec` | exec record |
//! | `lsm/bprm_check_security` | `exec_check` | decide `exec` |
//! | `lsm/file_open` | `file_open` | decide `read`, `write` |
//! | `lsm/file_truncate` | `file_truncate` | decide `write` (6.2 and later) |
//! | `lsm/path_truncate` | `path_truncate` | decide `write` |
//! | `lsm/path_mknod` | `path_mknod` | decide `create` (files, devices, sockets) |
//! | `lsm/path_mkdir` | `path_mkdir` | decide `create` |
//! | `lsm/path_symlink` | `path_symlink` | decide `create` |
//! | `lsm/path_link` | `path_link` | decide `write` on the file, `create` at the name |
//! | `lsm/path_rename` | `path_rename` | decide `delete` at the old name, `create` at the new |
//! | `lsm/path_unlink` | `path_unlink` | decide `delete` |
//! | `lsm/path_rmdir` | `path_rmdir` | decide `delete` |
//! | `lsm/path_chmod` | `path_chmod` | decide `attributes` |
//! | `lsm/path_chown` | `path_chown` | decide `attributes` |
//! | `lsm/socket_connect` | `socket_connect` | decide `connect` |
//! | `lsm/socket_sendmsg` | `socket_sendmsg` | decide `connect` for a named destination |
//! | `cgroup/connect4`, `connect6` | `cgroup_connect4`, `6` | the same where LSM programs are refused |
//! | `cgroup/sendmsg4`, `sendmsg6` | `cgroup_sendmsg4`, `6` | the same |
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "atomic addition, see atomic.rs")]

mod address;
mod atomic;
mod emit;
mod enforce;
mod hooks;
mod kernel;
mod maps;
mod path;
mod place;
mod task;
mod verifier;

/// The kernel lets only GPL-compatible programs call the helpers used here.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program in which it could be.
    loop {}
}

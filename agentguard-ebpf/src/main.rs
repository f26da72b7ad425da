//! The kernel programs of AgentGuard. This page is the table of contents: every
//! attach point, in the order in which a process meets them. A program only
//! gathers who and what; `enforce` decides and is the one place that turns a
//! verdict into a return value; `emit` is the one place that writes to a ring.
//!
//! | attach point | program | job |
//! |---|---|---|
//! | `iter/task` | `enrol` | first tag of a process or of a tree of them, on the daemon's request |
//! | `lsm/task_alloc` | `task_alloc` | copy the tag to every new task |
//! | `lsm/task_free` | `task_free` | count it out |
//! | `tp_btf/task_newtask` | `task_newtask` | copy the tag where LSM programs are refused, and while processes are adopted |
//! | `tp_btf/sched_process_exit` | `process_exit` | exit record; count out where LSM programs are refused |
//! | `lsm/bprm_creds_for_exec` | `exec_begins` | what matches say of a script |
//! | `lsm/bprm_committed_creds` | `exec_committed` | first tag of a process that a match is about |
//! | `tp_btf/sched_process_exec` | `process_exec` | exec record; first tag, as above, where LSM programs are refused |
//! | `lsm/bprm_check_security` | `exec_check` | decide `exec` |
//! | `lsm/bprm_creds_from_file` | `bprm_creds_from_file` | privilege `setuid` |
//! | `lsm/file_open` | `file_open` | decide `read`, `write` |
//! | `lsm/file_truncate` | `file_truncate` | decide `write` (6.2 and later) |
//! | `lsm/path_truncate` | `path_truncate` | decide `write` |
//! | `lsm/path_mknod` | `path_mknod` | decide `create` (files, devices, sockets) |
//! | `lsm/path_mkdir` | `path_mkdir` | decide `create` |
//! | `lsm/path_symlink` | `path_symlink` | decide `create` |
//! | `lsm/path_link` | `path_link` | decide `write` on the file, `create` at the name; tell the daemon |
//! | `lsm/path_rename` | `path_rename` | decide `delete` at the old name, `create` at the new, and what moves along |
//! | `lsm/path_unlink` | `path_unlink` | decide `delete` |
//! | `lsm/path_rmdir` | `path_rmdir` | decide `delete` |
//! | `lsm/path_chmod` | `path_chmod` | decide `attributes` |
//! | `lsm/path_chown` | `path_chown` | decide `attributes` |
//! | `lsm/inode_setattr` | `inode_setattr`, `inode_setattr_plain` | decide `attributes` (times); the second before 6.4 |
//! | `lsm/inode_setxattr`, `inode_removexattr` | the same | decide `attributes` |
//! | `lsm/inode_set_acl`, `inode_remove_acl` | the same | decide `attributes` (6.2 and later) |
//! | `lsm/inode_file_setattr` | `inode_file_setattr` | decide `attributes` (6.17 and later) |
//! | `lsm/file_permission` | `file_permission` | decide `read`, `write` through a descriptor |
//! | `lsm/file_receive` | `file_receive` | the same, as it arrives from another process |
//! | `lsm/mmap_file`, `file_mprotect` | the same | decide `read`, `write`, `exec` of mappings; refuse others' io_uring rings |
//! | `lsm/file_ioctl`, `file_ioctl_compat` | the same | decide `attributes` |
//! | `lsm/sb_mount`, `move_mount`, `sb_umount`, `sb_pivotroot` | the same | privilege `mount`, `write` |
//! | `lsm/capable` | `capable` | privileges where no other hook sees what they are for |
//! | `lsm/sb_kern_mount`, `fs_context_parse_param` | `sb_kern_mount`, `fs_parameter` | refuse stacked file systems |
//! | `lsm/ptrace_access_check`, `ptrace_traceme` | the same | privilege `ptrace-outside` |
//! | `lsm/task_setrlimit`, `task_setscheduler`, `task_setnice`, `task_setioprio`, `task_movememory` | the same | privilege `ptrace-outside` |
//! | `lsm/task_kill`, `file_fcntl` | the same | privilege `signal-outside` |
//! | `lsm/bpf`, `perf_event_open` | `bpf_command`, `perf_event_open`, and `_plain` on older kernels | privilege `bpf` |
//! | `lsm/kernel_read_file`, `kernel_load_data` | the same | privilege `modules` |
//! | `lsm/syslog` | `syslog` | privilege `kernel-settings` |
//! | `lsm/userns_create` | `userns_create` | privilege `namespaces` |
//! | `lsm/uring_override_creds` | `uring_override_creds` | refuse other credentials in io_uring |
//! | `lsm/socket_create` | `socket_create` | privilege `raw-sockets` for what no rule can name |
//! | `lsm/socket_post_create` | `socket_post_create` | the record of the run's socket |
//! | `lsm/socket_setsockopt` | `socket_setsockopt` | privilege `raw-sockets` for options that lead elsewhere |
//! | `lsm/socket_bind`, `socket_listen`, `socket_accept` | the same | decide `listen` |
//! | `lsm/sock_graft` | `sock_graft` | the record of an accepted connection |
//! | `lsm/socket_connect` | `socket_connect` | decide `connect` |
//! | `lsm/socket_sendmsg` | `socket_sendmsg` | decide `connect`, for a named destination or the socket's peer |
//! | `lsm/socket_recvmsg` | `socket_recvmsg` | the run's standing |
//! | `lsm/unix_stream_connect`, `unix_may_send` | the same | decide `connect` to unix sockets |
//! | `lsm/netlink_send` | `netlink_send` | privilege `raw-sockets` for what changes something |
//! | `cgroup_skb/egress` | `cgroup_egress` | the second line: packets of agents' sockets; the server that a connection names |
//! | `fentry/skb_consume_udp` | `datagram_taken` | count the bytes of datagrams that are taken |
//! | `cgroup_skb/ingress` | `cgroup_ingress` | the same of those that come, where LSM programs are refused |
//! | `tp_btf/inet_sock_set_state` | `flow_state` | when connections begin and end, and what went through them |
//! | `iter/bpf_sk_storage_map` | `flows` | the same of those that go on, as the daemon asks |
//! | `cgroup/sock_create` | `cgroup_sock_create` | as `socket_create` and `socket_post_create` where LSM programs are refused |
//! | `cgroup/bind4`, `bind6` | `cgroup_bind4`, `6` | as `socket_bind` there |
//! | `cgroup/connect4`, `connect6` | `cgroup_connect4`, `6` | questions to the daemon's resolver; as `socket_connect` there |
//! | `cgroup/sendmsg4`, `sendmsg6` | `cgroup_sendmsg4`, `6` | the same; as `socket_sendmsg` there |
//! | `cgroup/recvmsg4`, `recvmsg6`, `getpeername4`, `getpeername6` | `cgroup_recvmsg4`, ... | show the server that was asked |
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "atomic addition, see atomic.rs")]

mod address;
mod atomic;
mod emit;
mod enforce;
mod flow;
mod fold;
mod hash;
mod hooks;
mod kept;
mod kernel;
mod maps;
mod matching;
mod path;
mod place;
mod resolver;
mod run;
mod server_name;
mod settled;
mod socket;
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

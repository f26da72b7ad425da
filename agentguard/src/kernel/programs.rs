//! The programs of the kernel object and where they attach: the userspace twin
//! of agentguard-ebpf's table of contents.

use std::os::fd::{AsFd as _, AsRawFd as _};

use agentguard_common::names::map;

use super::btf::Btf;

/// Where a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// An LSM hook, with the number of parameters that the program expects.
    Lsm(&'static str, usize),
    /// A tracepoint with typed arguments.
    Tracepoint(&'static str),
    /// The beginning of a function of the kernel.
    Function(&'static str),
    /// A task iterator, run by reading its pin.
    TaskIterator,
    /// An iterator over the sockets that have an element in a map, run by reading its pin.
    SocketIterator(&'static str),
    /// The root cgroup.
    Cgroup,
}

/// What a program is for, and so when it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Needed everywhere: without it nothing works.
    Core,
    /// Decides, on hosts with BPF LSM.
    Lsm(&'static str),
    /// As `Lsm`, on kernels that have the hook.
    LsmIfPresent(&'static str),
    /// Stands in for LSM programs, on hosts that refuse them.
    Fallback(&'static str),
    /// Looks again at what others decided, on every host with a cgroup v2 hierarchy.
    Second(&'static str),
    /// Takes questions of the DNS to the daemon's resolver: attached while a policy has rules
    /// about names. Stands in for LSM programs as well, and is always attached then.
    Names(&'static str),
}

/// One program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name in the object.
    pub name: &'static str,
    /// Attach point.
    pub attach: Attach,
    /// Role; the string is the protection that it carries.
    pub role: Role,
}

const fn lsm(
    name: &'static str,
    hook: &'static str,
    parameters: usize,
    of: &'static str,
) -> Program {
    Program {
        name,
        attach: Attach::Lsm(hook, parameters),
        role: Role::Lsm(of),
    }
}

/// An LSM program for a hook that not every kernel has.
const fn newer(
    name: &'static str,
    hook: &'static str,
    parameters: usize,
    of: &'static str,
) -> Program {
    Program {
        name,
        attach: Attach::Lsm(hook, parameters),
        role: Role::LsmIfPresent(of),
    }
}

const fn cgroup(name: &'static str) -> Program {
    Program {
        name,
        attach: Attach::Cgroup,
        role: Role::Fallback("network"),
    }
}

const fn second(name: &'static str) -> Program {
    Program {
        name,
        attach: Attach::Cgroup,
        role: Role::Second("network"),
    }
}

const fn names(name: &'static str) -> Program {
    Program {
        name,
        attach: Attach::Cgroup,
        role: Role::Names("network"),
    }
}

/// All programs, inheritance first: a task is never decided about before its
/// children would be tagged.
pub const PROGRAMS: [Program; 89] = [
    lsm("task_alloc", "task_alloc", 2, "identity"),
    lsm("task_free", "task_free", 1, "identity"),
    Program {
        name: "task_newtask",
        attach: Attach::Tracepoint("task_newtask"),
        role: Role::Core,
    },
    Program {
        name: "process_exit",
        attach: Attach::Tracepoint("sched_process_exit"),
        role: Role::Core,
    },
    Program {
        name: "process_exec",
        attach: Attach::Tracepoint("sched_process_exec"),
        role: Role::Core,
    },
    Program {
        name: "enrol",
        attach: Attach::TaskIterator,
        role: Role::Core,
    },
    lsm("exec_begins", "bprm_creds_for_exec", 1, "identity"),
    lsm("exec_committed", "bprm_committed_creds", 1, "identity"),
    lsm("exec_check", "bprm_check_security", 1, "exec"),
    lsm("file_open", "file_open", 1, "files"),
    newer("file_truncate", "file_truncate", 1, "files"),
    lsm("path_truncate", "path_truncate", 1, "files"),
    lsm("path_mknod", "path_mknod", 4, "files"),
    lsm("path_mkdir", "path_mkdir", 3, "files"),
    lsm("path_symlink", "path_symlink", 3, "files"),
    lsm("path_link", "path_link", 3, "files"),
    lsm("path_rename", "path_rename", 5, "files"),
    lsm("path_unlink", "path_unlink", 2, "files"),
    lsm("path_rmdir", "path_rmdir", 2, "files"),
    lsm("path_chmod", "path_chmod", 2, "files"),
    lsm("path_chown", "path_chown", 3, "files"),
    newer("inode_setattr", "inode_setattr", 3, "files"),
    newer("inode_setattr_plain", "inode_setattr", 2, "files"),
    lsm("inode_setxattr", "inode_setxattr", 6, "files"),
    lsm("inode_removexattr", "inode_removexattr", 3, "files"),
    newer("inode_set_acl", "inode_set_acl", 4, "files"),
    newer("inode_remove_acl", "inode_remove_acl", 3, "files"),
    newer("inode_file_setattr", "inode_file_setattr", 2, "files"),
    lsm("file_permission", "file_permission", 2, "files"),
    lsm("file_receive", "file_receive", 1, "files"),
    lsm("mmap_file", "mmap_file", 4, "files"),
    lsm("file_mprotect", "file_mprotect", 3, "files"),
    lsm("file_ioctl", "file_ioctl", 3, "files"),
    newer("file_ioctl_compat", "file_ioctl_compat", 3, "files"),
    lsm("sb_mount", "sb_mount", 5, "files"),
    lsm("move_mount", "move_mount", 2, "files"),
    lsm("sb_umount", "sb_umount", 2, "files"),
    lsm("sb_pivotroot", "sb_pivotroot", 2, "files"),
    lsm("sb_kern_mount", "sb_kern_mount", 1, "files"),
    lsm("fs_parameter", "fs_context_parse_param", 2, "files"),
    lsm("capable", "capable", 4, "files"),
    newer("uring_override_creds", "uring_override_creds", 1, "files"),
    lsm("ptrace_access_check", "ptrace_access_check", 2, "files"),
    lsm("ptrace_traceme", "ptrace_traceme", 1, "privileges"),
    lsm("task_kill", "task_kill", 4, "privileges"),
    lsm("file_fcntl", "file_fcntl", 3, "privileges"),
    lsm("task_setrlimit", "task_setrlimit", 3, "privileges"),
    lsm("task_setscheduler", "task_setscheduler", 1, "privileges"),
    lsm("task_setnice", "task_setnice", 2, "privileges"),
    lsm("task_setioprio", "task_setioprio", 2, "privileges"),
    lsm("task_movememory", "task_movememory", 1, "privileges"),
    newer("bpf_command", "bpf", 4, "privileges"),
    newer("bpf_command_plain", "bpf", 3, "privileges"),
    newer("perf_event_open", "perf_event_open", 1, "privileges"),
    newer("perf_event_open_plain", "perf_event_open", 2, "privileges"),
    lsm("kernel_read_file", "kernel_read_file", 3, "privileges"),
    lsm("kernel_load_data", "kernel_load_data", 2, "privileges"),
    lsm("syslog", "syslog", 1, "privileges"),
    lsm("userns_create", "userns_create", 1, "privileges"),
    lsm(
        "bprm_creds_from_file",
        "bprm_creds_from_file",
        2,
        "privileges",
    ),
    // Sockets are known before anything is sent through them.
    lsm("socket_post_create", "socket_post_create", 5, "network"),
    lsm("socket_create", "socket_create", 4, "network"),
    lsm("socket_setsockopt", "socket_setsockopt", 3, "network"),
    lsm("socket_bind", "socket_bind", 3, "network"),
    lsm("socket_listen", "socket_listen", 2, "network"),
    lsm("socket_accept", "socket_accept", 2, "network"),
    lsm("sock_graft", "sock_graft", 2, "network"),
    lsm("socket_connect", "socket_connect", 3, "network"),
    lsm("socket_sendmsg", "socket_sendmsg", 3, "network"),
    lsm("socket_recvmsg", "socket_recvmsg", 4, "network"),
    lsm("unix_stream_connect", "unix_stream_connect", 3, "network"),
    lsm("unix_may_send", "unix_may_send", 2, "network"),
    lsm("netlink_send", "netlink_send", 2, "network"),
    cgroup("cgroup_sock_create"),
    cgroup("cgroup_bind4"),
    cgroup("cgroup_bind6"),
    names("cgroup_connect4"),
    names("cgroup_connect6"),
    names("cgroup_sendmsg4"),
    names("cgroup_sendmsg6"),
    names("cgroup_recvmsg4"),
    names("cgroup_recvmsg6"),
    names("cgroup_getpeername4"),
    names("cgroup_getpeername6"),
    second("cgroup_egress"),
    cgroup("cgroup_ingress"),
    Program {
        name: "datagram_taken",
        attach: Attach::Function("skb_consume_udp"),
        role: Role::Lsm("network"),
    },
    Program {
        name: "flow_state",
        attach: Attach::Tracepoint("inet_sock_set_state"),
        role: Role::Core,
    },
    Program {
        name: "flows",
        attach: Attach::SocketIterator(map::SOCKETS),
        role: Role::Core,
    },
];

impl Program {
    /// The attach point in the kernel's words.
    #[must_use]
    pub fn attach_name(&self) -> &'static str {
        match self.attach {
            Attach::Lsm(hook, _) => hook,
            Attach::Tracepoint(name) | Attach::Function(name) => name,
            Attach::TaskIterator => "task",
            Attach::SocketIterator(_) => "bpf_sk_storage_map",
            Attach::Cgroup => self.name.strip_prefix("cgroup_").unwrap_or(self.name),
        }
    }

    /// Whether, without this program, something would go undecided here: the kernel must
    /// have the hook, or has it in a form that no program knows.
    #[must_use]
    pub fn leaves_a_gap(&self, btf: &Btf) -> bool {
        let Attach::Lsm(hook, _) = self.attach else {
            return true;
        };
        let known = PROGRAMS.iter().any(|other| {
            matches!(other.attach, Attach::Lsm(of, _) if of == hook) && other.fits(btf).is_ok()
        });
        let there = btf.has_function(&format!("bpf_lsm_{hook}"));
        !known && (there || matches!(self.role, Role::Lsm(_)))
    }

    /// Whether this kernel has the attach point in the expected form; the reason if not.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn fits(&self, btf: &Btf) -> Result<(), String> {
        let Attach::Lsm(hook, expected) = self.attach else {
            return Ok(());
        };
        match btf.parameters(&format!("bpf_lsm_{hook}")) {
            None => Err(format!("this kernel has no LSM hook {hook}")),
            Some(found) if found == expected => Ok(()),
            Some(found) => Err(format!(
                "this kernel's LSM hook {hook} has {found} parameters, {expected} are expected"
            )),
        }
    }
}

/// How often the kernel left a tracing program out because it was running on that processor
/// already (`recursion_misses`, Linux 5.12).
#[must_use]
pub fn missed(object: &aya::Ebpf) -> u64 {
    use aya::programs::Program;
    let of = |program: &Program| {
        let fd = match program {
            Program::BtfTracePoint(program) => program.fd().ok()?,
            Program::FEntry(program) => program.fd().ok()?,
            _ => return None,
        };
        let fd = fd.as_fd().as_raw_fd();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        let missed = info
            .lines()
            .find_map(|line| line.strip_prefix("recursion_misses:"))?;
        missed.trim().parse::<u64>().ok()
    };
    object
        .programs()
        .filter_map(|(_, program)| of(program))
        .sum()
}

//! What this host's kernel side amounts to, protection by protection: what
//! `doctor` and `status` say, and what an enforced policy is held against.

use super::probe::Host;
use super::{Protection, ProtectionStatus};

/// Describes the protections. `obstacle` is why LSM programs are not attached
/// and what would change that; `works` tells whether a stand-in program does.
pub fn describe(
    obstacle: Option<&(String, String)>,
    host: &Host,
    works: &dyn Fn(&str) -> bool,
) -> Vec<Protection> {
    let all = [
        ("identity", "every descendant carries the agent's tag"),
        (
            "files",
            "opening, making, removing and changing files by path",
        ),
        ("exec", "executing programs"),
        (
            "privileges",
            "signals to others, their limits and priorities, BPF, modules, namespaces, setuid \
             programs",
        ),
        (
            "network",
            "sockets, and what is sent through them and can be reached at them",
        ),
    ];
    all.into_iter()
        .map(|(name, what)| match obstacle {
            None if name == "network" && !works("cgroup_egress") => Protection {
                name,
                status: ProtectionStatus::Degraded,
                detail: format!(
                    "{what}: decided in LSM programs; packets are not looked at once more, and \
                     there are no rules about names: no cgroup v2 hierarchy is mounted"
                ),
                fix: Some(
                    "mount -t cgroup2 none /sys/fs/cgroup/unified, or set `cgroup_root`".to_owned(),
                ),
            },
            None => Protection {
                name,
                status: ProtectionStatus::Enforcing,
                detail: format!("{what}: decided in LSM programs"),
                fix: None,
            },
            Some((why, fix)) => {
                let (status, how) = stand_in(name, host, works);
                let detail = format!("{what}: {how}; {why}");
                Protection {
                    name,
                    status,
                    detail,
                    fix: Some(fix.clone()),
                }
            }
        })
        .collect()
}

/// What stands in for a protection's LSM programs.
fn stand_in(
    name: &str,
    host: &Host,
    works: &dyn Fn(&str) -> bool,
) -> (ProtectionStatus, &'static str) {
    let cgroup = [
        "cgroup_connect4",
        "cgroup_connect6",
        "cgroup_sendmsg4",
        "cgroup_sendmsg6",
        "cgroup_sock_create",
        "cgroup_bind4",
        "cgroup_bind6",
    ];
    match name {
        "identity" if works("task_newtask") => (
            ProtectionStatus::Enforcing,
            "a tracepoint copies the tag at task creation (it cannot stop a fork that it fails to \
             tag; that is counted as tag_failed)",
        ),
        "network" if cgroup.iter().all(|name| works(name)) => (
            ProtectionStatus::Degraded,
            "decided in cgroup programs, which packet sockets, netlink and unix sockets, and sockets \
             from elsewhere that are connected already do not pass",
        ),
        "privileges" if host.landlock => (
            ProtectionStatus::Degraded,
            "Landlock keeps launched runs from tracing outside, from signalling outside (Linux 6.12), \
             from mounts and from most files of the kernel's settings; the rest is what their user may",
        ),
        "files" | "exec" if host.landlock => (
            ProtectionStatus::Degraded,
            "Landlock confines launched runs from their start; a reload does not reach them, what \
             Landlock cannot express is said at launch, refusals are not recorded",
        ),
        _ => (ProtectionStatus::Absent, "nothing stands in for them here"),
    }
}

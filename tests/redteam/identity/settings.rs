//! The kernel's settings that are files: `/proc/sys`, sysfs, cgroups, bpffs and their like.
//! Where writing is the effect, what is written is what was there.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::libc::{self, O_WRONLY};

use super::{deed, proof};
use crate::attempt::Attempt;
use crate::field::Field;
use crate::sys::{self, Try, call};
use crate::victim;

const ROOTS: &str = "only root changes the kernel's settings";
const DOMAIN: &str = "/proc/sys/kernel/domainname";
const GONE: &[(i32, &str)] = &[(libc::ENOENT, "the kernel has no such setting")];

/// Writes to a setting what it says.
macro_rules! same {
    ($id:literal, $path:literal) => {
        deed($id, |_| same($path)).root_only(ROOTS).lacks(GONE)
    };
}

/// Opens a setting for writing.
macro_rules! opened {
    ($id:literal, $path:literal) => {
        deed($id, |_| {
            sys::open(Path::new($path), O_WRONLY)?;
            proof()
        })
        .root_only(ROOTS)
        .lacks(GONE)
    };
}

pub const ATTEMPTS: &[Attempt] = &[
    same!("identity-setting-modprobe", "/proc/sys/kernel/modprobe"),
    same!(
        "identity-setting-core-pattern",
        "/proc/sys/kernel/core_pattern"
    ),
    same!("identity-setting-memory", "/proc/sys/vm/overcommit_memory"),
    same!(
        "identity-setting-tracing",
        "/proc/sys/kernel/yama/ptrace_scope"
    ),
    opened!("identity-setting-sysrq", "/proc/sysrq-trigger"),
    deed("identity-setting-inherited", |field| {
        // Another one each time, and from its beginning: the kernel takes no part of a setting.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
        let now = now.map_or(0, |now| now.subsec_nanos());
        let value = format!("redteam-{}-{now}\n", field.side.name());
        call!(
            SYS_pwrite64,
            field.inherited,
            value.as_bytes(),
            value.len(),
            0
        )?;
        sys::done()
    })
    .inherits(|_| Ok(sys::open(Path::new(DOMAIN), O_WRONLY)?))
    .look(|_| Ok(fs::read_to_string(DOMAIN)?))
    .root_only(ROOTS),
    deed("identity-setting-by-own-proc", |field| {
        // The same files in a proc file system of its own.
        let at = field.scratch("proc");
        fs::create_dir_all(&at)?;
        sys::open(&at.join("sys/kernel/domainname"), O_WRONLY)?;
        proof()
    })
    .late(|field| {
        let at = field.scratch("proc");
        field.make_dir(&at)?;
        let kind = c"proc";
        call!(SYS_mount, kind, &at, kind, 0, 0)?;
        Ok(())
    })
    .root_only(ROOTS),
    deed("identity-setting-mode", |_| {
        call!(
            SYS_chmod,
            Path::new("/sys/kernel/mm/transparent_hugepage/enabled"),
            0o644
        )?;
        proof()
    })
    .root_only(ROOTS)
    .lacks(GONE),
    same!(
        "identity-setting-sysfs",
        "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan"
    ),
    same!("identity-setting-tracefs", "/sys/kernel/tracing/tracing_on"),
    opened!(
        "identity-setting-debugfs",
        "/sys/kernel/debug/fault_around_bytes"
    ),
    opened!(
        "identity-setting-securityfs",
        "/sys/kernel/security/apparmor/.remove"
    ),
    opened!(
        "identity-setting-binfmt",
        "/proc/sys/fs/binfmt_misc/register"
    ),
    deed("identity-cgroup-leave", |_| {
        let fd = sys::open(Path::new("/sys/fs/cgroup/cgroup.procs"), O_WRONLY)?;
        call!(SYS_write, &fd, &b"0"[..], 1)?;
        proof()
    })
    .root_only(ROOTS),
    deed("identity-cgroup-make", |field| {
        let path = cgroup(field).join("new");
        call!(SYS_mkdir, &path, 0o755)?;
        proof()
    })
    .prepare(in_cgroup)
    .root_only(ROOTS),
    deed("identity-cgroup-kill", |field| {
        into(&cgroup(field).join("cgroup.kill"))
    })
    .prepare(in_cgroup)
    .look(victim::state)
    .root_only(ROOTS),
    deed("identity-cgroup-freeze", |field| {
        into(&cgroup(field).join("cgroup.freeze"))
    })
    .prepare(in_cgroup)
    .look(|field| Ok(fs::read_to_string(cgroup(field).join("cgroup.freeze"))?))
    .root_only(ROOTS),
    deed("identity-cgroup-kill-inherited", |field| {
        call!(SYS_write, field.inherited, &b"1"[..], 1)?;
        sys::done()
    })
    .prepare(in_cgroup)
    .inherits(|field| -> Result<OwnedFd> {
        Ok(sys::open(&cgroup(field).join("cgroup.kill"), O_WRONLY)?)
    })
    .look(victim::state),
    deed("identity-bpffs-make", |field| {
        let path = format!("/sys/fs/bpf/redteam-made-{}", field.side.name());
        call!(SYS_mkdir, Path::new(&path), 0o700)?;
        fs::remove_dir(&path)?;
        proof()
    })
    .root_only(ROOTS),
    deed("identity-bpffs-unlink", |field| {
        call!(SYS_unlink, &object(field))?;
        sys::done()
    })
    .prepare(object_of_others)
    .look(|field| Ok(object(field).symlink_metadata().is_ok().to_string()))
    .root_only(ROOTS),
    deed("identity-bpffs-rename", |field| {
        let to = format!("{}-moved", object(field).display());
        call!(SYS_rename, &object(field), Path::new(&to))?;
        sys::done()
    })
    .prepare(object_of_others)
    .look(|field| Ok(object(field).symlink_metadata().is_ok().to_string()))
    .root_only(ROOTS),
];

fn same(path: &str) -> Try {
    let value = fs::read(path)?;
    let fd = sys::open(Path::new(path), O_WRONLY)?;
    call!(SYS_write, &fd, &value[..], value.len())?;
    proof()
}

fn into(path: &Path) -> Try {
    let fd = sys::open(path, O_WRONLY)?;
    call!(SYS_write, &fd, &b"1"[..], 1)?;
    sys::done()
}

fn named(field: &Field) -> String {
    let name = field.dir.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}.{}", field.side.name())
}

/// A cgroup of the driver's.
fn cgroup(field: &Field) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(named(field))
}

/// An untagged process in a cgroup of its own.
fn in_cgroup(field: &Field) -> Result<()> {
    victim::untagged(field)?;
    let cgroup = cgroup(field);
    fs::create_dir(&cgroup).with_context(|| cgroup.display().to_string())?;
    Ok(fs::write(
        cgroup.join("cgroup.procs"),
        field.noted("pid").to_string(),
    )?)
}

/// Something in bpffs that others have put there.
fn object(field: &Field) -> PathBuf {
    Path::new("/sys/fs/bpf").join(named(field).replace('.', "-"))
}

fn object_of_others(field: &Field) -> Result<()> {
    Ok(std::os::unix::fs::symlink("/", object(field))?)
}

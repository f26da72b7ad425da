//! Links and maps in the bpffs, by which what is attached and known outlives the daemon; and
//! those links that come and go with the policy.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use agentguard_common::names;
use aya::Ebpf;
use aya::programs::links::FdLink;

use super::load::failed;
use super::programs::{PROGRAMS, Program, Role};
use super::{Hook, KernelError, Options, cgroup, sys};

/// Directory of pinned maps.
#[must_use]
pub fn maps_dir(options: &Options) -> PathBuf {
    options.pins.join("maps")
}

/// Directory of pinned links.
#[must_use]
pub fn links_dir(options: &Options) -> PathBuf {
    options.pins.join("links")
}

/// Why a program that takes questions to the resolver is not attached.
pub(super) const WITHOUT_NAMES: &str = "no policy has rules about names";

/// Attaches the programs that take questions to the resolver, or detaches them: everybody's
/// connections pass them.
pub(super) fn follow_names(
    object: &mut Ebpf,
    options: &Options,
    hooks: &mut [Hook],
    wanted: bool,
) -> Result<(), KernelError> {
    for program in PROGRAMS
        .iter()
        .filter(|program| matches!(program.role, Role::Names(_)))
    {
        let Some(hook) = hooks.iter_mut().find(|hook| hook.program == program.name) else {
            continue;
        };
        let pin_at = links_dir(options).join(program.name);
        match &options.cgroup_root {
            Some(root) if wanted && !hook.attached => {
                let what = format!("attaching {}", program.name);
                let root = File::open(root).map_err(|error| failed(&what, &error))?;
                let link = cgroup::attach(object, program.name, root)?;
                pin(link, &links_dir(options), program.name)?;
                (hook.attached, hook.reason) = (true, None);
            }
            None if wanted => {
                return Err(KernelError::Failed {
                    what: "taking an agent's questions to the resolver".to_owned(),
                    cause: "this host has no cgroup v2 hierarchy mounted".to_owned(),
                    next: "mount -t cgroup2 none /sys/fs/cgroup/unified, or set `cgroup_root`; \
                           without one no policy can have rules about names"
                        .to_owned(),
                });
            }
            _ if wanted => {}
            // Also what an earlier daemon left.
            _ => {
                match fs::remove_file(&pin_at) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(failed(&format!("removing {}", pin_at.display()), &error));
                    }
                }
                (hook.attached, hook.reason) = (false, Some(WITHOUT_NAMES.to_owned()));
            }
        }
    }
    Ok(())
}

/// Pins a link, replacing an older one in one step. (bpffs allows no dots in names.)
pub(super) fn pin(link: FdLink, dir: &Path, name: &str) -> Result<(), KernelError> {
    pin_with(dir, name, |at| link.pin(at).map(drop))
}

/// The same for what pins itself.
pub(super) fn pin_with<E: std::error::Error>(
    dir: &Path,
    name: &str,
    pin: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), KernelError> {
    let fresh = dir.join(format!("{name}_new"));
    let _ = fs::remove_file(&fresh);
    pin(&fresh).map_err(|error| failed(&format!("pinning {}", fresh.display()), &error))?;
    let path = dir.join(name);
    fs::rename(&fresh, &path)
        .map_err(|error| failed(&format!("pinning {}", path.display()), &error))
}

/// Removes pinned links of programs that are not attached now: an earlier daemon
/// may have attached others (a stand-in before a reboot-less change, an older version).
pub(super) fn remove_stale_links(options: &Options, hooks: &[Hook]) {
    let Ok(entries) = fs::read_dir(links_dir(options)) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        // Those that names need go or stay with the policy.
        let follows = |program: &&Program| matches!(program.role, Role::Names(_));
        let current = hooks
            .iter()
            .any(|hook| hook.attached && *hook.program == *name)
            || PROGRAMS
                .iter()
                .filter(follows)
                .any(|program| *program.name == *name);
        if !current && fs::remove_file(entry.path()).is_ok() {
            tracing::info!(link = %entry.path().display(), "removed the link of an older program");
        }
    }
}

/// Makes the pin directories, on a bpffs.
pub(super) fn prepare_pins(options: &Options) -> Result<(), KernelError> {
    let parent = options.pins.parent().unwrap_or(Path::new("/"));
    if !is_bpffs(parent) {
        if parent == Path::new("/sys/fs/bpf") {
            let flags = nix::mount::MsFlags::MS_NOSUID
                | nix::mount::MsFlags::MS_NODEV
                | nix::mount::MsFlags::MS_NOEXEC;
            let mounted =
                nix::mount::mount(Some("bpf"), parent, Some("bpf"), flags, Some("mode=0700"));
            mounted.map_err(|error| failed("mounting bpffs at /sys/fs/bpf", &error))?;
        } else {
            return Err(KernelError::Failed {
                what: format!("pinning below {}", parent.display()),
                cause: "it is not on a bpffs".to_owned(),
                next: "choose a pin directory below /sys/fs/bpf, or mount a bpffs there".to_owned(),
            });
        }
    }
    for dir in [options.pins.clone(), maps_dir(options), links_dir(options)] {
        if let Err(error) = fs::create_dir(&dir)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(failed(&format!("making {}", dir.display()), &error));
        }
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))
            .map_err(|error| failed(&format!("protecting {}", dir.display()), &error))?;
    }
    Ok(())
}

/// Whether a directory is on a bpffs.
#[must_use]
pub fn is_bpffs(dir: &Path) -> bool {
    nix::sys::statfs::statfs(dir)
        .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC)
}

/// Removes every pin: programs detach, maps and tags go with them.
///
/// # Errors
/// A pin that cannot be removed.
pub fn unload(options: &Options) -> Result<Vec<PathBuf>, KernelError> {
    let mut removed = Vec::new();
    // The kernel takes a moment to detach a program whose last pin went. With no
    // tag alive every hook returns at once, so the effect is over when this returns.
    if let Ok(live) = aya::maps::MapData::from_pin(maps_dir(options).join(names::map::LIVE)) {
        sys::update_batch(live.fd().as_fd(), &[0u32], &[0i64])
            .map_err(|error| failed("telling the programs that nothing is tagged", &error))?;
    }
    // Links first, so that no program runs on maps that are going.
    for dir in [links_dir(options), maps_dir(options), options.pins.clone()] {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&format!("reading {}", dir.display()), &error)),
        };
        for entry in entries.flatten().filter(|entry| !entry.path().is_dir()) {
            fs::remove_file(entry.path())
                .map_err(|error| failed(&format!("removing {}", entry.path().display()), &error))?;
            removed.push(entry.path());
        }
        fs::remove_dir(&dir)
            .map_err(|error| failed(&format!("removing {}", dir.display()), &error))?;
    }
    Ok(removed)
}

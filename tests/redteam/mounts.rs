//! File systems for attempts: loop devices and mounts, prepared by untagged root, and
//! namespaces of the tagged process's own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use agentguard_tests::daemon::both;
use anyhow::{Context as _, Result, ensure};
use nix::libc;
use nix::mount::{MsFlags, mount};

use crate::field::{Field, User};
use crate::sys::{self, Try, call};

const NONE: Option<&str> = None;

/// A bind mount.
pub fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("bind mount on {}", to.display()))
}

/// A tmpfs that belongs to the user.
pub fn tmpfs(field: &Field, at: &Path) -> Result<()> {
    field.make_dir(at)?;
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), NONE)
        .with_context(|| format!("tmpfs on {}", at.display()))?;
    field.own(at, 0o755)
}

/// An overlay of these directories, which are made if they are not there.
pub fn overlay(field: &Field, lower: &Path, upper: &Path, at: &Path) -> Result<()> {
    let work = field.scratch("overlay-work");
    for directory in [lower, upper, &work, at] {
        if !directory.exists() {
            field.make_dir(directory)?;
        }
    }
    let options = overlay_options(lower, upper, &work);
    need_module("overlay");
    mount(
        Some("overlay"),
        at,
        Some("overlay"),
        MsFlags::empty(),
        Some(&*options),
    )
    .with_context(|| format!("overlay on {}", at.display()))
}

/// The options of an overlay.
pub fn overlay_options(lower: &Path, upper: &Path, work: &Path) -> String {
    format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    )
}

/// Loads a module once; where it is built in or missing, what needs it tells.
pub fn need_module(name: &str) {
    static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    if let Ok(mut asked) = ASKED.lock()
        && !asked.iter().any(|known| known == name)
    {
        let _ = Command::new("modprobe").arg(name).output();
        asked.push(name.to_owned());
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program}: {}", both(&output));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Mounts the file system of a device.
pub fn device(device: &Path, kind: &str, at: &Path) -> Result<()> {
    mount(Some(device), at, Some(kind), MsFlags::empty(), NONE)
        .with_context(|| format!("{kind} on {}", at.display()))
}

/// A new file system in a file, on a loop device, mounted; gives back the device.
pub fn file_system(
    field: &Field,
    (kind, size): (&str, u64),
    options: &[&str],
    at: &Path,
) -> Result<PathBuf> {
    let images = field.root.join("images");
    fs::create_dir_all(&images)?;
    let image = images.join(at.to_string_lossy().replace('/', "-"));
    File::create(&image)?.set_len(size)?;
    need_module("loop");
    need_module(kind);
    let mut arguments: Vec<&Path> = options.iter().map(Path::new).collect();
    arguments.push(&image);
    run(&format!("mkfs.{kind}"), &arguments)?;
    let device = run("losetup", &["--find".as_ref(), "--show".as_ref(), &image])?;
    let device = PathBuf::from(device);
    field.make_dir(at)?;
    self::device(&device, kind, at)?;
    // Gone with its last user.
    run("losetup", &["--detach".as_ref(), &device])?;
    field.own(at, 0o755)?;
    Ok(device)
}

/// Gives this process mounts of its own, and an ordinary user the right to change them.
pub fn own_mounts(field: &Field) -> Try {
    match field.user {
        User::Root => call!(SYS_unshare, libc::CLONE_NEWNS)?,
        User::Ordinary => call!(SYS_unshare, libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?,
    };
    if field.user == User::Ordinary {
        // The user is itself inside: who has no number there makes no files.
        let uid = field.user.uid();
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{uid} {uid} 1"))?;
    }
    // Nothing of it reaches the host.
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    call!(SYS_mount, 0, Path::new("/"), 0, flags, 0)?;
    sys::done()
}

/// A bind mount by this process.
pub fn own_bind(from: &Path, to: &Path) -> Try {
    call!(SYS_mount, from, to, 0, libc::MS_BIND, 0)?;
    sys::done()
}

/// Makes a mount the root of this process, and leaves the old one behind.
pub fn pivot(root: &Path) -> Try {
    call!(SYS_chdir, root)?;
    call!(SYS_pivot_root, Path::new("."), Path::new("."))?;
    call!(SYS_umount2, Path::new("."), libc::MNT_DETACH)?;
    call!(SYS_chdir, Path::new("/"))?;
    sys::done()
}

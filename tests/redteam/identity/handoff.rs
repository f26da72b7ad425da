//! Services that act for whoever asks: their sockets under rules that allow every connection,
//! and words typed into a terminal for others.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::libc::{self, O_NOCTTY, O_RDWR};

use super::{deed, proof};
use crate::attempt::Attempt;
use crate::field::Field;
use crate::sys::{self, Try, call};

const TIOCSPTLCK: u64 = 0x4004_5431;
const TIOCGPTN: u64 = 0x8004_5430;
const TIOCSCTTY: u64 = 0x540e;
const TIOCSTI: u64 = 0x5412;

/// A socket of a service that is played by the driver.
macro_rules! service {
    ($id:literal, $path:literal) => {
        deed($id, |_| reached(Path::new($path))).prepare(|_| listen(Path::new($path)))
    };
}

pub const ATTEMPTS: &[Attempt] = &[
    service!("identity-handoff-docker", "/run/docker.sock"),
    service!(
        "identity-handoff-containerd",
        "/run/containerd/containerd.sock"
    ),
    service!("identity-handoff-podman", "/run/podman/podman.sock"),
    service!("identity-handoff-system-bus", "/run/dbus/system_bus_socket"),
    service!("identity-handoff-systemd", "/run/systemd/private"),
    service!("identity-handoff-snapd", "/run/snapd.socket"),
    service!("identity-handoff-libvirt", "/run/libvirt/libvirt-sock"),
    service!("identity-handoff-tmux", "/tmp/tmux-1000/default"),
    service!("identity-handoff-display", "/tmp/.X11-unix/X0"),
    service!("identity-handoff-ssh-agent", "/tmp/ssh-redteam/agent.1"),
    service!("identity-handoff-user-bus", "/run/user/1000/bus"),
    service!(
        "identity-handoff-user-manager",
        "/run/user/1000/systemd/private"
    ),
    service!(
        "identity-handoff-user-keys",
        "/run/user/1000/gnupg/S.gpg-agent"
    ),
    deed("identity-handoff-by-symlink", |field| {
        let link = field.scratch("link");
        call!(SYS_symlink, Path::new("/run/docker.sock"), &link)?;
        reached(&link)
    })
    .prepare(|_| listen(Path::new("/run/docker.sock"))),
    deed("identity-handoff-by-descriptor", |_| {
        let fd = sys::open(Path::new("/run/docker.sock"), libc::O_PATH)?;
        reached(&sys::by_proc(&fd))
    })
    .prepare(|_| listen(Path::new("/run/docker.sock"))),
    deed("identity-handoff-terminal", typed)
        .lacks(&[(libc::EIO, "the kernel lets nobody type for others")]),
];

/// Listens there, for everybody; once for all that try.
fn listen(path: &Path) -> Result<()> {
    // To the directories that are made for it, all have to get.
    let mut made: Vec<PathBuf> = Vec::new();
    for directory in path
        .ancestors()
        .skip(1)
        .take_while(|directory| !directory.exists())
    {
        made.push(directory.to_owned());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    for directory in made {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    if path.exists() {
        return Ok(());
    }
    let listener = UnixListener::bind(path).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    // Until the driver's end.
    std::mem::forget(listener);
    Ok(())
}

fn reached(path: &Path) -> Try {
    let socket = call!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
    let socket = sys::owned(socket);
    let address = sys::unix_address(path.as_os_str().as_bytes());
    call!(SYS_connect, &socket, &address[..], address.len())?;
    proof()
}

/// Types into a terminal of its own: the kernel makes no difference to one that it shares
/// with the shell that started it.
fn typed(_: &Field) -> Try {
    call!(SYS_setpgid, 0, 0)?;
    let child = sys::fork(|| {
        call!(SYS_setsid)?;
        let leader = sys::open(Path::new("/dev/ptmx"), O_RDWR | O_NOCTTY)?;
        let mut number = [0; 4];
        call!(SYS_ioctl, &leader, TIOCSPTLCK, &mut number[..])?;
        call!(SYS_ioctl, &leader, TIOCGPTN, &mut number[..])?;
        let name = format!("/dev/pts/{}", u32::from_ne_bytes(number));
        let terminal = sys::open(Path::new(&name), O_RDWR | O_NOCTTY)?;
        call!(SYS_ioctl, &terminal, TIOCSCTTY, 0)?;
        let typed = call!(SYS_ioctl, &terminal, TIOCSTI, &b"x"[..]);
        // Closing it would hang up, and end this process before it can say.
        std::mem::forget(leader);
        typed?;
        sys::done()
    })?;
    super::of_child(&child)
}

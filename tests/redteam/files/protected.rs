//! What no agent reads unless its manifest names it: the built-in protected set.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::libc::{O_PATH, O_RDONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::sys::{self, Try, call, content};
use crate::victim::PROOF;
use crate::{mounts, stage};

const ROOTS: &str = "it belongs to root";

/// An attempt to read a file of the user's home.
macro_rules! at_home {
    ($id:literal, $path:literal) => {
        read($id, |field| content(&at_home(field, $path))).prepare(|field| put(field, $path))
    };
}

pub const ATTEMPTS: &[Attempt] = &[
    at_home!("read-protected-ssh-key", ".ssh/id_ed25519"),
    at_home!("read-protected-gpg-key", ".gnupg/private-keys-v1.d/key"),
    at_home!("read-protected-cloud-key", ".aws/credentials"),
    at_home!("read-protected-kube-config", ".kube/config"),
    at_home!("read-protected-docker-key", ".docker/config.json"),
    at_home!("read-protected-npm-token", ".npmrc"),
    at_home!("read-protected-pypi-token", ".pypirc"),
    at_home!("read-protected-git-credentials", ".git-credentials"),
    at_home!(
        "read-protected-browser-profile",
        ".mozilla/firefox/profile/cookies.sqlite"
    ),
    read("read-protected-by-hard-link", |field| {
        content(&field.scratch("g"))
    })
    .prepare(|field| {
        put(field, ".gnupg/key")?;
        Ok(fs::hard_link(
            at_home(field, ".gnupg/key"),
            field.scratch("g"),
        )?)
    }),
    read("read-protected-by-bind-mount", |field| {
        content(&field.scratch("d/key"))
    })
    .late(|field| {
        put(field, ".kube/key")?;
        field.make_dir(&field.scratch("d"))?;
        let directory = at_home(field, ".kube/key");
        mounts::bind(
            directory.parent().unwrap_or(&directory),
            &field.scratch("d"),
        )
    }),
    read("read-shadow", |field| {
        let path = if field.is_control() {
            "/etc/passwd"
        } else {
            "/etc/shadow"
        };
        seen(Path::new(path))
    })
    .root_only(ROOTS),
    read("read-shadow-by-proc-fd", |field| {
        use std::os::fd::AsRawFd as _;
        let path = if field.is_control() {
            "/etc/passwd"
        } else {
            "/etc/shadow"
        };
        let fd = sys::open(Path::new(path), O_PATH)?;
        seen(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())))
    })
    .root_only(ROOTS),
    read("read-host-key", |field| {
        content(&stage::host_key(&field.root, field.user, field.side))
    })
    .prepare(|field| {
        fs::create_dir_all("/etc/ssh")?;
        field.put(&stage::host_key(&field.root, field.user, field.side))
    }),
    read("read-agentguard-state", |field| {
        let directory = if field.is_control() { "facts" } else { "state" };
        let entries = sys::open(&field.root.join(directory), O_RDONLY)?;
        let mut room = [0; 1024];
        call!(SYS_getdents64, &entries, &mut room[..], 1024)?;
        Ok(PROOF.to_vec())
    })
    .root_only(ROOTS),
    write("write-agentguard-manifest", |field| {
        let path = if field.is_control() {
            field.file()
        } else {
            field.root.join("agents/redteam-new.yaml")
        };
        fs::write(path, "# no agent\n")?;
        sys::done()
    })
    .look(|field| {
        let directory = field.root.join("agents");
        Ok(crate::snapshot::of_field(field)? + &crate::snapshot::of_path(&directory)?)
    })
    .root_only(ROOTS),
];

fn seen(path: &Path) -> Try {
    content(path)?;
    Ok(PROOF.to_vec())
}

/// A path in the user's home; the control's has no name that is protected.
fn at_home(field: &Field, path: &str) -> PathBuf {
    let path = if field.is_control() {
        path.trim_start_matches('.')
    } else {
        path
    };
    stage::home(&field.root, field.user).join(path)
}

fn put(field: &Field, path: &str) -> Result<()> {
    let path = at_home(field, path);
    if let Some(parent) = path.parent() {
        field.make_dir(parent)?;
    }
    field.put(&path)
}

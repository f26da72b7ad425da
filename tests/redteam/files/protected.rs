//! What no agent reads unless its manifest names it: the built-in protected set.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::libc::{O_PATH, O_RDONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::sys::{self, Try, call};
use crate::victim::PROOF;
use crate::{mounts, stage};

const ROOTS: &str = "it belongs to root";

pub const ATTEMPTS: &[Attempt] = &[
    read("read-protected-ssh-key", |field| {
        content(&at_home(field, ".ssh", "id_ed25519"))
    })
    .prepare(|field| put(field, ".ssh", "id_ed25519")),
    read("read-protected-cloud-key", |field| {
        content(&at_home(field, ".aws", "credentials"))
    })
    .prepare(|field| put(field, ".aws", "credentials")),
    read("read-protected-docker-key", |field| {
        content(&at_home(field, ".docker", "config.json"))
    })
    .prepare(|field| put(field, ".docker", "config.json")),
    read("read-protected-by-hard-link", |field| {
        content(&field.scratch("g"))
    })
    .prepare(|field| {
        put(field, ".gnupg", "key")?;
        Ok(fs::hard_link(
            at_home(field, ".gnupg", "key"),
            field.scratch("g"),
        )?)
    }),
    read("read-protected-by-bind-mount", |field| {
        content(&field.scratch("d/key"))
    })
    .late(|field| {
        put(field, ".kube", "key")?;
        field.make_dir(&field.scratch("d"))?;
        let directory = at_home(field, ".kube", "key");
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

fn content(path: &Path) -> Try {
    sys::read(&sys::open(path, O_RDONLY)?)
}

fn seen(path: &Path) -> Try {
    content(path)?;
    Ok(PROOF.to_vec())
}

/// A path in the user's home; the control's has no name that is protected.
fn at_home(field: &Field, directory: &str, name: &str) -> PathBuf {
    let directory = if field.is_control() {
        directory.trim_start_matches('.')
    } else {
        directory
    };
    stage::home(&field.root, field.user)
        .join(directory)
        .join(name)
}

fn put(field: &Field, directory: &str, name: &str) -> Result<()> {
    let path = at_home(field, directory, name);
    if let Some(parent) = path.parent() {
        field.make_dir(parent)?;
    }
    field.put(&path)
}

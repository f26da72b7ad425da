//! AgentGuard's own files: what is recorded, configured, pinned, and how it starts. Rules that
//! allow everything, and every privilege, do not open them: the control is a twin elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::libc::{O_CREAT, O_WRONLY};

use super::{deed, proof};
use crate::attempt::{Attempt, Maker};
use crate::field::Field;
use crate::stage;
use crate::sys::{self, Try, call};

const ROOTS: &str = "it belongs to root";
const PROGRAM: &str = "/usr/bin/agentguard";
const UNIT: &str = "/usr/lib/systemd/system/agentguard.service";

const fn at(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    deed(id, attack).by(Maker::Lifted).root_only(ROOTS)
}

pub const ATTEMPTS: &[Attempt] = &[
    at("identity-own-state", |field| {
        made(&of(field, "state", "new"))
    }),
    at("identity-own-state-list", |field| {
        let directory = if field.is_control() {
            &field.dir
        } else {
            &field.root.join("state")
        };
        sys::open(directory, 0)?;
        proof()
    }),
    at("identity-own-manifest", |field| {
        made(&of(field, "agents", "redteam-new.yaml"))
    }),
    at("identity-own-manifest-changed", |field| {
        let path = of(field, "agents", "redteam-wide.yaml");
        if field.is_control() {
            fs::write(&path, "")?;
        }
        sys::open(&path, O_WRONLY)?;
        proof()
    }),
    at("identity-own-socket-unlink", |field| {
        call!(SYS_unlink, &twin(field, "runtime/agentguard.sock"))?;
        sys::done()
    })
    .look(|field| there(&twin(field, "runtime/agentguard.sock"))),
    at("identity-own-socket-mode", |field| {
        call!(SYS_chmod, &twin(field, "runtime/agentguard.sock"), 0o600)?;
        proof()
    }),
    at("identity-own-directory-moved", |field| {
        let (from, to) = match field.is_control() {
            true => (field.dir.clone(), field.dir.with_extension("moved")),
            false => (field.root.join("runtime"), field.root.join("runtime-moved")),
        };
        call!(SYS_rename, &from, &to)?;
        call!(SYS_rename, &to, &from)?;
        proof()
    }),
    at("identity-own-program", |field| {
        made(&elsewhere(field, PROGRAM))
    })
    .look(|field| there(&elsewhere(field, PROGRAM))),
    at("identity-own-unit", |field| made(&elsewhere(field, UNIT)))
        .prepare(|_| Ok(fs::create_dir_all("/usr/lib/systemd/system")?))
        .look(|field| there(&elsewhere(field, UNIT))),
    at("identity-own-pin-unlink", |field| {
        call!(SYS_unlink, &pin(field))?;
        sys::done()
    })
    .prepare(pin_of_others)
    .look(|field| there(&pin(field))),
    at("identity-own-pin-rename", |field| {
        let to = format!("{}-moved", pin(field).display());
        call!(SYS_rename, &pin(field), Path::new(&to))?;
        sys::done()
    })
    .prepare(pin_of_others)
    .look(|field| there(&pin(field))),
    at("identity-own-pins-mounted-over", |field| {
        let place = if field.is_control() {
            field.dir.clone()
        } else {
            stage::pins(&field.root)
        };
        let kind = c"tmpfs";
        call!(SYS_mount, kind, &place, kind, 0, 0)?;
        call!(SYS_umount2, &place, 0)?;
        proof()
    }),
];

fn made(path: &Path) -> Try {
    sys::open(path, O_WRONLY | O_CREAT)?;
    proof()
}

/// A name in one of the daemon's directories; for the control, beside the field's file.
fn of(field: &Field, directory: &str, name: &str) -> PathBuf {
    if field.is_control() {
        return field.at(name);
    }
    field.root.join(directory).join(name)
}

/// One of the daemon's files; for the control, the field's.
fn twin(field: &Field, path: &str) -> PathBuf {
    if field.is_control() {
        return field.file();
    }
    field.root.join(path)
}

/// A place of the package's; for the control, a new name.
fn elsewhere(field: &Field, path: &str) -> PathBuf {
    if field.is_control() {
        return field.at("new");
    }
    path.into()
}

fn there(path: &Path) -> Result<String> {
    Ok(path.symlink_metadata().is_ok().to_string())
}

/// A link that is pinned; for the control, something else in bpffs.
fn pin(field: &Field) -> PathBuf {
    if field.is_control() {
        let name = field.dir.file_name().unwrap_or_default().to_string_lossy();
        return Path::new("/sys/fs/bpf").join(name.replace('.', "-"));
    }
    stage::pins(&field.root).join("links/ptrace_traceme")
}

fn pin_of_others(field: &Field) -> Result<()> {
    if field.is_control() {
        std::os::unix::fs::symlink("/", pin(field))?;
    }
    Ok(())
}

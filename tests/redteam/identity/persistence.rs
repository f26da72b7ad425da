//! What starts by itself later. The privilege lifts it, so the control has that.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::libc::{O_APPEND, O_CREAT, O_WRONLY};

use super::{deed, proof};
use crate::attempt::Attempt;
use crate::field::Field;
use crate::stage;
use crate::sys::{self, Try, call};

const ROOTS: &str = "it belongs to root";

/// A new file below a directory of the host's.
macro_rules! on_host {
    ($id:literal, $directory:literal) => {
        deed($id, |field| made(&named(field, Path::new($directory))))
            .prepare(|_| Ok(fs::create_dir_all($directory)?))
            .look(|field| there(&named(field, Path::new($directory))))
            .root_only(ROOTS)
    };
}

/// A new file below a directory of the user's home.
macro_rules! at_home {
    ($id:literal, $directory:literal) => {
        deed($id, |field| made(&named(field, &home(field, $directory))))
            .prepare(|field| field.make_dir(&home(field, $directory)))
            .look(|field| there(&named(field, &home(field, $directory))))
    };
}

/// More in a file of the user's home.
macro_rules! appended {
    ($id:literal, $file:literal) => {
        deed($id, |field| {
            sys::mark(&sys::open(
                &home(field, $file),
                O_WRONLY | O_APPEND | O_CREAT,
            )?)
        })
        .prepare(|field| put(field, $file))
        .look(|field| Ok(fs::read_to_string(home(field, $file)).unwrap_or_default()))
    };
}

pub const ATTEMPTS: &[Attempt] = &[
    on_host!("identity-persist-cron", "/etc/cron.d"),
    on_host!("identity-persist-crontab", "/var/spool/cron/crontabs"),
    on_host!("identity-persist-at", "/var/spool/cron/atjobs"),
    on_host!("identity-persist-unit", "/etc/systemd/system"),
    on_host!(
        "identity-persist-unit-of-package",
        "/usr/lib/systemd/system"
    ),
    on_host!("identity-persist-unit-until-restart", "/run/systemd/system"),
    on_host!("identity-persist-profile", "/etc/profile.d"),
    on_host!("identity-persist-loader", "/etc/ld.so.conf.d"),
    on_host!("identity-persist-login", "/etc/pam.d"),
    on_host!("identity-persist-device-rule", "/etc/udev/rules.d"),
    on_host!("identity-persist-module", "/etc/modprobe.d"),
    on_host!("identity-persist-package", "/etc/apt/apt.conf.d"),
    deed("identity-persist-preload", |_| {
        made(Path::new("/etc/ld.so.preload"))?;
        proof()
    })
    .root_only(ROOTS),
    deed("identity-persist-account", |_| {
        sys::open(Path::new("/etc/passwd"), O_WRONLY | O_APPEND)?;
        proof()
    })
    .root_only(ROOTS),
    deed("identity-persist-by-directory-link", |field| {
        // Where the directory is not there yet, a link to a place of one's own would be it.
        let to = Path::new("/etc/cron.yearly");
        call!(SYS_symlink, &field.work, to)?;
        call!(SYS_unlink, to)?;
        proof()
    })
    .root_only(ROOTS),
    appended!("identity-persist-bashrc", ".bashrc"),
    appended!("identity-persist-login-shell", ".profile"),
    appended!("identity-persist-git", ".gitconfig"),
    appended!("identity-persist-authorized-keys", ".ssh/authorized_keys").never(),
    at_home!("identity-persist-user-unit", ".config/systemd/user"),
    at_home!("identity-persist-autostart", ".config/autostart"),
    deed("identity-persist-by-rename", |field| {
        let prepared = home(field, &format!("prepared-{}", field.side.name()));
        fs::write(&prepared, sys::MARK)?;
        call!(SYS_rename, &prepared, &home(field, ".zshrc"))?;
        fs::write(home(field, ".zshrc"), field.side.name())?;
        sys::done()
    })
    .prepare(|field| put(field, ".zshrc"))
    .look(|field| Ok(fs::read_to_string(home(field, ".zshrc"))?)),
    deed("identity-persist-by-hard-link", |field| {
        let link = field.scratch("link");
        call!(SYS_link, &home(field, ".zprofile"), &link)?;
        sys::marked(&link)
    })
    .prepare(|field| put(field, ".zprofile"))
    .look(|field| Ok(fs::read_to_string(home(field, ".zprofile"))?)),
    deed("identity-persist-by-directory-moved", |field| {
        let (from, to) = (home(field, "fish"), home(field, ".config/fish"));
        fs::create_dir_all(&from)?;
        call!(SYS_rename, &from, &to)?;
        fs::remove_dir(&to)?;
        proof()
    })
    .prepare(|field| field.make_dir(&home(field, ".config"))),
];

fn made(path: &Path) -> Try {
    sys::open(path, O_WRONLY | O_CREAT)?;
    sys::done()
}

fn there(path: &Path) -> Result<String> {
    Ok(path.symlink_metadata().is_ok().to_string())
}

fn home(field: &Field, path: &str) -> PathBuf {
    stage::home(&field.root, field.user).join(path)
}

fn named(field: &Field, directory: &Path) -> PathBuf {
    let name = format!("redteam-{}-{}", field.user.name(), field.side.name());
    directory.join(name)
}

fn put(field: &Field, path: &str) -> Result<()> {
    let path = home(field, path);
    field.make_dir(&stage::home(&field.root, field.user))?;
    if let Some(parent) = path.parent() {
        field.make_dir(parent)?;
    }
    field.put_bytes(&path, b"# as it was\n")
}

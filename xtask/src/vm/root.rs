//! The machines' root file system: Debian 12 with what the tests call, as an ext4 image.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::apt::{self, Apt};
use crate::host::{Host, is_root};
use crate::sh::Tool;

use super::disk::{self, Disk};

/// Packages beyond Debian's essential ones.
const PACKAGES: &[&str] = &[
    "adduser",
    "bubblewrap",
    "ca-certificates",
    "curl",
    "dbus",
    "e2fsprogs",
    "git",
    "iproute2",
    "kmod",
    "procps",
    "python3",
    "systemd-sysv",
    "util-linux-extra",
];
/// Services that only cost start-up time in a machine without a user or a network.
const MASKED: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-firstboot.service",
    "systemd-timesyncd.service",
];
/// Documentation and translations, never read in a test.
const EXCLUDED: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];
/// Fixed, so that systemd does not take every boot for the first one.
const MACHINE_ID: &str = "a6e27a2d5c0e4d0a9d2f6b6f3f1c7e55\n";
/// Free room; the file is sparse.
const ROOM: u64 = 4 << 30;
/// Changes when the way of making the image changes.
const LAYOUT: &str = "1";

/// The image with the packages wanted, from the cache or newly made.
pub fn image(host: &Host, with: &[String], refresh: bool) -> Result<Disk> {
    let packages: BTreeSet<&str> = PACKAGES
        .iter()
        .copied()
        .chain(with.iter().map(String::as_str))
        .collect();
    if let Some(name) = packages.iter().find(|name| !is_package_name(name)) {
        bail!("`{name}` is not a Debian package name");
    }
    let include = packages.into_iter().collect::<Vec<_>>().join(",");
    let recipe = format!(
        "{LAYOUT} {} {include} {MASKED:?} {EXCLUDED:?}",
        apt::RELEASE
    );
    let key: String = Sha256::digest(recipe)[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let _lock = host.lock("root-image")?;
    let file = host.dir("images")?.join(format!("debian12-{key}.ext4"));
    if refresh || !file.exists() {
        host.timed("making the Debian 12 root file system", || {
            check_packages(host, with)?;
            make(host, &include, &file)
        })?;
    }
    Ok(Disk {
        file,
        name: "root".to_owned(),
        at: "/".to_owned(),
        writable: true,
    })
}

fn is_package_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
}

/// Finds names that are no package before mmdebstrap does, whose error is long.
fn check_packages(host: &Host, with: &[String]) -> Result<()> {
    if with.is_empty() {
        return Ok(());
    }
    let apt = Apt::open(host)?;
    for name in with {
        if !apt.names(name)?.contains(name) {
            bail!("Debian has no package `{name}` (--with)");
        }
    }
    Ok(())
}

fn make(host: &Host, include: &str, file: &Path) -> Result<()> {
    if !is_root() {
        bail!("making the root file system's files with their owners needs root");
    }
    host.need(&[("mmdebstrap", "mmdebstrap"), ("apt-get", "apt")])?;
    let temp = host.scratch()?;
    let sources = temp.path().join("sources.list");
    fs::write(&sources, apt::base_sources()?)
        .with_context(|| format!("cannot write {}", sources.display()))?;
    let tree = temp.path().join("tree");
    let excluded = EXCLUDED
        .iter()
        .map(|path| format!("--dpkgopt=path-exclude={path}"));
    Tool::new("mmdebstrap")
        .args(["--mode=root", "--variant=minbase"])
        .arg(format!("--include={include}"))
        .args(excluded)
        // Directories that an excluded path's package expects to be able to write to.
        .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        .arg(apt::RELEASE)
        .arg(&tree)
        .arg(&sources)
        .env("SOURCE_DATE_EPOCH", "0")
        .run_quiet()?;
    configure(&tree)?;
    let made = temp.path().join("image");
    disk::make(&tree, &made, ROOM)?;
    fs::rename(&made, file).with_context(|| format!("cannot create {}", file.display()))
}

/// Makes an installed tree a machine.
fn configure(tree: &Path) -> Result<()> {
    let write = |path: &str, text: &str| {
        let file = tree.join(path);
        // A link, as for resolv.conf under systemd, would write elsewhere.
        let _ = fs::remove_file(&file);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    write("etc/hostname", "agentguard-vm\n")?;
    write(
        "etc/hosts",
        "127.0.0.1 localhost agentguard-vm\n::1 localhost ip6-localhost\n",
    )?;
    write("etc/machine-id", MACHINE_ID)?;
    write("etc/resolv.conf", "")?;
    write("etc/fstab", "")?;
    for unit in MASKED {
        let link = tree.join("etc/systemd/system").join(unit);
        let _ = fs::remove_file(&link);
        symlink("/dev/null", &link).with_context(|| format!("cannot mask {unit}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_names_are_checked() {
        for name in ["git", "libstdc++6", "python3.11", "7zip"] {
            assert!(is_package_name(name), "{name}");
        }
        for name in ["", "a", "-o", "Git", "a b", "a,b", "a=1"] {
            assert!(!is_package_name(name), "{name}");
        }
    }
}

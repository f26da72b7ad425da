//! The first file system of a machine: busybox, the disk driver, and what this machine is to do.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::apt::Apt;
use crate::host::Host;
use crate::sh::{self, Tool};

use super::cpio::Cpio;
use super::disk::Disk;
use super::kernels::Kernel;
use super::{Guest, Init, Machine, suite};

/// Drivers for the disks and ports, and the file system on the disks. A kernel that has one built
/// in or knows it under no such name needs no file for it.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "crc32c_generic",
    "ext4",
];
/// Programs that the scripts call.
const APPLETS: &[&str] = &[
    "cat",
    "cp",
    "insmod",
    "mkdir",
    "mount",
    "poweroff",
    "rmdir",
    "sh",
    "sleep",
    "switch_root",
];

/// Writes the archive for one machine.
pub fn write(
    host: &Host,
    file: &Path,
    kernel: &Kernel,
    machine: &Machine,
    disks: &[Disk],
) -> Result<()> {
    let mut cpio = Cpio::default();
    for dir in ["bin", "dev", "proc", "sys", "root", "modules", "vm"] {
        cpio.dir(dir);
    }
    let busybox = busybox(host)?;
    let busybox =
        fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    cpio.program("bin/busybox", &busybox);
    for applet in APPLETS {
        cpio.link(&format!("bin/{applet}"), "busybox");
    }
    cpio.program("init", include_bytes!("guest/init.sh"));
    add_modules(host, &mut cpio, &kernel.module_dir)?;
    add_orders(&mut cpio, machine, disks);
    cpio.write(file)
}

/// What this one machine mounts and runs.
fn add_orders(cpio: &mut Cpio, machine: &Machine, disks: &[Disk]) {
    let mounts: String = disks
        .iter()
        .map(|disk| {
            let mode = if disk.writable { "rw" } else { "ro" };
            format!("{} {} {mode}\n", disk.name, disk.at)
        })
        .collect();
    cpio.file("vm/mounts", mounts.as_bytes());
    cpio.file("vm/guest.sh", include_bytes!("guest/guest.sh"));
    match &machine.guest {
        Guest::Command(words) => {
            let line = format!("exec {}\n", sh::quote_all(words));
            cpio.file("vm/command.sh", line.as_bytes());
        }
        Guest::Suite(_) => cpio.file("vm/command.sh", suite::SCRIPT),
    }
    match &machine.init {
        Init::Plain => cpio.file("vm/plain.sh", include_bytes!("guest/plain.sh")),
        Init::Systemd { install } => {
            cpio.file("vm/systemd", b"");
            cpio.file(
                "vm/agentguard-vm.target",
                include_bytes!("guest/agentguard-vm.target"),
            );
            cpio.file(
                "vm/agentguard-vm.service",
                include_bytes!("guest/agentguard-vm.service"),
            );
            if !install.is_empty() {
                cpio.file("vm/install", b"");
            }
        }
    }
}

/// Adds the modules and the order to load them in.
fn add_modules(host: &Host, cpio: &mut Cpio, dir: &Path) -> Result<()> {
    let index = dir.join("modules.dep");
    let index =
        fs::read_to_string(&index).with_context(|| format!("cannot read {}", index.display()))?;
    let mut order = String::new();
    for path in load_order(&index, MODULES) {
        let name = module_name(&path);
        let data = read_module(host, &dir.join(&path))?;
        cpio.file(&format!("modules/{name}"), &data);
        order.push_str(&name);
        order.push('\n');
    }
    cpio.file("vm/modules", order.as_bytes());
    Ok(())
}

/// Paths of the modules wanted and of what they depend on, each after its own dependencies.
fn load_order(index: &str, wanted: &[&str]) -> Vec<String> {
    let lines: HashMap<String, (&str, Vec<&str>)> = index
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| {
            (
                module_name(path),
                (path, needs.split_whitespace().collect()),
            )
        })
        .collect();
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let Some((path, needs)) = lines.get(*name) else {
            continue;
        };
        // modules.dep lists direct needs first: the last one depends on none before it.
        for path in needs.iter().rev().chain([path]) {
            if !order.iter().any(|known| known == path) {
                order.push((*path).to_owned());
            }
        }
    }
    order
}

/// A module's name as the kernel has it, from its file's path.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split('.').next().unwrap_or(file);
    stem.replace('-', "_")
}

/// A module's bytes, unpacked.
fn read_module(host: &Host, file: &Path) -> Result<Vec<u8>> {
    match file.extension().and_then(|ext| ext.to_str()) {
        Some("ko") => fs::read(file).with_context(|| format!("cannot read {}", file.display())),
        Some("xz") => {
            host.need(&[("xz", "xz-utils")])?;
            Tool::new("xz").arg("-dc").arg(file).read_bytes()
        }
        Some("zst") => {
            host.need(&[("zstd", "zstd")])?;
            Tool::new("zstd").arg("-dcq").arg(file).read_bytes()
        }
        _ => bail!("{} is a module packed in an unknown way", file.display()),
    }
}

/// A statically linked busybox: Debian's, kept apart because the machine's own may be dynamic.
fn busybox(host: &Host) -> Result<PathBuf> {
    let _lock = host.lock("busybox")?;
    let dir = host.dir("busybox")?;
    let places = ["usr/bin/busybox", "bin/busybox"].map(|path| dir.join(path));
    if let Some(found) = places.iter().find(|path| path.exists()) {
        return Ok(found.clone());
    }
    host.timed("fetching busybox", || {
        Apt::open(host)?.unpack(&["busybox-static".to_owned()], &dir)
    })?;
    places
        .into_iter()
        .find(|path| path.exists())
        .context("the package busybox-static holds no busybox")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_load_after_what_they_need() {
        let index = "kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz\n\
                     kernel/lib/crc16.ko.xz:\nkernel/fs/mbcache.ko.xz:\n\
                     kernel/drivers/virtio/virtio-pci.ko: kernel/fs/mbcache.ko.xz\n";
        assert_eq!(
            load_order(index, &["virtio_pci", "absent", "ext4"]),
            [
                "kernel/fs/mbcache.ko.xz",
                "kernel/drivers/virtio/virtio-pci.ko",
                "kernel/lib/crc16.ko.xz",
                "kernel/fs/ext4/ext4.ko.xz",
            ]
        );
    }
}

//! What this host offers, found by asking it: the LSM list, BTF, and whether the
//! kernel accepts LSM programs at all. Never by comparing version numbers.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::btf::{self, Btf};
use super::{Protection, load, protections};

/// Where the kernel lists its security modules.
const LSM_LIST: &str = "/sys/kernel/security/lsm";

/// Where the kernel lists its symbols.
const KALLSYMS: &str = "/proc/kallsyms";
/// What agentguard.service copies from there before the daemon starts.
const SYMBOLS: &str = "/run/agentguard/symbols";

/// Findings about the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Security modules in order, if the list could be read.
    pub modules: Option<Vec<String>>,
    /// Whether the kernel's BTF is there and readable.
    pub btf: Result<(), String>,
    /// Whether a task storage lookup can miss on this kernel.
    pub storage_can_miss: bool,
    /// Whether Landlock is among the security modules.
    pub landlock: bool,
    /// Kernel release.
    pub release: String,
}

/// Number of the host's mount namespace, which is that of process 1.
#[must_use]
pub fn mount_namespace() -> Option<u32> {
    let number = std::fs::metadata("/proc/1/ns/mnt").ok()?.ino();
    u32::try_from(number).ok()
}

/// Address of a kernel variable. Zeros stand in the kernel's list for who lacks
/// `CAP_SYSLOG`; then the unit has copied what is needed.
#[must_use]
pub fn symbol(name: &str) -> Option<u64> {
    symbol_in(KALLSYMS, name).or_else(|| symbol_in(SYMBOLS, name))
}

/// Line by line: the list has ten megabytes.
fn symbol_in(file: &str, name: &str) -> Option<u64> {
    let mut lines = BufReader::new(File::open(file).ok()?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).ok()? != 0 {
        let text = line.trim_ascii_end();
        let mut words = text.split(|byte| *byte == b' ');
        let (address, found) = (words.next()?, words.nth(1));
        if found == Some(name.as_bytes()) {
            let address = u64::from_str_radix(std::str::from_utf8(address).ok()?, 16).ok()?;
            return (address != 0).then_some(address);
        }
        line.clear();
    }
    None
}

impl Host {
    /// Looks at this host.
    #[must_use]
    pub fn look() -> Self {
        let modules = modules();
        let parsed = Btf::read(Path::new(btf::VMLINUX));
        let storage_can_miss = parsed
            .as_ref()
            .is_ok_and(|btf| !btf.has_function("bpf_task_storage_get_recur"));
        Self {
            landlock: modules
                .as_ref()
                .is_some_and(|list| list.iter().any(|name| name == "landlock")),
            modules,
            btf: parsed.map(|_| ()).map_err(|error| error.to_string()),
            storage_can_miss,
            release: nix::sys::utsname::uname()
                .map(|name| name.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
        }
    }

    /// Why LSM programs would not be called here, and the setting that changes
    /// it; `None` if nothing speaks against them.
    #[must_use]
    pub fn lsm_obstacle(&self) -> Option<(String, String)> {
        match &self.modules {
            None => Some((
                format!("{LSM_LIST} cannot be read, so nobody can tell whether `bpf` is active"),
                "mount -t securityfs securityfs /sys/kernel/security".to_owned(),
            )),
            Some(list) if list.iter().any(|name| name == "bpf") => None,
            Some(list) => Some((
                format!(
                    "the kernel's security modules are {}, without `bpf`",
                    list.join(",")
                ),
                format!("add to the kernel command line: lsm={},bpf", list.join(",")),
            )),
        }
    }
}

/// The list of security modules. Mounts securityfs at its usual place when it is
/// not there yet, as systemd does at boot.
fn modules() -> Option<Vec<String>> {
    if !Path::new(LSM_LIST).exists() {
        let target = Path::new("/sys/kernel/security");
        let _ = nix::mount::mount(
            Some("securityfs"),
            target,
            Some("securityfs"),
            nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NOEXEC,
            None::<&str>,
        );
    }
    let list = std::fs::read_to_string(LSM_LIST).ok()?;
    Some(list.trim().split(',').map(str::to_owned).collect())
}

/// The protections that this host can offer, tried without attaching anything.
/// Without privileges nothing can be tried; then the obstacle says so.
#[must_use]
pub fn host() -> Vec<Protection> {
    let host = Host::look();
    let tried = load::try_out(&host);
    let obstacle = host.lsm_obstacle().or(tried.lsm_obstacle);
    let works = |name: &str| tried.works.contains(&name);
    protections::describe(obstacle.as_ref(), &host, &works)
}

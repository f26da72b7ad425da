//! `cargo xtask vm`: test machines under QEMU, with the kernels AgentGuard supports.
//!
//! A machine is a Debian kernel, started directly; a small initramfs that loads the disk driver;
//! and a Debian root file system on a disk whose changes are thrown away. The ordinary machine
//! runs one command as its only service; `--debian` starts systemd first.

pub mod beside;
pub mod cli;
mod console;
mod cpio;
pub mod disk;
mod initramfs;
pub mod kernels;
mod qemu;
mod root;
pub mod suite;

use std::env::consts::ARCH;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::host::{Host, Need};
use crate::{guest, sh};
use cli::{Flavour, Series};
use disk::Disk;
use kernels::Kernel;

/// Programs that preparing and running a machine calls, and the packages they are in.
const NEEDS: &[Need] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mkfs.ext4", "e2fsprogs"),
    ("setpriv", "util-linux"),
];

/// Memory in MiB: what Debian with systemd, a daemon and a compiler-sized test need.
const DEFAULT_MEMORY: u32 = 2048;
/// Seconds after which a machine is taken to hang.
const DEFAULT_TIMEOUT: u64 = 1_800;

/// What the machine runs.
#[derive(Debug, Clone)]
pub enum Guest {
    /// One command, as typed after `--`.
    Command(Vec<OsString>),
    /// Every test program found in a directory of this machine.
    Suite(PathBuf),
}

/// How the machine starts its user space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// The guest program only, with the usual file systems mounted.
    Plain,
    /// systemd as process 1; the packages given are installed before the guest program starts.
    Systemd {
        /// Packages that the machine installs with dpkg when it is up.
        install: Vec<PathBuf>,
    },
}

/// Everything that distinguishes one machine from another.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Kernel command line additions; they override the defaults.
    pub cmdline: String,
    /// Number of virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// Let guest time count instructions.
    pub icount: bool,
    /// Directories of this machine and where they appear.
    pub add: Vec<(PathBuf, String)>,
    /// Longest life of the machine.
    pub timeout: Duration,
    /// Whether a kernel warning fails the run.
    pub allow_kernel_warnings: bool,
    /// How user space starts.
    pub init: Init,
    /// What runs inside.
    pub guest: Guest,
    /// The file that gets what it prints, in place of our standard output.
    pub output: Option<PathBuf>,
}

impl Machine {
    /// The ordinary machine: one processor, counted in real time, nothing shared.
    pub fn new(guest: Guest) -> Self {
        Self {
            cmdline: String::new(),
            cpus: 1,
            memory: DEFAULT_MEMORY,
            icount: false,
            add: Vec::new(),
            timeout: Duration::from_secs(DEFAULT_TIMEOUT),
            allow_kernel_warnings: false,
            init: Init::Plain,
            guest,
            output: None,
        }
    }
}

/// The system a machine is made of.
#[derive(Debug, Clone)]
pub struct System {
    /// Kernel series, one machine each.
    pub series: Vec<Series>,
    /// Which of Debian's builds of the kernels.
    pub flavour: Flavour,
    /// Debian packages beyond the usual ones.
    pub with: Vec<String>,
    /// Whether to look for newer packages than the cached ones.
    pub refresh: bool,
}

/// Runs the command.
pub fn main(args: &cli::Args) -> Result<ExitCode> {
    let host = Host::find(args.quiet)?;
    if !args.no_build {
        guest::build(&host)?;
    }
    let machine = args.machine(&host)?;
    run_all(&host, &args.system(), &machine).map(ExitCode::from)
}

/// Runs the same machine on each kernel; the exit code is the first one inside that is not zero,
/// and 1 stands for a machine that failed, which does not keep the others from running.
pub fn run_all(host: &Host, system: &System, machine: &Machine) -> Result<u8> {
    let (root, kernels) = prepare(host, system)?;
    let mut code = 0;
    for kernel in &kernels {
        // A command's own output is all there is on standard output.
        if matches!(machine.guest, Guest::Suite(_)) {
            println!("== Linux {} ==", kernel.version);
        }
        let inside = run(host, kernel, &root, machine).unwrap_or_else(|error| {
            eprintln!("xtask: {error:#}");
            1
        });
        if code == 0 {
            code = inside;
        }
    }
    Ok(code)
}

/// Installs, fetches and makes everything that the machines need.
pub fn prepare(host: &Host, system: &System) -> Result<(Disk, Vec<Kernel>)> {
    if ARCH != "x86_64" {
        bail!("the test machines are x86-64 ones, and so must their host be; this one is {ARCH}");
    }
    host.need(NEEDS)?;
    let root = root::image(host, &system.with, system.refresh)?;
    let kernels = kernels::prepare(host, &system.series, system.flavour, system.refresh)?;
    Ok((root, kernels))
}

/// Boots one kernel, runs the guest program and gives back its exit code.
fn run(host: &Host, kernel: &Kernel, root: &Disk, machine: &Machine) -> Result<u8> {
    let scratch = host.scratch()?;
    let mut disks = vec![root.clone(), kernel.modules.clone()];
    disks.extend(shared_disks(host, machine, scratch.path())?);
    let initramfs = scratch.path().join("initramfs.cpio");
    initramfs::write(host, &initramfs, kernel, machine, &disks)?;
    // Kept apart while it is written: another task may run the same kernel.
    let console = scratch.path().join("console.log");
    let start = Instant::now();
    let boot = qemu::Boot {
        kernel,
        machine,
        initramfs: &initramfs,
        disks: &disks,
        console: &console,
    };
    let ended = qemu::boot(host, &boot);
    let warnings = console::warnings(&console);
    let kept = host
        .dir("consoles")?
        .join(format!("{}.log", kernel.version));
    if console.exists() {
        fs::rename(&console, &kept)
            .with_context(|| format!("cannot keep the console's log as {}", kept.display()))?;
    }
    let ended = ended?;
    host.step(format_args!(
        "Linux {}: code {} after {:.1} s (command started after {:.1} s)",
        kernel.version,
        ended.code,
        start.elapsed().as_secs_f64(),
        ended.ready.as_secs_f64(),
    ));
    let warnings = warnings?;
    if !warnings.is_empty() && !machine.allow_kernel_warnings {
        bail!(
            "the kernel {} reported a fault (whole log: {}; --allow-kernel-warnings lets it pass):\n{}",
            kernel.version,
            kept.display(),
            sh::tail(&warnings.join("\n"), 30)
        );
    }
    Ok(ended.code)
}

/// Disks with what this machine gives to the guest: directories, built programs, tests, packages.
fn shared_disks(host: &Host, machine: &Machine, scratch: &Path) -> Result<Vec<Disk>> {
    let mut wanted = machine.add.clone();
    let installs = match &machine.init {
        Init::Plain => &[],
        Init::Systemd { install } => install.as_slice(),
    };
    if !installs.is_empty() {
        let dir = scratch.join("deb");
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        for deb in installs {
            let name = deb
                .file_name()
                .context("a package path without a file name")?;
            fs::copy(deb, dir.join(name))
                .with_context(|| format!("cannot copy {}", deb.display()))?;
        }
        wanted.push((dir, "/deb".to_owned()));
    }
    let programs = host.dir("guest")?;
    // The package brings its own programs: a second copy earlier in PATH would hide them.
    if installs.is_empty() && fs::read_dir(&programs).is_ok_and(|mut dir| dir.next().is_some()) {
        wanted.push((programs, "/usr/local/bin".to_owned()));
    }
    if let Guest::Suite(dir) = &machine.guest {
        wanted.push((dir.clone(), suite::GUEST_DIR.to_owned()));
    }
    let mut disks = Vec::new();
    for (number, (dir, at)) in wanted.into_iter().enumerate() {
        let file = scratch.join(format!("share{number}.ext4"));
        let room = disk::ROOM_SHARED;
        disk::make(&dir, &file, room)?;
        disks.push(Disk {
            file,
            name: format!("share{number}"),
            at,
            writable: true,
        });
    }
    Ok(disks)
}

//! Running a machine: QEMU's command line, the channels into the machine, time limits.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::host::Host;

use super::console;
use super::disk::Disk;
use super::kernels::Kernel;
use super::{Init, Machine};

/// How long a machine that told its exit code may take to power off.
const POWER_OFF: Duration = Duration::from_secs(10);
/// The kernel's defaults here. The security modules are named because kernels differ in theirs;
/// the log level is where the kernel's own warnings reach the console.
const CMDLINE: &[&str] = &[
    "console=ttyS0",
    "quiet",
    "loglevel=5",
    "panic=-1",
    "lsm=landlock,lockdown,capability,yama,apparmor,bpf",
];

/// One start of a machine.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// What was asked for.
    pub machine: &'a Machine,
    /// Its first file system.
    pub initramfs: &'a Path,
    /// Its disks, the root file system first.
    pub disks: &'a [Disk],
    /// The file that gets the kernel's console.
    pub console: &'a Path,
}

/// How a machine ended.
#[derive(Debug)]
pub struct Ended {
    /// The guest program's exit code.
    pub code: u8,
    /// From QEMU's start to the guest program's.
    pub ready: Duration,
}

/// What the machine tells on its own channel.
#[derive(Debug, PartialEq)]
enum Event {
    Ready,
    Exit(u8),
    Closed,
}

/// The machine ended before the guest program began.
#[derive(Debug, thiserror::Error)]
#[error("the machine with Linux {version} stopped while it started; its console said:\n{console}")]
struct NotStarted {
    version: String,
    console: String,
}

/// Starts the machine and streams the guest program's output until it ends. One that does not
/// start is started once more: the emulator now and then makes a kernel fail that way (a
/// module's signature that does not verify), and nothing of the guest program has run.
pub fn boot(host: &Host, boot: &Boot<'_>) -> Result<Ended> {
    match boot_once(host, boot) {
        Err(error) if error.is::<NotStarted>() => {
            host.step(format_args!("{error:#}\nstarting it once more"));
            boot_once(host, boot)
        }
        result => result,
    }
}

fn boot_once(host: &Host, boot: &Boot<'_>) -> Result<Ended> {
    host.step(format_args!("booting Linux {}", boot.kernel.version));
    let _ = fs::remove_file(boot.console);
    let to = output(boot.machine)?;
    let mut command = command_line(boot);
    let (out, out_far) = channel(&mut command, "out")?;
    let (err, err_far) = channel(&mut command, "err")?;
    let (exit, exit_far) = channel(&mut command, "exit")?;
    let start = Instant::now();
    let child = command
        .spawn()
        .context("cannot start qemu-system-x86_64 by setpriv")?;
    // QEMU's ends: ours must close for the end of the machine to be seen.
    drop((command, out_far, err_far, exit_far));
    let mut child = Running(child);
    let copies = [copy(out, to), copy(err, io::stderr())];
    let outcome = follow(boot, &listen(exit), start);
    if outcome.is_ok() {
        child.wait(POWER_OFF);
    }
    drop(child);
    for copy in copies {
        let _ = copy.join();
    }
    outcome
}

/// Where the guest program's standard output goes.
fn output(machine: &Machine) -> Result<Box<dyn Write + Send>> {
    let Some(file) = &machine.output else {
        return Ok(Box::new(io::stdout()));
    };
    let to = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
    Ok(Box::new(to))
}

/// Waits for the guest program's exit code.
fn follow(boot: &Boot<'_>, events: &Receiver<Event>, start: Instant) -> Result<Ended> {
    let mut ready = None;
    let limit = boot.machine.timeout;
    loop {
        let event = match events.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(event) => event,
            Err(RecvTimeoutError::Disconnected) => Event::Closed,
            Err(RecvTimeoutError::Timeout) => bail!(
                "the machine with Linux {} was stopped after {} s (--timeout); \
                 its console said:\n{}",
                boot.kernel.version,
                limit.as_secs(),
                console::last_words(boot.console)
            ),
        };
        match event {
            Event::Ready => ready = Some(start.elapsed()),
            Event::Exit(code) => {
                return Ok(Ended {
                    code,
                    ready: ready.unwrap_or_else(|| start.elapsed()),
                });
            }
            Event::Closed if ready.is_none() => {
                return Err(NotStarted {
                    version: boot.kernel.version.clone(),
                    console: console::last_words(boot.console),
                }
                .into());
            }
            Event::Closed => bail!(
                "the machine with Linux {} stopped before the command had ended; its console \
                 said:\n{}",
                boot.kernel.version,
                console::last_words(boot.console)
            ),
        }
    }
}

/// QEMU's command line. `setpriv` makes the emulator end when this process does.
fn command_line(boot: &Boot<'_>) -> Command {
    let machine = boot.machine;
    let (accel, cpu) = acceleration(machine.icount);
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
        .args(["-machine", "q35", "-accel", accel, "-cpu", cpu])
        .args(["-smp", &machine.cpus.to_string()])
        .args(["-m", &machine.memory.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-net", "none"])
        .arg("-kernel")
        .arg(&boot.kernel.image)
        .arg("-initrd")
        .arg(boot.initramfs)
        .args(["-append", &kernel_line(machine)])
        .arg("-serial")
        .arg(format!("file:{}", boot.console.display()))
        .args(["-device", "virtio-serial-pci"]);
    if machine.icount {
        command.args(["-icount", "shift=0"]);
    }
    for disk in boot.disks {
        command.arg("-drive").arg(format!(
            "file={},if=none,id={},format=raw,snapshot=on,cache=unsafe",
            disk.file.display().to_string().replace(',', ",,"),
            disk.name
        ));
        command
            .arg("-device")
            .arg(format!("virtio-blk-pci,drive={0},serial={0}", disk.name));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The accelerator and the processor to offer. Inside another virtual machine /dev/kvm may be
/// there and not run an ordinary kernel, so it is used on bare metal only, unless asked for.
fn acceleration(icount: bool) -> (&'static str, &'static str) {
    let wanted = env::var("AGENTGUARD_VM_ACCEL").unwrap_or_default();
    let bare_metal = || {
        fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| {
            info.lines()
                .find(|line| line.starts_with("flags"))
                .is_some_and(|flags| !flags.split(' ').any(|flag| flag == "hypervisor"))
        })
    };
    let usable = || {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
    };
    if icount {
        return ("tcg,thread=single", "max");
    }
    match wanted.as_str() {
        "kvm" => ("kvm", "host"),
        "" if usable() && bare_metal() => ("kvm", "host"),
        _ => ("tcg,thread=multi", "max"),
    }
}

/// The kernel command line: the defaults that the machine's own additions do not name, then those.
fn kernel_line(machine: &Machine) -> String {
    let key = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let own: Vec<String> = machine.cmdline.split_whitespace().map(key).collect();
    let mut words: Vec<&str> = CMDLINE
        .iter()
        .copied()
        // A second console is an addition; any other word replaces ours.
        .filter(|word| key(word) == "console" || !own.contains(&key(word)))
        .collect();
    if machine.init != Init::Plain {
        words.push("systemd.unit=agentguard-vm.target");
    }
    words.push(&machine.cmdline);
    words.join(" ").trim_end().to_owned()
}

/// Adds a port to the machine and gives back our end and QEMU's end of it.
fn channel(command: &mut Command, name: &str) -> Result<(UnixStream, UnixStream)> {
    let (ours, far) = UnixStream::pair().context("cannot make a socket pair")?;
    fcntl(&far, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot share a socket")?;
    command
        .arg("-chardev")
        .arg(format!("socket,id={name},fd={}", far.as_raw_fd()))
        .arg("-device")
        .arg(format!(
            "virtserialport,chardev={name},name=agentguard.{name}"
        ));
    Ok((ours, far))
}

/// Copies a channel to one of our own outputs as it comes.
fn copy(mut from: UnixStream, mut to: impl Write + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length) = from.read(&mut buffer) {
            // With nobody left to read our output, the machine's is still taken, so that it ends.
            if length == 0 {
                break;
            }
            let _ = to.write_all(&buffer[..length]);
            let _ = to.flush();
        }
    })
}

/// Reads the machine's own channel.
fn listen(exit: UnixStream) -> Receiver<Event> {
    let (send, events) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(exit).lines().map_while(Result::ok) {
            if let Some(event) = parse(&line)
                && send.send(event).is_err()
            {
                return;
            }
        }
        let _ = send.send(Event::Closed);
    });
    events
}

fn parse(line: &str) -> Option<Event> {
    match line.trim() {
        "ready" => Some(Event::Ready),
        line => line.strip_prefix("exit ")?.parse().ok().map(Event::Exit),
    }
}

/// A started emulator, killed when dropped.
#[derive(Debug)]
struct Running(Child);

impl Running {
    /// Waits for the emulator to end by itself.
    fn wait(&mut self, limit: Duration) {
        let start = Instant::now();
        while start.elapsed() < limit {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Guest;

    fn machine(cmdline: &str) -> Machine {
        Machine {
            cmdline: cmdline.to_owned(),
            ..Machine::new(Guest::Command(Vec::new()))
        }
    }

    #[test]
    fn additions_override_the_defaults() {
        let line = kernel_line(&machine("lsm=landlock preempt=full"));
        assert!(line.ends_with("lsm=landlock preempt=full"), "{line}");
        assert_eq!(line.matches("lsm=").count(), 1, "{line}");
        assert!(line.contains("panic=-1"), "{line}");
        assert!(kernel_line(&machine("")).contains("yama,apparmor,bpf"));
    }

    #[test]
    fn the_machine_tells_its_state_in_lines() {
        assert_eq!(parse("ready"), Some(Event::Ready));
        assert_eq!(parse("exit 137\r"), Some(Event::Exit(137)));
        assert_eq!(parse("exit 256"), None);
        assert_eq!(parse("noise"), None);
    }
}

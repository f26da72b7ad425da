//! The directories, the daemon and the executors of one run.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use agentguard_tests::binary;
use agentguard_tests::daemon::{self, Daemon, both};
use agentguard_tests::manifest::Manifest;
use agentguard_tests::places::Places;
use agentguard_tests::suite;
use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};

use crate::attempt::Attempt;
use crate::executor;
use crate::field::{Field, Side, User};
use crate::network::interface::Interface;
use crate::network::{ground, names, nameserver};
use crate::snapshot;
use crate::sys::{self, Try, call};

/// The agent that tries.
pub const AGENT: &str = "redteam";
/// The agent with every privilege, for controls that need one.
pub const LIFTED: &str = "redteam-lifted";
/// The longest that the daemon may take to hear of a new name.
const SETTLING: Duration = Duration::from_secs(10);
/// The agent whose rules allow everything, and that has no privilege.
pub const WIDE: &str = "redteam-wide";
/// Where it is written which process the daemon is, and where its pins are.
const DAEMON: &str = "facts/daemon";
/// Who may start them.
const USERS: [&str; 2] = ["root", "nobody"];
/// What the agent that tries may write to beside its tree. Opening the memory of a process
/// is a matter of tracing it, which no rule about files allows.
const ALLOWED: [&str; 5] = [
    "/dev/null",
    "/proc/*/mem",
    "/proc/*/setgroups",
    "/proc/*/uid_map",
    "/proc/*/gid_map",
];
/// What the manifests of agents may allow by name.
const PRIVILEGES: [&str; 12] = [
    "mount",
    "namespaces",
    "ptrace-outside",
    "signal-outside",
    "bpf",
    "modules",
    "kernel-settings",
    "devices",
    "persistence",
    "handoff",
    "setuid",
    "raw-sockets",
];

/// Settings that attempts change. The kernel writes core dumps where the process is.
const SETTINGS: [&str; 3] = [
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
];

/// Directories and daemon. Dropped in this order: the daemon goes first.
#[derive(Debug)]
pub struct Stage {
    /// The daemon.
    pub daemon: Daemon,
    /// Why this host has no LSM programs, if it has none.
    pub without_lsm: Option<String>,
    /// What is not in the directories.
    _around: Around,
    /// The internet.
    _interface: Interface,
    /// The directories.
    pub places: Places,
}

/// What a run changes outside its directories; put right when it is dropped.
#[derive(Debug)]
struct Around {
    root: PathBuf,
    settings: Vec<(&'static str, String)>,
}

impl Around {
    fn new(root: &Path, native: bool) -> Result<Self> {
        let read = |path| Ok((path, fs::read_to_string(path)?));
        let mut settings = Vec::new();
        // They are the host's, and no attempt on the network is about them.
        if !native {
            settings = SETTINGS.into_iter().map(read).collect::<Result<_>>()?;
            fs::write(SETTINGS[1], "core")?;
        }
        Ok(Self {
            root: root.to_owned(),
            settings,
        })
    }
}

impl Drop for Around {
    fn drop(&mut self) {
        clear_mounts(&self.root);
        for user in User::BOTH {
            let _ = fs::remove_dir_all(home(&self.root, user));
            for side in Side::BOTH {
                let _ = fs::remove_file(host_key(&self.root, user, side));
            }
        }
        for (path, value) in &self.settings {
            let _ = fs::write(path, value);
        }
    }
}

/// A home directory of the run, for each user one: where credentials are protected.
pub fn home(root: &Path, user: User) -> PathBuf {
    let run = root.file_name().unwrap_or_default().to_string_lossy();
    Path::new("/home").join(format!("{run}-{}", user.name()))
}

/// A key of the host, of the run's own; for the control, its public half.
pub fn host_key(root: &Path, user: User, side: Side) -> PathBuf {
    let run = root.file_name().unwrap_or_default().to_string_lossy();
    let end = match side {
        Side::Allowed => "key.pub",
        Side::Denied => "key",
    };
    PathBuf::from(format!("/etc/ssh/ssh_host_{run}-{}_{end}", user.name()))
}

fn of_daemon(root: &Path) -> Value {
    let text = fs::read_to_string(root.join(DAEMON)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The daemon's process.
pub fn daemon(root: &Path) -> u64 {
    of_daemon(root)["pid"].as_u64().unwrap_or(0)
}

/// Where its programs and maps are pinned.
pub fn pins(root: &Path) -> PathBuf {
    of_daemon(root)["pins"].as_str().unwrap_or_default().into()
}

/// Removes the mounts below a directory.
pub fn clear_mounts(directory: &Path) {
    for point in snapshot::mount_points(directory).unwrap_or_default() {
        let _ = umount2(&point, MntFlags::MNT_DETACH);
    }
}

impl Stage {
    /// Makes the directories and writes the policy. The daemon is not started yet.
    pub fn set(native: bool) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the red team prepares objects of every kind: run it as root"
        );
        let places = Places::make()?;
        for directory in ["facts", "ok/work", "bin/ok", "bin/no"] {
            fs::create_dir_all(places.root().join(directory))?;
        }
        let binary = binary::agentguard()?;
        let without_lsm = if native {
            suite::missing(&binary)?
        } else {
            None
        };
        let accepted: &[&str] = match without_lsm {
            Some(_) => &suite::MAY_MISS,
            None => &[],
        };
        let daemon = Daemon::configure(binary, &places, accepted)?;
        daemon.resolve_by(&nameserver::addresses(), names::RESOLVER_PORT)?;
        let stage = Self {
            daemon,
            without_lsm,
            _around: Around::new(places.root(), native)?,
            _interface: Interface::make()?,
            places,
        };
        nameserver::start()?;
        stage.install(&stage.manifest(AGENT))?;
        stage.install(&names::beside::manifest().users(&USERS))?;
        let wide = |name| {
            Manifest::new(name, "enforce")
                .users(&USERS)
                .default("write", "allow")
                .default("connect", "allow")
                .default("listen", "allow")
        };
        stage.install(
            &wide(LIFTED)
                .rules("write", "allow", &["/**".to_owned()])
                .rules("read", "allow", &["/proc/kcore".to_owned()])
                .privileges(&PRIVILEGES),
        )?;
        stage.install(&wide(WIDE).privileges(&[]))?;
        Ok(stage)
    }

    fn manifest(&self, name: &str) -> Manifest {
        let at = |path: &str| self.places.at(path);
        let mut allowed = vec![at("ok/**")];
        allowed.extend(ALLOWED.map(str::to_owned));
        Manifest::new(name, "enforce")
            .users(&USERS)
            .rules("write", "allow", &allowed)
            .rules(
                "write",
                "deny",
                &[
                    at("no/**"),
                    at("ok/work/*/open/ruled/**"),
                    at("ok/work/*/open/parent/ruled/**"),
                    at("ok/work/*/kept/*/ruled/**"),
                    at("ok/work/*/folded/ruled/**"),
                ],
            )
            .rules(
                "read",
                "deny",
                &[
                    at("secret/**"),
                    at("ok/work/*/vault/**"),
                    at("ok/work/*/kept/*/vault/**"),
                    at("ok/work/*/folded/vault/**"),
                ],
            )
            .rules("exec", "deny", &[at("bin/no/**")])
            .rules("connect", "allow", &ground::connect_rules(&at("")))
            .rules("connect", "deny", &names::deny_rules())
            .rules("listen", "allow", &ground::listen_rules())
    }

    fn install(&self, manifest: &Manifest) -> Result<()> {
        let text = manifest.text();
        let value: Value = serde_json::from_str(&text)?;
        let name = value["metadata"]["name"].as_str().context("no name")?;
        fs::write(self.places.at(&format!("agents/{name}.yaml")), text)?;
        Ok(())
    }

    /// Starts the daemon, and writes down where it is.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.daemon.start()?;
        let pid = self.daemon.pid().context("the daemon does not run")?;
        let facts = json!({ "pid": pid, "pins": daemon::pins() });
        Ok(fs::write(self.places.at(DAEMON), facts.to_string())?)
    }

    /// Waits until a hard link that is made now counts for agents: the daemon has then heard
    /// of all that came before.
    pub fn settle(&self) -> Result<()> {
        let (file, link) = (
            self.places.at("secret/settled"),
            self.places.at("ok/settled"),
        );
        fs::write(&file, "a file with two names")?;
        fs::hard_link(&file, &link)?;
        let end = Instant::now() + SETTLING;
        loop {
            let agent = ["run", "--agent", AGENT, "--", "cat", &link];
            let output = self.daemon.command(&agent).output()?;
            if String::from_utf8_lossy(&output.stderr).contains("Operation not permitted") {
                return Ok(());
            }
            ensure!(output.status.success(), "{}", both(&output));
            ensure!(
                Instant::now() < end,
                "a hard link to a protected file can still be read after {SETTLING:?}"
            );
        }
    }

    /// Starts an executor: as this agent, or without a tag.
    pub fn executor(
        &self,
        agent: Option<&str>,
        user: User,
        attempts: &[&Attempt],
    ) -> Result<Executor> {
        let program = std::env::current_exe()?;
        let mut command = match agent {
            Some(agent) => {
                let mut command = self.daemon.command(&["run", "--agent", agent, "--"]);
                command.arg(&program);
                command
            }
            None => Command::new(&program),
        };
        let uid = user.uid();
        command
            .args([executor::WORD, &self.places.at(""), user.name()])
            .uid(uid)
            .gid(uid)
            .current_dir("/");
        let mut kept = Vec::new();
        let mut names = Vec::new();
        for attempt in attempts {
            let Some(open) = attempt.inherits else {
                continue;
            };
            for side in Side::BOTH {
                let field = Field::new(self.places.root(), attempt, user, side);
                let fd = open(&field).with_context(|| format!("descriptor for {}", attempt.id))?;
                fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
                names.push(format!("{}/{}={}", attempt.id, side.name(), fd.as_raw_fd()));
                kept.push(fd);
            }
        }
        command.env(executor::INHERITED, names.join(","));
        Executor::start(command)
    }
}

/// A running executor.
#[derive(Debug)]
pub struct Executor {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    socket: OwnedFd,
}

impl Executor {
    fn start(mut command: Command) -> Result<Self> {
        let (socket, far) = nix::sys::socket::socketpair(
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::SeqPacket,
            None,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        )?;
        fcntl(&far, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mut child = command
            .env(executor::SOCKET, far.as_raw_fd().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start an executor")?;
        let requests = child.stdin.take().context("no input")?;
        let answers = BufReader::new(child.stdout.take().context("no output")?);
        let mut executor = Self {
            child,
            requests,
            answers,
            socket,
        };
        executor.answer().context("an executor does not start")?;
        Ok(executor)
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        let length = self.answers.read_line(&mut line)?;
        ensure!(length > 0, "it ended: {:?}", self.child.try_wait());
        serde_json::from_str(&line).context(line)
    }

    /// Sends it the descriptor that an attempt wants: to have that opened is no effect of the
    /// attempt.
    pub fn give(&self, attempt: &Attempt, field: &Field) -> Result<()> {
        if let Some(open) = attempt.receives {
            send(&self.socket, &open(field)?).context("sending a descriptor")?;
        }
        Ok(())
    }

    /// Has an attempt made on one side.
    pub fn make(&mut self, attempt: &Attempt, field: &Field) -> Result<Value> {
        writeln!(self.requests, "{} {}", attempt.id, field.side.name())?;
        self.requests.flush()?;
        self.answer().with_context(|| attempt.id)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message header for one descriptor: the bytes have to outlive the header.
fn header(iov: &[u8], control: &[u8]) -> Vec<u8> {
    sys::words(&[
        0,
        0,
        iov.as_ptr() as u64,
        1,
        control.as_ptr() as u64,
        control.len() as u64,
        0,
    ])
}

/// The control message of one descriptor.
fn rights(fd: i32) -> Vec<u8> {
    let mut bytes = sys::words(&[20]);
    bytes.extend(sys::halves(&[
        libc::SOL_SOCKET as u32,
        libc::SCM_RIGHTS as u32,
        fd as u32,
        0,
    ]));
    bytes
}

fn send(socket: &OwnedFd, fd: &OwnedFd) -> Try {
    let body = *b"d";
    let iov = sys::iovec(&body);
    let control = rights(fd.as_raw_fd());
    let message = header(&iov, &control);
    call!(SYS_sendmsg, socket, &message[..], 0)?;
    sys::done()
}

/// Takes the descriptor that the driver has sent: in the tagged process.
pub fn receive() -> Try<OwnedFd> {
    let body = [0; 1];
    let iov = sys::iovec(&body);
    let control = rights(-1);
    let mut message = header(&iov, &control);
    call!(
        SYS_recvmsg,
        executor::socket(),
        &mut message[..],
        libc::MSG_DONTWAIT
    )?;
    // Not through `control`, of which the compiler knows that nobody changed it.
    // SAFETY: the kernel wrote to it; it lives, and is long enough.
    let fd = unsafe { control.as_ptr().add(16).cast::<i32>().read_volatile() };
    if fd < 0 {
        return Err(sys::Fail::new("recvmsg gave no descriptor", libc::EPERM));
    }
    Ok(sys::owned(fd.into()))
}

//! The confined process: this test binary once more, told by a job on its
//! standard input what to put in force and what to try.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agentguard::landlock::{Concessions, Confined, HostTree, Rules, confine, rules};
use agentguard::policy::manifest::Manifest;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Pid, Uid, mkfifo, setgid, setgroups, setsid, setuid, truncate};
use serde::{Deserialize, Serialize};

/// Set for the confined process.
pub const MARK: &str = "AGENTGUARD_LANDLOCK_PROBE";

/// What the confined process does.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// Bind mounts to make first, in a mount namespace of its own.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// The user to become.
    pub user: Option<u32>,
    /// Start a thread before confining.
    pub with_thread: bool,
    /// Rules to put in force, one after the other.
    pub rules: Vec<Rules>,
    /// A manifest from which to derive rules after the mounts are made.
    pub manifest: Option<String>,
    /// What to try, each a word and its paths.
    pub tries: Vec<Vec<String>>,
}

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Why nothing was confined.
    pub error: Option<String>,
    /// What is in force, of the last rules.
    pub confined: Option<Confined>,
    /// `ok` or the name of the error, for each try.
    pub results: Vec<String>,
}

/// A checked manifest with these permissions.
pub fn manifest(mode: &str, permissions: &str) -> Manifest {
    let text = format!(
        "apiVersion: agentguard/v1\nkind: Agent\nmetadata: {{ name: t }}\nspec:\n  \
         owner: o@example.com\n  environment: production\n  authority: service\n  mode: {mode}\n  \
         permissions:\n{permissions}"
    );
    let parsed = agentguard::policy::parse(Path::new("t.yaml"), text.as_bytes())
        .unwrap_or_else(|error| panic!("{error:?}"));
    let checked = agentguard::policy::check(&parsed);
    let found = checked.manifests.into_iter().next();
    found.unwrap_or_else(|| panic!("{:?}\n{text}", checked.diagnostics))
}

/// Runs a job in a process of its own.
pub fn run(job: &Job) -> Report {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(MARK, "job")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&serde_json::to_vec(job).unwrap()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the probe failed: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The confined process' main function.
pub fn main(mark: &str) {
    if mark == "job" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).unwrap();
        let report = carry_out(serde_json::from_str(&text).unwrap());
        println!("{}", serde_json::to_string(&report).unwrap());
    } else {
        // A descendant: tries what its arguments say and tells by its exit code.
        let words: Vec<String> = std::env::args().skip(1).collect();
        let code = attempt(&words).err().map_or(0, |error| error as i32);
        std::process::exit(code);
    }
}

fn carry_out(job: Job) -> Report {
    let mut report = Report::default();
    if !job.binds.is_empty() {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        for (from, to) in &job.binds {
            mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        }
    }
    let mut all = job.rules;
    if let Some(permissions) = &job.manifest {
        let tree = HostTree::here().unwrap();
        all.push(rules(
            &manifest("enforce", permissions),
            &[],
            Concessions::default(),
            &tree,
        ));
    }
    if let Some(user) = job.user {
        setgroups(&[]).unwrap();
        setgid(Gid::from_raw(user)).unwrap();
        setuid(Uid::from_raw(user)).unwrap();
    }
    let (keep, wait) = std::sync::mpsc::channel::<()>();
    let thread = job
        .with_thread
        .then(|| std::thread::spawn(move || wait.recv()));
    for rules in &all {
        match confine(rules) {
            Ok(confined) => report.confined = Some(confined),
            Err(error) => {
                report.error = Some(error.to_string());
                break;
            }
        }
    }
    drop(keep);
    drop(thread.map(std::thread::JoinHandle::join));
    if report.error.is_none() {
        report.results = job.tries.iter().map(|words| result(words)).collect();
    }
    report
}

fn result(words: &[String]) -> String {
    match attempt(words) {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

fn attempt(words: &[String]) -> Result<(), Errno> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let found = match *words.as_slice() {
        ["read", path] => File::open(path).and_then(|mut file| file.read(&mut [0]).map(drop)),
        ["list", path] => std::fs::read_dir(path).map(drop),
        ["write", path] => OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(b"x")),
        ["open-truncating", path] => OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(path)
            .map(drop),
        ["truncate", path] => truncate(path, 0).map_err(io::Error::from),
        ["create", path] => OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map(drop),
        ["mkdir", path] => std::fs::create_dir(path),
        ["rmdir", path] => std::fs::remove_dir(path),
        ["unlink", path] => std::fs::remove_file(path),
        ["symlink", path] => symlink("nowhere", path),
        ["fifo", path] => mkfifo(path, Mode::S_IRWXU).map_err(io::Error::from),
        ["socket", path] => UnixListener::bind(path).map(drop),
        ["device", path] => {
            mknod(path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).map_err(io::Error::from)
        }
        ["link", from, to] => std::fs::hard_link(from, to),
        ["rename", from, to] => std::fs::rename(from, to),
        ["exchange", from, to] => {
            let flags = RenameFlags::RENAME_EXCHANGE;
            renameat2(AT_FDCWD, from, AT_FDCWD, to, flags).map_err(io::Error::from)
        }
        ["chmod", path] => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)),
        ["bind", from, to] => {
            let nothing = None::<&str>;
            mount(Some(from), to, nothing, MsFlags::MS_BIND, nothing).map_err(io::Error::from)
        }
        ["exec", path] => Command::new(path).status().map(drop),
        ["signal", pid] => {
            let pid = Pid::from_raw(pid.parse().unwrap());
            nix::sys::signal::kill(pid, None).map_err(io::Error::from)
        }
        ["thread", ref rest @ ..] => return in_thread(rest),
        ["descendant", ref rest @ ..] => return in_descendant(rest),
        _ => panic!("unknown: {words:?}"),
    };
    found.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32)))
}

fn in_thread(words: &[&str]) -> Result<(), Errno> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    std::thread::spawn(move || attempt(&words)).join().unwrap()
}

/// A new session and another program image; `descendant descendant …` goes on.
fn in_descendant(words: &[&str]) -> Result<(), Errno> {
    let mut command = Command::new("/proc/self/exe");
    command.args(words).env(MARK, "descendant");
    // SAFETY: between fork and exec only one system call is made.
    unsafe {
        command.pre_exec(|| setsid().map(drop).map_err(io::Error::from));
    }
    match command.status().unwrap().code() {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw(code)),
        None => Err(Errno::EIO),
    }
}

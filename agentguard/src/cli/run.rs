//! `agentguard run`: enrol this process, then become the command.
//!
//! One thread from start to end. Whatever can fail for a reason of its own is
//! done before the run exists: a mistyped command makes no run.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, faccessat};

use super::{Ending, Exit, Outcome, RunArgs, client};
use crate::api::{RunCreated, RunRequest};
use crate::landlock;

/// Where commands are looked for when `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Bytes of the command line that are recorded; the rest is left out.
const RECORDED_BYTES: usize = 64 * 1024;

pub(super) fn run(socket: &Path, args: RunArgs) -> Outcome {
    let Some((name, arguments)) = args.command.split_first() else {
        return Err(Ending::new(Exit::Usage, "no command was given"));
    };
    let program = find(name)?;
    let request = RunRequest {
        agent: args.wanted.agent,
        environment: args.wanted.environment,
        task: args.wanted.task,
        on_behalf_of: args.wanted.on_behalf_of,
        lease_seconds: args.wanted.lease.map(|lease| lease.as_secs()),
        command: recorded(&program, arguments),
        traceparent: std::env::var("TRACEPARENT").ok(),
    };
    let created: RunCreated = client::post(socket, "/v1/runs", Some(&request))?;
    if let Some(rules) = &created.landlock {
        landlock::confine(rules).map_err(|error| {
            Ending::failed(format!(
                "the run's files cannot be confined, so it does not start: {error}"
            ))
        })?;
    }
    match become_command(&program, name, arguments, &created) {
        Ok(never) => match never {},
        Err(error) => Err(not_executed(&program, &error, &created)),
    }
}

/// Replaces this process. Only returns if that fails.
fn become_command(
    program: &Path,
    name: &OsStr,
    arguments: &[OsString],
    created: &RunCreated,
) -> Result<Infallible, io::Error> {
    Err(Command::new(program)
        .arg0(name)
        .args(arguments)
        .envs(&created.env)
        .exec())
}

fn not_executed(program: &Path, error: &io::Error, created: &RunCreated) -> Ending {
    let program = program.display();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) => Ending::new(
            Exit::Refused,
            format!(
                "the policy of agent {} refuses executing {program}; `agentguard events --run {}` shows the rule to an operator",
                created.agent, created.run
            ),
        ),
        Some(Errno::ENOENT) => Ending::new(
            Exit::NotFound,
            format!(
                "{program} cannot be executed: it, or the interpreter that it names, is not there"
            ),
        ),
        _ => Ending::new(
            Exit::NotExecutable,
            format!("{program} cannot be executed: {error}"),
        ),
    }
}

/// Finds a command as a shell does.
fn find(name: &OsStr) -> Result<PathBuf, Ending> {
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(Ending::new(
                Exit::NotFound,
                format!("{}: there is no such file", path.display()),
            )),
            Err(errno) => Err(not_executable(&path, errno)),
        };
    }
    let search = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut unfit = None;
    for directory in std::env::split_paths(&search) {
        // An empty entry means the working directory.
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &directory
        };
        let path = directory.join(name);
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => unfit = unfit.or(Some((path, errno))),
        }
    }
    Err(match unfit {
        Some((path, errno)) => not_executable(&path, errno),
        None => Ending::new(
            Exit::NotFound,
            format!("{}: there is no such command in PATH", name.display()),
        ),
    })
}

fn not_executable(path: &Path, errno: Errno) -> Ending {
    Ending::new(
        Exit::NotExecutable,
        format!("{} cannot be executed: {}", path.display(), errno.desc()),
    )
}

/// Whether this process may execute a file, as far as its permissions say.
fn executable(path: &Path) -> Result<(), Errno> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    if !metadata.is_file() {
        return Err(Errno::EACCES);
    }
    faccessat(
        nix::fcntl::AT_FDCWD,
        path,
        AccessFlags::X_OK,
        AtFlags::AT_EACCESS,
    )
}

/// The command line for the record: the program by its path, arguments as text,
/// cut where it is very long.
fn recorded(program: &Path, arguments: &[OsString]) -> Vec<String> {
    let mut command = vec![program.to_string_lossy().into_owned()];
    let mut room = RECORDED_BYTES;
    for argument in arguments {
        let text = argument.to_string_lossy();
        if text.len() > room {
            command.push("…".to_owned());
            break;
        }
        room -= text.len();
        command.push(text.into_owned());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_as_shells_do() {
        assert!(find(OsStr::new("sh")).unwrap().ends_with("sh"));
        assert_eq!(find(OsStr::new("/bin/sh")).unwrap(), Path::new("/bin/sh"));
        let exit = |name: &str| find(OsStr::new(name)).unwrap_err().exit;
        assert_eq!(exit("no-such-command-here"), Exit::NotFound);
        assert_eq!(exit("/no/such/file"), Exit::NotFound);
        assert_eq!(exit("/etc"), Exit::NotExecutable);
        assert_eq!(exit("/etc/passwd"), Exit::NotExecutable);
        assert_eq!(exit("/etc/passwd/x"), Exit::NotFound);
    }

    #[test]
    fn a_long_command_line_is_cut_in_the_record() {
        let arguments = [
            OsString::from("a".repeat(RECORDED_BYTES)),
            OsString::from("b"),
        ];
        let command = recorded(Path::new("/bin/x"), &arguments);
        assert_eq!(command.len(), 3);
        assert_eq!(command[2], "…");
    }
}

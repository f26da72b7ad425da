//! What else the kernel offers against the same: AppArmor, Landlock and audit rules
//! about the paths of a policy.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use landlock::{
    ABI, Access as _, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus,
};

/// The argument that asks for a command under Landlock.
pub const FLAG: &str = "landlock";

/// Makes what the rules name, for AppArmor takes patterns and the others what is there;
/// returns what is to be ruled with all that is below it.
///
/// # Errors
/// A directory cannot be made.
pub fn make(patterns: &[String]) -> Result<Vec<String>> {
    let mut made = Vec::new();
    for pattern in patterns {
        let path = match pattern.split_once("/*") {
            Some((directory, _)) => {
                fs::create_dir_all(directory)?;
                directory
            }
            None => {
                let parent = Path::new(pattern).parent().context("no directory")?;
                fs::create_dir_all(parent)?;
                File::create(pattern)?;
                pattern
            }
        };
        made.push(path.to_owned());
    }
    Ok(made)
}

/// Loads an AppArmor profile: writing below the patterns, reading and the rest anywhere.
///
/// # Errors
/// The parser refuses.
pub fn apparmor(name: &str, patterns: &[String]) -> Result<()> {
    let mut profile = format!(
        "profile {name} {{\n  /** rix,\n  /dev/null rw,\n  network,\n  capability,\n  signal,\n  unix,\n"
    );
    for pattern in patterns {
        writeln!(profile, "  {pattern} w,")?;
    }
    profile.push_str("}\n");
    // Simplified first, many rules take much longer, and become the same automaton.
    let options = ["--replace", "--skip-cache", "-O", "no-expr-simplify"];
    fed("apparmor_parser", &options, &profile)
}

/// The beginning of a command line under the profile.
#[must_use]
pub fn under_apparmor(name: &str) -> Command {
    let mut command = Command::new("aa-exec");
    command.args(["--profile", name, "--"]);
    command
}

/// Puts audit rules in force: a record of each write to one of these paths. None of the
/// calls measured matches.
///
/// # Errors
/// `auditctl` refuses.
pub fn audit(paths: &[String]) -> Result<()> {
    let mut rules = "-D\n-b 8192\n-e 1\n".to_owned();
    for path in paths {
        writeln!(rules, "-w {path} -p wa -k agentguard-bench")?;
    }
    let file = Path::new("/run/agentguard-bench.rules");
    fs::write(file, rules)?;
    let done = Command::new("auditctl")
        .arg("-R")
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .context("cannot start auditctl")?;
    ensure!(
        done.status.success(),
        "auditctl: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

/// The beginning of a command line under Landlock, with the paths of a file, one a line.
///
/// # Errors
/// The file cannot be written.
pub fn landlock(this: &str, paths: &[String]) -> Result<Command> {
    let file = "/run/agentguard-bench.paths";
    fs::write(file, paths.join("\n"))?;
    let mut command = Command::new(this);
    command.args([FLAG, file]);
    Ok(command)
}

/// Confines itself as `file` says and becomes the command: it may write below the
/// paths there, and read and execute anywhere.
///
/// # Errors
/// The kernel does not confine it, or there is no such command.
pub fn confined(file: &str, command: &[&str]) -> Result<()> {
    let abi = ABI::V3;
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .create()?
        .add_rule(PathBeneath::new(
            PathFd::new("/")?,
            AccessFs::from_read(abi),
        ))?
        // What the measurements write to is no file of the policy.
        .add_rule(PathBeneath::new(
            PathFd::new("/dev/null")?,
            AccessFs::from_file(abi),
        ))?;
    for path in fs::read_to_string(file)?.lines() {
        let access = if Path::new(path).is_dir() {
            AccessFs::from_write(abi)
        } else {
            AccessFs::from_write(abi) & AccessFs::from_file(abi)
        };
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
    }
    let status = ruleset.restrict_self()?;
    ensure!(
        status.ruleset == RulesetStatus::FullyEnforced,
        "Landlock: {status:?}"
    );
    let (program, arguments) = command.split_first().context("no command")?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| program.to_string())
}

/// Runs a program with this input.
pub fn fed(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let mut pipe = child.stdin.take().context("no input")?;
    pipe.write_all(input.as_bytes())?;
    drop(pipe);
    let status = child.wait()?;
    ensure!(status.success(), "{program}: {status}");
    Ok(())
}

//! Running other programs, with errors that show the command line and what it printed.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// One invocation of another program.
#[derive(Debug)]
pub struct Tool {
    command: Command,
}

impl Tool {
    /// Starts describing an invocation of `program`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self { command }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds several arguments.
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes an environment variable.
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets the working directory.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Runs the program with its output on standard error: standard output belongs to the task.
    pub fn run(mut self) -> Result<()> {
        self.command.stdout(std::io::stderr());
        let line = self.line();
        let status = self
            .command
            .status()
            .with_context(|| format!("cannot start `{line}`"))?;
        if !status.success() {
            bail!("`{line}` failed: {status}");
        }
        Ok(())
    }

    /// Runs the program silently; what it printed is shown only in the error.
    pub fn run_quiet(self) -> Result<()> {
        self.output().map(drop)
    }

    /// Runs the program and returns its standard output as text.
    pub fn read(self) -> Result<String> {
        let line = self.line();
        let output = self.output()?;
        String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed non-UTF-8 text"))
    }

    /// Runs the program and returns its standard output as it is.
    pub fn read_bytes(self) -> Result<Vec<u8>> {
        Ok(self.output()?.stdout)
    }

    fn output(mut self) -> Result<Output> {
        let line = self.line();
        let output = self
            .command
            .output()
            .with_context(|| format!("cannot start `{line}`"))?;
        if !output.status.success() {
            let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
            said.push_str(&String::from_utf8_lossy(&output.stderr));
            bail!("`{line}` failed: {}\n{}", output.status, tail(&said, 40));
        }
        Ok(output)
    }

    /// The command line as one could type it.
    pub fn line(&self) -> String {
        let mut line = String::new();
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                let _ = write!(line, "{}={} ", name.to_string_lossy(), quote(value));
            }
        }
        line.push_str(&quote(self.command.get_program()));
        for arg in self.command.get_args() {
            line.push(' ');
            line.push_str(&quote(arg));
        }
        line
    }
}

/// Quotes one word for a POSIX shell.
pub fn quote(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Quotes several words into one line.
pub fn quote_all(words: &[OsString]) -> String {
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The last `count` lines of a text.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_survive_a_shell() {
        let words = ["", "a b", "it's", "$HOME", "plain-1.0/x", "new\nline", "*"];
        let line = format!("printf '%s|' {}", quote_all(&words.map(OsString::from)));
        let printed = Tool::new("sh").arg("-c").arg(line).read().unwrap();
        assert_eq!(printed, words.map(|word| format!("{word}|")).concat());
    }

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = Tool::new("sh")
            .args(["-c", "echo the reason >&2; exit 3"])
            .run_quiet()
            .unwrap_err()
            .to_string();
        assert!(error.contains("sh -c"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("the reason"), "{error}");
    }

    #[test]
    fn tail_keeps_the_last_lines() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
    }
}

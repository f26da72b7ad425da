//! A program that does what it is asked, as an agent or without a tag.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::wait::{DEADLINE, until};

/// A running probe (`e2e/probe.py`) or hammer.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
    /// What it is, for messages.
    name: String,
    /// Its process id.
    pub pid: u64,
    /// Its run, if it is tagged.
    pub run: Option<String>,
}

impl Agent {
    /// Starts the command and waits for its first line.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let out = child.stdout.take().context("no output")?;
        let (into, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if into.send(line).is_err() {
                    break;
                }
            }
        });
        let requests = child.stdin.take();
        let mut agent = Self {
            child,
            requests,
            answers,
            name: name.to_owned(),
            pid: 0,
            run: None,
        };
        let hello = agent.answer()?;
        agent.pid = hello["pid"].as_u64().context("no pid")?;
        agent.run = hello["run"].as_str().map(str::to_owned);
        Ok(agent)
    }

    /// The run id.
    ///
    /// # Errors
    /// It has none.
    pub fn run(&self) -> Result<&str> {
        self.run
            .as_deref()
            .with_context(|| format!("{} has no run", self.name))
    }

    fn answer(&mut self) -> Result<Value> {
        let Ok(line) = self.answers.recv_timeout(DEADLINE) else {
            let status = self.child.try_wait()?;
            bail!("{} does not answer ({status:?})", self.name);
        };
        serde_json::from_str(&line).with_context(|| format!("{} said {line}", self.name))
    }

    /// Has it do something; returns its answer as it is.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        let requests = self.requests.as_mut().context("it was told to end")?;
        writeln!(requests, "{request}")?;
        requests.flush()?;
        self.answer()
            .with_context(|| format!("asked for {request}"))
    }

    /// It must be let; returns what the operation returned.
    ///
    /// # Errors
    /// It was not.
    pub fn may(&mut self, request: &Value) -> Result<Value> {
        let answer = self.ask(request)?;
        ensure!(
            answer["ok"] == true,
            "{} must be let do {request}, and got {answer}",
            self.name
        );
        Ok(answer["value"].clone())
    }

    /// It must be refused with EPERM.
    ///
    /// # Errors
    /// It was not.
    pub fn must_not(&mut self, request: &Value) -> Result<()> {
        let answer = self.ask(request)?;
        ensure!(
            answer["ok"] == false && answer["errno"] == "EPERM",
            "{} must be refused {request} with EPERM, and got {answer}",
            self.name
        );
        Ok(())
    }

    /// Ends its input, and returns the last thing it says.
    ///
    /// # Errors
    /// It says nothing.
    pub fn finish(mut self) -> Result<Value> {
        drop(self.requests.take());
        let last = self.answer()?;
        self.wait()?;
        Ok(last["value"].clone())
    }

    /// Ends its input and waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(mut self) -> Result<ExitStatus> {
        drop(self.requests.take());
        self.wait()
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        until(&format!("the end of {}", self.name), || {
            Ok(self.child.try_wait()?)
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Of no effect on one that ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

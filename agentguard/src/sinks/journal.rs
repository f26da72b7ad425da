//! Denials and the lives of runs in the daemon's own log, for people who read
//! the journal. The ledger is the record; this is a view of it, and a bounded
//! one: a run that is denied in a loop gets a few lines a second at most.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agentguard_common::verdict::Verdict;
use uuid::Uuid;

use crate::event::{Decision, Detail, Event, Object};
use crate::policy::text::escape_unprintable;

/// Lines that wait to be logged. One more is left out (the ledger has it).
const QUEUE: usize = 256;

/// Lines about one run within [`WINDOW`]; the rest is summed up in one line.
const LINES_PER_WINDOW: u32 = 20;

/// See [`LINES_PER_WINDOW`].
const WINDOW: Duration = Duration::from_secs(1);

/// The sink.
pub struct Journal {
    queue: SyncSender<Line>,
    thread: Option<JoinHandle<()>>,
    windows: HashMap<Uuid, Window>,
}

struct Window {
    since: Instant,
    lines: u32,
    left_out: u64,
}

struct Line {
    text: String,
    denied: bool,
    agent: String,
    run: Option<Uuid>,
}

impl Journal {
    /// Starts the thread that logs: logging can wait for the journal, and the
    /// pipeline must not.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || log_lines(&lines))?;
        Ok(Self {
            queue,
            thread: Some(thread),
            windows: HashMap::new(),
        })
    }

    /// Logs an event if it is one for people.
    pub fn offer(&mut self, event: &Event) {
        let denied = match &event.detail {
            Detail::Decision(decision) => decision.verdict != Verdict::Allow,
            Detail::RunStarted(_) | Detail::RunEnded(_) => false,
            // Of refused ones the denial is logged.
            Detail::SharedCredential(found) if !found.refused => true,
            _ => return,
        };
        if !denied && matches!(event.detail, Detail::Decision(_)) {
            return;
        }
        let Some(identity) = &event.identity else {
            return;
        };
        let left_out = if denied {
            // Denials of runs that are not known share one allowance.
            match self.admit(identity.run.unwrap_or_default()) {
                Some(left_out) => left_out,
                None => return,
            }
        } else {
            0
        };
        let mut text = sentence(event);
        if left_out > 0 {
            text.push_str(&format!(" ({left_out} more before this are in the ledger)"));
        }
        if let (Detail::RunEnded(_), Some(run)) = (&event.detail, identity.run) {
            self.windows.remove(&run);
        }
        // A full queue leaves the line out: the ledger has the event.
        let _ = self.queue.try_send(Line {
            text: escape_unprintable(&text),
            denied,
            agent: identity.agent.clone(),
            run: identity.run,
        });
    }

    /// Whether a run may have one more line now, and how many were left out before.
    fn admit(&mut self, run: Uuid) -> Option<u64> {
        let now = Instant::now();
        let window = self.windows.entry(run).or_insert(Window {
            since: now,
            lines: 0,
            left_out: 0,
        });
        if now.duration_since(window.since) >= WINDOW {
            window.since = now;
            window.lines = 0;
        }
        if window.lines >= LINES_PER_WINDOW {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }

    /// Logs what waits and ends the thread.
    pub fn close(self) {
        drop(self.queue);
        if let Some(thread) = self.thread {
            // It ends when the queue is empty; a panic in it was logged already.
            let _ = thread.join();
        }
    }
}

fn log_lines(lines: &Receiver<Line>) {
    for line in lines {
        let run = line.run.map(|run| run.to_string()).unwrap_or_default();
        if line.denied {
            tracing::warn!(agent = line.agent, run, "{}", line.text);
        } else {
            tracing::info!(agent = line.agent, run, "{}", line.text);
        }
    }
}

/// One event in a sentence.
fn sentence(event: &Event) -> String {
    match &event.detail {
        Detail::Decision(decision) => denial(event, decision),
        Detail::RunStarted(started) => match &started.error {
            Some(error) => format!("run could not start: {error}"),
            None => format!(
                "run started by {}: {}",
                started.started_by,
                started.command.join(" ")
            ),
        },
        Detail::RunEnded(ended) => format!(
            "run ended after {:.1} s: {} denied, record {}",
            ended.duration_seconds,
            ended.denials,
            if ended.complete {
                "complete".to_owned()
            } else {
                format!("incomplete, {} lost", ended.lost.total())
            }
        ),
        Detail::SharedCredential(found) => format!(
            "the agent has a person's credential ({}): {}",
            found.credential, found.evidence
        ),
        _ => event.kind.name().to_owned(),
    }
}

fn denial(event: &Event, decision: &Decision) -> String {
    let object = match &decision.object {
        Object::File(file) => file.path.clone(),
        // A question to the resolver, which has no address yet and no process.
        Object::Address(address) if event.process.is_none() => {
            let name = address.name.as_deref().unwrap_or("more names");
            format!("to {name} (asked for by {})", address.protocol)
        }
        Object::Address(address) => format!(
            "{}{}:{}/{}",
            address.address.as_deref().unwrap_or("?"),
            address
                .name
                .as_ref()
                .map_or_else(String::new, |name| format!(" ({name})")),
            address.port,
            address.protocol
        ),
    };
    let outcome = match (decision.verdict, decision.blocked) {
        (Verdict::Ask, true) => "held back (ask)",
        (Verdict::Ask, false) => "would be asked",
        (_, true) => "denied",
        (_, false) => "would be denied",
    };
    let why = decision.rule.as_ref().map_or_else(
        || format!("reason {}", decision.reason.name()),
        |rule| format!("rule {rule}"),
    );
    let verb = decision.verb.name();
    let Some(process) = &event.process else {
        return format!("{verb} {object} {outcome}, {why}");
    };
    let program = process.exe.as_deref().unwrap_or(&process.comm);
    format!(
        "{verb} {object} {outcome} for {program} (pid {}), {why}",
        process.pid
    )
}

//! Credentials of people that agents come by: what is found of them, never what is in them.
//!
//! | found | by |
//! |---|---|
//! | a token in the environment that the run began with | the variable's name |
//! | a person's login session | `loginuid` and `sessionid`, which the kernel keeps |
//! | a person's agent of keys (ssh, gpg) | the name of the socket that was connected to |
//! | a credential in a person's home | the protection that refused it |
//!
//! What is read by leave of a rule that spells it out is not found: such reads are not told.

use std::collections::{HashMap, HashSet};
use std::fs;

use agentguard_common::verb::Verb;
use agentguard_common::verdict::Reason;
use serde::Serialize;
use uuid::Uuid;

use crate::event::{Decision, Detail, Event, Kind, Object};
use crate::users::Accounts;

/// Findings of one run that are told; more of the same evidence are never told twice.
const PER_RUN: usize = 64;

/// No login: `loginuid` of what the system started.
const NO_LOGIN: u32 = u32::MAX;

/// A credential of a person in an agent's hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SharedCredential {
    /// `environment`, `login-session`, `key-agent` or `file`.
    pub credential: &'static str,
    /// Where it was found: a variable's name, a session, a socket, a file.
    pub evidence: String,
    /// Whether the agent was refused it.
    pub refused: bool,
}

/// What a process begins its run with.
#[must_use]
pub fn of_process(pid: u32, accounts: &Accounts) -> Vec<SharedCredential> {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let found = |credential, evidence| SharedCredential {
        credential,
        evidence,
        refused: false,
    };
    let mut all: Vec<SharedCredential> = names(&read("environ"))
        .into_iter()
        .map(|name| found("environment", name))
        .collect();
    let number =
        |file: &str| -> Option<u32> { String::from_utf8_lossy(&read(file)).trim().parse().ok() };
    if let Some(uid) = number("loginuid").filter(|uid| *uid != NO_LOGIN) {
        let session = number("sessionid").filter(|session| *session != NO_LOGIN);
        let session = session.map_or_else(String::new, |session| format!(" {session}"));
        let user = accounts.user_label(uid);
        all.push(found(
            "login-session",
            format!("session{session} of {user}"),
        ));
    }
    all
}

/// The names of variables that hold credentials. Of their values only whether there is one.
fn names(environment: &[u8]) -> Vec<String> {
    let mut found: Vec<String> = environment
        .split(|byte| *byte == 0)
        .filter_map(|variable| {
            let text = String::from_utf8_lossy(variable);
            let (name, value) = text.split_once('=')?;
            (!value.is_empty() && holds_credential(name)).then(|| name.to_owned())
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(PER_RUN);
    found
}

fn holds_credential(name: &str) -> bool {
    const NAMES: [&str; 6] = [
        "SSH_AUTH_SOCK",
        "GPG_AGENT_INFO",
        "KRB5CCNAME",
        "KUBECONFIG",
        "PGPASSWORD",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ];
    const ENDS: [&str; 9] = [
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "API_KEY",
        "APIKEY",
        "ACCESS_KEY",
        "PRIVATE_KEY",
        "CREDENTIALS",
    ];
    let name = name.to_ascii_uppercase();
    let ends = |end: &str| {
        let rest = name.strip_suffix(end);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
    };
    NAMES.contains(&name.as_str()) || ENDS.into_iter().any(ends)
}

/// What a decision says of a credential.
fn of_decision(decision: &Decision) -> Option<SharedCredential> {
    let Object::File(file) = &decision.object else {
        return None;
    };
    let path = file.path.as_str();
    let found = |credential| SharedCredential {
        credential,
        evidence: path.to_owned(),
        refused: decision.blocked,
    };
    match decision.verb {
        Verb::Connect if is_key_agent(path) => Some(found("key-agent")),
        Verb::Read if decision.reason == Reason::Protected && is_in_home(path) => {
            Some(found("file"))
        }
        _ => None,
    }
}

fn is_key_agent(path: &str) -> bool {
    let mut names = path.rsplit('/');
    let (name, directory) = (names.next().unwrap_or(""), names.next().unwrap_or(""));
    name.starts_with("S.gpg-agent")
        || name == "ssh-agent.socket"
        || name == "openssh_agent"
        || directory.starts_with("ssh-") && name.starts_with("agent.")
        || directory.starts_with("keyring") && matches!(name, "ssh" | ".ssh")
}

fn is_in_home(path: &str) -> bool {
    path.starts_with("/home/") || path.starts_with("/root/")
}

/// Findings in the records of runs, each told once a run.
#[derive(Default)]
pub struct Findings {
    told: HashMap<Uuid, HashSet<String>>,
}

impl Findings {
    /// The event of a finding that an event is.
    pub fn of(&mut self, event: &Event) -> Option<Event> {
        let Detail::Decision(decision) = &event.detail else {
            return None;
        };
        let found = of_decision(decision)?;
        let run = event.identity.as_ref()?.run?;
        let told = self.told.entry(run).or_default();
        if told.len() >= PER_RUN || !told.insert(found.evidence.clone()) {
            return None;
        }
        Some(Event {
            kind: Kind::SharedCredential,
            run_seq: None,
            detail: Detail::SharedCredential(found),
            ..event.clone()
        })
    }

    /// A run has ended.
    pub fn forget(&mut self, run: Uuid) {
        self.told.remove(&run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_values_are_not() {
        let environment =
            b"PATH=/bin\0GITHUB_TOKEN=hunter2\0EMPTY_TOKEN=\0aws_secret_access_key=x\0\
            TOKENIZER=a\0SSH_AUTH_SOCK=/tmp/ssh-a/agent.1\0TOKEN=t\0BROKEN";
        assert_eq!(
            names(environment),
            [
                "GITHUB_TOKEN",
                "SSH_AUTH_SOCK",
                "TOKEN",
                "aws_secret_access_key"
            ]
        );
    }

    #[test]
    fn sockets_of_key_agents() {
        for path in [
            "/tmp/ssh-Xa3/agent.4711",
            "/run/user/1000/gnupg/S.gpg-agent",
            "/run/user/1000/gnupg/S.gpg-agent.ssh",
            "/run/user/1000/keyring/ssh",
            "/run/user/1000/openssh_agent",
        ] {
            assert!(is_key_agent(path), "{path}");
        }
        for path in ["/run/agent.sock", "/tmp/agent.1", "/run/user/1000/bus"] {
            assert!(!is_key_agent(path), "{path}");
        }
    }

    #[test]
    fn of_this_process_something_can_be_said() {
        // Whatever it is: it does not fail, and nothing holds a value.
        for found in of_process(std::process::id(), &Accounts::default()) {
            assert!(!found.evidence.contains('='), "{found:?}");
        }
        assert_eq!(of_process(u32::MAX, &Accounts::default()), []);
    }
}

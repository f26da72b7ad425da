//! docs/events.md names every kind, every field and every reason.

#![expect(
    clippy::unwrap_used,
    reason = "a test file: whatever is not as expected fails the test"
)]

use std::collections::BTreeSet;

use agentguard::clock::Timestamp;
use agentguard::credentials::SharedCredential;
use agentguard::event::{
    AddressObject, AgentEvent, Daemon, Decision, Detail, Event, Exit, FileObject, Identity, Kind,
    LoadedAgent, Lost, Object, PolicyLoaded, Process, RecordsLost, RunEnded, RunStarted,
};
use agentguard::policy::change::{Change, Effect};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Mode, Reason, Verdict};
use serde_json::Value;

/// The words in backticks.
fn documented() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
    let text = std::fs::read_to_string(path).unwrap();
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn file() -> Object {
    Object::File(FileObject {
        path: String::new(),
        path_hex: Some(String::new()),
        path_cut: true,
        anonymous: true,
        device: 0,
        inode: 0,
    })
}

fn decisions() -> Vec<Detail> {
    let decision = |object| {
        Detail::Decision(Decision {
            verb: Verb::Read,
            object,
            verdict: Verdict::Deny,
            blocked: true,
            mode: Mode::Enforce,
            reason: Reason::Rule,
            rule: None,
            rule_text: None,
            policy_generation: 1,
            count: 1,
        })
    };
    let address = Object::Address(AddressObject {
        address: None,
        port: 0,
        protocol: String::new(),
        name: None,
        server_name: Some(String::new()),
        family: Some(16),
    });
    vec![decision(file()), decision(address)]
}

fn agent_event() -> Detail {
    Detail::Agent(Box::new(AgentEvent {
        trigger: String::new(),
        by: String::new(),
        manifest: None,
        manifest_owner: None,
        previous_version: Some(String::new()),
        changes: Some(vec![Change {
            field: String::new(),
            before: None,
            after: None,
            effect: Effect::Wider,
        }]),
        effect: Some(Effect::Wider),
        reason: Some(String::new()),
        runs_revoked: Some(0),
    }))
}

fn details() -> Vec<Detail> {
    let agent = LoadedAgent {
        agent: String::new(),
        environment: String::new(),
        agent_version: String::new(),
        mode: "enforce",
    };
    let mut details = decisions();
    details.extend([
        Detail::Exec { object: file() },
        Detail::Exit(Exit::from_word(0)),
        Detail::RunStarted(RunStarted {
            origin: "launched",
            pid: 1,
            uid: 0,
            started_by: String::new(),
            command: Vec::new(),
            lease_until: None,
            traceparent: String::new(),
            error: Some(String::new()),
        }),
        Detail::RunEnded(RunEnded {
            ended_by: String::new(),
            duration_seconds: 0.0,
            denials: 0,
            events: 0,
            recorded: 0,
            lost: Lost::default(),
            complete: true,
        }),
        Detail::SharedCredential(SharedCredential {
            credential: "environment",
            evidence: String::new(),
            refused: false,
        }),
        agent_event(),
        Detail::PolicyLoaded(PolicyLoaded {
            policy_generation: 1,
            trigger: "start",
            agents: vec![agent],
        }),
        Detail::PolicyRefused {
            trigger: "start",
            problems: Vec::new(),
        },
        Detail::Daemon(Daemon {
            version: "",
            daemon_pid: 1,
            kernel: String::new(),
            protections: Vec::new(),
        }),
        Detail::RecordsLost(RecordsLost {
            sink: "ledger",
            cause: String::new(),
            lost: 1,
            first_seq: 1,
            last_seq: 1,
        }),
        Detail::LedgerRecovered {
            file: String::new(),
            bytes: 0,
            fragment: String::new(),
        },
    ]);
    details
}

fn event(detail: Detail) -> Event {
    Event {
        time: Timestamp::default(),
        seq: 1,
        kind: Kind::Decision,
        identity: Some(
            Identity {
                agent: String::new(),
                owner: String::new(),
                environment: String::new(),
                run: None,
                parent_run: None,
                on_behalf_of: None,
                task: None,
                visible_to: None,
            }
            .into(),
        ),
        agent_version: Some("".into()),
        run_seq: Some(1),
        process: Some(Process {
            pid: 1,
            tid: 1,
            ppid: 1,
            exe: None,
            comm: String::new(),
            uid: 0,
            cgroup: 0,
        }),
        detail,
    }
}

/// The keys of an object and of the objects in it.
fn fields(value: &Value, into: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        into.insert(name.clone());
        fields(value, into);
    }
}

#[test]
fn every_word_is_explained() {
    let mut words = BTreeSet::new();
    for detail in details() {
        fields(&serde_json::to_value(event(detail)).unwrap(), &mut words);
    }
    words.extend(Kind::ALL.map(|kind| kind.name().to_owned()));
    words.extend(Reason::ALL.map(|reason| reason.name().to_owned()));
    let documented = documented();
    let missing: Vec<&String> = words.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/events.md: {missing:?}");
}

/// Events are flat but for `object` and `lost`: no field of a part may hide one
/// of another part.
#[test]
fn no_field_is_written_twice() {
    for detail in details() {
        // A run's start names its process itself and has no process part.
        let names_process = matches!(detail, Detail::RunStarted(_));
        let mut event = event(detail);
        if names_process {
            event.process = None;
        }
        let text = serde_json::to_string(&event).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.to_string().len(), text.len(), "{text}");
    }
}

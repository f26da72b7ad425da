//! docs/openapi.yaml says what the API does: the same endpoints, the same
//! fields, the same words.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test file: whatever is not as expected fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};

use agentguard::agents::life::{Retirement, Version};
use agentguard::api::{self, Code, ENDPOINTS};
use agentguard::clock::Timestamp;
use agentguard::event::{Identity, Lost, RunEnded};
use agentguard::policy::change::{Change, Effect};
use agentguard::sinks::ledger::HealthReport;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

fn document() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.yaml");
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

fn words(value: &Value) -> BTreeSet<String> {
    let word = |item: &Value| item.as_str().unwrap().to_owned();
    value.as_array().unwrap().iter().map(word).collect()
}

#[test]
fn the_same_endpoints() {
    let document = document();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let summary = operation["summary"].as_str().unwrap();
            described.insert((method.clone(), path.clone(), summary.to_owned()));
        }
    }
    let own = |(method, path, summary): (&str, &str, &str)| {
        (method.to_owned(), path.to_owned(), summary.to_owned())
    };
    assert_eq!(described, ENDPOINTS.into_iter().map(own).collect());
}

/// Every field is described, every described field is there, and those that
/// are always there are required.
fn compare(name: &str, sample: &impl Serialize, optional: &[&str]) {
    let schema = &document()["components"]["schemas"][name];
    let sample = serde_json::to_value(sample).unwrap();
    assert_eq!(
        keys(&sample),
        keys(&schema["properties"]),
        "fields of {name}"
    );
    let always: BTreeSet<String> = keys(&sample)
        .into_iter()
        .filter(|key| !optional.contains(&key.as_str()))
        .collect();
    assert_eq!(
        always,
        words(&schema["required"]),
        "required fields of {name}"
    );
    for (field, value) in sample.as_object().unwrap() {
        let described = &schema["properties"][field];
        assert!(
            fits(value, described),
            "{name}.{field} = {value} is not {described}"
        );
    }
}

/// Whether a value has the type that is described.
fn fits(value: &Value, described: &Value) -> bool {
    let one = |kind: &str| match kind {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("type {other}"),
    };
    if let Some(words) = described["enum"].as_array() {
        return words.contains(value);
    }
    match &described["type"] {
        Value::String(kind) => one(kind),
        Value::Array(kinds) => kinds.iter().any(|kind| one(kind.as_str().unwrap())),
        _ => value.is_object() || value.is_null(),
    }
}

fn run_end() -> RunEnded {
    RunEnded {
        ended_by: "exited".to_owned(),
        duration_seconds: 1.5,
        denials: 1,
        events: 2,
        recorded: 2,
        lost: Lost::default(),
        complete: true,
    }
}

fn run() -> api::Run {
    api::Run {
        origin: "launched".to_owned(),
        identity: Identity {
            agent: "coder".to_owned(),
            owner: "team".to_owned(),
            environment: "production".to_owned(),
            run: Some(Uuid::nil()),
            parent_run: None,
            on_behalf_of: None,
            task: None,
            visible_to: Some(1_000),
        },
        agent_version: "v".to_owned(),
        state: "ended".to_owned(),
        started: Timestamp::default(),
        uid: 0,
        started_by: "root".to_owned(),
        pid: 1,
        command: vec!["true".to_owned()],
        lease_until: None,
        traceparent: String::new(),
        tasks: 0,
        denials: 1,
        events: 2,
        lost: 0,
        ended: Some(Timestamp::default()),
        end: Some(run_end()),
    }
}

#[test]
fn the_same_fields_of_adoptions() {
    let adopted = api::Adopted {
        run: Uuid::nil(),
        agent: "a".to_owned(),
        environment: "production".to_owned(),
        lease_until: None,
        tasks: 1,
        processes: Vec::new(),
        residual: api::Residual::default(),
        left_out: Vec::new(),
    };
    compare("Adopted", &adopted, &[]);
    compare("Residual", &adopted.residual, &[]);
    let request = api::AdoptRequest {
        environment: Some(String::new()),
        task: Some(String::new()),
        on_behalf_of: Some(String::new()),
        lease_seconds: Some(1),
        ..api::AdoptRequest::default()
    };
    let optional = ["environment", "task", "on_behalf_of", "lease_seconds"];
    compare("AdoptRequest", &request, &optional);
}

#[test]
fn the_same_fields_of_runs() {
    let request = api::RunRequest {
        agent: "coder".to_owned(),
        environment: Some("production".to_owned()),
        task: Some("T".to_owned()),
        on_behalf_of: Some("alice".to_owned()),
        lease_seconds: Some(1),
        command: vec!["true".to_owned()],
        traceparent: Some(String::new()),
    };
    let optional = [
        "environment",
        "task",
        "on_behalf_of",
        "lease_seconds",
        "traceparent",
    ];
    compare("RunRequest", &request, &optional);
    let created = api::RunCreated {
        run: Uuid::nil(),
        agent: "coder".to_owned(),
        environment: "production".to_owned(),
        agent_version: "v".to_owned(),
        lease_until: Some(Timestamp::default()),
        env: BTreeMap::new(),
        landlock: None,
    };
    compare("RunCreated", &created, &[]);
    compare("Run", &run(), &[]);
    compare("RunEnd", &run_end(), &[]);
    compare("Lost", &Lost::default(), &[]);
    compare("Runs", &api::Runs { runs: vec![run()] }, &[]);
    let process = api::Process {
        pid: 1,
        ppid: 0,
        uid: 0,
        threads: 1,
        exe: None,
        command: Vec::new(),
        run: None,
        agent: "coder".to_owned(),
        environment: "production".to_owned(),
    };
    compare("Process", &process, &[]);
    compare(
        "Processes",
        &api::Processes {
            processes: vec![process],
        },
        &[],
    );
}

fn retirement() -> Retirement {
    Retirement {
        time: Timestamp::default(),
        by: "root (uid 0)".to_owned(),
        reason: "replaced".to_owned(),
    }
}

fn change() -> Change {
    Change {
        field: "mode".to_owned(),
        before: Some("enforce".to_owned()),
        after: None,
        effect: Effect::Wider,
    }
}

fn version() -> Version {
    Version {
        version: "v".to_owned(),
        time: Timestamp::default(),
        by: "root (uid 0)".to_owned(),
        manifest: "a.yaml:1".to_owned(),
        manifest_owner: None,
        owner: "team".to_owned(),
        description: None,
        mode: "enforce".to_owned(),
        authority: "service".to_owned(),
        lease: None,
        changes: Some(vec![change()]),
        effect: Effect::Wider,
    }
}

#[test]
fn the_same_fields_of_decisions_about_agents() {
    let decision = api::AgentDecision {
        environment: Some("production".to_owned()),
        reason: "replaced".to_owned(),
    };
    compare("AgentDecision", &decision, &["environment"]);
    let decided = api::AgentDecided {
        agent: "coder".to_owned(),
        environment: "production".to_owned(),
        runs_revoked: 1,
        processes_killed: 2,
        processes_left: 0,
    };
    compare("AgentDecided", &decided, &[]);
}

#[test]
fn the_same_fields_of_policies_and_failures() {
    let agent = api::Agent {
        agent: "coder".to_owned(),
        environment: "production".to_owned(),
        owner: "team".to_owned(),
        description: None,
        agent_version: "v".to_owned(),
        state: "retired".to_owned(),
        mode: "enforce".to_owned(),
        authority: "service".to_owned(),
        lease_seconds: None,
        runs: 0,
        last_run: None,
        registered: Some(Timestamp::default()),
        absent_since: None,
        retired: Some(retirement()),
        manifest: "a.yaml:1".to_owned(),
        index: 0,
    };
    compare("Agent", &agent, &[]);
    compare("Retirement", &retirement(), &[]);
    let detail = api::AgentDetail {
        agent: agent.clone(),
        versions: vec![version()],
    };
    compare("AgentDetail", &detail, &[]);
    compare("AgentVersion", &version(), &[]);
    compare("Change", &change(), &[]);
    compare(
        "Agents",
        &api::Agents {
            agents: vec![agent],
        },
        &[],
    );
    let reloaded = api::Reloaded {
        policy_generation: 1,
        agents: 1,
    };
    compare("Reloaded", &reloaded, &[]);
    let failure = api::Failure {
        code: Code::Failed,
        error: "x".to_owned(),
        problems: vec!["y".to_owned()],
    };
    compare("Failure", &failure, &["problems"]);
    let codes = [
        Code::BadRequest,
        Code::Refused,
        Code::NotFound,
        Code::Conflict,
        Code::PolicyProblems,
        Code::Unavailable,
        Code::Failed,
    ];
    let schema = &document()["components"]["schemas"]["Failure"]["properties"]["code"]["enum"];
    assert_eq!(words(schema), words(&json!(codes)));
}

#[test]
fn the_same_fields_of_the_daemon() {
    let degraded = api::Degraded {
        protection: "files".to_owned(),
        status: "absent".to_owned(),
        accepted: true,
    };
    let policy = api::PolicyStatus {
        generation: 1,
        loaded: Timestamp::default(),
        agents: 1,
        refused: None,
        problems: Vec::new(),
    };
    let ledger = HealthReport {
        healthy: true,
        file: String::new(),
        records: 0,
        errors: 0,
        lost: 0,
        queued: 0,
        last_error: None,
    };
    compare("Degraded", &degraded, &[]);
    compare("PolicyStatus", &policy, &[]);
    compare("LedgerHealth", &ledger, &[]);
    let status = api::Status {
        version: String::new(),
        pid: 1,
        started: Timestamp::default(),
        enforcing: false,
        degraded: vec![degraded],
        policy,
        runs: 0,
        tagged_tasks: 0,
        resolver: api::Resolver::default(),
        ledger,
        subscribers: 0,
        metrics: None,
        directories: BTreeMap::new(),
    };
    compare("Status", &status, &[]);
}

#[test]
fn the_same_fields_of_the_host() {
    let protection = api::Protection {
        name: "files".to_owned(),
        status: "absent".to_owned(),
        detail: String::new(),
        fix: None,
    };
    let hook = api::Hook {
        program: String::new(),
        attach: String::new(),
        attached: false,
        reason: None,
    };
    let table = api::Table {
        map: "RUNS".to_owned(),
        used: 0,
        limit: 1,
    };
    compare("Protection", &protection, &[]);
    compare("Hook", &hook, &[]);
    compare("Table", &table, &[]);
    let doctor = api::Doctor {
        protections: vec![protection],
        hooks: vec![hook],
        tables: vec![table],
        errors: BTreeMap::new(),
        links: Some(agentguard::links::Report::default()),
        resolver: Some(api::Resolver::default()),
    };
    compare("Resolver", &api::Resolver::default(), &[]);
    compare("Links", &agentguard::links::Report::default(), &[]);
    compare("Doctor", &doctor, &[]);
}

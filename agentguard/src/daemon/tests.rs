//! The whole daemon over a kernel in memory: policies from files, requests over
//! the socket, records from the ring, events in the ledger.

mod agents;
mod names;

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use agentguard_common::identity::Tag;
use agentguard_common::verb::Verb;
use agentguard_common::verdict::Verdict;
use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::api;
use crate::cli::client;
use crate::config::Metrics;
use crate::engine::{Launch, LaunchError, Started, Trigger, launch};
use crate::kernel::ProtectionStatus;
use crate::testing::{FakePort, path_record, pidfd};

const MANIFEST: &str = "\
apiVersion: agentguard/v1
kind: Agent
metadata: { name: coder }
spec:
  owner: team@example.com
  environment: production
  authority: service
  mode: enforce
  lease: 2h
  enrol: { launch: { users: ['1000'] } }
  permissions:
    write: { allow: ['/srv/out/**'] }
";

/// A host: directories and a kernel, which outlive a daemon.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    pub port: FakePort,
    pub child: Child,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Host {
    pub fn new() -> Self {
        let host = Self {
            dir: tempfile::tempdir().unwrap(),
            port: FakePort::new(),
            child: Command::new("sleep").arg("1000").spawn().unwrap(),
        };
        fs::create_dir(host.path("agents")).unwrap();
        host.write_manifest(MANIFEST);
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write_manifest(&self, text: &str) {
        fs::write(self.path("agents/coder.yaml"), text).unwrap();
    }

    fn config(&self) -> Config {
        Config {
            agents_dir: self.path("agents"),
            state_dir: self.path("state"),
            runtime_dir: self.path("runtime"),
            pins_dir: self.path("pins"),
            metrics: Some(Metrics {
                listen: ([127, 0, 0, 1], 0).into(),
                tls: None,
            }),
            mountinfo: "/proc/self/mountinfo".into(),
            fsync: crate::sinks::ledger::Fsync::Never,
            ..Config::default()
        }
    }

    pub async fn start(&self) -> Result<Daemon, DaemonError> {
        start::start(self.config(), Box::new(self.port.clone())).await
    }

    fn socket(&self) -> PathBuf {
        self.config().socket()
    }

    pub fn launch(&self, uid: u32, operator: bool) -> Launch {
        let pid = self.child.id();
        Launch {
            parent: None,
            agent: "coder".to_owned(),
            environment: None,
            task: Some("T-1".to_owned()),
            on_behalf_of: None,
            lease: None,
            command: vec!["/usr/bin/python3".to_owned()],
            traceparent: None,
            process: launch::Process {
                pid,
                pidfd: pidfd(pid),
                uid,
                user: format!("user-{uid}"),
                operator,
            },
        }
    }

    /// The ledger's records.
    fn ledger(&self) -> Vec<Value> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.path("state/ledger"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "jsonl")
            })
            .collect();
        files.sort();
        let text: String = files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn kinds(&self) -> Vec<String> {
        let kind = |record: &Value| record["kind"].as_str().unwrap().to_owned();
        self.ledger().iter().map(kind).collect()
    }
}

async fn get<T: serde::de::DeserializeOwned + Send + 'static>(socket: PathBuf, target: &str) -> T {
    let target = target.to_owned();
    let answer = tokio::task::spawn_blocking(move || client::get(&socket, &target)).await;
    answer.unwrap().unwrap()
}

pub(crate) async fn launch(daemon: &Daemon, launch: Launch) -> Result<Started, LaunchError> {
    daemon
        .base
        .engine
        .call(|engine| engine.start_run(launch))
        .await
        .unwrap()
}

/// Asks until the run has ended; the tests' harness bounds the time.
async fn ended(socket: &Path, run: Uuid) -> api::Run {
    loop {
        let view: api::Run = get(socket.to_owned(), &format!("/v1/runs/{run}")).await;
        if view.state == "ended" {
            return view;
        }
        tokio::task::yield_now().await;
    }
}

fn denied(tag: Tag, path: &str) -> kernel::RawRecord {
    let mut record = path_record(Verb::Write, Verdict::Deny, path);
    record.header.tag = tag;
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_from_start_to_end() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(1_000, false)).await.unwrap();
    let tag = started.run.tag();
    let live: api::Runs = get(host.socket(), "/v1/runs").await;
    assert_eq!(live.runs[0].state, "active");
    assert_eq!(live.runs[0].identity.task.as_deref(), Some("T-1"));
    assert!(
        live.runs[0].lease_until.is_some(),
        "the manifest's lease is the run's"
    );
    let processes: api::Processes = get(host.socket(), "/v1/ps").await;
    assert_eq!(processes.processes.len(), 1);
    assert_eq!(processes.processes[0].pid, host.child.id());
    assert_eq!(processes.processes[0].command, ["sleep", "1000"]);

    let mut first = denied(tag, "/srv/a");
    first.header.pid = host.child.id();
    host.port.emit([first, denied(tag, "/srv/b")]);
    host.port.exit_all(tag.run_serial);
    let run = ended(&host.socket(), started.run.id).await;
    let end = run.end.unwrap();
    assert_eq!((end.denials, end.events, end.recorded), (2, 3, 3));
    assert!(end.complete, "{end:?}");
    assert!(host.port.state().runs.is_empty(), "the slot is free again");
    daemon.stop().await;
    assert_eq!(
        host.kinds(),
        [
            "daemon-started",
            "agent-registered",
            "policy-loaded",
            "run-started",
            "decision",
            "decision",
            "run-ended",
            "daemon-stopped"
        ]
    );
    let ledger = host.ledger();
    let seqs: Vec<u64> = ledger
        .iter()
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=8).collect::<Vec<u64>>());
    assert_eq!(ledger[4]["exe"], "/usr/bin/python3");
    assert!(!host.socket().exists(), "the socket is removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_run_survives_the_daemon_and_what_happened_meanwhile_is_recorded() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    let tag = started.run.tag();
    host.port.emit([denied(tag, "/before")]);
    daemon.stop().await;

    let mut meanwhile = denied(tag, "/meanwhile");
    meanwhile.header.generation = 1;
    host.port.emit([meanwhile]);
    let daemon = host.start().await.unwrap();
    let run: api::Run = get(host.socket(), &format!("/v1/runs/{}", started.run.id)).await;
    assert_eq!((run.state.as_str(), run.denials), ("active", 2));
    assert_eq!(run.identity.task.as_deref(), Some("T-1"));
    host.port.exit_all(tag.run_serial);
    let end = ended(&host.socket(), started.run.id).await.end.unwrap();
    assert!(end.complete, "{end:?}");
    daemon.stop().await;
    let ledger = host.ledger();
    let paths: Vec<&str> = ledger
        .iter()
        .filter_map(|record| record["object"]["path"].as_str())
        .collect();
    assert!(paths[0].ends_with("/before"), "{paths:?}");
    assert!(paths[1].ends_with("/meanwhile"), "{paths:?}");
    let generations: Vec<&Value> = ledger
        .iter()
        .filter(|record| record["kind"] == "policy-loaded")
        .map(|record| &record["policy_generation"])
        .collect();
    assert_eq!(generations, [1, 2], "a generation is never used twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_a_killed_daemon_took_are_counted_as_lost() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    let tag = started.run.tag();
    daemon.stop().await;
    // The kernel made two records; a daemon took them and never wrote them.
    host.port.emit([denied(tag, "/x"), denied(tag, "/y")]);
    host.port.state().ring.clear();
    let daemon = host.start().await.unwrap();
    host.port.exit_all(tag.run_serial);
    let end = ended(&host.socket(), started.run.id).await.end.unwrap();
    assert!(!end.complete);
    assert_eq!((end.denials, end.lost.daemon), (2, 2));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_record_is_gone_is_still_shown() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    daemon.stop().await;
    let record = host.path(&format!("state/runs/live/{}.json", started.run.id));
    fs::write(&record, "{").unwrap();
    let daemon = host.start().await.unwrap();
    let run: api::Run = get(host.socket(), &format!("/v1/runs/{}", started.run.id)).await;
    assert_eq!(
        (run.identity.agent.as_str(), run.started_by.as_str()),
        ("coder", "unknown")
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_the_kernel_no_longer_has_are_ended() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    daemon.stop().await;
    host.port.state().runs.clear();
    let daemon = host.start().await.unwrap();
    let run = ended(&host.socket(), started.run.id).await;
    let end = run.end.unwrap();
    assert_eq!((end.ended_by.as_str(), end.complete), ("unloaded", false));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_cannot_be_enrolled_makes_no_run() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    host.port.state().refuse_enrol = Some("it has a tag already".to_owned());
    let error = launch(&daemon, host.launch(0, true)).await.unwrap_err();
    assert!(
        error.to_string().contains("it has a tag already"),
        "{error}"
    );
    assert!(host.port.state().runs.is_empty());
    let runs: api::Runs = get(host.socket(), "/v1/runs").await;
    assert!(runs.runs.is_empty());
    daemon.stop().await;
    assert!(host.kinds().contains(&"run-failed".to_owned()));
    assert_eq!(
        fs::read_dir(host.path("state/runs/live")).unwrap().count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_manifest_changes_nothing() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    host.write_manifest(&MANIFEST.replace("mode: enforce", "mode: enfroce"));
    let socket = host.socket();
    let reload = tokio::task::spawn_blocking(move || {
        client::post::<api::Reloaded>(&socket, "/v1/policy/reload", None::<&()>)
    });
    let message = format!("{:?}", reload.await.unwrap().unwrap_err());
    assert!(message.contains("coder.yaml:8:9"), "{message}");
    assert!(message.contains("did you mean `enforce`?"), "{message}");
    let status: api::Status = get(host.socket(), "/v1/status").await;
    assert_eq!(status.policy.generation, 1);
    assert_eq!(status.policy.problems.len(), 1);
    host.write_manifest(&MANIFEST.replace("lease: 2h", "lease: 1h"));
    let loaded = daemon.loader.load(Trigger::Api).await.unwrap();
    assert_eq!((loaded.generation, loaded.agents), (2, 1));
    let status: api::Status = get(host.socket(), "/v1/status").await;
    assert!(status.policy.problems.is_empty());
    assert_eq!(host.port.state().generations, [1, 2]);
    daemon.stop().await;
    assert!(host.kinds().contains(&"policy-refused".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_kernel_refuses_does_not_count_as_in_force() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    host.port.state().refuse_policy = Some("no space".to_owned());
    assert!(daemon.loader.load(Trigger::Api).await.is_err());
    host.port.state().refuse_policy = None;
    let status: api::Status = get(host.socket(), "/v1/status").await;
    assert_eq!(status.policy.generation, 1);
    assert_eq!(
        daemon.loader.load(Trigger::Api).await.unwrap().generation,
        2
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_start_without_a_protection_that_is_needed() {
    let host = Host::new();
    host.port.state().protections[1].status = ProtectionStatus::Absent;
    let error = host.start().await.err().unwrap().to_string();
    assert!(error.contains("accept_degraded: [files]"), "{error}");
    assert!(host.port.state().generations.is_empty());
    assert_eq!(
        host.kinds(),
        ["daemon-started", "policy-refused", "daemon-stopped"]
    );
    let accepting = Config {
        accept_degraded: ["files".to_owned()].into(),
        ..host.config()
    };
    let daemon = start::start(accepting, Box::new(host.port.clone()))
        .await
        .unwrap();
    let status: api::Status = get(host.socket(), "/v1/status").await;
    assert!(!status.enforcing);
    assert!(status.degraded[0].accepted);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_see_events_and_the_end() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let socket = host.socket();
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let follower = std::thread::spawn(move || {
        let target = "/v1/events?follow=true&agent=coder";
        let all = client::stream(&socket, target, None).unwrap();
        sender.send(String::new()).unwrap();
        for line in all.lines() {
            sender.send(line.unwrap()).unwrap();
        }
    });
    lines.recv().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    host.port.emit([denied(started.run.tag(), "/srv/a")]);
    let kind = |line: String| {
        let event: Value = serde_json::from_str(&line).unwrap();
        event["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(kind(lines.recv().await.unwrap()), "run-started");
    assert_eq!(kind(lines.recv().await.unwrap()), "decision");
    daemon.stop().await;
    assert!(
        lines.recv().await.is_none(),
        "the stream ends without an error"
    );
    follower.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_events_are_read_from_the_ledger() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    let tag = started.run.tag();
    host.port
        .emit((0..50).map(|number| denied(tag, &format!("/srv/{number}"))));
    host.port.exit_all(tag.run_serial);
    ended(&host.socket(), started.run.id).await;
    daemon.stop().await;
    let daemon = host.start().await.unwrap();
    let socket = host.socket();
    let target = format!("/v1/events?run={}&verdict=deny&last=3", started.run.id);
    let lines = tokio::task::spawn_blocking(move || {
        let lines = client::stream(&socket, &target, None).unwrap().lines();
        lines.map(Result::unwrap).collect::<Vec<String>>()
    });
    let path = |line: &String| {
        let event: Value = serde_json::from_str(line).unwrap();
        let path = event["object"]["path"].as_str().unwrap();
        path[path.len() - "/srv/47".len()..].to_owned()
    };
    let paths: Vec<String> = lines.await.unwrap().iter().map(path).collect();
    assert_eq!(paths, ["/srv/47", "/srv/48", "/srv/49"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_recorded_in_full_or_counted() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    let tag = started.run.tag();
    for batch in 0..10 {
        host.port
            .emit((0..1_000).map(|number| denied(tag, &format!("/srv/{batch}/{number}"))));
    }
    host.port.exit_all(tag.run_serial);
    let end = ended(&host.socket(), started.run.id).await.end.unwrap();
    assert_eq!(end.events, 10_001);
    assert_eq!(end.recorded + end.lost.total(), end.events, "{end:?}");
    daemon.stop().await;
    let kept = host
        .kinds()
        .iter()
        .filter(|kind| *kind == "decision")
        .count() as u64;
    assert_eq!(kept + 1, end.recorded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_has_one_daemon() {
    let host = Host::new();
    let held = Locks::take(&host.config()).unwrap();
    let error = Locks::take(&host.config()).err().unwrap().to_string();
    assert!(
        error.contains("in use by another AgentGuard daemon"),
        "{error}"
    );
    drop(held);
    fs::create_dir(host.path("pins")).unwrap();
    let held = Locks::take(&host.config()).unwrap();
    let other_state = Config {
        state_dir: host.path("other"),
        ..host.config()
    };
    assert!(matches!(
        Locks::take(&other_state),
        Err(LockError::Held { .. })
    ));
    drop(held);
    Locks::take(&other_state).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_health_are_served() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    host.port.state().decisions = vec![kernel::DecisionCount {
        agent: started.run.agent_index,
        verb: Verb::Connect,
        verdict: Verdict::Deny,
        mode: agentguard_common::verdict::Mode::Enforce,
        count: 41,
    }];
    let status: api::Status = get(host.socket(), "/v1/status").await;
    let url = status.metrics.unwrap();
    let address = url
        .strip_prefix("http://")
        .unwrap()
        .strip_suffix("/metrics")
        .unwrap()
        .to_owned();
    let page = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    });
    let page = page.await.unwrap();
    for line in [
        "agentguard_decisions_total{agent=\"coder\",environment=\"production\",mode=\"enforce\",owner=\"team@example.com\",verb=\"connect\",verdict=\"deny\"} 41",
        "agentguard_active_runs{agent=\"coder\",environment=\"production\"} 1",
        "agentguard_tagged_tasks 1",
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is not in\n{page}"
        );
    }
    daemon.stop().await;
}

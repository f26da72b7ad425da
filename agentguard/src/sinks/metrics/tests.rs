use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::kernel::Port;
use crate::testing::FakePort;

fn snapshot() -> Snapshot {
    let port = FakePort::new();
    Snapshot {
        protections: port.protections(),
        hooks: port.hooks(),
        decisions: vec![AgentDecisions {
            agent: "coder".to_owned(),
            environment: "production".to_owned(),
            owner: "team \"x\"\\y\n@example.com".to_owned(),
            verb: Verb::Connect,
            verdict: Verdict::Deny,
            mode: Mode::Enforce,
            count: 12,
        }],
        counters: (0..KernelCounter::COUNT as u64).collect(),
        fills: port.fills(),
        tagged_tasks: 3,
        active_runs: BTreeMap::from([(("coder".to_owned(), "production".to_owned()), 2)]),
        agents: BTreeMap::from([("active", 1), ("absent", 0)]),
        name_grants: 6,
        generation: 4,
        loaded: Timestamp::from_nanos(1_800_000_000_000_000_000),
        ledger: crate::sinks::ledger::Health::default().report(),
        subscribers: 1,
    }
}

fn page() -> String {
    let metrics = Metrics::new().unwrap();
    metrics.count_event(Kind::Decision);
    metrics.count_drop("ledger", 5);
    metrics.count_run();
    metrics.count_load_failure();
    metrics.render(&snapshot()).unwrap()
}

#[test]
fn every_name_is_there_with_its_value() {
    let page = page();
    for line in [
        "agentguard_build_info{version=\"0.1.0\"} 1",
        "agentguard_protection_enforcing{protection=\"files\"} 1",
        "agentguard_hook_attached{hook=\"file_open\"} 1",
        "agentguard_decisions_total{agent=\"coder\",environment=\"production\",mode=\"enforce\",owner=\"team \\\"x\\\"\\\\y\\n@example.com\",verb=\"connect\",verdict=\"deny\"} 12",
        "agentguard_events_total{kind=\"decision\"} 1",
        "agentguard_events_total{kind=\"run-ended\"} 0",
        "agentguard_events_dropped_total{reason=\"ledger\"} 5",
        "agentguard_events_dropped_total{reason=\"audit_dropped\"} 1",
        "agentguard_kernel_errors_total{reason=\"path_too_deep\"} 4",
        "agentguard_active_runs{agent=\"coder\",environment=\"production\"} 2",
        "agentguard_agents{state=\"active\"} 1",
        "agentguard_agents{state=\"absent\"} 0",
        "agentguard_tagged_tasks 3",
        "agentguard_runs_started_total 1",
        "agentguard_map_entries{map=\"RUNS\"} 0",
        "agentguard_map_capacity{map=\"RUNS\"} 16384",
        "agentguard_policy_load_failures_total 1",
        "agentguard_name_grants 6",
        "agentguard_names_asked_total{result=\"refused\"} 0",
        "agentguard_policy_generation 4",
        "agentguard_policy_last_load_timestamp_seconds 1800000000",
        "agentguard_ledger_records_total 0",
        "agentguard_ledger_errors_total 0",
        "agentguard_ledger_healthy 1",
        "agentguard_event_subscribers 1",
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is not in\n{page}"
        );
    }
}

#[test]
fn no_label_has_unbounded_values() {
    let allowed = [
        "agent",
        "environment",
        "hook",
        "kind",
        "map",
        "mode",
        "owner",
        "protection",
        "reason",
        "result",
        "state",
        "verb",
        "verdict",
        "version",
    ];
    for line in page().lines().filter(|line| !line.starts_with('#')) {
        let Some((_, labels)) = line.split_once('{') else {
            continue;
        };
        for label in labels
            .split("\",")
            .filter_map(|pair| pair.split_once("=\""))
        {
            assert!(allowed.contains(&label.0), "{} in {line}", label.0);
        }
    }
}

/// Prometheus's own checker, from Debian's package `prometheus`.
#[test]
fn promtool_finds_nothing_wrong() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: promtool is not installed (package prometheus)");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(page().as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

//! The life of an agent: registered, changed, absent, retired, reinstated.

use agentguard_common::identity::run_state;

use super::*;
use crate::api::{AgentDecided, AgentDecision, AgentDetail, Agents};

async fn decide(host: &Host, what: &str) -> Result<AgentDecided, String> {
    let (socket, target) = (host.socket(), format!("/v1/agents/coder/{what}"));
    let decision = AgentDecision {
        environment: None,
        reason: "OPS-7".to_owned(),
    };
    let answer =
        tokio::task::spawn_blocking(move || client::post(&socket, &target, Some(&decision)));
    answer.await.unwrap().map_err(|error| format!("{error:?}"))
}

async fn state(host: &Host) -> String {
    let agents: Agents = get(host.socket(), "/v1/agents").await;
    agents.agents[0].state.clone()
}

fn of_kind(host: &Host, kind: &str) -> Vec<Value> {
    let mut records = host.ledger();
    records.retain(|record| record["kind"] == kind);
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_told_by_what_it_means_also_when_no_daemon_saw_the_old() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    daemon.stop().await;
    // A comment is no change.
    host.write_manifest(&format!("# nothing\n{MANIFEST}"));
    let daemon = host.start().await.unwrap();
    daemon.stop().await;
    host.write_manifest(&MANIFEST.replace("/srv/out/**'", "/srv/out/**', '/srv/more'"));
    let daemon = host.start().await.unwrap();
    let shown: AgentDetail = get(host.socket(), "/v1/agents/coder").await;
    daemon.stop().await;
    assert_eq!(of_kind(&host, "agent-registered").len(), 1);
    let changed = of_kind(&host, "agent-changed");
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0]["effect"], "wider");
    assert_eq!(changed[0]["by"], "start of the daemon");
    assert_eq!(changed[0]["agent"], "coder");
    let change = &changed[0]["changes"][0];
    assert_eq!(change["field"], "permissions.write");
    assert_eq!(change["after"], "allow /srv/more");
    assert_eq!(shown.versions.len(), 2);
    assert_eq!(shown.versions[1].version, shown.agent.agent_version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_file_is_gone_keeps_its_policy_and_starts_nothing() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    fs::remove_file(host.path("agents/coder.yaml")).unwrap();
    for round in 0..2 {
        assert_eq!(
            daemon.loader.load(Trigger::Api).await.unwrap().agents,
            1,
            "its policy is still in force ({round})"
        );
    }
    daemon.stop().await;
    let daemon = host.start().await.unwrap();
    let agents = daemon.loader.load(Trigger::Api).await.unwrap().agents;
    assert_eq!(agents, 1, "also over a restart");
    assert_eq!(state(&host).await, "absent");
    let error = launch(&daemon, host.launch(0, true)).await.unwrap_err();
    assert!(error.to_string().contains("is gone since"), "{error}");
    let run: api::Run = get(host.socket(), &format!("/v1/runs/{}", started.run.id)).await;
    assert_eq!(run.state, "active");
    host.write_manifest(MANIFEST);
    daemon.loader.load(Trigger::Api).await.unwrap();
    assert_eq!(state(&host).await, "active");
    launch(&daemon, host.launch(0, true)).await.unwrap();
    daemon.stop().await;
    assert_eq!(of_kind(&host, "agent-absent").len(), 1);
    assert_eq!(of_kind(&host, "agent-returned").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_retired_runs_no_more_whatever_its_file_says() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    let decided = decide(&host, "retire").await.unwrap();
    assert_eq!((decided.runs_revoked, decided.processes_killed), (1, 1));
    assert_eq!(host.port.state().runs[0].state, run_state::REVOKED);
    let error = decide(&host, "retire").await.unwrap_err();
    assert!(error.contains("is retired already"), "{error}");
    daemon.stop().await;

    let daemon = host.start().await.unwrap();
    daemon.loader.load(Trigger::Api).await.unwrap();
    assert_eq!(state(&host).await, "retired");
    let error = launch(&daemon, host.launch(0, true)).await.unwrap_err();
    assert!(matches!(error, LaunchError::Refused(_)));
    assert!(error.to_string().contains("OPS-7"), "{error}");
    host.port.exit_all(started.run.serial);
    let ended = ended(&host.socket(), started.run.id).await;
    assert_eq!(ended.end.unwrap().ended_by, "revoked");
    decide(&host, "reinstate").await.unwrap();
    assert_eq!(state(&host).await, "idle");
    let error = decide(&host, "reinstate").await.unwrap_err();
    assert!(error.contains("is not retired"), "{error}");
    daemon.stop().await;
    let retired = of_kind(&host, "agent-retired");
    assert_eq!(retired[0]["runs_revoked"], 1);
    assert_eq!(retired[0]["reason"], "OPS-7");
    assert_eq!(of_kind(&host, "agent-reinstated").len(), 1);
    assert!(of_kind(&host, "agent-changed").is_empty());
}

/// The daemon was killed between noting a retirement and revoking the runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runs_of_a_retired_agent_are_revoked_by_the_next_daemon() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    launch(&daemon, host.launch(0, true)).await.unwrap();
    decide(&host, "retire").await.unwrap();
    host.port.state().runs[0].state = run_state::ACTIVE;
    daemon.stop().await;
    let daemon = host.start().await.unwrap();
    assert_eq!(host.port.state().runs[0].state, run_state::REVOKED);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_told_before_the_daemon_was_killed_is_told_by_the_next() {
    let host = Host::new();
    host.port.state().refuse_policy = Some("no space".to_owned());
    assert!(host.start().await.is_err());
    assert!(of_kind(&host, "agent-registered").is_empty());
    host.port.state().refuse_policy = None;
    for _ in 0..2 {
        let daemon = host.start().await.unwrap();
        daemon.stop().await;
    }
    assert_eq!(of_kind(&host, "agent-registered").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_did_not_run_for_long_is_dormant() {
    let host = Host::new();
    let config = Config {
        dormant_after: Duration::from_nanos(1),
        ..host.config()
    };
    let daemon = start::start(config.clone(), Box::new(host.port.clone()))
        .await
        .unwrap();
    assert_eq!(state(&host).await, "dormant");
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    assert_eq!(state(&host).await, "active");
    host.port.exit_all(started.run.serial);
    ended(&host.socket(), started.run.id).await;
    daemon.stop().await;
    let daemon = start::start(config, Box::new(host.port.clone()))
        .await
        .unwrap();
    let shown: AgentDetail = get(host.socket(), "/v1/agents/coder").await;
    assert_eq!(shown.agent.last_run, Some(started.run.started));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_outlived_its_lease_says_so() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let started = launch(&daemon, host.launch(0, true)).await.unwrap();
    host.port.state().runs[0].lease_until = 1;
    let run: api::Run = get(host.socket(), &format!("/v1/runs/{}", started.run.id)).await;
    assert_eq!(run.state, "lease-expired");
    host.port.exit_all(started.run.serial);
    let run = ended(&host.socket(), started.run.id).await;
    assert_eq!(run.end.unwrap().ended_by, "lease-expired");
    daemon.stop().await;
}

//! Requests of different callers, over a kernel in memory.

use agentguard_common::identity::Tag;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::control::peer::Peer;
use crate::daemon::Daemon;
use crate::daemon::tests::Host;

const OPERATE: [(&str, &str); 3] = [
    ("POST", "/v1/policy/reload"),
    ("GET", "/v1/status"),
    ("GET", "/v1/doctor"),
];

/// A caller: the test's child process, as this user.
fn caller(host: &Host, uid: u32) -> Peer {
    Peer::process(host.child.id(), uid, vec![uid])
}

async fn ask(daemon: &Daemon, peer: &Peer, method: &str, target: &str) -> (u16, Value) {
    send(daemon, peer, method, target, &Value::Null).await
}

async fn send(
    daemon: &Daemon,
    peer: &Peer,
    method: &str,
    target: &str,
    body: &Value,
) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(target)
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let answer = daemon.api.control.answer(peer, request).await;
    let response = answer.unwrap_or_else(answers::Failed::into_response);
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn start_run(daemon: &Daemon, peer: &Peer, body: Value) -> (u16, Value) {
    send(daemon, peer, "POST", "/v1/runs", &body).await
}

fn wanted() -> Value {
    json!({ "agent": "coder", "command": ["/bin/true"] })
}

fn error(answer: &(u16, Value)) -> &str {
    answer.1["error"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_operates_and_other_users_do_not() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    for (method, target) in OPERATE {
        let root = ask(&daemon, &caller(&host, 0), method, target).await;
        assert_eq!(root.0, 200, "{target}: {}", root.1);
        let user = ask(&daemon, &caller(&host, 1_000), method, target).await;
        assert_eq!(
            (user.0, &user.1["code"]),
            (403, &"refused".into()),
            "{target}"
        );
        assert!(error(&user).ends_with("is for root and members of the group agentguard"));
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_user_starts_the_agent_and_sees_its_own_run_only() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let listed = caller(&host, 1_000);
    let (status, created) = start_run(&daemon, &listed, wanted()).await;
    assert_eq!(status, 200, "{created}");
    let run = created["run"].as_str().unwrap();
    assert_eq!(created["env"]["AGENTGUARD_RUN_ID"], *run);
    assert_eq!(created["landlock"], Value::Null);
    // The process is an agent now; its user asks from another.
    let mut other_process = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    let as_user = |uid| Peer::process(other_process.id(), uid, vec![uid]);
    let (_, runs) = ask(&daemon, &as_user(1_000), "GET", "/v1/runs").await;
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1);
    let (status, _) = ask(&daemon, &as_user(1_000), "GET", &format!("/v1/runs/{run}")).await;
    assert_eq!(status, 200);
    let (_, processes) = ask(&daemon, &as_user(1_000), "GET", "/v1/ps").await;
    assert_eq!(processes["processes"].as_array().unwrap().len(), 1);
    let (_, agents) = ask(&daemon, &as_user(1_000), "GET", "/v1/agents").await;
    assert_eq!(agents["agents"].as_array().unwrap().len(), 1);

    let (_, runs) = ask(&daemon, &as_user(1_001), "GET", "/v1/runs").await;
    assert!(runs["runs"].as_array().unwrap().is_empty());
    let (status, _) = ask(&daemon, &as_user(1_001), "GET", &format!("/v1/runs/{run}")).await;
    assert_eq!(status, 404, "a run of someone else looks like none");
    let (_, processes) = ask(&daemon, &as_user(1_001), "GET", "/v1/ps").await;
    assert!(processes["processes"].as_array().unwrap().is_empty());
    let (_, agents) = ask(&daemon, &as_user(1_001), "GET", "/v1/agents").await;
    assert!(agents["agents"].as_array().unwrap().is_empty());
    let stranger = start_run(&daemon, &as_user(1_001), wanted()).await;
    assert_eq!(stranger.0, 403);
    assert!(
        error(&stranger).contains("does not list that user"),
        "{}",
        stranger.1
    );
    other_process.kill().unwrap();
    other_process.wait().unwrap();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_asks_about_itself_and_nothing_else_even_as_root() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let agent = caller(&host, 0);
    let (_, created) = start_run(&daemon, &agent, wanted()).await;
    let run = created["run"].as_str().unwrap();
    // The same connection, after the process became an agent.
    for (method, target) in OPERATE.into_iter().chain([("GET", "/v1/agents")]) {
        let answer = ask(&daemon, &agent, method, target).await;
        assert_eq!(answer.0, 403, "{target}");
        assert!(error(&answer).contains("is not for agents"), "{}", answer.1);
    }
    assert_eq!(start_run(&daemon, &agent, wanted()).await.0, 403);
    let (_, runs) = ask(&daemon, &agent, "GET", "/v1/runs").await;
    assert_eq!(runs["runs"][0]["run"], *run);
    let (status, _) = ask(&daemon, &agent, "GET", &format!("/v1/runs/{run}")).await;
    assert_eq!(status, 200);
    let (_, processes) = ask(&daemon, &agent, "GET", "/v1/ps").await;
    assert_eq!(processes["processes"][0]["run"], *run);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_a_run_that_is_not_known_sees_nothing() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let stale = Tag {
        agent: 0,
        run: 9,
        run_serial: 4_711,
    };
    host.port.state().tagged.push((host.child.id(), stale));
    let agent = caller(&host, 0);
    let (_, runs) = ask(&daemon, &agent, "GET", "/v1/runs").await;
    assert!(runs["runs"].as_array().unwrap().is_empty());
    let (_, processes) = ask(&daemon, &agent, "GET", "/v1/ps").await;
    assert!(processes["processes"].as_array().unwrap().is_empty());
    assert_eq!(ask(&daemon, &agent, "GET", "/v1/events").await.0, 403);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_process_has_ended_is_refused() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let peer = Peer::process(child.id(), 0, vec![0]);
    child.wait().unwrap();
    let answer = ask(&daemon, &peer, "GET", "/v1/status").await;
    assert_eq!(answer.0, 403);
    assert!(error(&answer).contains("has ended"), "{}", answer.1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_cannot_be_met_say_why() {
    let host = Host::new();
    let daemon = host.start().await.unwrap();
    let root = caller(&host, 0);
    let this_process = Peer::this_process(0, vec![0]);
    let threads = start_run(&daemon, &this_process, wanted()).await;
    assert_eq!(threads.0, 400);
    assert!(error(&threads).contains("one thread"), "{}", threads.1);
    for (change, status, message) in [
        (json!({ "agent": "codre" }), 404, "did you mean `coder`?"),
        (
            json!({ "environment": "staging" }),
            404,
            "no agent `coder in staging`",
        ),
        (json!({ "lease_seconds": 7_201 }), 403, "longer than the 2h"),
        (json!({ "lease_seconds": 0 }), 400, "no lease"),
        (json!({ "command": [] }), 400, "nothing would be executed"),
        (json!({ "comand": [] }), 400, "unknown field `comand`"),
    ] {
        let mut body = wanted();
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        let answer = start_run(&daemon, &root, body).await;
        assert_eq!(answer.0, status, "{change}: {}", answer.1);
        assert!(error(&answer).contains(message), "{change}: {}", answer.1);
    }
    let large = json!({ "agent": "x".repeat(300_000), "command": ["x"] });
    assert_eq!(start_run(&daemon, &root, large).await.0, 400);
    assert_eq!(ask(&daemon, &root, "DELETE", "/v1/runs").await.0, 404);
    assert!(host.port.state().runs.is_empty(), "no run was made");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delegated_agents_act_for_a_named_person() {
    let host = Host::new();
    let manifest = fs_read(&host).replace("authority: service", "authority: delegated");
    let manifest = manifest.replace("users: ['1000']", "users: ['4711', root]");
    host.write_manifest(&manifest);
    let daemon = host.start().await.unwrap();
    let user = caller(&host, 4_711);
    let nobody = start_run(&daemon, &user, wanted()).await;
    assert_eq!(nobody.0, 403);
    assert!(error(&nobody).contains("--on-behalf-of"), "{}", nobody.1);
    let mut body = wanted();
    body["on_behalf_of"] = "alice".into();
    let other = start_run(&daemon, &user, body.clone()).await;
    assert_eq!(other.0, 403);
    assert!(
        error(&other).contains("on behalf of 4711 only"),
        "{}",
        other.1
    );
    // An operator may name anyone, the user itself alone.
    body["on_behalf_of"] = "4711".into();
    assert_eq!(start_run(&daemon, &user, body).await.0, 200);
    daemon.stop().await;
}

fn fs_read(host: &Host) -> String {
    std::fs::read_to_string(host.path("agents/coder.yaml")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_name_in_two_environments_needs_the_environment() {
    let host = Host::new();
    let manifest = fs_read(&host);
    let staging = manifest.replace("environment: production", "environment: staging");
    host.write_manifest(&format!("{manifest}---\n{staging}"));
    let daemon = host.start().await.unwrap();
    let root = caller(&host, 0);
    let answer = start_run(&daemon, &root, wanted()).await;
    assert_eq!(answer.0, 409);
    assert!(error(&answer).contains("--environment"), "{}", answer.1);
    let mut body = wanted();
    body["environment"] = "staging".into();
    let (status, created) = start_run(&daemon, &root, body).await;
    assert_eq!((status, &created["environment"]), (200, &"staging".into()));
    daemon.stop().await;
}

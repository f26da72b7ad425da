//! What the agent tries, what must come of it, and what did.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::scene::{METADATA, Scene};

/// What an attempt is made on.
#[derive(Debug)]
enum Target {
    File(PathBuf),
    Address(SocketAddr),
}

/// One attempt of the agent.
#[derive(Debug)]
pub struct Step {
    id: &'static str,
    /// What is tried.
    pub what: String,
    /// Whether the policy allows it.
    pub is_allowed: bool,
    target: Target,
    /// The rule that decides, as the manifest has it; none: no rule, or a built-in one.
    rule: Option<String>,
    /// What stands for the rule where the manifest has none.
    otherwise: &'static str,
}

/// What came of an attempt.
#[derive(Debug)]
pub struct Outcome {
    /// What was tried.
    pub what: String,
    /// Whether the policy allows it.
    pub is_allowed: bool,
    /// Whether it came out as it must.
    pub is_right: bool,
    /// `ok`, or what the agent got.
    pub result: String,
    /// The program and its process id.
    pub program: String,
    /// Where the rule stands.
    pub rule: String,
    /// How it is known.
    pub source: String,
}

/// The attempts, in the order of the script.
pub fn all(scene: &Scene) -> Result<Vec<Step>> {
    let mut steps = allowed(scene);
    steps.extend(denied(scene)?);
    Ok(steps)
}

fn allowed(scene: &Scene) -> Vec<Step> {
    let places = &scene.places;
    let below = |dir: &PathBuf| Some(format!("{}/**", dir.display()));
    let step = |id, what: String, target, rule| Step {
        id,
        what,
        is_allowed: true,
        target,
        rule,
        otherwise: "default of read",
    };
    let file = |path: PathBuf| Target::File(path);
    let server = |address: SocketAddr| (Target::Address(address), Some(format!("{address}/tcp")));
    let (model, model_rule) = server(scene.model.address);
    let (mirror, mirror_rule) = server(scene.mirror.address);
    let source = places.repository.join("app.py");
    vec![
        step(
            "edit",
            format!("write {}", source.display()),
            file(source),
            below(&places.repository),
        ),
        step(
            "commit",
            "git commit in the repository".into(),
            file(places.repository.join(".git")),
            below(&places.repository),
        ),
        step(
            "scratch",
            format!("create, rename, delete in {}", places.work.display()),
            file(places.work.clone()),
            below(&places.work),
        ),
        step(
            "read",
            "read /etc/passwd".into(),
            file("/etc/passwd".into()),
            None,
        ),
        step(
            "model",
            format!("connect {}/tcp (model)", scene.model.address),
            model,
            model_rule,
        ),
        step(
            "mirror",
            format!("connect {}/tcp (mirror)", scene.mirror.address),
            mirror,
            mirror_rule,
        ),
    ]
}

fn denied(scene: &Scene) -> Result<Vec<Step>> {
    let places = &scene.places;
    let file = |id, verb: &str, path: PathBuf, rule, otherwise| Step {
        id,
        what: format!("{verb} {}", path.display()),
        is_allowed: false,
        target: Target::File(path),
        rule,
        otherwise,
    };
    let net = |id, address: SocketAddr, protocol: &str, rule: Option<&str>| Step {
        id,
        what: format!("connect {address}/{protocol}"),
        is_allowed: false,
        target: Target::Address(address),
        rule: rule.map(str::to_owned),
        otherwise: "default of connect",
    };
    let secrets = Some(format!("{}/.aws/**", places.home.display()));
    let credential = places.home.join(".aws/credentials");
    let metadata = format!("{}:{}", METADATA.0, METADATA.1);
    let metadata = metadata.parse().context("the metadata address")?;
    let unlisted = scene.unlisted.address;
    let default = "default of write";
    let mut steps = vec![
        file("etc", "create", places.etc.clone(), None, default),
        file(
            "bashrc",
            "write",
            places.home.join(".bashrc"),
            None,
            default,
        ),
        file("credential", "read", credential, secrets, ""),
        file(
            "shadow",
            "read",
            "/etc/shadow".into(),
            None,
            "built-in:shadow",
        ),
        net("curl", unlisted, "tcp", None),
        net("udp", scene.unlisted_udp.address, "udp", None),
    ];
    if let Some(server) = &scene.unlisted_v6 {
        steps.push(net("connect6", server.address, "tcp", None));
    }
    steps.extend([
        net("metadata", metadata, "tcp", Some(METADATA.0)),
        file(
            "grandchild-etc",
            "create",
            places.second_etc(),
            None,
            default,
        ),
        net("grandchild-connect", unlisted, "tcp", None),
    ]);
    Ok(steps)
}

impl Step {
    /// Judges what the agent reported and what the kernel recorded.
    pub fn judge(&self, scene: &Scene, reports: &[Value], events: &[Value]) -> Result<Outcome> {
        let report = reports.iter().find(|report| report["id"] == self.id);
        let result = report.map_or("did not report", |report| {
            report["outcome"].as_str().unwrap_or("?")
        });
        let pid = report.and_then(|report| report["pid"].as_u64());
        let refusal = self.event(events, pid, "deny");
        let event = match self.is_allowed {
            true => refusal.or_else(|| self.event(events, pid, "allow")),
            false => refusal,
        };
        let is_refused = matches!(result, "EPERM" | "EACCES");
        let is_right = match self.is_allowed {
            // A refusal nobody caused is none, and a recorded one that the agent overcame is none.
            true => result == "ok" && refusal.is_none(),
            false => is_refused && refusal.is_none_or(|event| event["blocked"] == true),
        };
        let program = event
            .and_then(|event| event["exe"].as_str())
            .or_else(|| report.and_then(|report| report["program"].as_str()))
            .unwrap_or("?");
        let program = program.rsplit('/').next().unwrap_or(program);
        Ok(Outcome {
            what: self.what.clone(),
            is_allowed: self.is_allowed,
            is_right,
            result: result.to_owned(),
            program: pid.map_or_else(|| program.to_owned(), |pid| format!("{program}[{pid}]")),
            rule: self.rule(scene, event)?,
            source: self.source(event, result),
        })
    }

    /// The decision on record: of the same process if there are several.
    fn event<'a>(&self, events: &'a [Value], pid: Option<u64>, verdict: &str) -> Option<&'a Value> {
        let matching = || {
            events
                .iter()
                .filter(|event| event["kind"] == "decision" && event["verdict"] == verdict)
                .filter(|event| self.target.is(&event["object"]))
        };
        matching()
            .find(|event| event["pid"].as_u64() == pid)
            .or_else(|| matching().next())
    }

    fn rule(&self, scene: &Scene, event: Option<&Value>) -> Result<String> {
        if let Some(event) = event {
            let reason = event["reason"].as_str().unwrap_or("?");
            let verb = event["verb"].as_str().unwrap_or("?");
            return Ok(match event["rule"].as_str() {
                Some(rule) => short(rule),
                None if reason == "default" => format!("default of {verb}"),
                None => reason.to_owned(),
            });
        }
        self.rule.as_ref().map_or_else(
            || Ok(self.otherwise.to_owned()),
            |rule| scene.rule_at(rule).map(|place| short(&place)),
        )
    }

    fn source(&self, event: Option<&Value>, result: &str) -> String {
        match (event, self.is_allowed) {
            (Some(event), _) => format!("kernel event {}", event["seq"]),
            (None, true) => "seen by the agent".to_owned(),
            // Landlock's refusals are this one; AgentGuard's own programs answer EPERM.
            (None, false) if result == "EACCES" => {
                "seen by the agent: EACCES (Landlock)".to_owned()
            }
            (None, false) => format!("seen by the agent: {result}"),
        }
    }
}

impl Target {
    /// Whether an event's object is this.
    fn is(&self, object: &Value) -> bool {
        match self {
            Self::File(path) => object["path"]
                .as_str()
                .is_some_and(|name| path.as_os_str() == name),
            Self::Address(address) => {
                object["port"] == address.port()
                    && object["address"].as_str() == Some(&address.ip().to_string())
            }
        }
    }
}

/// `file:line` without the directories.
fn short(place: &str) -> String {
    place.rsplit('/').next().unwrap_or(place).to_owned()
}

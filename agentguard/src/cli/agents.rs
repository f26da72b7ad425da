//! `agentguard agents list`, `show`, `retire` and `reinstate`.

use std::path::Path;
use std::time::Duration;

use super::output::{Colour, Output, Table, time};
use super::{AgentsCommand, DecideArgs, Ending, Exit, Outcome, client};
use crate::agents::life::Version;
use crate::api::{Agent, AgentDecided, AgentDecision, AgentDetail, Agents};
use crate::policy::change::{Change, Effect};
use crate::policy::duration;

pub(super) fn run(socket: &Path, command: AgentsCommand) -> Outcome {
    match command {
        AgentsCommand::List(args) => list(socket, args.json),
        AgentsCommand::Show {
            agent,
            environment,
            json,
        } => show(socket, &agent, environment.as_deref(), json),
        AgentsCommand::Retire(args) => decide(socket, args, "retire"),
        AgentsCommand::Reinstate(args) => decide(socket, args, "reinstate"),
    }
}

fn list(socket: &Path, json: bool) -> Outcome {
    let answer: Agents = client::get(socket, "/v1/agents")?;
    let mut out = Output::new();
    if json {
        out.json(&answer)?;
        return Ok(out.flush()?);
    }
    let mut table = Table::new(&[
        "AGENT",
        "ENVIRONMENT",
        "STATE",
        "MODE",
        "AUTHORITY",
        "LEASE",
        "RUNS",
        "LAST RUN",
        "OWNER",
        "MANIFEST",
    ]);
    let absent: Vec<String> = answer
        .agents
        .iter()
        .filter(|agent| agent.state == "absent")
        .map(|agent| format!("{} ({})", agent.agent, agent.environment))
        .collect();
    for agent in answer.agents {
        let lease = agent.lease_seconds.map(Duration::from_secs);
        table.coloured_row([
            (Colour::Plain, agent.agent),
            (Colour::Plain, agent.environment),
            (colour(&agent.state), agent.state),
            (Colour::Plain, agent.mode),
            (Colour::Plain, agent.authority),
            (
                Colour::Plain,
                lease.map(duration::format).unwrap_or_default(),
            ),
            (Colour::Plain, agent.runs.to_string()),
            (Colour::Plain, agent.last_run.map(time).unwrap_or_default()),
            (Colour::Plain, agent.owner),
            (Colour::Plain, agent.manifest),
        ]);
    }
    if table.is_empty() {
        out.line("no agent is in force that you may start")?;
    } else {
        out.table(&table)?;
    }
    if !absent.is_empty() {
        out.line(&format!(
            "absent: {}; confirm with `agentguard agents retire`, or put the file back",
            absent.join(", ")
        ))?;
    }
    Ok(out.flush()?)
}

fn colour(state: &str) -> Colour {
    match state {
        "absent" => Colour::Bad,
        "dormant" => Colour::Doubtful,
        _ => Colour::Plain,
    }
}

fn show(socket: &Path, agent: &str, environment: Option<&str>, json: bool) -> Outcome {
    let name = segment(agent)?;
    let query = match environment {
        Some(environment) => format!("?environment={}", segment(environment)?),
        None => String::new(),
    };
    let answer: AgentDetail = client::get(socket, &format!("/v1/agents/{name}{query}"))?;
    let mut out = Output::new();
    if json {
        out.json(&answer)?;
        return Ok(out.flush()?);
    }
    for (name, value) in facts(&answer.agent) {
        out.parts(&[
            (Colour::Head, format!("{name:<14}")),
            (Colour::Plain, value.unwrap_or_else(|| "-".to_owned())),
        ])?;
    }
    for version in answer.versions.iter().rev() {
        out.line("")?;
        history(&mut out, version)?;
    }
    Ok(out.flush()?)
}

fn facts(agent: &Agent) -> Vec<(&'static str, Option<String>)> {
    let lease = agent.lease_seconds.map(Duration::from_secs);
    let retired = agent.retired.as_ref().map(|retired| {
        format!(
            "{} by {}: {}",
            time(retired.time),
            retired.by,
            retired.reason
        )
    });
    vec![
        ("agent", Some(agent.agent.clone())),
        ("environment", Some(agent.environment.clone())),
        ("owner", Some(agent.owner.clone())),
        ("description", agent.description.clone()),
        ("state", Some(agent.state.clone())),
        ("absent since", agent.absent_since.map(time)),
        ("retired", retired),
        ("mode", Some(agent.mode.clone())),
        ("authority", Some(agent.authority.clone())),
        ("lease", lease.map(duration::format)),
        ("live runs", Some(agent.runs.to_string())),
        ("last run", agent.last_run.map(time)),
        ("registered", agent.registered.map(time)),
        ("version", Some(agent.agent_version.clone())),
        ("manifest", Some(agent.manifest.clone())),
    ]
}

fn history(out: &mut Output, version: &Version) -> std::io::Result<()> {
    let by = match &version.manifest_owner {
        Some(owner) => format!("{} (file of {owner})", version.by),
        None => version.by.clone(),
    };
    out.parts(&[
        (Colour::Head, time(version.time)),
        (
            Colour::Plain,
            format!("  {}  {}, by {by}", version.version, version.manifest),
        ),
    ])?;
    let Some(changes) = &version.changes else {
        return Ok(());
    };
    out.line(&format!("  {}", version.effect.name()))?;
    for change in changes {
        out.parts(&[
            (
                effect_colour(change.effect),
                format!("  {:<9}", change.effect.name()),
            ),
            (Colour::Plain, format!(" {}", told(change))),
        ])?;
    }
    Ok(())
}

fn effect_colour(effect: Effect) -> Colour {
    match effect {
        Effect::Wider => Colour::Bad,
        Effect::Both | Effect::Unclear => Colour::Doubtful,
        Effect::Narrower | Effect::Neither => Colour::Plain,
    }
}

fn told(change: &Change) -> String {
    let field = &change.field;
    match (&change.before, &change.after) {
        (None, Some(after)) => format!("{field}: added {after}"),
        (Some(before), None) => format!("{field}: removed {before}"),
        (Some(before), Some(after)) => format!("{field}: {before} is now {after}"),
        (None, None) => field.clone(),
    }
}

fn decide(socket: &Path, args: DecideArgs, what: &str) -> Outcome {
    let name = segment(&args.agent)?;
    let decision = AgentDecision {
        environment: args.environment,
        reason: args.reason,
    };
    let target = format!("/v1/agents/{name}/{what}");
    let answer: AgentDecided = client::post(socket, &target, Some(&decision))?;
    let mut out = Output::new();
    if args.json {
        out.json(&answer)?;
        return Ok(out.flush()?);
    }
    let of = format!("agent `{}` ({})", answer.agent, answer.environment);
    if what == "retire" {
        out.line(&format!(
            "{of} is retired: runs revoked: {}, processes killed: {}",
            answer.runs_revoked, answer.processes_killed
        ))?;
        if answer.processes_left > 0 {
            out.line(&format!(
                "{} of them were still there at the last look; every operation of theirs is denied",
                answer.processes_left
            ))?;
        }
    } else {
        out.line(&format!("{of} is reinstated"))?;
    }
    Ok(out.flush()?)
}

/// A name as a part of a URL: what no agent can be called is not asked for.
fn segment(name: &str) -> Result<&str, Ending> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !name.is_empty() && name.bytes().all(plain) {
        return Ok(name);
    }
    Err(Ending::new(
        Exit::Usage,
        format!("`{name}` is not a name: letters, digits, `.`, `_` and `-`"),
    ))
}

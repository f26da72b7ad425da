//! `agentguard events`.

use std::io::BufRead;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::output::{Colour, Output};
use super::{Ending, EventsArgs, Outcome, client};

/// Time for the daemon to read its ledger.
const READ: Duration = Duration::from_secs(120);

pub(super) fn run(socket: &Path, args: &EventsArgs) -> Outcome {
    let wait = (!args.follow).then_some(READ);
    let mut lines = client::stream(socket, &target(args), wait)?;
    let mut out = Output::new();
    let mut line = Vec::new();
    let mut missed = None;
    loop {
        line.clear();
        let read = lines
            .read_until(b'\n', &mut line)
            .map_err(|error| Ending::failed(format!("the daemon broke the stream off: {error}")))?;
        if read == 0 {
            break;
        }
        let event: Value = serde_json::from_slice(&line).unwrap_or_default();
        if event["sink"] == "subscriber" {
            missed = event["lost"].as_u64();
        }
        if args.json {
            out.raw(&line)?;
        } else {
            out.parts(&describe(&event))?;
        }
        if args.follow {
            out.flush()?;
        }
    }
    out.flush()?;
    match missed {
        Some(missed) => Err(Ending::failed(format!(
            "this command did not read fast enough and missed {missed} events; `agentguard events` reads them from the ledger"
        ))),
        None => Ok(()),
    }
}

fn target(args: &EventsArgs) -> String {
    let mut target = format!("/v1/events?follow={}", args.follow);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            target.push_str(&format!("&{name}={value}"));
        }
    };
    add("agent", args.agent.clone());
    add("run", args.run.map(|run| run.to_string()));
    add(
        "verdict",
        args.verdict.map(|verdict| verdict.name().to_owned()),
    );
    add("last", args.last.map(|last| last.to_string()));
    target
}

/// One event in one line.
fn describe(event: &Value) -> Vec<(Colour, String)> {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let time = text("time");
    let time = time
        .split_once('.')
        .map_or(time.as_str(), |(seconds, _)| seconds);
    let mut parts = vec![(Colour::Plain, format!("{time}  "))];
    match event["kind"].as_str() {
        Some("decision") => decision(event, &mut parts),
        Some("exec") => parts.push((
            Colour::Plain,
            format!("exec   {}", event["object"]["path"].as_str().unwrap_or("?")),
        )),
        Some("exit") => parts.push((Colour::Plain, exit(event))),
        Some("flow") => parts.push((Colour::Plain, flow(event))),
        Some(kind) => parts.push((Colour::Head, kind.to_owned())),
        None => parts.push((Colour::Plain, "?".to_owned())),
    }
    parts.push((Colour::Plain, particulars(event)));
    let agent = text("agent");
    if !agent.is_empty() {
        let run = text("run");
        let process = event["pid"].as_u64().map(|pid| {
            let program = event["exe"]
                .as_str()
                .or(event["comm"].as_str())
                .unwrap_or("?");
            format!(" {program}[{pid}]")
        });
        parts.push((
            Colour::Plain,
            format!("  ({agent} {run}{})", process.unwrap_or_default()),
        ));
    }
    parts
}

fn decision(event: &Value, parts: &mut Vec<(Colour, String)>) {
    let verdict = event["verdict"].as_str().unwrap_or("?");
    let verb = event["verb"].as_str().unwrap_or("?");
    let blocked = event["blocked"].as_bool().unwrap_or(false);
    let shown = match (verdict, blocked) {
        ("deny" | "ask", false) => format!("would-{verdict}"),
        _ => verdict.to_owned(),
    };
    parts.push((Colour::of_verdict(verdict), format!("{shown:<6} ")));
    let object = &event["object"];
    let object = match object["path"].as_str() {
        Some(path) => path.to_owned(),
        None => place(object),
    };
    let why = match event["rule"].as_str() {
        Some(rule) => format!("  rule {rule}"),
        None => format!("  {}", event["reason"].as_str().unwrap_or("?")),
    };
    let times = match event["count"].as_u64() {
        Some(count) if count > 1 => format!(" x{count}"),
        _ => String::new(),
    };
    parts.push((Colour::Plain, format!("{verb} {object}{times}{why}")));
}

/// A place in a network, with the name that led to it; or the name that was asked for.
fn place(object: &Value) -> String {
    let name = object["name"].as_str();
    let host = match (object["address"].as_str(), name) {
        (Some(address), Some(name)) => format!("{address} ({name})"),
        (Some(host), None) | (None, Some(host)) => host.to_owned(),
        (None, None) => "?".to_owned(),
    };
    let protocol = object["protocol"].as_str().unwrap_or("?");
    format!("{host}:{}/{protocol}", object["port"])
}

/// What went to and fro, with whom, and for how long.
fn flow(event: &Value) -> String {
    let object = &event["object"];
    let (from_or_to, state) = match event["direction"].as_str() {
        Some("inbound") => ("from", event["state"].as_str().unwrap_or("?")),
        Some(_) => ("to", event["state"].as_str().unwrap_or("?")),
        None => ("with", ""),
    };
    let server = match object["server_name"].as_str() {
        Some(server) => format!(" as {server}"),
        None => String::new(),
    };
    let times = match event["count"].as_u64() {
        Some(count) if count > 1 => format!(" x{count}"),
        _ => String::new(),
    };
    format!(
        "flow   {from_or_to} {}{server}{times}  {} bytes sent, {} received, {:.1} s {state}",
        place(object),
        event["sent_bytes"],
        event["received_bytes"],
        event["duration_seconds"].as_f64().unwrap_or_default(),
    )
    .trim_end()
    .to_owned()
}

fn exit(event: &Value) -> String {
    match event["signal"].as_u64() {
        Some(signal) => format!("exit   signal {signal}"),
        None => format!("exit   code {}", event["exit_code"]),
    }
}

/// What the other kinds have to say.
fn particulars(event: &Value) -> String {
    match event["kind"].as_str() {
        Some("run-started") => format!("  by {}", event["started_by"].as_str().unwrap_or("?")),
        Some("run-failed") => format!("  {}", event["error"].as_str().unwrap_or("?")),
        Some("run-ended") if event["complete"] == true => {
            format!("  {} denied, record complete", event["denials"])
        }
        Some("run-ended") => format!("  {} denied, record incomplete", event["denials"]),
        Some("policy-loaded") => format!("  generation {}", event["policy_generation"]),
        Some("policy-refused") => {
            let problems = event["problems"].as_array().map_or(0, Vec::len);
            format!("  problems: {problems}")
        }
        Some("records-lost") => format!("  {} at {}", event["lost"], event["sink"]),
        _ => String::new(),
    }
}

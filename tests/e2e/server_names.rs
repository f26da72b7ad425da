//! Server names: connections to an address that a name opened, and what they say of whom
//! they are for.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use agentguard_tests::agent::Agent;
use agentguard_tests::dns::{ADDRESS, Record};
use agentguard_tests::runner::Test;
use agentguard_tests::servers::Own;
use agentguard_tests::suite::Suite;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::any;

pub const TESTS: &[Test] = &[
    any("server_names::a_hello_for_another_is_cut", hellos),
    any("server_names::a_request_for_another_is_cut", requests),
    any("server_names::other_protocols_go_on", others),
    any("server_names::rules_about_addresses_and_names", both),
    any("server_names::observed_they_are_told", observed),
];

/// What a name leads to, and many other servers are at.
const SHARED: &str = "198.51.100.9";

/// Tells how many bytes it got, and keeps them.
struct Echo {
    at: SocketAddr,
    got: Arc<Mutex<Vec<u8>>>,
    _own: Own,
}

impl Echo {
    fn start() -> Result<Self> {
        let own = Own::take(SHARED)?;
        let listener = TcpListener::bind((SHARED, 0))?;
        let at = listener.local_addr()?;
        let got = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&got);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                        kept.extend(&buffer[..count]);
                        drop(kept);
                        if stream.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Ok(Self { at, got, _own: own })
    }

    /// What came since this was called last.
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.got.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sends these bytes in pieces that end at these places, and waits for all to come back.
fn say(to: SocketAddr, what: &Value, cuts: &[usize]) -> Value {
    json!({ "op": "say", "address": to.ip().to_string(), "port": to.port(), "what": what, "cuts": cuts })
}

fn hello(name: &str) -> Value {
    json!({ "hello": name })
}

fn text(text: &str) -> Value {
    json!({ "text": text })
}

fn passes(agent: &mut Agent, echo: &Echo, what: &Value, cuts: &[usize]) -> Result<()> {
    agent.may(&say(echo.at, what, cuts))?;
    ensure!(!echo.take().is_empty(), "{what}: nothing came");
    Ok(())
}

/// It fails at once, and what names the server never comes.
fn is_cut(agent: &mut Agent, echo: &Echo, what: &Value, name: &str, cuts: &[usize]) -> Result<()> {
    let answer = agent.ask(&say(echo.at, what, cuts))?;
    let errno = answer["errno"].as_str().unwrap_or_default();
    ensure!(
        answer["ok"] == false && matches!(errno, "EPERM" | "ECONNABORTED"),
        "{what} in pieces {cuts:?}: {answer}"
    );
    let came = echo.take();
    let has = |bytes: &[u8]| {
        bytes
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    };
    ensure!(!has(&came), "{what} in pieces {cuts:?}: the name came");
    Ok(())
}

/// An agent that may go to `api.example` and below `ok.example`, and has asked for one.
fn asked(suite: &mut Suite, echo: &Echo, mode: &str, more: &[(&str, &str)]) -> Result<Agent> {
    let port = echo.at.port();
    suite
        .dns
        .set("api.example", &[Record::Address(echo.at.ip(), 60)]);
    let at = |rule: &str| format!("{rule}:{port}");
    let listed = |verdict: &'static str| more.iter().filter(move |(is, _)| *is == verdict);
    let allow: Vec<String> = ["api.example", "*.ok.example"]
        .into_iter()
        .chain(listed("allow").map(|(_, rule)| *rule))
        .map(at)
        .collect();
    let deny: Vec<String> = listed("deny").map(|(_, rule)| at(rule)).collect();
    let manifest = suite
        .ruled("sharing", mode)
        .rules("connect", "allow", &allow)
        .rules("connect", "deny", &deny);
    suite.install(&manifest)?;
    suite.reload()?;
    let mut agent = suite.tagged("sharing")?;
    agent.may(&json!({
        "op": "resolve", "server": ADDRESS.to_string(), "name": "api.example", "over": "udp",
    }))?;
    Ok(agent)
}

fn told(suite: &Suite, agent: &Agent, server: &Value, verdict: &str) -> Result<()> {
    let run = agent.run()?.to_owned();
    agentguard_tests::wait::until("an event that says the server's name", || {
        let events = suite.daemon.events(&run)?;
        let found = events.iter().any(|event| {
            event["object"]["server_name"] == *server
                && event["object"]["address"] == SHARED
                && event["object"]["name"] == "api.example"
                && event["verdict"] == verdict
        });
        Ok(found.then_some(()))
    })
    .with_context(|| format!("no event says {server}"))
}

fn hellos(suite: &mut Suite) -> Result<()> {
    let echo = Echo::start()?;
    let mut agent = asked(suite, &echo, "enforce", &[])?;
    let cuts: [&[usize]; 6] = [
        &[],
        &[1],
        &[5, 6],
        &[43, 44, 60],
        &[9, 80, 90, 100, 120, 140],
        &[200],
    ];
    for cuts in cuts {
        for name in [
            "api.example",
            "API.Example",
            "a.ok.example",
            "a.b.ok.example",
        ] {
            passes(&mut agent, &echo, &hello(name), cuts)?;
        }
        for name in [
            "evil.example",
            "xapi.example",
            "api.example.evil",
            "ok.example",
        ] {
            is_cut(&mut agent, &echo, &hello(name), name, cuts)?;
        }
    }
    told(suite, &agent, &json!("evil.example"), "deny")?;
    let singly: Vec<usize> = (1..517).collect();
    passes(&mut agent, &echo, &hello("api.example"), &singly)?;
    is_cut(
        &mut agent,
        &echo,
        &hello("evil.example"),
        "evil.example",
        &singly,
    )?;
    // Two records in one hello, which no client sends: it cannot be read.
    let fragments = json!({ "hello": "api.example", "fragment": 100 });
    is_cut(&mut agent, &echo, &fragments, "api.example", &[])?;
    let postgres = json!({ "hello": "evil.example", "before": "00000008 04d2162f" });
    is_cut(&mut agent, &echo, &postgres, "evil.example", &[8])?;
    let postgres = json!({ "hello": "api.example", "before": "00000008 04d2162f" });
    passes(&mut agent, &echo, &postgres, &[8])?;
    suite.remove("sharing")
}

fn requests(suite: &mut Suite) -> Result<()> {
    let echo = Echo::start()?;
    let mut agent = asked(suite, &echo, "enforce", &[])?;
    let allowed = [
        "GET / HTTP/1.1\r\nHost: api.example\r\n\r\n",
        "POST /x HTTP/1.1\r\nAccept: a\r\nhost:  a.ok.example:80\r\n\r\nbody",
        "GET http://api.example/evil.example HTTP/1.1\r\nHost: api.example\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ];
    let refused = [
        "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "a_b\t/ http/1.1 \r\nHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil\0.ok.example\r\n\r\n",
        "POST /x HTTP/1.1\r\nAccept: a\r\nhOST :evil.example:80\r\n\r\nbody",
        "GET http://evil.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n",
        "GET http://api.example@evil.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n",
        "CONNECT evil.example:443 HTTP/1.1\r\nHost: api.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.example\r\nHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n evil.example\r\n\r\n",
    ];
    for cuts in [&[][..], &[1, 2], &[20], &[30, 31, 32, 33, 34, 35, 36]] {
        for request in allowed {
            passes(&mut agent, &echo, &text(request), cuts)?;
        }
        for request in refused {
            // Up to the end of the name, the bytes may have gone; the request has not.
            is_cut(&mut agent, &echo, &text(request), "\r\n\r\n", cuts)?;
        }
    }
    told(suite, &agent, &json!("evil.example"), "deny")?;
    // Who goes there by number says the number; another one could be a proxy's to follow.
    let by_number = |host: &str| text(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for host in [SHARED.to_owned(), echo.at.to_string(), format!("{SHARED}.")] {
        passes(&mut agent, &echo, &by_number(&host), &[])?;
    }
    for host in [
        "198.51.100.10",
        "198.51.100.9.1",
        "98.51.100.9",
        "198.51.100.265",
        "3325256713",
    ] {
        is_cut(&mut agent, &echo, &by_number(host), "\r\n\r\n", &[])?;
    }
    suite.remove("sharing")
}

fn others(suite: &mut Suite) -> Result<()> {
    let echo = Echo::start()?;
    let mut agent = asked(suite, &echo, "enforce", &[])?;
    for other in [
        "SSH-2.0-x\r\nevil.example",
        "{\"host\": \"evil.example\"}",
        "EHLO evil.example\r\n",
    ] {
        passes(&mut agent, &echo, &text(other), &[])?;
        passes(&mut agent, &echo, &text(other), &[1, 3, 9])?;
    }
    suite.remove("sharing")
}

fn both(suite: &mut Suite) -> Result<()> {
    let echo = Echo::start()?;
    let rules = [
        ("allow", SHARED),
        ("deny", "*.evil.example"),
        ("deny", "no.ok.example"),
    ];
    let mut agent = asked(suite, &echo, "enforce", &rules)?;
    // The address is allowed by itself; names count that are denied.
    passes(&mut agent, &echo, &hello("any.example"), &[])?;
    is_cut(
        &mut agent,
        &echo,
        &hello("a.evil.example"),
        "a.evil.example",
        &[],
    )?;
    is_cut(
        &mut agent,
        &echo,
        &hello("no.ok.example"),
        "no.ok.example",
        &[],
    )?;
    passes(&mut agent, &echo, &hello("a.ok.example"), &[])?;
    // Another policy: what begins under it is decided by it.
    let mut other = asked(suite, &echo, "enforce", &[])?;
    is_cut(&mut other, &echo, &hello("any.example"), "any.example", &[])?;
    passes(&mut agent, &echo, &hello("api.example"), &[])?;
    suite.remove("sharing")
}

fn observed(suite: &mut Suite) -> Result<()> {
    let echo = Echo::start()?;
    let mut agent = asked(suite, &echo, "observe", &[])?;
    passes(&mut agent, &echo, &hello("evil.example"), &[])?;
    told(suite, &agent, &json!("evil.example"), "deny")?;
    suite.remove("sharing")
}

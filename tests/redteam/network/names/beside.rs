//! Another run, beside the one that tries: what it was given, and who it is.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};

use agentguard_tests::binary;
use agentguard_tests::manifest::Manifest;
use anyhow::{Context as _, Result, ensure};
use nix::libc::{self, SOCK_DGRAM, SOCK_STREAM};
use serde_json::json;

use super::given::{unasked, unnamed};
use super::questions::below;
use super::{
    Family, Ground, RESOLVER_PORT, asking_socket, listed, look, question, reach_to, received,
    received_framed, told,
};
use crate::attempt::{Attempt, write};
use crate::field::{Field, Side};
use crate::network::dns::{self, kind};
use crate::network::{nameserver, wire};
use crate::stage::AGENT;
use crate::sys::{self, Try, call};

/// The first argument that makes the program this.
pub const WORD: &str = "beside";
/// An agent that may ask for other names than the one that tries.
pub const AGENT_BESIDE: &str = "redteam-beside";
/// What it says when it has done what it was told.
const DONE: &str = "done";
/// A port to ask from.
const FROM: u16 = 21_954;

/// What that agent may do.
pub fn manifest() -> Manifest {
    Manifest::new(AGENT_BESIDE, "enforce")
        .rules("connect", "allow", &["*.beside.test".to_owned()])
        .rules("listen", "allow", &["192.0.2.0/24".to_owned()])
}

pub const ATTEMPTS: &[Attempt] = &[
    write("net-dns-given-to-another-run-v4", unasked)
        .prepare(|field| unnamed(field, Family::V4))
        .late(other_asks)
        .look(look),
    write("net-dns-given-to-another-run-v6", unasked)
        .prepare(|field| unnamed(field, Family::V6))
        .late(other_asks)
        .look(look),
    write("net-dns-given-to-ended-run-v4", unasked)
        .prepare(|field| unnamed(field, Family::V4))
        .late(other_ended)
        .look(look),
    write("net-dns-direct-as-another-run-v4", as_another)
        .prepare(lay)
        .late(other_asks_from)
        .look(look)
        .refused_as(libc::ECONNRESET),
];

/// For the denied side, another run of the agent asks and goes there, and lives on.
fn other_asks(field: &Field) -> Result<()> {
    if !field.is_control() {
        // Held until the driver's end, which ends the run.
        std::mem::forget(reaching(field)?);
    }
    Ok(())
}

/// The same, and ends.
fn other_ended(field: &Field) -> Result<()> {
    if !field.is_control() {
        let mut run = reaching(field)?;
        drop(run.stdin.take());
        run.wait()?;
    }
    Ok(())
}

fn reaching(field: &Field) -> Result<Child> {
    let (server, to) = (field.noted_bytes("server"), field.noted_bytes("to"));
    start(field, AGENT, "reach", &[&server, &question(field), &to])
}

/// Where the question goes past the server, from the address that another run asked from.
fn lay(field: &Field) -> Result<()> {
    let (name, server): (&[&[u8]], _) = match field.side {
        Side::Allowed => (below(Side::Allowed), nameserver::address(true)),
        Side::Denied => (
            &[b"@", b"beside", b"test"],
            wire::v4([127, 0, 0, 1], RESOLVER_PORT),
        ),
    };
    let from = wire::with_port(&listed(Family::V4)?, FROM);
    let facts = json!({ "server": server, "from": from });
    Ground::asking(Family::V4, name).lay_with(field, nameserver::fresh_label(), facts)
}

fn other_asks_from(field: &Field) -> Result<()> {
    if field.is_control() {
        return Ok(());
    }
    let first = dns::query(&dns::dotted("first.beside.test"), kind::A);
    let (server, from) = (nameserver::address(true), field.noted_bytes("from"));
    let run = start(field, AGENT_BESIDE, "ask-from", &[&server, &first, &from])?;
    std::mem::forget(run);
    Ok(())
}

/// Speaks to the resolver from where another run did.
fn as_another(field: &Field) -> Try {
    let socket = from(&field.noted_bytes("from"))?;
    wire::connect(&socket, &field.noted_bytes("server"))?;
    let message = dns::framed(&question(field));
    call!(SYS_write, &socket, &message[..], message.len())?;
    told(&received_framed(&socket)?)
}

/// A connection from this address, which leaves nothing behind when it is closed.
fn from(address: &[u8]) -> Try<std::os::fd::OwnedFd> {
    let socket = asking_socket(address, SOCK_STREAM)?;
    wire::set_number(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    let linger = sys::halves(&[1, 0]);
    wire::set(&socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)?;
    wire::bind(&socket, address)?;
    Ok(socket)
}

/// Starts a run that does this, and lives on until its input ends. On an emulated processor
/// beside another machine a question can run out of time: that is asked again.
fn start(field: &Field, agent: &str, what: &str, bytes: &[&[u8]]) -> Result<Child> {
    const TRIES: usize = 3;
    for _ in 1..TRIES {
        if let Ok(child) = start_once(field, agent, what, bytes) {
            return Ok(child);
        }
    }
    start_once(field, agent, what, bytes)
}

fn start_once(field: &Field, agent: &str, what: &str, bytes: &[&[u8]]) -> Result<Child> {
    let hex =
        |bytes: &&[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let uid = field.user.uid();
    let mut child = Command::new(binary::agentguard()?)
        .args(["run", "--agent", agent, "--"])
        .arg(std::env::current_exe()?)
        .args([WORD, what])
        .args(bytes.iter().map(hex))
        .env(
            "AGENTGUARD_SOCKET",
            field.root.join("runtime/agentguard.sock"),
        )
        .uid(uid)
        .gid(uid)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start another run")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    ensure!(
        line.trim_end() == DONE,
        "the other run failed: {what} {line}"
    );
    Ok(child)
}

/// Does what it was told, and stays until its input ends.
pub fn main(arguments: &[String]) -> Result<ExitCode> {
    let [what, rest @ ..] = arguments else {
        anyhow::bail!("{WORD}: WHAT BYTES…");
    };
    let bytes = rest.iter().map(from_hex).collect::<Result<Vec<_>>>()?;
    let [server, message, address] = &bytes[..] else {
        anyhow::bail!("{WORD}: SERVER MESSAGE ADDRESS");
    };
    if what == "reach" {
        let socket = asking_socket(server, SOCK_DGRAM)?;
        wire::send_bytes_to(&socket, message, server, 0)?;
        told(&received(&socket)?)?;
        reach_to(address)?;
    } else {
        let socket = from(address)?;
        wire::connect(&socket, server)?;
        let message = dns::framed(message);
        call!(SYS_write, &socket, &message[..], message.len())?;
        told(&received_framed(&socket)?)?;
    }
    println!("{DONE}");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(ExitCode::SUCCESS)
}

fn from_hex(hex: &String) -> Result<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

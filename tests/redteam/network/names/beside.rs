//! Another run, beside the one that tries: what it was given.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};

use agentguard_tests::binary;
use anyhow::{Context as _, Result, ensure};
use nix::libc::SOCK_DGRAM;

use super::given::{unasked, unnamed};
use super::{Family, asking_socket, look, question, reach_to, received, told};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::network::wire;
use crate::stage::AGENT;

/// The first argument that makes the program this.
pub const WORD: &str = "beside";
/// What it says when it has done what it was told.
const DONE: &str = "done";

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
    start(field, &server, &question(field), &to)
}

/// Starts a run that asks and goes there, and lives on until its input ends.
fn start(field: &Field, server: &[u8], message: &[u8], to: &[u8]) -> Result<Child> {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let uid = field.user.uid();
    let mut child = Command::new(binary::agentguard()?)
        .args(["run", "--agent", AGENT, "--"])
        .arg(std::env::current_exe()?)
        .arg(WORD)
        .args([server, message, to].map(hex))
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
    ensure!(line.trim_end() == DONE, "the other run failed: {line}");
    Ok(child)
}

/// Asks, goes there, and stays until its input ends.
pub fn main(arguments: &[String]) -> Result<ExitCode> {
    let bytes = arguments.iter().map(from_hex).collect::<Result<Vec<_>>>()?;
    let [server, message, to] = &bytes[..] else {
        anyhow::bail!("{WORD}: SERVER MESSAGE ADDRESS");
    };
    let socket = asking_socket(server, SOCK_DGRAM)?;
    wire::send_bytes_to(&socket, message, server, 0)?;
    told(&received(&socket)?)?;
    reach_to(to)?;
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

//! What sending costs, in each state: as an agent with few and many rules about addresses or
//! names, in a unit of systemd with as many addresses, and under nftables with a set of the same
//! size for one cgroup.

use std::fmt::Write as _;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use agentguard_tests::agent::Agent;
use agentguard_tests::binary;
use agentguard_tests::daemon::Daemon;
use agentguard_tests::manifest::Manifest;
use anyhow::{Context as _, Result, ensure};

use crate::machine::Bench;
use crate::measure::NETWORK;
use crate::others::fed;

/// Rules, in the two sizes.
pub const SIZES: [(&str, usize); 2] = [("few", 10), ("many", 10_000)];
/// Makes the text of a rule from its number.
pub type Rule = fn(usize) -> String;
/// What most rules are about.
pub const KINDS: [(&str, Rule); 2] = [("addresses", network), ("names", name)];
/// The argument that asks whether systemd refuses.
pub const REFUSED: &str = "refused";
/// The cgroup that nftables is about.
const CGROUP: &str = "agentguard-bench";

/// Measures all states; prints one JSON object.
///
/// # Errors
/// A state cannot be made, or a measurement fails.
pub fn main() -> Result<()> {
    let mut bench = Bench::make(None)?;
    bench.measure("none", Command::new("env"), NETWORK)?;
    bench.as_agent()?;
    bench.measure("none_again", Command::new("env"), NETWORK)?;
    for (size, rules) in SIZES {
        checked(unit(rules), &bench.this)?;
        bench.measure(&format!("systemd_{size}"), unit(rules), NETWORK)?;
    }
    // Last: what it tracks connections with stays in the kernel.
    let cgroup = cgroup()?;
    for (size, rules) in SIZES {
        nftables(rules, &bench.own_net())?;
        bench.measure(&format!("nftables_{size}"), Command::new("env"), NETWORK)?;
        bench.measure(&format!("nftables_in_{size}"), within(&cgroup), NETWORK)?;
    }
    bench.print()
}

impl Bench {
    /// As agents whose rules are about addresses, or most of them about names.
    fn as_agent(&mut self) -> Result<()> {
        for (kind, rule) in KINDS {
            let mut daemon = Daemon::configure(binary::agentguard()?, &self.places, &[])?;
            for (size, rules) in SIZES {
                let file = self.places.at(&format!("agents/bench-{size}.yaml"));
                fs::write(file, self.manifest(size, rules, rule).text())?;
            }
            daemon.start()?;
            let start = |size: &str| {
                let agent = format!("bench-{size}");
                daemon.command(&["run", "--agent", &agent, "--"])
            };
            let mut waiting = start("few");
            waiting.args([&self.this, "wait"]);
            let live = Agent::start("a live agent", waiting)?;
            self.measure(&format!("live_{kind}"), Command::new("env"), NETWORK)?;
            live.end()?;
            for (size, _) in SIZES {
                self.measure(&format!("{kind}_{size}"), start(size), NETWORK)?;
            }
            daemon.unload()?;
            self.unloaded()?;
        }
        Ok(())
    }

    fn manifest(&self, size: &str, rules: usize, rule: Rule) -> Manifest {
        let own = self.own_net();
        let listen = &own[own.len().saturating_sub(1)..];
        manifest(size, &own, rules, rule).rules("listen", "allow", listen)
    }
}

/// An agent that may connect to `own`, with so many rules.
pub fn manifest(size: &str, own: &[String], rules: usize, rule: Rule) -> Manifest {
    let others = (own.len()..rules).map(rule);
    let connect: Vec<String> = own.iter().cloned().chain(others).collect();
    Manifest::new(&format!("bench-{size}"), "enforce").rules("connect", "allow", &connect)
}

fn network(number: usize) -> String {
    format!("10.{}.{}.0/24:443/tcp", number / 250, number % 250)
}

fn name(number: usize) -> String {
    match number % 2 {
        0 => format!("host-{number}.service-{}.example:443", number % 97),
        _ => format!("*.zone-{number}.example"),
    }
}

/// The beginning of a command line in a unit that systemd lets send to and receive from the
/// loopback address and so many others; of ports it knows nothing.
fn unit(rules: usize) -> Command {
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--wait", "--pipe", "--collect"]);
    command.args(["-p", "IPAddressDeny=any"]);
    let networks: Vec<String> = (1..rules)
        .map(|number| format!("10.{}.{}.0/24", number / 250, number % 250))
        .collect();
    command.args(["-p", "IPAddressAllow=127.0.0.1"]);
    // One argument may have 128 KiB.
    for some in networks.chunks(1_000) {
        command.arg("-p");
        command.arg(format!("IPAddressAllow={}", some.join(" ")));
    }
    command
}

/// Makes sure that behind `command` other addresses are refused: systemd only warns when it
/// cannot do that.
fn checked(mut command: Command, this: &str) -> Result<()> {
    let status = command.args([this, REFUSED]).status()?;
    ensure!(status.success(), "systemd refuses nothing: {status}");
    Ok(())
}

/// Fails where a datagram to an address that nothing allows can be sent.
///
/// # Errors
/// It can be, or there is no socket.
pub fn refused() -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let sent = socket.send_to(&[0], "127.0.0.2:9");
    let error = sent.err().and_then(|error| error.raw_os_error());
    ensure!(error == Some(nix::libc::EPERM), "sending gave {error:?}");
    Ok(())
}

/// A cgroup of its own, of cgroup v2.
fn cgroup() -> Result<String> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let root = mounts
        .lines()
        .find_map(|line| line.split_once(" cgroup2 ")?.0.split(' ').nth(1))
        .context("no cgroup2 is mounted")?;
    let path = format!("{root}/{CGROUP}");
    fs::create_dir_all(&path).with_context(|| path.clone())?;
    Ok(path)
}

/// The beginning of a command line in the cgroup.
fn within(cgroup: &str) -> Command {
    let mut command = Command::new("sh");
    let enter = format!("echo $$ > {cgroup}/cgroup.procs && exec \"$@\"");
    command.args(["-c", &enter, "sh"]);
    command
}

/// From the cgroup, only to these and the other addresses of a set.
fn nftables(rules: usize, own: &[String]) -> Result<()> {
    ensure!(
        Path::new("/usr/sbin/nft").exists(),
        "nftables is not installed"
    );
    let ports: Vec<&str> = own
        .iter()
        .filter(|rule| rule.starts_with("127."))
        .filter_map(|rule| rule.split(':').nth(1)?.split('/').next())
        .collect();
    let mut set = String::new();
    for port in &ports {
        write!(set, "127.0.0.1 . {port}, ")?;
    }
    for number in ports.len()..rules {
        let (a, b) = (number / 250, number % 250);
        write!(set, "10.{a}.{b}.0/24 . 443, ")?;
    }
    let text = format!(
        "flush ruleset
table inet bench {{
  set allowed {{
    type ipv4_addr . inet_service
    flags interval
    elements = {{ {} }}
  }}
  chain check {{
    ip daddr . th dport @allowed accept
    ct state established accept
    counter reject
  }}
  chain out {{
    type filter hook output priority 0; policy accept;
    socket cgroupv2 level 1 \"{CGROUP}\" jump check
  }}
}}
",
        set.trim_end_matches(", ")
    );
    fed("nft", &["-f", "-"], &text)
}

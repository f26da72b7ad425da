//! What can be measured in real time on any host: the decision function, how long
//! a large policy takes to be in force, how much memory it all takes, and what sending costs.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use agentguard::kernel::btf::{Btf, VMLINUX};
use agentguard::kernel::fields;
use agentguard::kernel::load::PINNED_MAPS;
use agentguard_tests::binary;
use agentguard_tests::daemon::Daemon;
use agentguard_tests::places::Places;
use agentguard_tests::suite;
use anyhow::{Context as _, Result, ensure};
use aya::EbpfLoader;
use aya::maps::MapData;
use aya::programs::SocketFilter;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Map, Value, json};

use crate::decide;
use crate::policy::{ANYWHERE, FEW, MANY, POLICIES, Policy};
use crate::stream;

/// Where the measured `connect` goes.
const TO: ([u8; 4], u16) = ([127, 0, 0, 1], 7777);
/// Times that a policy is put in force; odd, so that the last one has all rules.
const RELOADS: usize = 7;

/// Measures; prints one JSON object.
///
/// # Errors
/// The daemon does not start, or a program cannot be loaded.
pub fn main(object: &Path) -> Result<()> {
    let places = Places::make()?;
    let binary = binary::agentguard()?;
    let accepted: &[&str] = if suite::missing(&binary)?.is_some() {
        &suite::MAY_MISS
    } else {
        &[]
    };
    let mut daemon = Daemon::configure(binary, &places, accepted)?;
    write_policy(&places, FEW)?;
    write_policy(&places, ANYWHERE)?;
    write_policy(&places, with_rules(FEW.rules))?;
    daemon.start()?;
    let small = memory(&daemon)?;
    let few = reload(&daemon, &places, FEW.rules)?;
    let many = reload(&daemon, &places, MANY.rules)?;
    let large = memory(&daemon)?;
    let decide = decisions(&daemon, &places, object)?;
    daemon.unload()?;
    let sending = stream::main(&mut daemon, &places)?;
    let kernel = nix::sys::utsname::uname()?;
    let results = json!({
        "kernel": kernel.release().to_string_lossy(),
        "reload_ms": { "few": few, "many": many },
        "memory_kib": { "few": small, "many": large },
        "decide_ns": decide,
        "sending": sending,
    });
    println!("{results}");
    Ok(())
}

/// The large agent, with another number of rules.
fn with_rules(rules: usize) -> Policy {
    Policy { rules, ..MANY }
}

fn write_policy(places: &Places, policy: Policy) -> Result<()> {
    let (ip, port) = (TO.0.map(|byte| byte.to_string()).join("."), TO.1);
    let own_net = [format!("{ip}:{port}/udp")];
    let manifest = policy.manifest(&places.at("tree"), &own_net);
    let path = places.at(&format!("agents/{}.yaml", policy.agent()));
    fs::write(&path, manifest.text()).with_context(|| path)
}

/// Milliseconds from the command to the policy in force: each time the large agent
/// gets a policy of about `rules` rules that differs from the last.
fn reload(daemon: &Daemon, places: &Places, rules: usize) -> Result<Value> {
    let mut times = Vec::new();
    for turn in (0..RELOADS).rev() {
        write_policy(places, with_rules(rules - turn % 2))?;
        let start = Instant::now();
        daemon.cli_ends(&["policy", "reload"], 0)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(json!({ "min": times[0], "median": times[RELOADS / 2] }))
}

/// Resident memory of the daemon, its peak, and the kernel's memory for the maps, in KiB.
fn memory(daemon: &Daemon) -> Result<Value> {
    let pid = daemon.pid().context("no daemon runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| -> Result<u64> {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("no {name}"))
    };
    let mut maps = Map::new();
    let mut total = 0;
    for name in PINNED_MAPS {
        let map = MapData::from_pin(daemon.pins.join("maps").join(name))
            .with_context(|| format!("cannot open map {name}"))?;
        let fd = map.fd().as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
        let locked = info.lines().find_map(|line| line.strip_prefix("memlock:"));
        let bytes: u64 = locked.context("no memlock")?.trim().parse()?;
        total += bytes;
        maps.insert(name.to_owned(), json!(bytes / 1024));
    }
    Ok(json!({
        "resident": kib("VmRSS:")?, "anonymous": kib("RssAnon:")?, "peak": kib("VmHWM:")?, "maps": total / 1024, "by_map": maps,
    }))
}

/// The decision programs, run untagged and by each agent.
fn decisions(daemon: &Daemon, places: &Places, object: &Path) -> Result<Value> {
    let programs = match load(daemon, object)? {
        Ok(programs) => programs,
        Err(why) => return Ok(json!({ "refused": why })),
    };
    // Six names deep.
    let directory = places.fresh("tree/deep/directory")?;
    let mut words = vec![decide::FLAG.to_owned()];
    words.extend(
        programs
            .iter()
            .map(|(name, fd)| format!("{name}={}", fd.as_raw_fd())),
    );
    let this = std::env::current_exe()?;
    let run = |mut command: Command| -> Result<Value> {
        let output = command
            .arg(&this)
            .args(&words)
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(
            output.status.success(),
            "the decision programs: {}",
            output.status
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let mut results = Map::new();
    results.insert("untagged".to_owned(), run(Command::new("env"))?);
    for policy in POLICIES {
        let command = daemon.command(&["run", "--agent", &policy.agent(), "--"]);
        results.insert(format!("tagged_{}", policy.name), run(command)?);
    }
    Ok(Value::Object(results))
}

/// Loads the programs onto the daemon's maps; their descriptors survive `exec`. Older
/// kernels let programs that can be repeated do less: what they say then.
fn load(daemon: &Daemon, object: &Path) -> Result<Result<Vec<(String, OwnedFd)>, String>> {
    let types = Btf::read(Path::new(VMLINUX))?;
    let code = fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    let code = fields::resolve(&code, &types)?;
    let address = u32::from_be_bytes(TO.0);
    let port = u32::from(TO.1);
    let mut loader = EbpfLoader::new();
    loader.btf(None).allow_unsupported_maps();
    loader.override_global("TO_ADDRESS", &address, true);
    loader.override_global("TO_PORT", &port, true);
    for name in PINNED_MAPS {
        loader.map_pin_path(name, daemon.pins.join("maps").join(name));
    }
    let mut object = loader
        .load(&code)
        .with_context(|| format!("cannot load {}", object.display()))?;
    let mut fds = Vec::new();
    for (name, program) in object.programs_mut() {
        let program: &mut SocketFilter = program.try_into()?;
        if let Err(error) = program.load() {
            let said = error.to_string();
            return match said.lines().find(|line| line.contains("cannot use helper")) {
                Some(why) => Ok(Err(why.to_owned())),
                None => Err(error).with_context(|| format!("the kernel refuses {name}")),
            };
        }
        let fd = program.fd()?.as_fd().try_clone_to_owned()?;
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        fds.push((name.to_owned(), fd));
    }
    Ok(Ok(fds))
}

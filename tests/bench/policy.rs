//! Policies of a given size.

use agentguard_tests::manifest::Manifest;

/// Of ten rules, so many are about addresses.
const NET_OF_TEN: usize = 2;

/// Words that names are made of.
const WORDS: [&str; 32] = [
    "accounts", "analytics", "archive", "assets", "audit", "backend", "batch", "billing", "build",
    "cache", "catalog", "checkout", "cluster", "config", "console", "contracts", "dashboard",
    "events", "export", "finance", "frontend", "gateway", "images", "inbox", "invoices", "jobs",
    "journal", "ledger", "metrics", "mobile", "orders", "payments",
];

/// The name of the agent with so many rules.
#[must_use]
pub fn name(rules: usize) -> String {
    format!("bench-{rules}")
}

/// An agent with so many rules, of which the first allow what is measured.
///
/// Four fifths are about paths: of ten of them six are directories with everything
/// below, three are files, and one has a `*` in a name. The others are addresses and
/// networks with ports.
#[must_use]
pub fn manifest(name: &str, rules: usize, tree: &str, own_net: &[String]) -> Manifest {
    let net = (rules * NET_OF_TEN / 10).max(own_net.len());
    let mut paths = vec![format!("{tree}/**")];
    paths.extend((1..rules - net).map(path));
    let mut addresses = own_net.to_vec();
    addresses.extend((own_net.len()..net).map(address));
    Manifest::new(name, "enforce")
        .rules("write", "allow", &paths)
        .rules("connect", "allow", &addresses)
}

fn path(number: usize) -> String {
    let word = |position: u32| WORDS[number / 32_usize.pow(position) % 32];
    let (a, b, c) = (word(0), word(1), word(2));
    match number % 10 {
        0..6 => format!("/srv/{a}/{b}-{number}/{c}/**"),
        6..8 => format!("/etc/{a}-{b}/{c}-{number}.conf"),
        8 => format!("/srv/{a}/{b}-{number}/{c}.json"),
        _ => format!("/var/log/{a}/{b}-{number}/*.log"),
    }
}

fn address(number: usize) -> String {
    let (a, b) = (number / 250, number % 250);
    match number % 3 {
        0 => format!("10.{a}.{b}.0/24:443/tcp"),
        1 => format!("10.{a}.{b}.17:5432"),
        _ => format!("[fd00:{a:x}:{b:x}::]/48:8000-8999/tcp"),
    }
}

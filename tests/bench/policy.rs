//! Policies of a given size.

use agentguard_tests::manifest::Manifest;

/// A policy to measure with, and the agent that has it.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// What tells it from the others.
    pub name: &'static str,
    /// All its rules.
    pub rules: usize,
    /// How many of them are about names anywhere (`**/…`).
    pub anywhere: usize,
}

/// Few rules.
pub const FEW: Policy = policy("few", 10, 0);
/// Few rules, and some of them about names anywhere: the dearest to walk.
pub const ANYWHERE: Policy = policy("anywhere", 10, 2);
/// Many rules.
pub const MANY: Policy = policy("many", 10_000, 0);
/// As many as AppArmor's parser takes: for ten times more, 2 GB of memory are too little.
pub const THOUSAND: Policy = policy("thousand", 1_000, 0);
/// All that AgentGuard is measured with.
pub const POLICIES: [Policy; 3] = [FEW, ANYWHERE, MANY];

const fn policy(name: &'static str, rules: usize, anywhere: usize) -> Policy {
    Policy {
        name,
        rules,
        anywhere,
    }
}

/// Of ten rules, so many are about addresses.
const NET_OF_TEN: usize = 2;

/// Words that names are made of.
const WORDS: [&str; 32] = [
    "accounts",
    "analytics",
    "archive",
    "assets",
    "audit",
    "backend",
    "batch",
    "billing",
    "build",
    "cache",
    "catalog",
    "checkout",
    "cluster",
    "config",
    "console",
    "contracts",
    "dashboard",
    "events",
    "export",
    "finance",
    "frontend",
    "gateway",
    "images",
    "inbox",
    "invoices",
    "jobs",
    "journal",
    "ledger",
    "metrics",
    "mobile",
    "orders",
    "payments",
];

impl Policy {
    /// The agent's name.
    #[must_use]
    pub fn agent(&self) -> String {
        format!("bench-{}", self.name)
    }

    /// The manifest. The first rules allow what is measured: to write below `tree`, and
    /// to connect to `own_net`.
    ///
    /// Four fifths are about paths: of ten of them six are directories with everything
    /// below, three are files, and one has a `*` in a name. The others are addresses and
    /// networks with ports.
    #[must_use]
    pub fn manifest(&self, tree: &str, own_net: &[String]) -> Manifest {
        let net = self.net(own_net.len());
        let mut addresses = own_net.to_vec();
        addresses.extend((own_net.len()..net).map(address));
        let anywhere: Vec<String> = (0..self.anywhere).map(anywhere).collect();
        Manifest::new(&self.agent(), "enforce")
            .rules("write", "allow", &self.paths(tree, own_net.len()))
            .rules("connect", "allow", &addresses)
            // What measures established traffic has both ends.
            .rules(
                "listen",
                "allow",
                &own_net[own_net.len().saturating_sub(1)..],
            )
            .rules("read", "deny", &anywhere)
    }

    /// The paths that it allows to write, of which the first is below `tree`.
    #[must_use]
    pub fn paths(&self, tree: &str, own_net: usize) -> Vec<String> {
        let others = self.rules - self.net(own_net) - self.anywhere;
        let mut paths = vec![format!("{tree}/**")];
        paths.extend((1..others).map(path));
        paths
    }

    /// How many rules are about addresses, when so many are needed.
    fn net(&self, own: usize) -> usize {
        (self.rules * NET_OF_TEN / 10).max(own)
    }
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

fn anywhere(number: usize) -> String {
    match number % 2 {
        0 => format!("**/.secret-{number}/**"),
        _ => format!("**/*.key-{number}"),
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

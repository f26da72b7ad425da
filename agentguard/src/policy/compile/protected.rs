//! The built-in protected set: what no agent touches unless its manifest names
//! it. Credentials and keys can be lifted by an allow rule that spells them out;
//! AgentGuard's own files cannot be lifted at all.

use std::path::Path;
use std::sync::OnceLock;

use agentguard_common::verb::{Verb, Verbs};

use super::super::manifest::Component;
use super::super::path::PathPattern;

/// One protection.
#[derive(Clone, Debug)]
pub struct Protection {
    /// Name in events: `built-in:NAME`.
    pub name: &'static str,
    /// Pattern as written here.
    pub text: String,
    /// Pattern.
    pub pattern: Vec<Component>,
    /// Verbs denied.
    pub verbs: Verbs,
    /// Number of literal names from which on an explicit allow rule lifts it.
    pub lifted_at: Option<usize>,
}

/// Reading and every change.
const ALL: Verbs = Verbs::of(Verb::Read)
    .and(Verb::Write)
    .and(Verb::Create)
    .and(Verb::Delete)
    .and(Verb::Attributes);
/// Every change; reading is harmless.
const CHANGES: Verbs = Verbs::of(Verb::Write)
    .and(Verb::Create)
    .and(Verb::Delete)
    .and(Verb::Attributes);

/// Below a home directory: name, path.
const IN_HOMES: [(&str, &str); 17] = [
    // Private keys, and authorized_keys, which is a way back in.
    ("ssh", ".ssh"),
    // Signing and decryption keys.
    ("gpg", ".gnupg"),
    // Long-lived cloud credentials.
    ("aws", ".aws"),
    ("azure", ".azure"),
    ("gcloud", ".config/gcloud"),
    // Cluster credentials.
    ("kube", ".kube"),
    // Registry credentials.
    ("docker", ".docker/config.json"),
    ("containers", ".config/containers/auth.json"),
    // Publishing tokens: an agent that has one can ship code to others.
    ("npm", ".npmrc"),
    ("pypi", ".pypirc"),
    ("cargo", ".cargo/credentials.toml"),
    // Passwords in clear text.
    ("netrc", ".netrc"),
    ("git", ".git-credentials"),
    ("postgres", ".pgpass"),
    // Session cookies and saved passwords.
    ("firefox", ".mozilla"),
    ("chrome", ".config/google-chrome"),
    ("chromium", ".config/chromium"),
];

/// On the host: name, pattern.
const ON_HOST: [(&str, &str); 9] = [
    // The kernel's memory, and so everybody's.
    ("kernel-memory", "/proc/kcore"),
    // Password hashes.
    ("shadow", "/etc/shadow"),
    ("shadow", "/etc/shadow-"),
    ("gshadow", "/etc/gshadow"),
    ("gshadow", "/etc/gshadow-"),
    // Keys with which the host proves itself.
    ("ssh-host-keys", "/etc/ssh/ssh_host_*_key"),
    ("tls-keys", "/etc/ssl/private/**"),
    // Cluster and root credentials.
    ("kubernetes", "/etc/kubernetes/**"),
    ("sudoers", "/etc/sudoers.d/**"),
];

/// AgentGuard's own: name, pattern, verbs.
const OWN: [(&str, &str, Verbs); 6] = [
    ("agentguard-state", "/var/lib/agentguard", ALL),
    ("agentguard-state", "/var/lib/agentguard/**", ALL),
    ("agentguard-config", "/etc/agentguard/**", CHANGES),
    ("agentguard-runtime", "/run/agentguard/**", CHANGES),
    ("agentguard-binary", "/usr/bin/agentguard", CHANGES),
    (
        "agentguard-unit",
        "/usr/lib/systemd/system/agentguard.service",
        CHANGES,
    ),
];

/// The protections, in the order of their numbers.
pub fn protections() -> &'static [Protection] {
    static PROTECTIONS: OnceLock<Vec<Protection>> = OnceLock::new();
    PROTECTIONS.get_or_init(|| {
        let mut all = Vec::new();
        for (name, path) in IN_HOMES {
            for home in ["/root", "/home/*"] {
                add(&mut all, name, &format!("{home}/{path}"), ALL, true);
                // A directory is protected with everything below it.
                add(&mut all, name, &format!("{home}/{path}/**"), ALL, true);
            }
        }
        for (name, pattern) in ON_HOST {
            add(&mut all, name, pattern, ALL, true);
        }
        for (name, pattern, verbs) in OWN {
            add(&mut all, name, pattern, verbs, false);
        }
        all
    })
}

/// Protections of a daemon's own places, for one that is configured to other directories
/// than the usual ones.
#[must_use]
pub fn own_places(state: &Path, agents: &Path, runtime: &Path, pins: &Path) -> Vec<Protection> {
    let mut all = Vec::new();
    for (name, place, verbs) in [
        ("agentguard-state", state, ALL),
        ("agentguard-config", agents, CHANGES),
        ("agentguard-runtime", runtime, CHANGES),
        ("agentguard-pins", pins, CHANGES),
    ] {
        let text = format!("{}/**", place.display());
        if OWN.iter().all(|(_, usual, _)| *usual != text) {
            add(&mut all, name, &text, verbs, false);
            if verbs == ALL {
                add(&mut all, name, &place.display().to_string(), verbs, false);
            }
        }
    }
    all
}

fn add(all: &mut Vec<Protection>, name: &'static str, text: &str, verbs: Verbs, liftable: bool) {
    // Constant patterns; a test holds that every one of them parses.
    let Ok(pattern) = PathPattern::parse(text) else {
        return;
    };
    let pattern = pattern.components().to_vec();
    let literal = pattern
        .iter()
        .filter(|part| !matches!(part, Component::AnyDepth))
        .count();
    all.push(Protection {
        name,
        text: text.to_owned(),
        pattern,
        verbs,
        lifted_at: liftable.then_some(literal),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protection_parses() {
        let expected = IN_HOMES.len() * 4 + ON_HOST.len() + OWN.len();
        assert_eq!(protections().len(), expected);
    }
}

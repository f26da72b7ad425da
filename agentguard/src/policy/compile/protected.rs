//! The built-in protected set: what no agent touches unless its manifest names
//! it. Credentials and keys can be lifted by an allow rule that spells them out, what the
//! privileges `persistence` and `handoff` are about by these as well; AgentGuard's own files
//! cannot be lifted at all.

mod handoff;
mod persistence;
mod secrets;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use agentguard_common::verb::{Verb, Verbs};

use super::super::manifest::{Component, Manifest, Privilege};
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
    /// The privilege that lifts it as a whole.
    pub lifted_by: Option<Privilege>,
}

impl Protection {
    /// Whether a manifest has the privilege that lifts it.
    #[must_use]
    pub fn is_lifted_for(&self, manifest: &Manifest) -> bool {
        let privileges = &manifest.permissions.privileges;
        self.lifted_by
            .is_some_and(|by| privileges.iter().any(|privilege| privilege.value == by))
    }
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

/// Reaching a service; what its socket's file is, other verbs say.
const REACH: Verbs = Verbs::of(Verb::Connect);

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

/// What all the entries of a table have in common.
#[derive(Clone, Copy)]
struct Kind {
    verbs: Verbs,
    /// Whether an allow rule that spells an entry out lifts it.
    liftable: bool,
    by: Option<Privilege>,
}

/// Credentials, keys and other secrets.
const SECRETS: Kind = Kind {
    verbs: ALL,
    liftable: true,
    by: None,
};
const PERSISTENCE: Kind = Kind {
    verbs: CHANGES,
    liftable: true,
    by: Some(Privilege::Persistence),
};
const HANDOFF: Kind = Kind {
    verbs: REACH,
    liftable: true,
    by: Some(Privilege::Handoff),
};

/// Ends an entry that stands for a directory and everything below it.
const TREE: &str = "/**";

impl Kind {
    const fn own(verbs: Verbs) -> Self {
        Self {
            verbs,
            liftable: false,
            by: None,
        }
    }

    /// Adds an entry. Every secret in a home may be a directory.
    fn add(self, all: &mut Vec<Protection>, name: &'static str, place: &str) {
        match place.strip_suffix(TREE) {
            Some(directory) => add_tree(all, name, directory, self),
            None if self.by.is_none() => add_tree(all, name, place, self),
            None => add(all, name, place, self),
        }
    }
}

type Entry = (&'static str, &'static str, &'static str);

/// The tables of what is below home directories.
const HOME_TABLES: [(&[Entry], Kind); 3] = [
    (&secrets::IN_HOMES, SECRETS),
    (&persistence::IN_HOMES, PERSISTENCE),
    (&handoff::IN_HOMES, HANDOFF),
];

/// The protections, in the order of their numbers.
pub fn protections() -> &'static [Protection] {
    static PROTECTIONS: OnceLock<Vec<Protection>> = OnceLock::new();
    PROTECTIONS.get_or_init(|| {
        let mut all = Vec::new();
        for (table, kind) in HOME_TABLES {
            for (name, path, _) in table {
                for home in USUAL_HOMES {
                    kind.add(&mut all, name, &format!("{home}/{path}"));
                }
            }
        }
        for (name, pattern, _) in secrets::ON_HOST {
            add(&mut all, name, pattern, SECRETS);
        }
        for (name, place, _) in persistence::ON_HOST {
            PERSISTENCE.add(&mut all, name, place);
        }
        for (name, place, _) in handoff::ON_HOST {
            HANDOFF.add(&mut all, name, place);
        }
        for (name, pattern, verbs) in OWN {
            add(&mut all, name, pattern, Kind::own(verbs));
        }
        all
    })
}

/// Where home directories usually are.
const USUAL_HOMES: [&str; 2] = ["/root", "/home/*"];

/// Protections in home directories that are not at the usual places, and of what is in any
/// home by a symbolic link.
#[must_use]
pub fn in_homes(homes: &[PathBuf]) -> Vec<Protection> {
    let mut all = Vec::new();
    for home in homes {
        let is_usual = home == Path::new("/root") || home.parent() == Some(Path::new("/home"));
        for (table, kind) in HOME_TABLES {
            for (name, path, _) in table {
                let (path, below) = match path.strip_suffix(TREE) {
                    Some(path) => (path, TREE),
                    None => (*path, ""),
                };
                let place = home.join(path);
                if !is_usual {
                    kind.add(&mut all, name, &format!("{}{below}", place.display()));
                }
                if let Ok(real) = place.canonicalize()
                    && real != place
                {
                    kind.add(&mut all, name, &format!("{}{below}", real.display()));
                }
            }
        }
    }
    all
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
            add(&mut all, name, &text, Kind::own(verbs));
            if verbs == ALL {
                let place = place.display().to_string();
                add(&mut all, name, &place, Kind::own(verbs));
            }
        }
    }
    // What the kernel lets root change of a process, such as whether it is the first to be
    // killed when memory runs out.
    let process = format!("/proc/{}/**", std::process::id());
    add(&mut all, "agentguard-process", &process, Kind::own(CHANGES));
    all
}

/// Where the daemon's own API is, for a protection of its runtime directory: agents may ask
/// there about themselves, and the daemon knows who asks.
#[must_use]
pub fn api_of(protection: &Protection) -> Option<(String, Vec<Component>)> {
    let directory = protection.text.strip_suffix("/**")?;
    if protection.name != "agentguard-runtime" {
        return None;
    }
    let text = format!("{directory}/agentguard.sock");
    let pattern = PathPattern::parse(&text).ok()?;
    Some((text, pattern.components().to_vec()))
}

/// A file, or a directory with everything below it.
fn add_tree(all: &mut Vec<Protection>, name: &'static str, place: &str, kind: Kind) {
    add(all, name, place, kind);
    add(all, name, &format!("{place}/**"), kind);
}

fn add(all: &mut Vec<Protection>, name: &'static str, text: &str, kind: Kind) {
    // A test holds that every constant one parses; a home whose name is no pattern (it has
    // a `*`) is left to the rules.
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
        verbs: kind.verbs,
        lifted_at: kind.liftable.then_some(literal),
        lifted_by: kind.by,
    });
}

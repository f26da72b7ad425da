//! Entries under `enrol.match` to the tables by which the kernel finds out what a process
//! becomes: see `agentguard_common::matching`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use agentguard_common::identity::{PolicyRecord, policy_flag};
use agentguard_common::matching::{MATCHER, MatchRule, MatchSet, set};
use agentguard_common::verdict::Mode;

use super::super::diagnostic::{Diagnostic, Severity};
use super::super::manifest::{Component, ExecMatch, Manifest, PathPattern};
use super::super::path::GlobPattern;
use super::paths;
use super::rules::{Links, PathRule, RuleList};
use super::tables::{Builder, Full};
use crate::mounts::{self, MountTable};
use crate::users::Accounts;

/// Slices in slices that a unit may be in.
const SLICES: usize = 8;

/// An entry and whose it is.
struct Entry<'a> {
    agent: u32,
    lease_ns: u64,
    item: &'a ExecMatch,
}

/// The record of the matcher; none if no manifest matches anything.
pub fn compile(
    builder: &mut Builder,
    agents: &[(u32, Arc<Manifest>)],
    mounts: &MountTable,
    links: &mut Links,
    generation: u32,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Option<PolicyRecord>, Full> {
    let entries = entries(agents);
    if entries.is_empty() {
        return Ok(None);
    }
    let accounts = Accounts::default();
    let mut list = RuleList::empty();
    let mut any = [MatchSet::default(); 3];
    let mut users: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in &entries {
        let number = builder.add_match(MatchRule {
            agent: entry.agent,
            reserved: 0,
            lease_ns: entry.lease_ns,
        })?;
        // Fewer than 512.
        let index = u16::try_from(number).unwrap_or(u16::MAX);
        match &entry.item.exe {
            Some(exe) => list.paths.extend(programs(exe, links, index)),
            None => any[0].add(number),
        }
        let cgroups = cgroups(entry.item);
        if cgroups.is_empty() {
            any[1].add(number);
        }
        list.cgroups.extend(
            cgroups
                .into_iter()
                .map(|pattern| PathRule::of_match(pattern, index)),
        );
        match &entry.item.user {
            None => any[2].add(number),
            Some(user) => match accounts.uid(user) {
                Some(uid) => users.entry(uid).or_default().push(number),
                None => warnings.push(Diagnostic::at(
                    Severity::Warning,
                    &entry.item.location,
                    format!("there is no user {user}: no process matches"),
                    "make the account, or write its number",
                )),
            },
        }
    }
    for (number, set) in [set::ANY_PROGRAM, set::ANY_CGROUP, set::ANY_USER]
        .into_iter()
        .zip(any)
    {
        builder.set_match_set(number, set);
    }
    for (uid, entries) in users {
        let set = builder.add_match_set(entries)?;
        builder.add_match_user(uid, u32::from(set))?;
    }
    let unknown_start = paths::compile(builder, MATCHER, &list, mounts)?;
    Ok(Some(PolicyRecord {
        generation,
        mode: Mode::Enforce as u8,
        unknown_start,
        starts: MATCHER,
        flags: if list.cgroups.is_empty() {
            0
        } else {
            policy_flag::MATCHES_CGROUPS
        },
        ..PolicyRecord::default()
    }))
}

/// Entries that would make AgentGuard itself an agent when root starts it: nobody could then
/// stop or remove it but by a reboot. `own` is its program.
pub fn about_ourselves(agents: &[(u32, Arc<Manifest>)], own: &Path) -> Vec<Diagnostic> {
    let names: Vec<Box<[u8]>> = mounts::names(own.as_os_str().as_bytes());
    let accounts = Accounts::default();
    let is_root = |item: &ExecMatch| {
        let user = item.user.as_ref();
        user.is_none_or(|user| accounts.uid(user) == Some(0))
    };
    let takes_us = |item: &&ExecMatch| {
        let exe = item.exe.as_ref();
        item.systemd_unit.is_none()
            && item.cgroup.is_none()
            && item.sha256.is_none()
            && is_root(item)
            && exe.is_some_and(|exe| exe.matches(&names))
    };
    let entries = agents.iter().flat_map(|(_, manifest)| &manifest.matches);
    entries
        .filter(takes_us)
        .map(|item| {
            let message = format!(
                "this entry is about AgentGuard's own program as well ({}): as an agent it could not be stopped or removed",
                own.display()
            );
            let help = "name programs more closely, or a user who is not root";
            Diagnostic::at(Severity::Error, &item.location, message, help)
        })
        .collect()
}

/// All entries, the most particular first: of several that hold for a process the first counts.
fn entries(agents: &[(u32, Arc<Manifest>)]) -> Vec<Entry<'_>> {
    let mut all: Vec<Entry<'_>> = agents
        .iter()
        .flat_map(|(agent, manifest)| {
            let lease = manifest.lease.map_or(0, |lease| lease.as_nanos());
            manifest.matches.iter().map(move |item| Entry {
                agent: *agent,
                lease_ns: u64::try_from(lease).unwrap_or(u64::MAX),
                item,
            })
        })
        // Which build it is, nobody has looked.
        .filter(|entry| entry.item.sha256.is_none())
        .collect();
    all.sort_by_cached_key(|entry| {
        let item = entry.item;
        let exe = item.exe.as_ref().map_or(&[][..], PathPattern::components);
        let spelt = exe
            .iter()
            .filter(|part| matches!(part, Component::Exact(_)));
        let wild = exe.iter().any(|part| !matches!(part, Component::Exact(_)));
        (
            Reverse(item.exe.is_some() && !wild),
            Reverse(item.systemd_unit.is_some() || item.cgroup.is_some()),
            Reverse(item.exe.is_some()),
            Reverse(item.user.is_some()),
            Reverse(spelt.count()),
            item.location.clone(),
        )
    });
    all
}

/// The patterns of a program: as written, and behind symbolic links.
fn programs(exe: &PathPattern, links: &mut Links, index: u16) -> Vec<PathRule> {
    let written = exe.components().to_vec();
    let resolved = links.resolve(&written).map(|(pattern, _)| pattern);
    let patterns = std::iter::once(written).chain(resolved);
    patterns
        .map(|pattern| PathRule::of_match(pattern, index))
        .collect()
}

/// The patterns of the cgroups that an entry asks for, with all that are below; none if it
/// asks for none.
fn cgroups(item: &ExecMatch) -> Vec<Vec<Component>> {
    let mut found = Vec::new();
    if let Some(pattern) = &item.cgroup {
        found.push(pattern.components().to_vec());
    }
    if let Some(unit) = &item.systemd_unit {
        // Only slices are above a unit of the system. Whoever may make cgroups below a service
        // of theirs (users, below `user@UID.service`) cannot make one that is taken for a unit.
        for slices in 0..=SLICES {
            let slice = || Component::Glob(GlobPattern::with_end(b".slice"));
            let mut pattern: Vec<Component> = std::iter::repeat_with(slice).take(slices).collect();
            pattern.push(Component::Exact(unit.as_bytes().into()));
            found.push(pattern);
        }
    }
    let below: Vec<Vec<Component>> = found
        .iter()
        .filter(|pattern| pattern.last() != Some(&Component::AnyDepth))
        .map(|pattern| [&pattern[..], &[Component::AnyDepth]].concat())
        .collect();
    found.extend(below);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::manifest_of;

    fn found(exe: &str, user: Option<&str>, cgroup: Option<&str>) -> usize {
        let manifest = manifest_of("a", |manifest| {
            let pattern = |text: &str| PathPattern::parse(text).unwrap();
            manifest.matches.push(ExecMatch {
                exe: Some(pattern(exe)),
                user: user.map(str::to_owned),
                sha256: None,
                systemd_unit: None,
                cgroup: cgroup.map(pattern),
                location: manifest.source.clone(),
            });
        });
        about_ourselves(&[(1, Arc::new(manifest))], Path::new("/usr/bin/agentguard")).len()
    }

    #[test]
    fn no_entry_may_take_agentguard_itself() {
        for exe in ["/**", "/usr/bin/*", "**/agentguard", "/usr/bin/agentguard"] {
            assert_eq!(found(exe, None, None), 1, "{exe}");
            assert_eq!(found(exe, Some("0"), None), 1, "{exe}");
            assert_eq!(found(exe, Some("4711"), None), 0, "{exe}");
            assert_eq!(found(exe, None, Some("/agents.slice")), 0, "{exe}");
        }
        assert_eq!(found("/srv/agents/**", None, None), 0);
    }
}

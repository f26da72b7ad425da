//! Sub-agents: what an agent may do when another one started it.
//!
//! Its rights are those that its own manifest and those of all agents above it give. The
//! kernel knows nothing of that: each agent that can be started in such a place is one more
//! agent to it, with a policy that is compiled from all of these manifests together, so a
//! decision costs as much as any other and sees one generation of all of them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::super::manifest::{
    Approvals, Environment, Limits, Manifest, Mode, NetRule, NetTarget, Permissions, Protocol,
};

/// Places in which agents can be started by others, over all agents. More: refused at load.
pub const PLACES: usize = 512;

/// Between the name of an agent and those of the agents above it.
const BELOW: &str = " < ";
/// Between those.
const BESIDE: &str = " + ";

/// The agent's own name in the [name](Place::name) of a place, or in an agent's.
#[must_use]
pub fn agent_of(name: &str) -> &str {
    name.split_once(BELOW).map_or(name, |(agent, _)| agent)
}

/// All agents in the name of a place, or the one in an agent's.
pub fn names_in(name: &str) -> impl Iterator<Item = &str> {
    name.split(BELOW).flat_map(|part| part.split(BESIDE))
}

/// An agent at a place in a lineage.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// Those of the agents above it, each once, the nearest last.
    pub above: Vec<Arc<Manifest>>,
    /// Which of the places it is started from: itself among [`Lineages::roots`] or
    /// [`Lineages::places`].
    pub from: Vec<Start>,
}

/// Who can start something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Start {
    /// An agent that nobody started, by its number among the manifests.
    Root(usize),
    /// An agent at a place, by its number.
    Place(usize),
}

impl Place {
    /// The name under which its index is kept: no agent can have such a one.
    #[must_use]
    pub fn name(&self) -> String {
        let mut names: Vec<&str> = self.above.iter().map(|other| other.name.as_str()).collect();
        names.sort_unstable();
        format!("{}{BELOW}{}", self.manifest.name, names.join(BESIDE))
    }

    /// A manifest under that name, for whoever keeps indexes; it says nothing.
    #[must_use]
    pub fn placeholder(&self) -> Manifest {
        let own = &self.manifest;
        Manifest {
            name: self.name(),
            description: None,
            owner: own.owner.clone(),
            environment: own.environment,
            authority: own.authority,
            mode: own.mode,
            lease: own.lease,
            launch_users: Vec::new(),
            matches: Vec::new(),
            permissions: Permissions::default(),
            delegates: Vec::new(),
            limits: Limits::default(),
            approvals: Approvals::default(),
            tests: Vec::new(),
            version: own.version.clone(),
            source: own.source.clone(),
        }
    }

    /// The manifests whose rules count: of agents that are only observed nothing binds, unless
    /// all of them are.
    #[must_use]
    pub fn layers(&self) -> Vec<&Manifest> {
        let all = std::iter::once(&self.manifest).chain(&self.above);
        let all: Vec<&Manifest> = all.map(Arc::as_ref).collect();
        let enforced: Vec<&Manifest> = all
            .iter()
            .copied()
            .filter(|manifest| manifest.mode == Mode::Enforce)
            .collect();
        if enforced.is_empty() { all } else { enforced }
    }
}

/// Every place in which `delegates` lets one of these agents be started by others.
///
/// # Errors
/// There are more than [`PLACES`].
pub fn places(manifests: &[Arc<Manifest>]) -> Result<Vec<Place>, TooMany> {
    let by_name: HashMap<(&str, Environment), usize> = manifests
        .iter()
        .enumerate()
        .map(|(at, manifest)| ((manifest.name.as_str(), manifest.environment), at))
        .collect();
    // Who is started and who is above: that is all that the rights depend on.
    let mut known: HashMap<(usize, BTreeSet<usize>), usize> = HashMap::new();
    let mut found: Vec<Place> = Vec::new();
    let mut work: Vec<(Start, usize, Vec<usize>)> = (0..manifests.len())
        .map(|at| (Start::Root(at), at, Vec::new()))
        .collect();
    while let Some((start, agent, above)) = work.pop() {
        let Some(manifest) = manifests.get(agent) else {
            continue;
        };
        for delegate in &manifest.delegates {
            let wanted = (delegate.value.as_str(), manifest.environment);
            let Some(child) = by_name.get(&wanted).copied() else {
                continue;
            };
            let mut chain = above.clone();
            chain.retain(|other| *other != agent);
            chain.push(agent);
            let key = (child, chain.iter().copied().collect());
            if let Some(place) = known.get(&key) {
                if let Some(place) = found.get_mut(*place) {
                    place.from.push(start);
                }
                continue;
            }
            if found.len() == PLACES {
                return Err(TooMany);
            }
            known.insert(key, found.len());
            work.push((Start::Place(found.len()), child, chain.clone()));
            let manifest_of = |at: &usize| manifests.get(*at).map(Arc::clone);
            found.extend(manifest_of(&child).map(|manifest| Place {
                manifest,
                above: chain.iter().filter_map(manifest_of).collect(),
                from: vec![start],
            }));
        }
    }
    Ok(found)
}

/// Too many places in lineages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`delegates` lets agents be started in more than {PLACES} different places below one another; name fewer delegates"
)]
pub struct TooMany;

/// What both of two allowed sets of addresses allow. Names and networks have nothing in
/// common: which addresses a name stands for is not known here.
#[must_use]
pub fn both(one: &NetRule, other: &NetRule) -> Option<NetRule> {
    Some(NetRule {
        target: target(&one.target, &other.target)?,
        ports: ports(&one.ports, &other.ports)?,
        protocol: protocol(one.protocol, other.protocol)?,
    })
}

fn target(one: &NetTarget, other: &NetTarget) -> Option<NetTarget> {
    let is_socket =
        |target: &NetTarget| matches!(target, NetTarget::UnixPath(_) | NetTarget::UnixAbstract(_));
    if is_socket(one) || is_socket(other) {
        // Decided by the automata, layer by layer.
        return None;
    }
    match (one, other) {
        (NetTarget::Any, target) | (target, NetTarget::Any) => Some(target.clone()),
        (NetTarget::Cidr(a, a_len), NetTarget::Cidr(b, b_len)) => {
            let (outer, len, inner) = if a_len <= b_len {
                ((*a, *a_len), *a_len, (*b, *b_len))
            } else {
                ((*b, *b_len), *b_len, (*a, *a_len))
            };
            network(outer.0, len)
                .zip(network(inner.0, len))
                .filter(|(outer, inner)| outer == inner)
                .map(|_| NetTarget::Cidr(inner.0, inner.1))
        }
        (NetTarget::Name(a), NetTarget::Name(b)) => (a == b).then(|| one.clone()),
        (NetTarget::Name(name), NetTarget::NameSuffix(above)) => {
            is_below(name.as_str(), above.as_str()).then(|| one.clone())
        }
        (NetTarget::NameSuffix(above), NetTarget::Name(name)) => {
            is_below(name.as_str(), above.as_str()).then(|| other.clone())
        }
        (NetTarget::NameSuffix(a), NetTarget::NameSuffix(b)) => {
            if a == b || is_below(a.as_str(), b.as_str()) {
                Some(one.clone())
            } else if is_below(b.as_str(), a.as_str()) {
                Some(other.clone())
            } else {
                None
            }
        }
        _ => None,
    }
}

fn is_below(name: &str, above: &str) -> bool {
    name.strip_suffix(above)
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// The first bits of an address, with its family.
fn network(address: IpAddr, len: u8) -> Option<(bool, u128)> {
    let (is_v4, bits) = match address {
        IpAddr::V4(address) => (true, u128::from(u32::from(address)) << 96),
        IpAddr::V6(address) => (false, u128::from(address)),
    };
    let bits = if len == 0 {
        0
    } else {
        bits.checked_shr(128 - u32::from(len))?
    };
    Some((is_v4, bits))
}

fn ports(one: &RangeInclusive<u16>, other: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    let (low, high) = (
        (*one.start()).max(*other.start()),
        (*one.end()).min(*other.end()),
    );
    (low <= high).then_some(low..=high)
}

fn protocol(one: Protocol, other: Protocol) -> Option<Protocol> {
    match (one, other) {
        (Protocol::Both, protocol) | (protocol, Protocol::Both) => Some(protocol),
        (one, other) => (one == other).then_some(one),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::manifest::Located;
    use super::super::super::net::parse_rule;
    use super::*;
    use crate::testing::manifest_of;

    fn agents(list: &[(&str, &[&str])]) -> Vec<Arc<Manifest>> {
        let agent = |(name, delegates): &(&str, &[&str])| {
            Arc::new(manifest_of(name, |manifest| {
                let location = manifest.source.clone();
                let named = |value: &&str| Located {
                    value: (*value).to_owned(),
                    location: location.clone(),
                };
                manifest.delegates = delegates.iter().map(named).collect();
            }))
        };
        list.iter().map(agent).collect()
    }

    #[test]
    fn every_way_to_start_an_agent_is_a_place() {
        let all = agents(&[("a", &["b"]), ("b", &["c"]), ("c", &[]), ("d", &["nobody"])]);
        let found = places(&all).unwrap();
        let mut names: Vec<String> = found.iter().map(Place::name).collect();
        names.sort_unstable();
        assert_eq!(names, ["b < a", "c < a + b", "c < b"]);
        let last = found
            .iter()
            .position(|place| place.above.len() == 2)
            .unwrap();
        let first = found
            .iter()
            .position(|place| place.name() == "b < a")
            .unwrap();
        assert_eq!(found[last].from, [Start::Place(first)]);
    }

    #[test]
    fn circles_end() {
        let found = places(&agents(&[("a", &["b", "a"]), ("b", &["a"])])).unwrap();
        let mut names: Vec<String> = found.iter().map(Place::name).collect();
        names.sort_unstable();
        assert_eq!(names, ["a < a", "a < a + b", "a < b", "b < a", "b < a + b"]);
        let names: Vec<String> = (0..12).map(|at| format!("a{at}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let everybody: Vec<(&str, &[&str])> = all.iter().map(|name| (*name, &all[..])).collect();
        assert_eq!(places(&agents(&everybody)).unwrap_err(), TooMany);
    }

    #[test]
    fn what_both_rules_allow() {
        let reversed = both;
        let both = |one: &str, other: &str| {
            let rule = |text| parse_rule(text).unwrap();
            let found = both(&rule(one), &rule(other));
            assert_eq!(
                found.as_ref().map(ToString::to_string),
                reversed(&rule(other), &rule(one)).map(|rule| rule.to_string())
            );
            found.map(|rule| rule.to_string())
        };
        let same = |text: &str| Some(parse_rule(text).unwrap().to_string());
        assert_eq!(
            both("*:443", "10.0.0.0/8:400-500/tcp"),
            same("10.0.0.0/8:443/tcp")
        );
        assert_eq!(both("10.0.0.0/8", "10.1.0.0/16"), same("10.1.0.0/16"));
        assert_eq!(both("10.0.0.0/8", "11.1.0.0/16"), None);
        assert_eq!(both("0.0.0.0/0", "[::]/0"), None);
        assert_eq!(
            both("*", "api.example.com:443"),
            same("api.example.com:443")
        );
        assert_eq!(
            both("*.example.com", "api.example.com"),
            same("api.example.com")
        );
        assert_eq!(both("*.example.com", "example.com"), None);
        assert_eq!(
            both("*.example.com", "*.api.example.com"),
            same("*.api.example.com")
        );
        assert_eq!(both("*.example.com", "*.notexample.com"), None);
        assert_eq!(both("api.example.com", "10.0.0.0/8"), None);
        assert_eq!(both("*:1-10/tcp", "*:5-20/udp"), None);
        assert_eq!(both("*:1-10", "*:5-20/udp"), same("*:5-10/udp"));
    }
}

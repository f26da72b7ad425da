//! The policy tables in the kernel. They hold two generations, one in each half
//! (bank): a new policy is written to the half that no program reads, then every
//! agent's head is switched by one store. Nothing is ever changed in force.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use agentguard_common::decision;
use agentguard_common::identity::{NetRoots, PolicyRecord, policy_flag};
use agentguard_common::limits;
use agentguard_common::matching::{self, DelegateKey, MATCHER, MatchRule, MatchSet, UserKey};
use agentguard_common::names::map;
use agentguard_common::net::{LEAF, NetNode, PortInterval, PortSet};
use agentguard_common::path::{
    DEAD, GlobState, LinkKey, PathRow, PathState, Position, StartKey, TransitionKey,
};
use agentguard_common::verdict::Mode;

use super::load::failed;
use super::table::Table;
use super::{Fill, KernelError, LinkRow, sys};
use crate::policy::compile::{Compiled, Tables};

/// The mapped policy tables.
pub struct Banks {
    heads: Table<u32>,
    policies: Table<PolicyRecord>,
    states: Table<PathState>,
    rows: Table<PathRow>,
    globs: Table<GlobState>,
    nodes: Table<NetNode>,
    sets: Table<PortSet>,
    ports: Table<PortInterval>,
    matches: Table<MatchRule>,
    match_sets: Table<MatchSet>,
    match_users: OwnedFd,
    delegates: OwnedFd,
    starts: OwnedFd,
    transitions: OwnedFd,
    links: OwnedFd,
    /// The half in force.
    current: u32,
    used: Used,
}

/// Entries of the generation in force.
#[derive(Clone, Copy, Default)]
struct Used {
    starts: u64,
    states: u64,
    transitions: u64,
    links: u64,
    rows: u64,
    globs: u64,
    nodes: u64,
    sets: u64,
    ports: u64,
    matches: u64,
    match_sets: u64,
}

/// First number of a bank in a table. 0 keeps its meaning (dead, none, empty) in
/// both, so the second bank leaves its first entry unused too.
fn base(bank: u32, limit: u32) -> u32 {
    bank * (limit / limits::BANKS)
}

/// A number of the compiled tables as a number of the bank.
fn shift(number: u32, bank: u32, limit: u32) -> u32 {
    if number == 0 {
        0
    } else {
        number + base(bank, limit)
    }
}

/// A trie entry of the compiled tables as one of the bank. Nodes have no number
/// with a meaning of its own, so 0 is shifted like any other.
fn shift_entry(entry: u32, bank: u32) -> u32 {
    if entry & LEAF != 0 {
        LEAF | shift(entry & !LEAF, bank, limits::NET_SETS)
    } else {
        entry + base(bank, limits::NET_NODES)
    }
}

/// The half in force. A daemon that was killed while it switched the heads left some agents
/// in either half, and the next policy would be written over what the others are judged by:
/// all go to the newer generation, which was complete before the first of them was switched.
fn finish_switch(heads: &Table<u32>, policies: &Table<PolicyRecord>) -> u32 {
    let generation = |slot: u32| policies.get(slot).map_or(0, |record| record.generation);
    let newest = (1..limits::AGENTS)
        .filter_map(|agent| heads.get(agent))
        .filter(|slot| *slot != 0)
        .max_by_key(|slot| generation(*slot));
    let Some(newest) = newest else {
        return 0;
    };
    let bank = newest / limits::AGENTS;
    for agent in 1..limits::AGENTS {
        let slot = bank * limits::AGENTS + agent;
        let present = generation(slot) == generation(newest);
        let wanted = if present { slot } else { 0 };
        if heads.get(agent) != Some(wanted) {
            heads.publish(agent, wanted);
        }
    }
    bank
}

/// The record of slot 0. Generation 0 denies everything; that is enforced, and has
/// to be counted and recorded as such.
const NO_POLICY: PolicyRecord = PolicyRecord {
    generation: 0,
    mode: Mode::Enforce as u8,
    reserved: 0,
    defaults: 0,
    unknown_start: Position {
        fixed: DEAD,
        deep: DEAD,
    },
    starts: 0,
    protected_rules: 0,
    privileges: 0,
    flags: 0,
    connect: NetRoots { v4: 0, v6: 0 },
    listen: NetRoots { v4: 0, v6: 0 },
};

impl Banks {
    /// Maps the tables; finds out which bank an earlier daemon left in force.
    pub fn open(fd: &dyn Fn(&str) -> Result<OwnedFd, KernelError>) -> Result<Self, KernelError> {
        fn table<T: aya::Pod>(
            fd: &dyn Fn(&str) -> Result<OwnedFd, KernelError>,
            name: &str,
            len: u32,
        ) -> Result<Table<T>, KernelError> {
            Table::map(fd(name)?, len).map_err(|error| failed(&format!("mapping {name}"), &error))
        }
        let heads: Table<u32> = table(fd, map::HEADS, limits::AGENTS)?;
        let policies: Table<PolicyRecord> = table(fd, map::POLICIES, limits::POLICIES)?;
        let current = finish_switch(&heads, &policies);
        Ok(Self {
            policies,
            states: table(fd, map::PATH_STATES, limits::PATH_STATES)?,
            rows: table(fd, map::PATH_ROWS, limits::PATH_ROWS)?,
            globs: table(fd, map::GLOB_STATES, limits::GLOB_STATES)?,
            nodes: table(fd, map::NET_NODES, limits::NET_NODES)?,
            sets: table(fd, map::NET_SETS, limits::NET_SETS)?,
            ports: table(fd, map::NET_PORTS, limits::NET_PORTS)?,
            matches: table(fd, map::MATCHES, limits::BANKS * limits::MATCHES)?,
            match_sets: table(fd, map::MATCH_SETS, limits::MATCH_SETS)?,
            match_users: fd(map::MATCH_USERS)?,
            delegates: fd(map::DELEGATES)?,
            starts: fd(map::PATH_STARTS)?,
            transitions: fd(map::PATH_TRANSITIONS)?,
            links: fd(map::LINKS)?,
            current,
            heads,
            used: Used::default(),
        })
    }

    /// The generation in force: that of the newest head; 0 if there is none.
    pub fn generation(&self) -> u32 {
        (1..limits::AGENTS)
            .filter_map(|agent| self.heads.get(agent))
            .filter(|slot| *slot != 0)
            .filter_map(|slot| self.policies.get(slot))
            .map(|record| record.generation)
            .max()
            .unwrap_or(0)
    }

    /// Puts a policy in force.
    pub fn put(&mut self, policy: &Compiled) -> Result<(), KernelError> {
        let bank = 1 - self.current;
        // Programs that began under the generation before the current one may still
        // read this bank; after the wait none does.
        grace();
        self.purge(bank)?;
        self.write(&policy.tables, bank)?;
        let links = self.keep_links(policy, bank)?;
        for agent in &policy.agents {
            let (slot, old) = (
                bank * limits::AGENTS + agent.index,
                self.current * limits::AGENTS + agent.index,
            );
            let known = self.policies.get(old).map_or(0, |old| old.flags);
            let mut record = shift_record(agent.record, bank);
            // What is known of links holds until they were looked at anew.
            record.flags |= known & policy_flag::LINKS_FULL;
            if !self.policies.set(slot, record) {
                return Err(KernelError::Limit {
                    what: "agents",
                    limit: u64::from(limits::AGENTS - 1),
                    next: "remove manifests",
                });
            }
        }
        if let Some(matcher) = policy.matcher {
            let slot = bank * limits::AGENTS + MATCHER;
            self.policies.set(slot, shift_record(matcher, bank));
        }
        self.switch(policy, bank);
        self.current = bank;
        self.used = used(&policy.tables, links);
        Ok(())
    }

    /// One store an agent. An agent without a manifest gets slot 0, which never
    /// holds a policy: everything is denied to what is left of its runs.
    fn switch(&self, policy: &Compiled, bank: u32) {
        self.policies.set(0, NO_POLICY);
        let agents = policy.agents.iter().map(|agent| agent.index);
        // The matcher comes last: nothing becomes an agent that has no policy yet.
        let matcher = policy.matcher.map(|_| MATCHER);
        let present: HashSet<u32> = agents.chain(matcher).collect();
        for agent in 1..limits::AGENTS {
            let slot = if present.contains(&agent) {
                bank * limits::AGENTS + agent
            } else {
                0
            };
            self.heads.publish(agent, slot);
        }
    }

    /// Removes what an earlier generation left in a bank's hash tables.
    fn purge(&self, bank: u32) -> Result<(), KernelError> {
        let half = base(1, limits::PATH_STATES);
        let stale = |error| failed("removing an old policy", &error);
        for key in sys::keys::<TransitionKey>(self.transitions.as_fd()).map_err(stale)? {
            if u32::from(key.state() >= half) == bank {
                sys::delete(self.transitions.as_fd(), &key).map_err(stale)?;
            }
        }
        for key in sys::keys::<LinkKey>(self.links.as_fd()).map_err(stale)? {
            if u32::from(key.starts >= limits::AGENTS) == bank {
                sys::delete(self.links.as_fd(), &key).map_err(stale)?;
            }
        }
        for key in sys::keys::<StartKey>(self.starts.as_fd()).map_err(stale)? {
            if u32::from(key.starts >= limits::AGENTS) == bank {
                sys::delete(self.starts.as_fd(), &key).map_err(stale)?;
            }
        }
        for key in sys::keys::<DelegateKey>(self.delegates.as_fd()).map_err(stale)? {
            if key.bank == bank {
                sys::delete(self.delegates.as_fd(), &key).map_err(stale)?;
            }
        }
        for key in sys::keys::<UserKey>(self.match_users.as_fd()).map_err(stale)? {
            if key.bank == bank {
                sys::delete(self.match_users.as_fd(), &key).map_err(stale)?;
            }
        }
        Ok(())
    }

    /// What is known of files with several names holds until they were looked at anew.
    fn keep_links(&self, policy: &Compiled, bank: u32) -> Result<u64, KernelError> {
        let broken = |error| failed("keeping what is known of files with several names", &error);
        let agents: HashSet<u32> = policy.agents.iter().map(|agent| agent.index).collect();
        let (mut keys, mut rows) = (Vec::new(), Vec::<PathRow>::new());
        for key in sys::keys::<LinkKey>(self.links.as_fd()).map_err(broken)? {
            let agent = key.starts % limits::AGENTS;
            if key.starts / limits::AGENTS == bank || !agents.contains(&agent) {
                continue;
            }
            if let Some(row) = sys::lookup(self.links.as_fd(), &key).map_err(broken)? {
                keys.push(LinkKey {
                    starts: agent + bank * limits::AGENTS,
                    ..key
                });
                rows.push(row);
            }
        }
        sys::update_batch(self.links.as_fd(), &keys, &rows).map_err(broken)?;
        Ok(keys.len() as u64)
    }

    /// See [`Port::put_links`](super::Port::put_links).
    pub fn put_links(
        &mut self,
        links: &[LinkRow],
        replace: Option<&HashSet<u32>>,
    ) -> Result<usize, KernelError> {
        let broken = |error| failed("writing what is known of files with several names", &error);
        let key = |link: &LinkRow| LinkKey {
            starts: link.agent + self.current * limits::AGENTS,
            device: link.device,
            inode: link.inode,
        };
        let wanted: HashSet<LinkKey> = links.iter().map(key).collect();
        let mut used = 0_usize;
        for known in sys::keys::<LinkKey>(self.links.as_fd()).map_err(broken)? {
            let in_force = known.starts / limits::AGENTS == self.current;
            let looked_at = replace.is_some_and(|devices| devices.contains(&known.device));
            if in_force && looked_at && !wanted.contains(&known) {
                sys::delete(self.links.as_fd(), &known).map_err(broken)?;
            } else if in_force && !wanted.contains(&known) {
                used += 1;
            }
        }
        let room = base(1, limits::LINKS) as usize;
        let room = room.saturating_sub(used).min(links.len());
        let (kept, left_out) = links.split_at(room);
        let keys: Vec<LinkKey> = kept.iter().map(key).collect();
        let mut rows: Vec<PathRow> = kept.iter().map(|link| link.row).collect();
        if replace.is_none() {
            // Names that were found earlier count as well.
            for (key, row) in keys.iter().zip(&mut rows) {
                if let Some(known) = sys::lookup(self.links.as_fd(), key).map_err(broken)? {
                    *row = decision::strictest(row, &known);
                }
            }
        }
        sys::update_batch(self.links.as_fd(), &keys, &rows).map_err(broken)?;
        self.used.links = (used + kept.len()) as u64;
        let full: HashSet<u32> = left_out.iter().map(|link| link.agent).collect();
        for agent in 1..limits::AGENTS {
            if full.contains(&agent) || replace.is_some() {
                self.mark_full(agent, full.contains(&agent));
            }
        }
        Ok(left_out.len())
    }

    /// Has files with several names of which nothing is known refused to an agent, or not.
    fn mark_full(&self, agent: u32, is_full: bool) {
        let slot = self.current * limits::AGENTS + agent;
        let at = std::mem::offset_of!(PolicyRecord, flags);
        if let Some(flags) = self.policies.atomic_u32(slot, at) {
            if is_full {
                flags.fetch_or(policy_flag::LINKS_FULL, Ordering::SeqCst);
            } else {
                flags.fetch_and(!policy_flag::LINKS_FULL, Ordering::SeqCst);
            }
        }
    }

    fn write(&self, tables: &Tables, bank: u32) -> Result<(), KernelError> {
        let state = |number| shift(number, bank, limits::PATH_STATES);
        for (index, info) in (0u32..).zip(&tables.states).skip(1) {
            let shifted = PathState {
                any: state(info.any),
                row: shift(info.row, bank, limits::PATH_ROWS),
                glob: shift(info.glob, bank, limits::GLOB_STATES),
                flags: info.flags,
            };
            self.states.set(state(index), shifted);
        }
        for (index, row) in (0u32..).zip(&tables.rows).skip(1) {
            self.rows.set(shift(index, bank, limits::PATH_ROWS), *row);
        }
        let glob_base = base(bank, limits::GLOB_STATES);
        for (index, glob) in (0u32..).zip(&tables.globs).skip(1) {
            let mut shifted = *glob;
            for next in shifted.next.iter_mut().filter(|next| **next != 0) {
                *next += u16::try_from(glob_base).unwrap_or(0);
            }
            self.globs.set(index + glob_base, shifted);
        }
        for (index, node) in (0u32..).zip(&tables.nodes) {
            let shifted = NetNode {
                next: node.next.map(|entry| shift_entry(entry, bank)),
            };
            self.nodes
                .set(index + base(bank, limits::NET_NODES), shifted);
        }
        for (index, set) in (0u32..).zip(&tables.sets).skip(1) {
            let first = set.first + base(bank, limits::NET_PORTS);
            self.sets.set(
                shift(index, bank, limits::NET_SETS),
                PortSet {
                    first,
                    count: set.count,
                },
            );
        }
        for (index, port) in (0u32..).zip(&tables.ports) {
            self.ports.set(index + base(bank, limits::NET_PORTS), *port);
        }
        for (index, rule) in (0u32..).zip(&tables.matches) {
            self.matches.set(index + bank * limits::MATCHES, *rule);
        }
        for (index, set) in (0u32..).zip(&tables.match_sets) {
            self.match_sets.set(index + bank * matching::SETS, *set);
        }
        self.write_hashes(tables, bank)
    }

    fn write_hashes(&self, tables: &Tables, bank: u32) -> Result<(), KernelError> {
        let state = |number| shift(number, bank, limits::PATH_STATES);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (key, next) in &tables.transitions {
            keys.push(key.with_state(state(key.state())));
            values.push(state(*next));
        }
        sys::update_batch(self.transitions.as_fd(), &keys, &values)
            .map_err(|error| failed("writing path transitions", &error))?;
        let delegations = tables.delegations.iter();
        let (keys, values): (Vec<DelegateKey>, Vec<u32>) = delegations
            .map(|(key, agent)| (DelegateKey { bank, ..*key }, *agent))
            .unzip();
        sys::update_batch(self.delegates.as_fd(), &keys, &values)
            .map_err(|error| failed("writing who starts what", &error))?;
        let users = tables.match_users.iter();
        let (keys, values): (Vec<UserKey>, Vec<u32>) = users
            .map(|(uid, set)| (UserKey { bank, uid: *uid }, *set))
            .unzip();
        sys::update_batch(self.match_users.as_fd(), &keys, &values)
            .map_err(|error| failed("writing the users of matches", &error))?;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (key, start) in &tables.starts {
            keys.push(StartKey {
                starts: key.starts + bank * limits::AGENTS,
                device: key.device,
            });
            values.push(shift_position(*start, bank));
        }
        sys::update_batch(self.starts.as_fd(), &keys, &values)
            .map_err(|error| failed("writing start positions", &error))
    }

    /// Fill levels of the generation in force.
    pub fn fills(&self) -> Vec<Fill> {
        let half = |limit: u32| u64::from(limit / limits::BANKS);
        let used = self.used;
        vec![
            Fill {
                map: map::PATH_STARTS,
                used: used.starts,
                limit: half(limits::PATH_STARTS),
            },
            Fill {
                map: map::PATH_STATES,
                used: used.states,
                limit: half(limits::PATH_STATES),
            },
            Fill {
                map: map::PATH_TRANSITIONS,
                used: used.transitions,
                limit: half(limits::PATH_TRANSITIONS),
            },
            Fill {
                map: map::LINKS,
                used: used.links,
                limit: half(limits::LINKS),
            },
            Fill {
                map: map::PATH_ROWS,
                used: used.rows,
                limit: half(limits::PATH_ROWS),
            },
            Fill {
                map: map::GLOB_STATES,
                used: used.globs,
                limit: half(limits::GLOB_STATES),
            },
            Fill {
                map: map::MATCHES,
                used: used.matches,
                limit: u64::from(limits::MATCHES),
            },
            Fill {
                map: map::MATCH_SETS,
                used: used.match_sets,
                limit: half(limits::MATCH_SETS),
            },
            Fill {
                map: map::NET_NODES,
                used: used.nodes,
                limit: half(limits::NET_NODES),
            },
            Fill {
                map: map::NET_SETS,
                used: used.sets,
                limit: half(limits::NET_SETS),
            },
            Fill {
                map: map::NET_PORTS,
                used: used.ports,
                limit: half(limits::NET_PORTS),
            },
        ]
    }
}

fn shift_position(position: Position, bank: u32) -> Position {
    Position {
        fixed: shift(position.fixed, bank, limits::PATH_STATES),
        deep: shift(position.deep, bank, limits::PATH_STATES),
    }
}

fn shift_record(record: PolicyRecord, bank: u32) -> PolicyRecord {
    let roots = |roots: NetRoots| NetRoots {
        v4: shift_entry(roots.v4, bank),
        v6: shift_entry(roots.v6, bank),
    };
    PolicyRecord {
        unknown_start: shift_position(record.unknown_start, bank),
        starts: record.starts + bank * limits::AGENTS,
        connect: roots(record.connect),
        listen: roots(record.listen),
        ..record
    }
}

fn used(tables: &Tables, links: u64) -> Used {
    Used {
        starts: tables.starts.len() as u64,
        states: tables.states.len() as u64,
        transitions: tables.transitions.len() as u64,
        links,
        rows: tables.rows.len() as u64,
        globs: tables.globs.len() as u64,
        nodes: tables.nodes.len() as u64,
        sets: tables.sets.len() as u64,
        ports: tables.ports.len() as u64,
        matches: tables.matches.len() as u64,
        match_sets: tables.match_sets.len() as u64,
    }
}

/// Waits until no program runs that began before this call.
pub fn grace() {
    if sys::wait_for_running_programs().is_err() {
        // Refused on kernels with `nohz_full`. A hook takes microseconds and cannot
        // sleep; this is more than a grace period ever takes.
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table<T: aya::Pod>(len: u32) -> Table<T> {
        let file = tempfile::tempfile().unwrap();
        let bytes = size_of::<T>().next_multiple_of(8) * len as usize;
        file.set_len(bytes.next_multiple_of(4_096) as u64).unwrap();
        Table::map(file, len).unwrap()
    }

    const fn of(generation: u32) -> PolicyRecord {
        PolicyRecord {
            generation,
            ..NO_POLICY
        }
    }

    /// Agents 1 and 2 have policies in both halves, 3 only in the old, 4 only in the new one.
    fn switched(heads_of: [u32; 4]) -> (u32, [u32; 4]) {
        let heads: Table<u32> = table(limits::AGENTS);
        let policies: Table<PolicyRecord> = table(limits::POLICIES);
        policies.set(0, NO_POLICY);
        for agent in [1, 2, 3] {
            policies.set(agent, of(7));
        }
        for agent in [1, 2, 4] {
            policies.set(limits::AGENTS + agent, of(8));
        }
        // Of a generation long gone.
        policies.set(limits::AGENTS + 3, of(6));
        for (agent, slot) in (1..).zip(heads_of) {
            heads.publish(agent, slot);
        }
        let bank = finish_switch(&heads, &policies);
        (bank, [1, 2, 3, 4].map(|agent| heads.get(agent).unwrap()))
    }

    #[test]
    fn a_switch_that_was_interrupted_is_finished() {
        let second = |agent| limits::AGENTS + agent;
        let done = (1, [second(1), second(2), 0, second(4)]);
        for heads in [
            [second(1), 2, 3, 0],
            [second(1), second(2), 3, 0],
            [second(1), second(2), 0, 0],
            done.1,
        ] {
            assert_eq!(switched(heads), done, "{heads:?}");
        }
        // Not begun.
        assert_eq!(switched([1, 2, 3, 0]), (0, [1, 2, 3, 0]));
        // The first one went; nobody is in the new generation yet.
        assert_eq!(switched([0, 2, 3, 0]), (0, [1, 2, 3, 0]));
        // No policy was ever in force.
        assert_eq!(switched([0; 4]), (0, [0; 4]));
    }
}

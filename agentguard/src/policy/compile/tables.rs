//! The tables themselves, with numbers as if they stood alone: the kernel side
//! shifts them to the half of each map that is free. They answer questions in
//! userspace with the kernel's own code.

use std::collections::HashMap;

use agentguard_common::identity::PolicyRecord;
use agentguard_common::limits;
use agentguard_common::matching::{self, DelegateKey, MatchRule, MatchSet};
use agentguard_common::net::{
    self, Address, NetMatch, NetNode, NetTables, PortInterval, PortSet, Transport,
};
use agentguard_common::path::{
    self, CHUNK, DEAD, GlobState, Name, PathRow, PathState, PathTables, Position, Rows, StartKey,
    TransitionKey, Unreadable, state_flag,
};

use super::globs::Classes;
use crate::policy::path::GlobPattern;

/// A table that cannot hold the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy needs more than {limit} {what}")]
pub struct Full {
    what: &'static str,
    limit: u32,
}

/// Compiled tables.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Start positions; `starts` of a key is the agent's index.
    pub starts: Vec<(StartKey, Position)>,
    /// States; 0 is dead.
    pub states: Vec<PathState>,
    /// Transitions.
    pub transitions: HashMap<TransitionKey, u32>,
    /// Verdict rows; 0 is "no rule".
    pub rows: Vec<PathRow>,
    /// Byte automata; 0 is dead.
    pub globs: Vec<GlobState>,
    /// Trie nodes.
    pub nodes: Vec<NetNode>,
    /// Port sets; 0 is empty.
    pub sets: Vec<PortSet>,
    /// Port intervals.
    pub ports: Vec<PortInterval>,
    /// What a process becomes, by the number of the entry under `enrol.match`.
    pub matches: Vec<MatchRule>,
    /// Sets of these entries; the first are those of [`matching::set`].
    pub match_sets: Vec<MatchSet>,
    /// Sets by user id.
    pub match_users: Vec<(u32, u32)>,
    /// Who starts what as what; `bank` is 0.
    pub delegations: Vec<(DelegateKey, u32)>,
}

/// Tables being filled.
pub struct Builder {
    tables: Tables,
    rows: HashMap<PathRow, u32>,
    nodes: HashMap<NetNode, u32>,
    sets: HashMap<Vec<PortInterval>, u32>,
    match_sets: HashMap<MatchSet, u32>,
    globs: HashMap<Vec<GlobPattern>, Classes>,
}

impl Default for Builder {
    fn default() -> Self {
        let empty_glob = GlobState {
            class: 0,
            reserved: 0,
            next: [0; 256],
        };
        let tables = Tables {
            states: vec![PathState::default()],
            rows: vec![PathRow::default()],
            globs: vec![empty_glob],
            sets: vec![PortSet::default()],
            match_sets: vec![MatchSet::default(); matching::set::ANY_USER as usize + 1],
            ..Tables::default()
        };
        Self {
            tables,
            rows: HashMap::new(),
            nodes: HashMap::new(),
            sets: HashMap::new(),
            match_sets: HashMap::from([(MatchSet::default(), matching::set::NONE)]),
            globs: HashMap::new(),
        }
    }
}

/// Appends to a table that holds two generations.
fn push<T>(table: &mut Vec<T>, value: T, limit: u32, what: &'static str) -> Result<u32, Full> {
    let limit = limit / limits::BANKS;
    let index = u32::try_from(table.len()).unwrap_or(u32::MAX);
    if index >= limit {
        return Err(Full { what, limit });
    }
    table.push(value);
    Ok(index)
}

impl Builder {
    /// The finished tables.
    pub fn finish(mut self, delegations: Vec<(DelegateKey, u32)>) -> Tables {
        self.tables.delegations = delegations;
        self.tables
    }

    pub(super) fn add_start(&mut self, key: StartKey, start: Position) -> Result<(), Full> {
        push(
            &mut self.tables.starts,
            (key, start),
            limits::PATH_STARTS,
            "pairs of agent and file system",
        )?;
        Ok(())
    }

    pub(super) fn add_path_state(&mut self) -> Result<u32, Full> {
        push(
            &mut self.tables.states,
            PathState::default(),
            limits::PATH_STATES,
            "path states",
        )
    }

    pub(super) fn set_path_state(&mut self, state: u32, info: PathState) {
        if let Some(slot) = self.tables.states.get_mut(state as usize) {
            *slot = info;
        }
    }

    /// The row of a state that is filled in.
    pub(super) fn row_of(&self, state: u32) -> PathRow {
        let row = self
            .tables
            .states
            .get(state as usize)
            .map_or(0, |info| info.row);
        self.tables
            .rows
            .get(row as usize)
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn add_flag(&mut self, state: u32, flag: u32) {
        if let Some(info) = self.tables.states.get_mut(state as usize) {
            info.flags |= flag;
        }
    }

    pub(super) fn add_row(&mut self, row: PathRow) -> Result<u32, Full> {
        if row == PathRow::default() {
            return Ok(0);
        }
        if let Some(known) = self.rows.get(&row) {
            return Ok(*known);
        }
        let index = push(
            &mut self.tables.rows,
            row,
            limits::PATH_ROWS,
            "verdict rows",
        )?;
        self.rows.insert(row, index);
        Ok(index)
    }

    /// Adds a name's transition, through states of its own where the name takes
    /// several keys.
    pub(super) fn add_name(&mut self, state: u32, name: &[u8], next: u32) -> Result<(), Full> {
        let mut from = state;
        let count = name.len().div_ceil(CHUNK);
        for (index, chunk) in name.chunks(CHUNK).enumerate() {
            let last = index + 1 == count;
            let key = key(chunk).name(from, u32::try_from(chunk.len()).unwrap_or(0), last);
            if last {
                return self.add_transition(key, next);
            }
            from = match self.tables.transitions.get(&key) {
                Some(known) => *known,
                None => {
                    let between = self.add_path_state()?;
                    self.add_transition(key, between)?;
                    between
                }
            };
        }
        Ok(())
    }

    pub(super) fn add_class(&mut self, state: u32, class: u32, next: u32) -> Result<(), Full> {
        self.add_transition(TransitionKey::class(state, class), next)
    }

    fn add_transition(&mut self, key: TransitionKey, next: u32) -> Result<(), Full> {
        let limit = limits::PATH_TRANSITIONS / limits::BANKS;
        if self.tables.transitions.len() >= limit as usize {
            return Err(Full {
                what: "path transitions",
                limit,
            });
        }
        self.tables.transitions.insert(key, next);
        Ok(())
    }

    /// The byte automaton of these patterns, if there is one already.
    pub(super) fn known_globs(&self, patterns: &[GlobPattern]) -> Option<&Classes> {
        self.globs.get(patterns)
    }

    pub(super) fn keep_globs(&mut self, patterns: Vec<GlobPattern>, classes: Classes) {
        self.globs.insert(patterns, classes);
    }

    pub(super) fn add_glob_state(&mut self) -> Result<u32, Full> {
        let empty = GlobState {
            class: 0,
            reserved: 0,
            next: [0; 256],
        };
        push(
            &mut self.tables.globs,
            empty,
            limits::GLOB_STATES,
            "states for patterns in names",
        )
    }

    pub(super) fn set_glob_state(&mut self, state: u32, row: GlobState) {
        if let Some(slot) = self.tables.globs.get_mut(state as usize) {
            *slot = row;
        }
    }

    /// Adds a set of entries under `enrol.match`.
    pub(super) fn add_match_set(
        &mut self,
        entries: impl IntoIterator<Item = u32>,
    ) -> Result<u16, Full> {
        let mut set = MatchSet::default();
        for entry in entries {
            set.add(entry);
        }
        let index = match self.match_sets.get(&set) {
            Some(known) => *known,
            None => {
                let index = push(
                    &mut self.tables.match_sets,
                    set,
                    limits::MATCH_SETS,
                    "sets of matches",
                )?;
                self.match_sets.insert(set, index);
                index
            }
        };
        // There are fewer than that.
        Ok(u16::try_from(index).unwrap_or(u16::MAX))
    }

    /// Sets one of the sets that every generation has.
    pub(super) fn set_match_set(&mut self, number: u32, set: MatchSet) {
        if let Some(slot) = self.tables.match_sets.get_mut(number as usize) {
            *slot = set;
        }
    }

    pub(super) fn add_match(&mut self, rule: MatchRule) -> Result<u32, Full> {
        push(
            &mut self.tables.matches,
            rule,
            limits::BANKS * limits::MATCHES,
            "entries under `enrol.match`",
        )
    }

    pub(super) fn add_match_user(&mut self, uid: u32, set: u32) -> Result<(), Full> {
        push(
            &mut self.tables.match_users,
            (uid, set),
            limits::MATCH_USERS,
            "users under `enrol.match`",
        )?;
        Ok(())
    }

    pub(super) fn add_net_node(&mut self, node: NetNode) -> Result<u32, Full> {
        if node
            .next
            .iter()
            .all(|entry| *entry == node.next[0] && entry & net::LEAF != 0)
        {
            return Ok(node.next[0]);
        }
        if let Some(known) = self.nodes.get(&node) {
            return Ok(*known);
        }
        let index = push(
            &mut self.tables.nodes,
            node,
            limits::NET_NODES,
            "address trie nodes",
        )?;
        self.nodes.insert(node, index);
        Ok(index)
    }

    pub(super) fn add_port_set(&mut self, intervals: &[PortInterval]) -> Result<u32, Full> {
        if intervals.is_empty() {
            return Ok(0);
        }
        if let Some(known) = self.sets.get(intervals) {
            return Ok(*known);
        }
        let first = u32::try_from(self.tables.ports.len()).unwrap_or(u32::MAX);
        for interval in intervals {
            push(
                &mut self.tables.ports,
                *interval,
                limits::NET_PORTS,
                "port intervals",
            )?;
        }
        let count = u32::try_from(intervals.len()).unwrap_or(u32::MAX);
        let set = PortSet { first, count };
        let index = push(
            &mut self.tables.sets,
            set,
            limits::NET_SETS,
            "sets of port rules",
        )?;
        self.sets.insert(intervals.to_vec(), index);
        Ok(index)
    }
}

/// A key that holds a piece of a name, not yet completed.
fn key(chunk: &[u8]) -> TransitionKey {
    let mut key = TransitionKey::default();
    for (index, byte) in chunk.iter().take(CHUNK).enumerate() {
        key.words[index / 8] |= u64::from(*byte) << (8 * (index % 8));
    }
    key
}

impl Tables {
    /// The verdict rows of names inside a file system, for an agent's policy.
    ///
    /// # Errors
    /// The tables are inconsistent.
    pub fn rows(
        &self,
        record: &PolicyRecord,
        device: u32,
        names: &[Box<[u8]>],
    ) -> Result<Rows<'_>, Unreadable> {
        let mut at = self.start(record, device);
        for name in names {
            at = self.step(at, name)?;
        }
        self.rows_at(at)
    }

    /// The position at the root of a file system.
    #[must_use]
    pub fn start(&self, record: &PolicyRecord, device: u32) -> Position {
        let wanted = StartKey {
            starts: record.starts,
            device,
        };
        self.starts
            .iter()
            .find(|(key, _)| *key == wanted)
            .map_or(record.unknown_start, |(_, start)| *start)
    }

    /// The position one name further.
    ///
    /// # Errors
    /// The tables are inconsistent.
    pub fn step(&self, at: Position, name: &[u8]) -> Result<Position, Unreadable> {
        let take = |state| match state {
            DEAD => Ok(DEAD),
            state => path::step(self, state, &Bytes(name)),
        };
        Ok(Position {
            fixed: take(at.fixed)?,
            deep: take(at.deep)?,
        })
    }

    /// The verdict rows at a position.
    ///
    /// # Errors
    /// The tables are inconsistent.
    pub fn rows_at(&self, at: Position) -> Result<Rows<'_>, Unreadable> {
        let row = |state: u32| {
            let info = self.states.get(state as usize).ok_or(Unreadable)?;
            self.rows.get(info.row as usize).ok_or(Unreadable)
        };
        Ok(Rows {
            fixed: row(at.fixed)?,
            deep: row(at.deep)?,
        })
    }

    /// Whether everything below a position has its rows.
    #[must_use]
    pub fn is_final(&self, at: Position) -> bool {
        [at.fixed, at.deep].into_iter().all(|state| {
            let info = self.states.get(state as usize);
            state == DEAD || info.is_some_and(|info| info.flags & state_flag::FINAL != 0)
        })
    }

    /// What the tables say of an address and port under a root entry.
    ///
    /// # Errors
    /// The tables are inconsistent.
    pub fn net(
        &self,
        root: u32,
        address: &Address,
        transport: Transport,
        port: u16,
    ) -> Result<NetMatch, net::Broken> {
        net::lookup(self, root, address, transport, port)
    }
}

/// A name in userspace memory.
struct Bytes<'a>(&'a [u8]);

impl Name for Bytes<'_> {
    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn read(&self, offset: u32, count: u32) -> Option<TransitionKey> {
        let (from, upto) = (offset as usize, offset as usize + count as usize);
        self.0.get(from..upto).map(key)
    }
}

impl PathTables for Tables {
    fn state(&self, state: u32) -> Option<PathState> {
        self.states.get(state as usize).copied()
    }

    fn transition(&self, key: &TransitionKey) -> Option<u32> {
        self.transitions.get(key).copied()
    }

    fn classify(&self, start: u32, name: &impl Name) -> u32 {
        let mut state = start;
        for offset in 0..name.len() {
            let Some(piece) = name.read(offset, 1) else {
                return u32::MAX;
            };
            let Some(row) = self.globs.get(state as usize) else {
                return u32::MAX;
            };
            state = u32::from(row.next[(piece.words[0] & 0xff) as usize]);
        }
        self.globs
            .get(state as usize)
            .map_or(u32::MAX, |end| end.class)
    }
}

impl NetTables for Tables {
    fn branch(&self, node: u32, nibble: u32) -> Option<u32> {
        self.nodes
            .get(node as usize)
            .map(|node| node.next[nibble as usize & 15])
    }

    fn set(&self, set: u32) -> Option<PortSet> {
        self.sets.get(set as usize).copied()
    }

    fn interval(&self, interval: u32) -> Option<PortInterval> {
        self.ports.get(interval as usize).copied()
    }
}

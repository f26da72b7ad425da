//! Which agent a process becomes by the program that it executes.
//!
//! Every entry under `enrol.match` of every manifest has a number: its bit in a [`MatchSet`].
//! What is found out about a process (its program, its cgroup, its user) each gives the set of
//! entries that it satisfies, and an entry holds if it is in all of them. The most particular
//! entries have the lowest numbers, so of several that hold the first counts.
//!
//! Programs and cgroups are found by the path automata ([`crate::path`]), under a policy
//! record of their own, that of [`MATCHER`]: the rule of `exec` in a row is the number of a
//! set. What a process calls itself (`comm`), its arguments and its environment are never
//! asked.

use crate::limits::{AGENTS, BANKS, MATCH_SETS, MATCHES};

/// Index in place of an agent's: its policy record holds what programs are matched by.
pub const MATCHER: u32 = AGENTS - 1;

/// Sets in one generation.
pub const SETS: u32 = MATCH_SETS / BANKS;

/// Words of a set.
pub const WORDS: usize = MATCHES as usize / 64;

/// A set of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct MatchSet {
    /// Entry 0 is the lowest bit of the first word.
    pub words: [u64; WORDS],
}

impl MatchSet {
    /// Adds an entry; one that does not exist is left out.
    pub fn add(&mut self, entry: u32) {
        if let Some(word) = self.words.get_mut(entry as usize / 64) {
            *word |= 1 << (entry % 64);
        }
    }
}

/// Numbers of sets that every generation has.
pub mod set {
    /// No entry.
    pub const NONE: u32 = 0;
    /// Entries that take any program.
    pub const ANY_PROGRAM: u32 = 1;
    /// Entries that take any cgroup.
    pub const ANY_CGROUP: u32 = 2;
    /// Entries that take any user.
    pub const ANY_USER: u32 = 3;
}

/// What a process becomes that an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct MatchRule {
    /// Index of the agent.
    pub agent: u32,
    /// Zero.
    pub reserved: u32,
    /// Longest life of its run, nanoseconds; 0: no end.
    pub lease_ns: u64,
}

/// Key of the set of entries about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct UserKey {
    /// The half of the tables that is in force.
    pub bank: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
}

/// Key of what an agent becomes that another one starts: its value is the index of the agent in
/// that place, whose policy is that of all agents of the lineage together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct DelegateKey {
    /// The half of the tables that is in force.
    pub bank: u32,
    /// Index of the agent that starts the other.
    pub from: u32,
    /// Index of the other, as it is when nobody starts it.
    pub agent: u32,
    /// Zero.
    pub reserved: u32,
}

/// What of one word of each set holds.
#[must_use]
#[inline(always)]
pub const fn holding(programs: u64, cgroups: u64, users: u64) -> u64 {
    programs & cgroups & users
}

/// The number of a word's first entry. (Written out: there is no instruction for it.)
#[must_use]
#[inline(always)]
pub const fn lowest(word: u64) -> u32 {
    let mut left = word;
    let mut at = 0;
    if left & 0xffff_ffff == 0 {
        left >>= 32;
        at += 32;
    }
    if left & 0xffff == 0 {
        left >>= 16;
        at += 16;
    }
    if left & 0xff == 0 {
        left >>= 8;
        at += 8;
    }
    if left & 0xf == 0 {
        left >>= 4;
        at += 4;
    }
    if left & 3 == 0 {
        left >>= 2;
        at += 2;
    }
    if left & 1 == 0 {
        at += 1;
    }
    at
}

const _: () = assert!(size_of::<MatchSet>() == 64);
const _: () = assert!(size_of::<MatchRule>() == 16);
const _: () = assert!(size_of::<UserKey>() == 8);
const _: () = assert!(size_of::<DelegateKey>() == 16);
const _: () = assert!(MATCHES.is_multiple_of(64) && MATCHES.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_of_a_word() {
        for at in 0..64 {
            assert_eq!(lowest(1 << at), at);
            assert_eq!(lowest(u64::MAX << at), at);
        }
    }

    #[test]
    fn entries_are_bits() {
        let mut set = MatchSet::default();
        set.add(0);
        set.add(MATCHES - 1);
        set.add(MATCHES);
        assert_eq!((set.words[0], set.words[WORDS - 1]), (1, 1 << 63));
        assert_eq!(set.words[1..WORDS - 1], [0; WORDS - 2]);
    }
}

//! What was decided about a file, kept (`kept`) so that the next task of the agent that does
//! the same with it is answered at once. Every decision is counted and, where it is to be
//! told, told as before: only the asking of the rules is left out.
//!
//! Not kept: what depends on more than the name (files with several names, whose other
//! names are asked) and what could not be decided. A run's standing is asked before.

use agentguard_common::decision::Subject;
use agentguard_common::limits;
use agentguard_common::verb::Verbs;

use crate::enforce::Settled;
use crate::kept::{self, Kept, NONE};
use crate::kernel::{Dentry, Inode};
use crate::maps::SETTLED;

/// A question about a file: plain numbers, which is all that the verifier has to follow.
#[derive(Clone, Copy)]
pub struct Question {
    key: u64,
    renames: u32,
}

impl Question {
    /// What an agent wants of a file.
    #[inline(always)]
    pub fn new(subject: &Subject<'_>, name: Dentry, inode: Inode, wanted: Verbs) -> Self {
        let renames = kept::renames();
        // Beside directories' keys, which do not have the highest bit.
        let asked = ABOUT_VERBS
            | u64::from(wanted.0) << 48
            | u64::from(subject.tag.agent) << 32
            | u64::from(subject.policy.generation);
        Self { key: kept::key(name, inode, asked), renames }
    }

    /// The answer that was given before, if that still holds.
    #[inline(always)]
    pub fn recall(self) -> Option<Settled> {
        match agentguard_settled(self.key, self.renames) {
            NONE => None,
            word => Some(Settled::from_word(word as u32)),
        }
    }

    /// Keeps the answer.
    #[inline(always)]
    pub fn keep(self, name: Dentry, settled: Settled) {
        if kept::tells_apart(name) {
            agentguard_settle(self.key, self.renames, settled.word());
        }
    }
}

const ABOUT_VERBS: u64 = 1 << 63;
const _: () = assert!(limits::AGENTS <= 1 << 16);

/// Looks an answer up. A global function of plain numbers: verified once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_settled(key: u64, renames: u32) -> u64 {
    if kept::is_unknown(renames) {
        return NONE;
    }
    match SETTLED.get_ptr(slot(key)) {
        // SAFETY: map memory, checked for null.
        Some(kept) => unsafe { Kept::read(kept, key, renames) },
        None => NONE,
    }
}

/// Keeps an answer. Global for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_settle(key: u64, renames: u32, word: u64) -> u32 {
    if !kept::is_unknown(renames)
        && let Some(kept) = SETTLED.get_ptr_mut(slot(key))
    {
        // SAFETY: map memory, checked for null.
        unsafe { Kept::write(kept, key, renames, word) };
    }
    0
}

/// The slot of a key.
#[inline(always)]
fn slot(key: u64) -> u32 {
    key as u32 & (limits::SETTLED - 1)
}

const _: () = assert!(limits::SETTLED.is_power_of_two());

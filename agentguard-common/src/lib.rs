//! What the kernel programs and the daemon share: limits, names, wire types
//! and the one decision function. `no_std`, no dependencies: the same code runs
//! behind the verifier, in `agentguard policy explain` and in the tests.
//!
//! Reading order: what is decided ([`verb`], [`verdict`]), about whom
//! ([`identity`], [`matching`]), by which tables ([`path`], [`net`]), how ([`decision`]), and
//! what is told about it ([`event`], [`flow`], [`counter`]).
#![no_std]

pub mod counter;
pub mod decision;
pub mod event;
pub mod field;
pub mod flow;
pub mod identity;
pub mod limits;
pub mod matching;
pub mod names;
pub mod net;
pub mod path;
#[cfg(feature = "user")]
mod pod;
pub mod resolver;
pub mod server_name;
pub mod socket;
pub mod verb;
pub mod verdict;

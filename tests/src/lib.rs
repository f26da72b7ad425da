//! End-to-end tests of AgentGuard: the harness.
//!
//! A [`suite::Suite`] runs the built `agentguard` as a daemon on directories of its
//! own, starts real programs as agents ([`agent::Agent`]) and without a tag beside
//! them, and asks both to do the same things. Everything that has to be waited for
//! is polled with a deadline ([`wait`]).

pub mod agent;
pub mod binary;
pub mod daemon;
pub mod dns;
pub mod hammer;
pub mod held;
pub mod load;
pub mod manifest;
pub mod places;
pub mod ports;
pub mod runner;
pub mod servers;
pub mod session;
pub mod suite;
pub mod verifier;
pub mod wait;

//! AgentGuard: identity for AI agents, held and enforced by the kernel.
//!
//! The way of a record through the daemon: [`kernel`] (rings) → [`engine`] →
//! [`pipeline`]: [`decode`] → [`correlate`] → [`event`] → [`sinks`]. The way of
//! a policy: [`policy`] → [`engine`] → [`kernel`]. People and programs come in
//! through [`cli`] and [`control`].

pub mod agents;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod correlate;
pub mod credentials;
pub mod daemon;
pub mod decode;
pub mod engine;
pub mod event;
pub mod exporter;
pub mod files;
pub mod kernel;
pub mod landlock;
pub mod links;
pub mod log;
mod memory;
pub mod mounts;
pub mod names;
pub mod notify;
pub mod pipeline;
pub mod policy;
pub mod repeats;
pub mod runs;
pub mod shutdown;
pub mod sinks;
pub mod stall;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod users;

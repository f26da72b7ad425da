//! AgentGuard.
pub mod kernel;
pub mod mounts;
pub mod policy;

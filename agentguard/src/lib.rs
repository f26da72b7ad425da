//! AgentGuard.
pub mod kernel;
pub mod policy;

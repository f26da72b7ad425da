//! AgentGuard.
pub mod policy;

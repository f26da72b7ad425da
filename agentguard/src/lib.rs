//! AgentGuard.
pub mod kernel;
pub mod landlock;
pub mod mounts;
pub mod policy;

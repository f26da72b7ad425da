//! The programs, by what they mediate. `main.rs` lists them in order.

mod attributes;
mod capable;
mod cgroup;
mod descriptor;
mod enrol;
mod exec;
mod file;
mod flow;
mod host;
mod mount;
mod net;
mod process;
mod setuid;
mod signal;
mod socket;
mod task;
mod unix;

//! The programs, by what they mediate. `main.rs` lists them in order.

mod cgroup;
mod enrol;
mod exec;
mod file;
mod net;
mod task;

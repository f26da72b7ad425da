//! Policy: the manifests that say who an agent is and what it may do.
//!
//! The way of a manifest is bytes, then a tree of located nodes, then the
//! checked types of [`manifest`], which the compiler turns into kernel tables.

pub mod manifest;
mod net;
mod path;

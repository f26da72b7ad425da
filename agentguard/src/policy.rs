//! Policy: the manifests that say who an agent is and what it may do.
//!
//! The way of a manifest is bytes, then a tree of located nodes ([`parse`]),
//! then the checked types of [`manifest`] ([`check()`]), which the compiler turns
//! into kernel tables. [`load_dir`] does both for all files of a directory.

pub mod across;
pub mod change;
pub mod check;
pub mod compile;
pub mod diagnostic;
pub mod duration;
pub mod load;
pub mod manifest;
pub mod net;
pub mod path;
pub mod reference;
pub mod source;
pub mod text;
mod trust;
mod vocabulary;
pub mod yaml;

pub use check::check;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use load::{LoadOptions, PolicySet, load_dir, load_paths};
pub use yaml::parse;

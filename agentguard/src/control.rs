//! The local API: HTTP with JSON over a unix socket.
//!
//! Anyone may connect: users who start agents need not be operators, and an
//! agent may ask about itself. So the socket's mode is 0666 and every request
//! is judged by who connected ([`peer`], [`authority`]); a mode that kept users
//! out would also keep out what the API is for, and would not replace that
//! judgement, because an agent can run as any of the users who may connect.

mod agents;
mod answers;
pub mod authority;
mod body;
mod handlers;
pub mod peer;
pub mod processes;
mod request;
mod residual;
mod server;
mod views;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use self::server::{Listener, Serving};
use crate::clock::Timestamp;
use crate::engine::{Handle, Loader};
use crate::sinks::ledger::Health;
use crate::sinks::subscribers::Subscribers;
use crate::users::Accounts;

/// What the handlers work with.
pub struct Control {
    /// The engine.
    pub engine: Handle,
    /// Loads policies.
    pub loader: Arc<Loader>,
    /// Who follows events.
    pub subscribers: Arc<Subscribers>,
    /// How the ledger does.
    pub ledger: Arc<Health>,
    /// Where the ledger is.
    pub ledger_directory: PathBuf,
    /// User names.
    pub accounts: Accounts,
    /// The group that operates.
    pub socket_group: String,
    /// What `status` says of the configuration.
    pub facts: Facts,
}

/// See [`Control::facts`].
#[derive(Clone, Debug)]
pub struct Facts {
    /// When the daemon started.
    pub started: Timestamp,
    /// Protections that the operator lets be absent.
    pub accept_degraded: Vec<String>,
    /// Where metrics are served.
    pub metrics: Option<String>,
    /// The directories in use.
    pub directories: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests;

//! The DNS resolver of tagged runs.
//!
//! The kernel sends each DNS question of a tagged run here, whichever server it
//! was meant for. A question for a name that the run's policy does not name is
//! answered at once and never leaves the host. An allowed one is asked anew, of
//! the server that the run meant, and the addresses of the answer are admitted
//! to that run *before* the run sees them: nobody can connect too early.
//!
//! ```text
//! socket → server → question → resolve → upstream → answer → admit → reply
//! ```
//!
//! [`question`], [`answer`], [`reply`] and [`address`] are pure functions over
//! bytes that strangers send, under property tests and fuzzing (`tests/fuzz`).
//! The kernel's side is behind [`Authority`]. Why a resolver of our own:
//! docs/adr/0003-dns-resolver.md.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub mod address;
pub mod answer;
pub mod counters;
pub mod limits;
pub mod question;
pub mod reply;
pub mod resolv;
mod resolve;
pub mod server;
#[cfg(test)]
mod tests;
mod upstream;

pub use self::counters::{Count, Counters};
pub use self::server::Server;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// As a datagram.
    Udp,
    /// Over a connection.
    Tcp,
}

/// Who asks: a tagged run, found by the kernel's table from the peer's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The run's slot.
    pub run: u32,
    /// What tells it from earlier runs in the same slot.
    pub serial: u64,
    /// How the question came.
    pub protocol: Protocol,
    /// Where the question was going before the kernel sent it here.
    pub server: SocketAddr,
}

/// Addresses that one answer gives one run for one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The name that was asked for: lower case, without the trailing dot.
    pub name: String,
    /// Addresses, each once, and for how long each is admitted: the answer's TTL
    /// within [`limits::ADMIT_LEAST`] and [`limits::ADMIT_MOST`], and
    /// [`limits::ADMIT_GRACE`] more.
    pub addresses: Vec<(IpAddr, Duration)>,
    /// Addresses of the answer that are not admitted: those that no name may
    /// stand for ([`address::admissible`]), those beyond
    /// [`limits::ADDRESSES`], and hints for other names.
    pub unusable: Vec<IpAddr>,
}

impl Grant {
    /// Whether there is nothing to admit and nothing to report.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.unusable.is_empty()
    }
}

/// Why a question was refused by policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The policy does not let the run ask for this name.
    NotAllowed,
    /// The name is the root, or has bytes that are not printable ASCII, or dots
    /// inside labels: no rule can mean it.
    NotText,
    /// Too many questions of the run, or of all, are being answered.
    TooMany,
}

/// Addresses could not be admitted: the program gets SERVFAIL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot admit addresses: {0}")]
pub struct AdmitError(pub String);

/// What the resolver asks the rest of the daemon.
pub trait Authority: Send + Sync + 'static {
    /// The run behind a loopback peer. `None`: nobody whom the kernel sent here;
    /// the question is refused.
    fn asker(&self, protocol: Protocol, peer: SocketAddr) -> Option<Asker>;

    /// Whether the run's policy lets it ask for the name (lower case, without
    /// the trailing dot).
    fn may_ask(&self, asker: &Asker, name: &str) -> bool;

    /// The servers that answer this run, usually the one that it asked. The first
    /// [`limits::SERVERS`] are used.
    fn upstreams(&self, asker: &Asker) -> Vec<SocketAddr>;

    /// Admits the addresses to the run, before the reply is sent: returns once the
    /// kernel has them. Also called for a grant with only unusable addresses, so
    /// that they can be recorded; never for an empty one.
    ///
    /// # Errors
    /// The kernel does not have them. The program gets SERVFAIL.
    fn admit(
        &self,
        asker: &Asker,
        grant: &Grant,
    ) -> impl Future<Output = Result<(), AdmitError>> + Send;

    /// A question was refused by policy: for the record. Called in the loop that
    /// receives, so it must not block. The name of a [`Refusal::NotText`] has its
    /// odd bytes escaped (`\123`).
    fn refused(&self, asker: &Asker, name: &str, why: Refusal);
}

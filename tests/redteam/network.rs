//! The attempts on the network, in the order of the catalogue.

mod compat;
mod connected;
mod dns;
mod families;
pub mod ground;
pub mod interface;
mod listener;
mod listening;
mod local;
pub mod names;
pub mod nameserver;
mod netlink;
mod options;
mod race;
mod raw;
mod rtnetlink;
mod servers;
pub mod spaces;
mod tcp;
mod udp;
mod unix;
mod uring;
mod wire;

use crate::attempt::Attempt;

/// Why an ordinary user has no raw sockets.
const ROOT_ONLY: &str = "it needs CAP_NET_RAW or CAP_NET_ADMIN";

/// Every attempt.
pub fn all() -> Vec<Attempt> {
    let mut all = [
        tcp::ATTEMPTS,
        udp::ATTEMPTS,
        local::ATTEMPTS,
        raw::ATTEMPTS,
        families::ATTEMPTS,
        netlink::ATTEMPTS,
        options::ATTEMPTS,
        connected::ATTEMPTS,
        uring::ATTEMPTS,
        listening::ATTEMPTS,
        unix::ATTEMPTS,
        compat::ATTEMPTS,
        spaces::ATTEMPTS,
    ]
    .concat();
    all.extend(names::all());
    all.extend(servers::all());
    all
}

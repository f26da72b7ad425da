//! The attempts on the network, in the order of the catalogue. Attempts on names, once
//! the product resolves them, are a file of their own: `names.rs`.

mod compat;
mod connected;
mod families;
pub mod ground;
pub mod interface;
mod listener;
mod listening;
mod local;
mod netlink;
mod options;
mod race;
mod raw;
mod rtnetlink;
mod spaces;
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
    [
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
    .concat()
}

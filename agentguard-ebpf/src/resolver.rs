//! Names: addresses that runs were given for them, and the daemon's resolver, which answers
//! in the place of the servers that runs ask.

use agentguard_common::identity::{PolicyRecord, policy_flag};
use agentguard_common::net::{Address, NetMatch, port_key};
use agentguard_common::resolver::{Asker, AskerKey, DNS_PORT, GrantKey, ResolverRecord};
use agentguard_common::socket::SocketRecord;

use crate::address::Destination;
use crate::maps::{ASKERS, GRANTS, RESOLVER};
use crate::{emit, socket};

const LOCALHOST: Address = Address::v4(0x7f00_0001);
const LOCALHOST_V6: Address = Address { words: [0, 0, 0, 1], is_v4: false };

/// Whether a policy has rules about names.
#[inline(always)]
pub fn has_names(policy: &PolicyRecord) -> bool {
    policy.flags & policy_flag::NAMES != 0
}

#[inline(always)]
fn record() -> Option<&'static ResolverRecord> {
    RESOLVER.get(0)
}

/// What the rules about names say of an address that a run was given. `fresh`: and is still
/// to be connected to, not only from before.
#[inline(always)]
pub fn granted(
    serial: u64,
    generation: u32,
    to: &Destination,
    address: &Address,
    fresh: bool,
) -> NetMatch {
    let [a, b, c, d] = address.words;
    let high = u64::from(a) << 32 | u64::from(b);
    let low = u64::from(c) << 32 | u64::from(d);
    let asked = u64::from(port_key(to.transport, to.port))
        | u64::from(generation) << 32
        | u64::from(address.is_v4) << IS_V4
        | u64::from(fresh) << FRESH;
    let found = agentguard_granted(serial, high, low, asked);
    NetMatch { verdict: (found >> 16) as u8 & 3, rule: found as u16 }
}

/// Bits of what [`agentguard_granted`] is asked, above a [`port_key`].
const IS_V4: u32 = 30;
const FRESH: u32 = 31;

/// A global function of plain numbers: verified once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_granted(serial: u64, high: u64, low: u64, asked: u64) -> u32 {
    let address = Address {
        words: [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32],
        is_v4: asked >> IS_V4 & 1 != 0,
    };
    let key = GrantKey::new(serial, &address);
    // SAFETY: not preallocated: a removed grant stays readable until the program ends.
    let Some(grant) = (unsafe { GRANTS.get(key) }) else {
        return 0;
    };
    if asked >> FRESH & 1 != 0 && emit::now() >= grant.until_ns {
        return 0;
    }
    let ports = asked as u32 & ((1 << IS_V4) - 1);
    let found = grant.lookup((asked >> 32) as u32, ports);
    u32::from(found.verdict) << 16 | u32::from(found.rule)
}

/// Whether an address was given to a run for a name with a port that is allowed, and is still
/// to be connected to.
#[inline(always)]
pub fn is_opened(serial: u64, generation: u32, address: &Address) -> bool {
    let [a, b, c, d] = address.words;
    let high = u64::from(a) << 32 | u64::from(b);
    let low = u64::from(c) << 32 | u64::from(d);
    let asked = u64::from(generation) << 32 | u64::from(address.is_v4) << IS_V4;
    agentguard_opened(serial, high, low, asked) != 0
}

/// A global function of plain numbers: verified once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_opened(serial: u64, high: u64, low: u64, asked: u64) -> u32 {
    let address = Address {
        words: [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32],
        is_v4: asked >> IS_V4 & 1 != 0,
    };
    // SAFETY: not preallocated: a removed grant stays readable until the program ends.
    match unsafe { GRANTS.get(GrantKey::new(serial, &address)) } {
        Some(grant) => {
            u32::from(emit::now() < grant.until_ns && grant.opens((asked >> 32) as u32))
        }
        None => 0,
    }
}

/// Whether it is a question to one of the host's servers.
#[inline(always)]
pub fn is_question(to: &Destination, address: &Address) -> bool {
    to.port == DNS_PORT && record().is_some_and(|record| record.is_server(address))
}

/// Where the daemon's resolver answers in a server's place; `None` if it does not listen.
#[inline(always)]
pub fn instead(of: &Address) -> Option<(Address, u16)> {
    let record = record()?;
    let (address, port) =
        if of.is_v4 { (LOCALHOST, record.port_v4) } else { (LOCALHOST_V6, record.port_v6) };
    if port == 0 { None } else { Some((address, port)) }
}

/// Whether this is where the daemon's resolver answers.
#[inline(always)]
pub fn is_here(address: &Address, port: u16) -> bool {
    let Some(record) = record() else {
        return false;
    };
    let [a, b, c, d] = address.words;
    if address.is_v4 {
        port == record.port_v4 && a == 0x7f00_0001
    } else {
        port == record.port_v6 && a | b | c == 0 && d == 1
    }
}

/// Where a socket's own program thinks that it goes: the server that it asked, where the
/// daemon's resolver answers.
#[inline(always)]
pub fn meant(own: &SocketRecord, to: &Destination) -> Destination {
    if socket::is_asking(own) && is_here(&to.address, to.port) {
        Destination { address: socket::asked(own), port: DNS_PORT, ..*to }
    } else {
        *to
    }
}

/// Whether a socket that asks goes to the server that it asks, or to the daemon's resolver in
/// its place.
#[inline(always)]
pub fn is_asked(own: &SocketRecord, to: &Destination) -> bool {
    let [a, b, c, d] = own.asked;
    let [e, f, g, h] = to.address.words;
    let same = (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0;
    let server = same && to.address.is_v4 == (own.asked_is_v4 != 0) && to.port == DNS_PORT;
    socket::is_asking(own) && (server || is_here(&to.address, to.port))
}

/// Notes for the daemon who asks, by where its packets come from.
#[inline(always)]
pub fn note(own: &SocketRecord, key: &AskerKey) {
    let asker = Asker {
        tag: own.tag,
        boot_ns: emit::now(),
        address: own.asked,
        is_v4: own.asked_is_v4,
        reserved: 0,
    };
    // It never fails for lack of room; if it does, the question is refused.
    let _ = ASKERS.insert(key, &asker, 0);
}

//! Network operations: from the facts of a hook to its return value.

use agentguard_common::counter::Counter;
use agentguard_common::decision::{self, Subject};
use agentguard_common::identity::{PolicyRecord, Tag, privilege};
use agentguard_common::net::{NetMatch, Transport};
use agentguard_common::path::Rows;
use agentguard_common::resolver::DNS_PORT;
use agentguard_common::socket::{SocketRecord, socket_flag};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Decision, Mode, Reason, Verdict};

use super::{Settled, records, settle, unknown, verdict_to_errno};
use crate::address::{self, Destination};
use crate::emit::{self, Connection, Subjected};
use crate::kernel::{AbstractName, Dentry, Sock};
use crate::path::{self, Found};
use crate::{flow, kept, resolver, server_name, socket};

/// `IPPROTO_TCP`, `IPPROTO_UDP`
const TCP: u16 = 6;
const UDP: u16 = 17;

/// Decides a connection or a datagram to an IPv4 or IPv6 address. What is allowed becomes the
/// decided flow of the socket, if that is one of the run's own. `sends`: something goes there
/// at once.
#[inline(never)]
pub fn connect(tag: &Tag, to: &Destination, own: Option<&SocketRecord>, sends: bool) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: map memory that outlives the program; counters in it are atomics.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    // Only of the run's own sockets the cgroup programs know whose question it is.
    // (The kernel runs none of them when UDP-Lite connects.)
    let asks = own.is_some() && matches!(to.protocol, TCP | UDP);
    // A question to the same server as before, which the kernel may have taken to the resolver
    // already: what is known of the socket stays.
    let again = own.filter(|own| resolver::has_names(policy) && resolver::is_asked(own, to));
    let meant = again.map_or(*to, |own| resolver::meant(own, to));
    let how = How::Fresh { asks };
    let decision = decide(&subject, how, &meant);
    if !sends && only_looks(&subject, &decision, to) {
        if let Some(own) = own {
            socket::set_flow(own, 0, 0, 0);
        }
        return 0;
    }
    if let Some(own) = own
        && again.is_none()
    {
        socket::set_maker(own, flow::maker());
        let flags = server_name::flags(policy, to);
        if matches!(decision.verdict, Verdict::Allow) {
            socket::set_flow(own, flow(&subject, to), policy.generation, flags);
        } else if policy.mode == Mode::Observe as u8 {
            // It goes out all the same.
            socket::set_flow(own, 0, policy.generation, flags);
        }
    }
    conclude(&Subjected { tag, policy, run }, Settled::new(decision, Verb::Connect), to)
}

/// Before a program connects to one of several addresses, it sorts them (RFC 6724): it connects
/// a datagram socket to each, to see by which way the host reaches it. Nothing leaves by that,
/// and each datagram is decided, so that no port needs to be allowed for it where a name opened
/// the address: else what the host cannot reach would come first.
#[inline(always)]
fn only_looks(subject: &Subject<'_>, decision: &Decision, to: &Destination) -> bool {
    let (tag, policy) = (subject.tag, subject.policy);
    let is_datagram = matches!(to.transport, Transport::Udp);
    is_datagram
        && resolver::has_names(policy)
        && !matches!(decision.verdict, Verdict::Allow)
        && matches!(decision.reason, Reason::Default)
        && resolver::is_opened(tag.run_serial, policy.generation, &to.address.reached())
}

/// Decides what goes through a socket without an address of its own: to where the socket is
/// connected. Only refusals are counted and told: it was decided, counted and told when it
/// was connected, unless somebody else did that.
#[inline(never)]
pub fn through(tag: &Tag, sock: Sock, own: Option<&SocketRecord>) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: as in `connect`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let subjected = Subjected { tag, policy, run };
    let standing = decision::standing(&subject, emit::now);
    // Not connected: the kernel says so itself.
    let Some(to) = sock.peer() else {
        return match standing {
            Some(decision) => nowhere(&subjected, decision, Verb::Connect, sock),
            None => 0,
        };
    };
    let decision = match standing {
        Some(decision) => decision,
        None if own.is_some_and(socket::is_cut) => Decision::deny(Reason::ServerName),
        None => {
            let now = flow(&subject, &to);
            if own.is_some_and(|own| socket::is_flow(own, now)) {
                return 0;
            }
            let meant = own.map_or(to, |own| resolver::meant(own, &to));
            let asks = own.is_some_and(socket::is_asking);
            let decision = by_rules(&subject, How::On { asks }, &meant);
            if matches!(decision.verdict, Verdict::Allow) {
                if let Some(own) = own {
                    socket::renew_flow(own, now, policy.generation);
                }
                return 0;
            }
            decision
        }
    };
    conclude(&subjected, Settled::new(decision, Verb::Connect), &to)
}

/// Whether a connection goes on where a packet of it was let through before, and its run has
/// all its rights. (What takes a hundred instructions here is taken from each packet.)
#[inline(always)]
pub fn goes_on(own: &SocketRecord) -> bool {
    let Some((policy, run)) = records(&own.tag) else {
        return false;
    };
    // SAFETY: as in `connect`.
    let subject = Subject { tag: &own.tag, policy, run: unsafe { &*run } };
    socket::is_settled(own, policy.generation)
        && decision::standing(&subject, emit::now).is_none()
}

/// Decides about a packet of a run's own socket, whoever sends it off. `peer` is where the
/// socket is connected to: the packet's own header may already name another place, because
/// the host translates addresses. `detours`: the header says by which way it goes.
#[inline(never)]
pub fn packet(own: &SocketRecord, peer: Option<Destination>, detours: bool) -> bool {
    let tag = &own.tag;
    let Some((policy, run)) = records(tag) else {
        return unknown() == 0;
    };
    // SAFETY: as in `connect`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let decision = match (decision::standing(&subject, emit::now), peer) {
        (Some(decision), _) => decision,
        (None, _) if policy.privileges & privilege::RAW_SOCKETS != 0 => return true,
        (None, _) if detours => Decision::deny(Reason::Privilege),
        // Also before somebody is accepted, when the socket is connected to nobody.
        (None, to) if socket::is_inbound(own) => {
            if to.is_some_and(|to| to.protocol == TCP) {
                socket::set_settled(own, policy.generation);
            }
            return true;
        }
        (None, Some(to)) => {
            if socket::is_flow(own, flow(&subject, &to)) {
                // What begins elsewhere is told by `flow_state`, of TCP alone.
                if to.protocol == TCP {
                    socket::set_settled(own, policy.generation);
                }
                return true;
            }
            // It was decided and told when it began, and let through.
            if policy.mode == Mode::Observe as u8 && socket::is_of(own, policy.generation) {
                return true;
            }
            let asks = socket::is_asking(own);
            by_rules(&subject, How::On { asks }, &resolver::meant(own, &to))
        }
        // Each datagram was decided when it was given its address.
        (None, None) if socket::is_of(own, policy.generation) => return true,
        (None, None) => Decision::deny(Reason::NoPolicy),
    };
    if matches!(decision.verdict, Verdict::Allow) {
        return true;
    }
    let to = peer.unwrap_or(Destination::UNKNOWN);
    let (subject, settled) =
        (Subjected { tag, policy, run }, Settled::new(decision, Verb::Connect));
    settle(&subject, settled);
    // Whoever runs now, it need not be the run.
    emit::net::<false>(&subject, settled, &to);
    verdict_to_errno(policy, settled) == 0
}

/// Decides about a place to be reached at. What is allowed lets peers in.
#[inline(never)]
pub fn listen(tag: &Tag, at: &Destination, own: Option<&SocketRecord>) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: as in `connect`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let decision = decide(&subject, How::Listening, at);
    let refused =
        conclude(&Subjected { tag, policy, run }, Settled::new(decision, Verb::Listen), at);
    if refused == 0
        && let Some(own) = own
    {
        socket::set_flags(own, socket_flag::INBOUND);
    }
    refused
}

/// Decides about what only the privilege `raw-sockets` allows.
#[inline(never)]
pub fn raw(tag: &Tag, what: &Destination) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: as in `connect`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let decision = match decision::standing(&subject, emit::now) {
        Some(decision) => decision,
        None if policy.privileges & privilege::RAW_SOCKETS != 0 => return 0,
        None => Decision::deny(Reason::Privilege),
    };
    conclude(&Subjected { tag, policy, run }, Settled::new(decision, Verb::Connect), what)
}

/// Decides about a capability over the host's network, which the privilege `raw-sockets`
/// stands for. `quiet`: neither counted nor told.
#[inline(never)]
pub fn administers(tag: &Tag, quiet: bool) -> i32 {
    if !quiet {
        return raw(tag, &Destination::UNKNOWN);
    }
    let Some((policy, _)) = records(tag) else {
        return unknown();
    };
    let decision = match policy.privileges & privilege::RAW_SOCKETS {
        0 => Decision::deny(Reason::Privilege),
        _ => return 0,
    };
    verdict_to_errno(policy, Settled::new(decision, Verb::Connect))
}

/// Whether the run has any rights now: what else is to be said was said elsewhere.
#[inline(never)]
pub fn alive(tag: &Tag, sock: Sock) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: as in `connect`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    match decision::standing(&subject, emit::now) {
        Some(decision) => {
            nowhere(&Subjected { tag, policy, run }, decision, Verb::Connect, sock)
        }
        None => 0,
    }
}

/// Refuses what is done with a connection that was cut for the server that it is for.
#[inline(never)]
pub fn cut(tag: &Tag, sock: Sock) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    let decision = Decision::deny(Reason::ServerName);
    nowhere(&Subjected { tag, policy, run }, decision, Verb::Connect, sock)
}

/// Decides about a unix socket without a file, by its abstract name.
#[inline(never)]
pub fn abstract_name(tag: &Tag, verb: Verb, name: AbstractName) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: as in `connect`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let decision = match decision::standing(&subject, emit::now) {
        Some(decision) => decision,
        None => match path::abstract_rows(policy, name) {
            Ok(rows) => decision::decide_unix(&subject, verb, rows),
            Err(reason) => {
                emit::count(Counter::AddressUnreadable);
                Decision::deny(reason)
            }
        },
    };
    let subject = Subjected { tag, policy, run };
    let settled = Settled::new(decision, verb);
    settle(&subject, settled);
    emit::abstract_name(&subject, settled, name);
    verdict_to_errno(policy, settled)
}

/// Decides about connecting to a unix socket, by the name of its file.
#[inline(never)]
pub fn socket_file(tag: &Tag, dentry: Dentry) -> i32 {
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    // SAFETY: as in `connect`.
    let subject = Subject { tag, policy, run: unsafe { &*run } };
    let decision = match decision::standing(&subject, emit::now) {
        Some(decision) => decision,
        None => match path::rows(policy, dentry) {
            Ok(Found::Rows(fixed, deep)) => {
                // SAFETY: checked for null; rows of a policy in force are not rewritten.
                let rows = unsafe { Rows { fixed: &*fixed, deep: &*deep } };
                decision::decide_unix(&subject, Verb::Connect, rows)
            }
            Ok(Found::Builtin) => Decision::builtin(),
            Err(reason) => {
                emit::count(Counter::PathUnreadable);
                Decision::deny(reason)
            }
        },
    };
    let subject = Subjected { tag, policy, run };
    super::conclude(&subject, Settled::new(decision, Verb::Connect), dentry, false)
}

/// Denies an operation whose address could not be read.
#[inline(never)]
pub fn unreadable(tag: &Tag, verb: Verb) -> i32 {
    emit::count(Counter::AddressUnreadable);
    let Some((policy, run)) = records(tag) else {
        return unknown();
    };
    let settled = Settled::new(Decision::deny(Reason::ReadFailed), verb);
    conclude(&Subjected { tag, policy, run }, settled, &Destination::UNKNOWN)
}

/// How a destination is asked about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Something begins there: names count for their time. `asks`: if it is a question of the
    /// DNS, it will be taken to the daemon's resolver.
    Fresh { asks: bool },
    /// Something goes on there: names count that were given once. `asks`: it goes to the
    /// daemon's resolver.
    On { asks: bool },
    /// Somebody is waited for there.
    Listening,
}

#[inline(always)]
fn decide(subject: &Subject<'_>, how: How, to: &Destination) -> Decision {
    match decision::standing(subject, emit::now) {
        Some(decision) => decision,
        None => by_rules(subject, how, to),
    }
}

#[inline(always)]
fn by_rules(subject: &Subject<'_>, how: How, to: &Destination) -> Decision {
    let policy = subject.policy;
    let (roots, verb, address) = match how {
        How::Listening => (&policy.listen, Verb::Listen, to.address),
        _ => (&policy.connect, Verb::Connect, to.address.reached()),
    };
    let root = if address.is_v4 { roots.v4 } else { roots.v6 };
    // Who comes there by itself could be taken for another run, which asked from the same port.
    if !matches!(how, How::Listening) && resolver::is_here(&address, to.port) {
        return Decision::deny(Reason::Forbidden);
    }
    let Some(mut matched) = address::lookup(root, &address, to.transport, to.port) else {
        emit::count(Counter::AddressUnreadable);
        return Decision::deny(Reason::ReadFailed);
    };
    if let How::Fresh { asks } | How::On { asks } = how
        && resolver::has_names(policy)
    {
        // Past the resolver there is no question, whatever rules say of the address.
        if to.port == DNS_PORT {
            if !asks {
                return Decision::deny(Reason::Forbidden);
            }
            if resolver::instead(&address).is_none() {
                emit::count(Counter::ResolverAbsent);
                return Decision::deny(Reason::ResolverAbsent);
            }
        }
        let serial = subject.tag.run_serial;
        let fresh = matches!(how, How::Fresh { .. });
        let named = resolver::granted(serial, policy.generation, to, &address, fresh);
        if named.verdict > matched.verdict {
            matched = named;
        }
        if matched.verdict == 0 && resolver::is_question(to, &address) {
            return Decision::builtin();
        }
    }
    decision::decide_net(subject, verb, matched)
}

/// What the policy says of a server that a connection names, to which rules about names say
/// `named`. Where none does, what allows the address by itself counts.
#[inline(always)]
fn of_server(policy: &PolicyRecord, to: &Destination, named: NetMatch) -> Option<NetMatch> {
    let address = to.address.reached();
    let root = if address.is_v4 { policy.connect.v4 } else { policy.connect.v6 };
    let matched = address::lookup(root, &address, to.transport, to.port)?;
    Some(if matched.verdict > named.verdict { matched } else { named })
}

/// Whether a connection may name this server. See [`server`].
#[inline(never)]
pub fn names_server(policy: &PolicyRecord, to: &Destination, named: NetMatch) -> bool {
    match of_server(policy, to, named) {
        Some(NetMatch { verdict: 0, .. }) => {
            policy.default_bits(Verb::Connect) == Verdict::Allow as u8
        }
        Some(matched) => matched.verdict == Verdict::Allow as u8,
        None => false,
    }
}

/// Refuses a connection for the server that it names, of which rules about names say `named`;
/// `None`: that cannot be read. Returns whether it is cut.
#[inline(never)]
pub fn server(
    own: &SocketRecord,
    connection: &Connection,
    named: Option<NetMatch>,
    name: *const u8,
    len: u32,
) -> bool {
    let Some((policy, run)) = records(&own.tag) else {
        return unknown() != 0;
    };
    // SAFETY: as in `connect`.
    let subject = Subject { tag: &own.tag, policy, run: unsafe { &*run } };
    let decision = match named.and_then(|named| of_server(policy, &connection.to, named)) {
        Some(matched) if matched.verdict != 0 => {
            decision::decide_net(&subject, Verb::Connect, matched)
        }
        Some(_) => Decision::deny(Reason::ServerName),
        None => {
            emit::count(Counter::ServerNameUnreadable);
            Decision::deny(Reason::ServerName)
        }
    };
    let (subject, settled) =
        (Subjected { tag: &own.tag, policy, run }, Settled::new(decision, Verb::Connect));
    settle(&subject, settled);
    emit::server_name(&subject, settled, connection, name, len);
    verdict_to_errno(policy, settled) != 0
}

/// Has the daemon's resolver answer a question in the place of the server that is asked: where
/// that is. The address has been decided.
#[inline(never)]
pub fn question(own: &SocketRecord, to: &Destination) -> Answerer {
    let Some((policy, run)) = records(&own.tag) else {
        unknown();
        return Answerer { found: Answerer::ABSENT, ..Answerer::NONE };
    };
    if !resolver::has_names(policy) {
        return Answerer::NONE;
    }
    // SAFETY: as in `connect`.
    let subject = Subject { tag: &own.tag, policy, run: unsafe { &*run } };
    // Told when it was decided, but for what happens in between.
    let Some((address, port)) = resolver::instead(&to.address) else {
        return Answerer { found: Answerer::ABSENT, ..Answerer::NONE };
    };
    let there = Destination { address, port, ..*to };
    socket::set_asking(own, &to.address, flow(&subject, &there), policy.generation);
    Answerer { found: Answerer::FOUND, port, is_v4: u16::from(address.is_v4) }
}

/// What [`question`] found.
pub struct Answerer {
    /// One of the constants.
    pub found: u32,
    /// Port on the loopback interface.
    pub port: u16,
    /// 1 for 127.0.0.1, 0 for `::1`.
    pub is_v4: u16,
}

impl Answerer {
    /// It is no question that the daemon answers.
    pub const PLAIN: u32 = 0;
    /// The resolver answers.
    pub const FOUND: u32 = 1;
    /// The resolver does not listen.
    pub const ABSENT: u32 = 2;
    /// Nothing was asked.
    pub const NONE: Self = Self { found: Self::PLAIN, port: 0, is_v4: 0 };
}

/// A destination as a socket's record keeps it: of this agent, under this policy.
#[inline(always)]
fn flow(subject: &Subject<'_>, to: &Destination) -> u64 {
    let address = to.address.reached();
    let [a, b, c, d] = address.words;
    let kind = u64::from(to.port)
        | (to.transport as u64) << 16
        | u64::from(address.is_v4) << 24
        | u64::from(subject.tag.agent) << 32;
    kept::of_words(
        u64::from(a) << 32 | u64::from(b),
        u64::from(c) << 32 | u64::from(d),
        kind,
        u64::from(subject.policy.generation),
    )
}

#[inline(always)]
fn nowhere(subject: &Subjected<'_>, decision: Decision, verb: Verb, sock: Sock) -> i32 {
    let what = Destination::nowhere(sock.family(), sock.protocol());
    conclude(subject, Settled::new(decision, verb), &what)
}

/// Counts and tells a decision about an address; what the hook returns.
#[inline(always)]
fn conclude(subject: &Subjected<'_>, settled: Settled, to: &Destination) -> i32 {
    settle(subject, settled);
    emit::net::<true>(subject, settled, to);
    verdict_to_errno(subject.policy, settled)
}

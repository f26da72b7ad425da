//! Names: what must not leave by questions of the DNS, and what answers must not open.
//!
//! The driver has the host's server ([`nameserver`]). Each field has a label of its own,
//! which is in the names that it asks for and nowhere else.

pub mod answers;
pub mod beside;
pub mod given;
pub mod hidden;
pub mod hostile;
pub mod malformed;
pub mod questions;
pub mod rebinding;
pub mod resolver;
pub mod shapes;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;
use nix::libc;
use serde_json::json;

use super::nameserver::{self, Needle, Script};
use super::{dns, ground, interface, listener, wire};
use crate::attempt::Attempt;
use crate::field::{Field, Side};
use crate::sys::{self, Fail, Try, call};
use dns::{code, kind};

/// The port of the daemon's resolver on the loopback interface. A rule allows connecting to
/// it over IPv4, and none over IPv6.
pub const RESOLVER_PORT: u16 = 21_953;
/// A port of the rules about names.
pub const RULED_PORT: u16 = 8_443;
/// The one beside it.
pub const OTHER_PORT: u16 = 8_444;
/// An address that an address rule denies, whatever its names.
pub const DENIED: [u8; 4] = [203, 0, 113, 66];
/// What else an answer gives: nobody is there.
pub const DECOY: [u8; 4] = [203, 0, 113, 1];
const DECOY_V6: [u16; 8] = [0xfd77, 0, 0, 4, 0, 0, 0, 1];
/// Seconds until an answer has to be there: tries at all servers, on a slow machine.
const PATIENCE: u64 = 8;
/// Stands for the field's label.
const LABEL: u8 = b'@';

/// Rules about names that allow.
pub fn allow_rules() -> Vec<String> {
    vec![
        "*.ok.test".to_owned(),
        "exact.test".to_owned(),
        "*.xn--bcher-kva.test".to_owned(),
        format!("*.ported.test:{RULED_PORT}/tcp"),
        format!("127.0.0.1:{RESOLVER_PORT}"),
    ]
}

/// Rules that deny.
pub fn deny_rules() -> Vec<String> {
    let [a, b, c, d] = DENIED;
    vec![
        "*.no.ok.test".to_owned(),
        format!("*.half.ok.test:{OTHER_PORT}"),
        format!("{a}.{b}.{c}.{d}"),
    ]
}

/// Every attempt.
pub fn all() -> Vec<Attempt> {
    [
        questions::ATTEMPTS,
        shapes::ATTEMPTS,
        hidden::ATTEMPTS,
        resolver::ATTEMPTS,
        given::ATTEMPTS,
        beside::ATTEMPTS,
        answers::ATTEMPTS,
        hostile::ATTEMPTS,
        malformed::ATTEMPTS,
        rebinding::ATTEMPTS,
    ]
    .concat()
}

/// Which family is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// A name of these labels, with the field's own where `@` stands.
fn named(pattern: &[&[u8]], label: &[u8]) -> Vec<u8> {
    let with_label = |part: &&[u8]| match part.iter().position(|byte| *byte == LABEL) {
        Some(at) => [&part[..at], label, &part[at + 1..]].concat(),
        None => part.to_vec(),
    };
    let parts: Vec<Vec<u8>> = pattern.iter().map(with_label).collect();
    dns::labels(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// What the server saw and what arrived.
pub fn look(field: &Field) -> Result<String> {
    Ok(listener::look(field)? + &nameserver::look(field))
}

/// What the server saw.
pub fn look_at_server(field: &Field) -> Result<String> {
    Ok(nameserver::look(field))
}

/// Effects that only the attempt itself sees.
pub fn look_nowhere(_: &Field) -> Result<String> {
    Ok(String::new())
}

/// What an attempt is prepared with.
pub struct Ground<'a> {
    /// Which server is asked.
    pub server: Family,
    /// The name that is asked for.
    pub name: &'a [&'a [u8]],
    /// What of a question counts at the server.
    pub needle: Needle,
    /// What the server says.
    pub script: Script,
    /// Where the attempt goes, as a socket address.
    pub to: Vec<u8>,
    /// The address that answers give for it, if it is another.
    pub answered: Vec<u8>,
}

impl Ground<'_> {
    /// One whose effect is that a question reaches the server.
    pub fn asking<'a>(server: Family, name: &'a [&'a [u8]]) -> Ground<'a> {
        Ground {
            server,
            name,
            needle: Needle::Name,
            script: nameserver::nothing,
            to: Vec::new(),
            answered: Vec::new(),
        }
    }

    /// Tells the server and the attempt.
    pub fn lay(self, field: &Field) -> Result<()> {
        self.lay_with(field, nameserver::fresh_label(), json!({}))
    }

    /// With a label that is known already, and more facts.
    pub fn lay_with(
        self,
        field: &Field,
        label: Vec<u8>,
        mut facts: serde_json::Value,
    ) -> Result<()> {
        let answered = if self.answered.is_empty() {
            wire::host(&self.to)
        } else {
            self.answered
        };
        let given = nameserver::given(field, &answered, &decoy(answered.len()));
        facts["label"] = json!(label);
        facts["name"] = json!(named(self.name, &label));
        if facts["server"].is_null() {
            facts["server"] = json!(nameserver::address(self.server == Family::V4));
        }
        if facts["kind"].is_null() {
            let is_v6 = answered.len() == 16;
            facts["kind"] = json!(if is_v6 { kind::AAAA } else { kind::A });
        }
        nameserver::know(label, self.needle, self.script, given);
        facts["to"] = json!(self.to);
        field.note(&facts)
    }
}

/// An address at which nobody is.
fn decoy(length: usize) -> Vec<u8> {
    match length {
        16 => wire::words_v6(DECOY_V6).to_vec(),
        _ => DECOY.to_vec(),
    }
}

/// An address of this machine that no rule names and no other field has.
pub fn fresh(family: Family) -> Result<Vec<u8>> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let [high, low] = next.to_be_bytes();
    let address = match family {
        Family::V4 => wire::v4([198, 18, high, low], 0),
        Family::V6 => wire::v6(wire::words_v6([0xfd77, 0, 0, 5, 0, 0, 0, next]), 0, 0),
    };
    interface::add(&wire::host(&address))?;
    Ok(address)
}

/// An address of this machine that a rule allows and no other field has.
pub fn listed(family: Family) -> Result<Vec<u8>> {
    static NEXT: AtomicU16 = AtomicU16::new(20);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let address = match family {
        Family::V4 => wire::v4(interface::v4(Side::Allowed, next as u8), 0),
        Family::V6 => wire::v6(interface::v6(Side::Allowed, next), 0, 0),
    };
    interface::add(&wire::host(&address))?;
    Ok(address)
}

/// A listener of the field at this address; the address with its port.
pub fn listen_at(field: &Field, address: &[u8], kind: i32) -> Result<Vec<u8>> {
    let socket = wire::socket(wire::family(address), kind, 0)?;
    wire::bind(&socket, address)?;
    let accepts = kind == libc::SOCK_STREAM;
    if accepts {
        call!(SYS_listen, &socket, 16)?;
    }
    let to = wire::name(&socket)?;
    ground::watch(field, socket, accepts)?;
    Ok(to)
}

/// A listener of the field that the name leads to, as the script says.
pub fn leads(field: &Field, family: Family, script: Script) -> Result<()> {
    let to = listen_at(field, &fresh(family)?, libc::SOCK_STREAM)?;
    Ground {
        script,
        to,
        // What the server saw is no effect here: the name is allowed.
        needle: Needle::Flags(0),
        ..Ground::asking(family, &[b"@", b"ok", b"test"])
    }
    .lay(field)
}

/// A socket of this kind for the server, that waits long enough.
pub fn asking_socket(server: &[u8], kind: i32) -> Try<OwnedFd> {
    let socket = wire::socket_to(server, kind)?;
    wait_long(&socket)?;
    Ok(socket)
}

/// Has a socket wait for answers as long as they may take.
pub fn wait_long(socket: &OwnedFd) -> Try {
    let time = sys::words(&[PATIENCE, 0]);
    wire::set(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)
}

/// The field's question.
pub fn question(field: &Field) -> Vec<u8> {
    dns::query(&field.noted_bytes("name"), field.noted("kind") as u16)
}

/// A datagram of this socket, or some bytes of a connection.
pub fn received(socket: &OwnedFd) -> Try {
    let mut room = vec![0; 64 * 1024];
    let length = room.len();
    loop {
        match call!(SYS_recvfrom, socket, &mut room[..], length, 0, 0, 0) {
            // A ring that has something to say interrupts what waits with a time limit.
            Err(fail) if fail.errno == libc::EINTR => {}
            Err(fail) => return Err(fail),
            Ok(got) => {
                room.truncate(got as usize);
                return Ok(room);
            }
        }
    }
}

/// A message of this connection.
pub fn received_framed(socket: &OwnedFd) -> Try {
    let mut bytes = Vec::new();
    loop {
        let length = usize::from(dns::number_at(&bytes, 0));
        if bytes.len() >= 2 && bytes.len() >= 2 + length {
            return Ok(bytes[2..2 + length].to_vec());
        }
        let some = received(socket)?;
        if some.is_empty() {
            return Err(Fail::new("the connection ends", libc::ECONNRESET));
        }
        bytes.extend(some);
    }
}

/// What a reply says, as errors say it. The driver's server never says that there is no
/// name: the resolver does, for one that is refused.
pub fn told(reply: &[u8]) -> Try {
    let (what, errno) = match reply.get(3).copied().unwrap_or(code::FORMERR) & 15 {
        0 => return sys::done(),
        code::FORMERR => ("FORMERR", libc::EBADMSG),
        code::SERVFAIL => ("SERVFAIL", libc::EREMOTEIO),
        code::NXDOMAIN => ("NXDOMAIN", libc::EPERM),
        code::NOTIMP => ("NOTIMP", libc::EOPNOTSUPP),
        code::REFUSED => ("REFUSED", libc::EACCES),
        _ => ("another result", 0),
    };
    Err(Fail::new(format!("the resolver says {what}"), errno))
}

/// Asks by a datagram; the reply.
pub fn exchange(field: &Field, message: &[u8]) -> Try {
    let server = field.noted_bytes("server");
    let socket = asking_socket(&server, libc::SOCK_DGRAM)?;
    wire::send_bytes_to(&socket, message, &server, 0)?;
    received(&socket)
}

/// Asks over TCP; the reply.
pub fn exchange_by_tcp(field: &Field, message: &[u8]) -> Try {
    let server = field.noted_bytes("server");
    let socket = asking_socket(&server, libc::SOCK_STREAM)?;
    wire::connect(&socket, &server)?;
    let framed = dns::framed(message);
    call!(SYS_write, &socket, &framed[..], framed.len())?;
    received_framed(&socket)
}

/// Asks; what is said.
pub fn ask(field: &Field) -> Try {
    told(&exchange(field, &question(field))?)
}

/// The same over TCP.
pub fn ask_by_tcp(field: &Field) -> Try {
    told(&exchange_by_tcp(field, &question(field))?)
}

/// Goes where the field's listener is.
pub fn reach(field: &Field) -> Try {
    reach_to(&field.noted_bytes("to"))
}

/// Connects there, and writes.
pub fn reach_to(to: &[u8]) -> Try {
    let socket = wire::socket_to(to, libc::SOCK_STREAM)?;
    wire::connect(&socket, to)?;
    sys::mark(&socket)
}

/// Asks, and goes there whatever the answer is: but there has to be one.
pub fn ask_and_reach(field: &Field) -> Try {
    exchange(field, &question(field))?;
    reach(field)
}

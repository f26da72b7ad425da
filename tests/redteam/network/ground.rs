//! Where attempts on the network go to: addresses with a rule and without, and listeners
//! of the driver at them.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use serde_json::{Value, json};

use super::listener::{self, FRIEND, Listener, keep};
use super::{interface, wire};
use crate::field::{Field, Side};
use crate::sys::call;

/// What an attempt speaks.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Type of the socket.
    pub kind: i32,
    /// Protocol of the socket.
    pub protocol: i32,
}

/// TCP, and stream sockets of other families.
pub const STREAM: Service = Service {
    kind: libc::SOCK_STREAM,
    protocol: 0,
};
/// UDP, and datagram sockets of other families.
pub const DATAGRAM: Service = Service {
    kind: libc::SOCK_DGRAM,
    protocol: 0,
};
/// Packets with a connection.
pub const SEQUENCED: Service = Service {
    kind: libc::SOCK_SEQPACKET,
    protocol: 0,
};
/// UDP with a checksum of a part.
pub const UDP_LITE: Service = Service {
    kind: libc::SOCK_DGRAM,
    protocol: libc::IPPROTO_UDPLITE,
};
/// SCTP in the manner of TCP.
pub const SCTP: Service = Service {
    kind: libc::SOCK_STREAM,
    protocol: libc::IPPROTO_SCTP,
};

/// Where a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address with a rule, or one without.
    V4,
    /// The same of IPv6.
    V6,
    /// 127.0.0.1, at a port with a rule or one without.
    Local4,
    /// `::1`, likewise.
    Local6,
    /// A link-local address.
    Link6,
    /// A multicast group.
    Group4,
    /// A multicast group.
    Group6,
    /// The broadcast address of a network.
    Broadcast4,
}

/// The ports of 127.0.0.1 and `::1` of which a rule speaks, and others.
const PORTS: [u16; 2] = [20_000, 21_000];
/// How many each.
const PORT_COUNT: u16 = 1_000;
/// Ports that nobody listens at until an attempt does. They are below what the kernel gives
/// to sockets that name none, so that nobody else has one when its attempt begins.
const SPOTS: std::ops::Range<u16> = 22_000..30_000;
/// Connections that may wait until the driver looks.
const BACKLOG: i32 = 1_024;
/// Ethernet protocol "all".
const EVERY_PROTOCOL: u16 = 3;

/// What is allowed in the manifest of the agent that tries.
pub fn connect_rules(root: &str) -> Vec<String> {
    let [first, _] = PORTS;
    let last = first + PORT_COUNT - 1;
    let mut rules = vec![
        "192.0.2.0/24".to_owned(),
        "fd77:0:0:1::/64".to_owned(),
        format!("127.0.0.1:{first}-{last}"),
        format!("[::1]:{first}-{last}"),
        "fe80::77:1".to_owned(),
        "239.77.0.1".to_owned(),
        "ff15::77:1".to_owned(),
        format!("unix:{root}ok/**"),
    ];
    rules.extend(super::unix::names(Side::Allowed).map(|name| format!("unix:@{name}")));
    rules.extend(super::names::allow_rules());
    rules
}

/// What it may listen on.
pub fn listen_rules() -> Vec<String> {
    let mut rules = vec!["192.0.2.0/24".to_owned(), "fd77:0:0:1::/64".to_owned()];
    rules.extend(super::unix::names(Side::Allowed).map(|name| format!("unix:@{name}.bound")));
    rules
}

/// Watches a socket of the driver for this field.
pub fn watch(field: &Field, socket: OwnedFd, accepts: bool) -> Result<()> {
    keep(field.work.clone(), Listener::new(socket, accepts)?)
}

/// The address of a place, without a port.
pub fn address(place: Place, side: Side) -> Vec<u8> {
    match place {
        Place::V4 => wire::v4(interface::v4(side, 1), 0),
        Place::V6 => wire::v6(interface::v6(side, 1), 0, 0),
        Place::Local4 => wire::v4([127, 0, 0, 1], 0),
        Place::Local6 => wire::v6(wire::words_v6([0, 0, 0, 0, 0, 0, 0, 1]), 0, 0),
        Place::Link6 => wire::v6(interface::link_local(side), 0, interface::index()),
        Place::Group4 => wire::v4(interface::group_v4(side), 0),
        Place::Group6 => wire::v6(interface::group_v6(side), 0, 0),
        Place::Broadcast4 => wire::v4(interface::v4(side, 255), 0),
    }
}

/// Binds a socket to a place, at a port of the side.
pub fn bound(place: Place, side: Side, service: Service) -> Result<(OwnedFd, Vec<u8>)> {
    let address = address(place, side);
    let ports = match (place, side) {
        (Place::Local4 | Place::Local6, Side::Allowed) => PORTS[0]..PORTS[0] + PORT_COUNT,
        (Place::Local4 | Place::Local6, Side::Denied) => PORTS[1]..PORTS[1] + PORT_COUNT,
        _ => 0..1,
    };
    let socket = wire::socket(wire::family(&address), service.kind, service.protocol)?;
    for port in ports {
        if wire::bind(&socket, &wire::with_port(&address, port)).is_ok() {
            let to = wire::with_port(&address, wire::port(&wire::name(&socket)?));
            return Ok((socket, to));
        }
    }
    anyhow::bail!("no free port of {address:?}")
}

/// Where everybody may go: for attempts that begin well.
fn friend(place: Place, service: Service) -> Result<Vec<u8>> {
    let key = PathBuf::from(format!("{FRIEND}{place:?} {service:?}"));
    if let Some(known) = listener::known(&key) {
        return Ok(known);
    }
    let address = match place {
        Place::V6 | Place::Local6 | Place::Link6 | Place::Group6 => {
            wire::v6(interface::v6(Side::Allowed, 9), 0, 0)
        }
        _ => wire::v4(interface::v4(Side::Allowed, 9), 0),
    };
    let socket = wire::socket(wire::family(&address), service.kind, service.protocol)?;
    wire::bind(&socket, &address)?;
    let accepts = service.kind != libc::SOCK_DGRAM;
    if accepts {
        call!(SYS_listen, &socket, BACKLOG)?;
    }
    let name = wire::name(&socket)?;
    keep(key, Listener::new(socket, accepts)?)?;
    Ok(name)
}

/// A listener of the field; its address is noted. A kernel without the protocol has none,
/// and what is noted is an address at which nobody is.
pub fn listen(field: &Field, place: Place, service: Service) -> Result<()> {
    let (socket, to) = match bound(place, field.side, service) {
        Ok(bound) => bound,
        Err(_) if service.protocol != 0 => {
            let to = wire::with_port(&address(place, field.side), 9);
            return note(field, &to, &to, json!({}));
        }
        Err(error) => return Err(error),
    };
    join(&socket, place, field.side)?;
    let accepts = service.kind != libc::SOCK_DGRAM;
    if accepts {
        call!(SYS_listen, &socket, BACKLOG)?;
    }
    watch(field, socket, accepts)?;
    note(field, &to, &friend(place, service)?, json!({}))
}

/// Joins the group, if the place is one.
fn join(socket: &OwnedFd, place: Place, side: Side) -> Result<()> {
    let index = interface::index().to_ne_bytes();
    match place {
        Place::Group4 => {
            let request = [&interface::group_v4(side)[..], &[0; 4], &index].concat();
            wire::set(socket, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request)?;
        }
        Place::Group6 => {
            let request = [&interface::group_v6(side)[..], &index].concat();
            wire::set(
                socket,
                libc::IPPROTO_IPV6,
                libc::IPV6_ADD_MEMBERSHIP,
                &request,
            )?;
        }
        _ => {}
    }
    Ok(())
}

/// Notes where to go, and what else the attempt has to know.
pub fn note(field: &Field, to: &[u8], friend: &[u8], mut more: Value) -> Result<()> {
    more["to"] = json!(to);
    more["friend"] = json!(friend);
    field.note(&more)
}

/// An address of the field with a port that is free; nobody is there.
pub fn spot(field: &Field, place: Place, service: Service) -> Result<()> {
    spot_at(field, &address(place, field.side), service)
}

/// A port of this address that is free, for this field alone.
pub fn spot_at(field: &Field, address: &[u8], service: Service) -> Result<()> {
    static NEXT: AtomicU16 = AtomicU16::new(SPOTS.start);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        ensure!(SPOTS.contains(&port), "no free port of {address:?}");
        let to = wire::with_port(address, port);
        let socket = wire::socket(wire::family(&to), service.kind, service.protocol)?;
        if wire::bind(&socket, &to).is_ok() {
            return note(field, &to, &to, json!({}));
        }
    }
}

/// Counts packets of the loopback interface that go to the field's address and hold the
/// mark, whoever receives them. What is noted as the way is a listener that everybody may
/// reach; `host` is the address.
pub fn sniff(field: &Field, place: Place) -> Result<()> {
    let protocol = i32::from(EVERY_PROTOCOL.to_be());
    let socket = wire::socket(libc::AF_PACKET, libc::SOCK_DGRAM, protocol)?;
    let mut listener = Listener::new(socket, false)?;
    let wanted = wire::host(&address(place, field.side));
    listener.sniffs = Some(wanted.clone());
    keep(field.work.clone(), listener)?;
    let friend = friend(place, DATAGRAM)?;
    note(field, &friend, &friend, json!({ "host": wanted }))
}

/// Counts raw packets to the field's address that hold the mark.
pub fn raw(field: &Field, place: Place, protocol: i32) -> Result<()> {
    let to = address(place, field.side);
    let socket = wire::socket(wire::family(&to), libc::SOCK_RAW, protocol)?;
    wire::bind(&socket, &to)?;
    let mut listener = Listener::new(socket, false)?;
    listener.is_raw = true;
    keep(field.work.clone(), listener)?;
    note(field, &to, &to, json!({}))
}

/// A socket of the driver that is connected to the field's listener.
pub fn connected(field: &Field, service: Service) -> Result<OwnedFd> {
    let to = field.noted_bytes("to");
    let socket = wire::socket(wire::family(&to), service.kind, service.protocol)?;
    wire::connect(&socket, &to).with_context(|| format!("connecting to {to:?}"))?;
    Ok(socket)
}

//! The resolver itself: asking it past the kernel, by sockets of others, and speaking in the
//! server's place.

use std::os::fd::OwnedFd;

use anyhow::Result;
use nix::libc::{self, SOCK_DGRAM, SOCK_STREAM};
use nix::sys::stat::Mode;
use serde_json::json;

use super::questions::below;
use super::{
    Family, Ground, RESOLVER_PORT, ask, ask_by_tcp, asking_socket, fresh, listed, listen_at, look,
    look_nowhere, question, reach, received, received_framed, told, wait_long,
};
use crate::attempt::{Attempt, write};
use crate::field::{Field, Side};
use crate::network::dns::{self, Message, kind};
use crate::network::ground::{self, Place};
use crate::network::nameserver::{self, Asked, Given, Needle, Out};
use crate::network::wire;
use crate::stage::receive;
use crate::sys::{self, Fail, Try, call};
use crate::victim::PROOF;

const PORT: u16 = 53;
const LITE: &[(i32, &str)] = &[(libc::EPROTONOSUPPORT, "the kernel has no UDP-Lite")];

/// Where a question goes past the server: to the resolver's own port.
fn direct(field: &Field, family: Family) -> Result<()> {
    let resolver = match family {
        Family::V4 => wire::v4([127, 0, 0, 1], RESOLVER_PORT),
        Family::V6 => wire::v6(wire::words_v6([0, 0, 0, 0, 0, 0, 0, 1]), RESOLVER_PORT, 0),
    };
    let server = match field.side {
        Side::Allowed => nameserver::address(family == Family::V4),
        Side::Denied => resolver,
    };
    // The name is one that is allowed: whose question it is, is what is not known.
    Ground::asking(family, below(Side::Allowed)).lay_with(
        field,
        nameserver::fresh_label(),
        json!({ "server": server }),
    )
}

const fn direct_v4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| direct(field, Family::V4))
        .look(look)
}

const fn direct_v6(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| direct(field, Family::V6))
        .look(look)
}

/// By a socket of somebody else, which no agent asks through: the control has no tag.
const fn elsewhere(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| Ground::asking(Family::V4, below(Side::Allowed)).lay(field))
        .look(look)
        .never()
}

pub const ATTEMPTS: &[Attempt] = &[
    direct_v4("net-dns-direct-udp-v4", ask).refused_as(libc::EACCES),
    direct_v4("net-dns-direct-tcp-v4", ask_by_tcp).refused_as(libc::ECONNRESET),
    direct_v6("net-dns-direct-udp-v6", ask),
    direct_v6("net-dns-direct-tcp-v6", ask_by_tcp),
    direct_v4("net-dns-direct-any-address-v4", |field| {
        let to = match field.side {
            Side::Allowed => field.noted_bytes("server"),
            Side::Denied => wire::any(&field.noted_bytes("server")),
        };
        let socket = asking_socket(&to, SOCK_DGRAM)?;
        wire::send_bytes_to(&socket, &question(field), &to, 0)?;
        told(&received(&socket)?)
    })
    .refused_as(libc::EACCES),
    write("net-dns-direct-asking-socket-v4", by_asking_socket)
        .prepare(|field| Ground::asking(Family::V4, below(field.side)).lay(field))
        .look(look),
    elsewhere("net-dns-inherited-connected-v4", |field| {
        by(field, field.inherited)
    })
    .inherits(|_| connected(SOCK_DGRAM)),
    elsewhere("net-dns-inherited-unconnected-v4", |field| {
        to_server(field, wire::need(field.inherited)?)
    })
    .inherits(|_| Ok(wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?)),
    elsewhere("net-dns-inherited-tcp-v4", |field| {
        let message = dns::framed(&question(field));
        let fd = wire::need(field.inherited)?;
        call!(SYS_write, fd, &message[..], message.len())?;
        sys::done()
    })
    .inherits(|_| connected(SOCK_STREAM)),
    elsewhere("net-dns-received-connected-v4", |field| {
        by(field, wire::raw(&receive()?))
    })
    .receives(|_| connected(SOCK_DGRAM)),
    elsewhere("net-dns-received-unconnected-v4", |field| {
        to_server(field, wire::raw(&receive()?))
    })
    .receives(|_| Ok(wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?)),
    elsewhere("net-dns-received-tcp-v4", |field| {
        let socket = receive()?;
        let message = dns::framed(&question(field));
        call!(SYS_write, &socket, &message[..], message.len())?;
        told(&received_framed(&socket)?)
    })
    .receives(|_| connected(SOCK_STREAM)),
    write("net-dns-udplite-v4", |field| lite(field, false))
        .prepare(|field| lay_lite(field, Family::V4))
        .look(look)
        .never()
        .lacks(LITE),
    write("net-dns-udplite-v6", |field| lite(field, false))
        .prepare(|field| lay_lite(field, Family::V6))
        .look(look)
        .never()
        .lacks(LITE),
    write("net-dns-udplite-connected-v4", |field| lite(field, true))
        .prepare(|field| lay_lite(field, Family::V4))
        .look(look)
        .never()
        .lacks(LITE),
    write("net-dns-forged-answer-v4", |field| forge(field, Family::V4))
        .prepare(|field| lay_forged(field, Family::V4))
        .look(look),
    write("net-dns-forged-answer-v6", |field| forge(field, Family::V6))
        .prepare(|field| lay_forged(field, Family::V6))
        .look(look),
    write("net-dns-take-servers-port-v4", |field| {
        let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
        wire::bind(&socket, &field.noted_bytes("spot"))?;
        Ok(PROOF.to_vec())
    })
    .prepare(|field| {
        let spot = match field.side {
            Side::Allowed => ground::address(Place::V4, Side::Allowed),
            // Beside the server's: that one is taken.
            Side::Denied => wire::v4([127, 0, 0, 8], 0),
        };
        field.note(&json!({ "spot": wire::with_port(&spot, PORT) }))
    })
    .look(look_nowhere)
    .root_only("ports below 1024 need CAP_NET_BIND_SERVICE"),
    write("net-dns-take-resolvers-port-v4", |field| {
        let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
        for option in [libc::SO_REUSEADDR, libc::SO_REUSEPORT] {
            wire::set_number(&socket, libc::SOL_SOCKET, option, 1)?;
        }
        wire::bind(&socket, &field.noted_bytes("spot"))?;
        Ok(PROOF.to_vec())
    })
    .prepare(|field| {
        let spot = match field.side {
            Side::Allowed => ground::address(Place::V4, Side::Allowed),
            Side::Denied => wire::v4([127, 0, 0, 1], 0),
        };
        field.note(&json!({ "spot": wire::with_port(&spot, RESOLVER_PORT) }))
    })
    .look(look_nowhere),
    write("net-dns-own-server-v4", own_server)
        .prepare(|field| lay_own(field, Family::V4))
        .look(look_nowhere)
        .root_only("ports below 1024 need CAP_NET_BIND_SERVICE"),
    write("net-dns-own-server-v6", own_server)
        .prepare(|field| lay_own(field, Family::V6))
        .look(look_nowhere)
        .root_only("ports below 1024 need CAP_NET_BIND_SERVICE"),
];

/// A socket through which the run asked is known to the resolver: but so are its rules.
fn by_asking_socket(field: &Field) -> Try {
    let server = field.noted_bytes("server");
    let socket = asking_socket(&server, SOCK_DGRAM)?;
    let first = dns::query(&dns::dotted("first.ok.test"), kind::A);
    wire::send_bytes_to(&socket, &first, &server, 0)?;
    told(&received(&socket)?)?;
    let resolver = wire::v4([127, 0, 0, 1], RESOLVER_PORT);
    wire::send_bytes_to(&socket, &question(field), &resolver, 0)?;
    told(&received(&socket)?)
}

/// A socket of the driver that is connected to the server.
fn connected(kind: i32) -> Result<OwnedFd> {
    let socket = wire::socket(libc::AF_INET, kind, 0)?;
    wire::connect(&socket, &nameserver::address(true))?;
    wait_long(&socket)?;
    Ok(socket)
}

fn by(field: &Field, fd: i32) -> Try {
    let message = question(field);
    let fd = wire::need(fd)?;
    call!(SYS_write, fd, &message[..], message.len())?;
    answered(fd)
}

fn to_server(field: &Field, fd: i32) -> Try {
    let (message, server) = (question(field), field.noted_bytes("server"));
    let length = server.len();
    call!(
        SYS_sendto,
        fd,
        &message[..],
        message.len(),
        0,
        &server[..],
        length
    )?;
    answered(fd)
}

fn answered(fd: i32) -> Try {
    let mut room = [0; 512];
    call!(SYS_recvfrom, fd, &mut room[..], 512, 0, 0, 0)?;
    told(&room)
}

/// A listener of UDP-Lite at port 53 of an address that a rule allows.
fn lay_lite(field: &Field, family: Family) -> Result<()> {
    let server = wire::with_port(&listed(family)?, PORT);
    let family_of = wire::family(&server);
    // A kernel without it has no listener, and attempts say so.
    if let Ok(socket) = wire::socket(family_of, SOCK_DGRAM, libc::IPPROTO_UDPLITE) {
        wire::bind(&socket, &server)?;
        ground::watch(field, socket, false)?;
    }
    let facts = json!({ "server": server });
    let label = nameserver::fresh_label();
    Ground::asking(family, below(Side::Allowed)).lay_with(field, label, facts)
}

fn lite(field: &Field, connects: bool) -> Try {
    let server = field.noted_bytes("server");
    let socket = wire::socket(wire::family(&server), SOCK_DGRAM, libc::IPPROTO_UDPLITE)?;
    let message = question(field);
    if connects {
        wire::connect(&socket, &server)?;
        call!(SYS_write, &socket, &message[..], message.len())?;
        return sys::done();
    }
    wire::send_bytes_to(&socket, &message, &server, 0)
}

/// The name of the pipe by which the server tells where the daemon asks from.
const PIPE: &str = "upstream";

/// The best that a forger can hope for: he knows port and number of the daemon's question.
fn lay_forged(field: &Field, family: Family) -> Result<()> {
    let pipe = field.scratch(PIPE);
    nix::unistd::mkfifo(&pipe, Mode::from_bits_truncate(0o644))?;
    field.own(&pipe, 0o644)?;
    // Held open, so that the agent need not wait for the server to open it.
    std::mem::forget(sys::open(&pipe, libc::O_RDWR)?);
    let to = listen_at(field, &fresh(family)?, SOCK_STREAM)?;
    // The control sends what it forges to a listener that everybody may reach.
    let place = match family {
        Family::V4 => Place::Local4,
        Family::V6 => Place::Local6,
    };
    let (socket, victim) = ground::bound(place, Side::Allowed, ground::DATAGRAM)?;
    ground::watch(field, socket, false)?;
    let facts = json!({ "victim": victim });
    let ground = Ground {
        needle: Needle::Flags(0),
        script: tells_where,
        to,
        ..Ground::asking(family, below(Side::Allowed))
    };
    ground.lay_with(field, nameserver::fresh_label(), facts)
}

/// Tells the agent number and port, and gives the daemon no answer; the control's listener
/// is named all the same.
fn tells_where(asked: &Asked<'_>, given: &Given) -> Vec<Out> {
    let number = dns::number_at(asked.message, 0).to_be_bytes();
    let told = [number, asked.from.port().to_be_bytes()].concat();
    let _ = sys::open(&given.work.join(PIPE), libc::O_WRONLY | libc::O_NONBLOCK)
        .and_then(|pipe| call!(SYS_write, &pipe, &told[..], told.len()));
    if given.is_control {
        let record = dns::address(&dns::ASKED, dns::TTL, &given.good);
        return vec![asked.reply().answer(record).into()];
    }
    Vec::new()
}

fn forge(field: &Field, family: Family) -> Try {
    let server = field.noted_bytes("server");
    let socket = asking_socket(&server, SOCK_DGRAM)?;
    let question = question(field);
    wire::send_bytes_to(&socket, &question, &server, 0)?;
    let told = sys::read(&sys::open(&field.scratch(PIPE), libc::O_RDONLY)?)?;
    let [a, b, c, d, ..] = told[..] else {
        return Err(Fail::new("the server does not tell where", 0));
    };
    let port = u16::from_be_bytes([c, d]);
    let victim = match (field.side, family) {
        (Side::Allowed, _) => field.noted_bytes("victim"),
        (Side::Denied, Family::V4) => wire::v4([127, 0, 0, 1], port),
        (Side::Denied, Family::V6) => wire::v6(wire::words_v6(nameserver::V6), port, 0),
    };
    let mut answer = Message::query(&field.noted_bytes("name"), field.noted("kind") as u16);
    answer.number = u16::from_be_bytes([a, b]);
    answer.flags = dns::ANSWERS;
    let to = wire::host(&field.noted_bytes("to"));
    let answer = answer
        .answer(dns::address(&dns::ASKED, dns::TTL, &to))
        .bytes();
    let forging = wire::socket_to(&victim, SOCK_DGRAM)?;
    wire::send_bytes_to(&forging, &answer, &victim, 0)?;
    received(&socket)?;
    reach(field)
}

/// A place for a server of the agent's own: at the port of the DNS, or at another, where the
/// agent gets what it sends.
fn lay_own(field: &Field, family: Family) -> Result<()> {
    const OTHER: u16 = 54;
    let port = match field.side {
        Side::Allowed => OTHER,
        Side::Denied => PORT,
    };
    let server = wire::with_port(&listed(family)?, port);
    let facts = json!({ "server": server });
    let label = nameserver::fresh_label();
    Ground::asking(family, below(Side::Allowed)).lay_with(field, label, facts)
}

/// Asks a server that is the agent itself: it could say what names stand for.
fn own_server(field: &Field) -> Try {
    let server = field.noted_bytes("server");
    let own = wire::socket_to(&server, SOCK_DGRAM)?;
    wire::bind(&own, &server)?;
    let socket = asking_socket(&server, SOCK_DGRAM)?;
    wire::send_bytes_to(&socket, &question(field), &server, 0)?;
    let events = u32::from(libc::POLLIN as u16);
    let mut wanted = sys::halves(&[
        wire::raw(&own).cast_unsigned(),
        events,
        wire::raw(&socket).cast_unsigned(),
        events,
    ]);
    const MILLISECONDS: i32 = 8_000;
    if call!(SYS_poll, &mut wanted[..], 2, MILLISECONDS)? == 0 {
        return Err(Fail::new("nobody is asked", 0));
    }
    let mut room = [0; 512];
    match call!(
        SYS_recvfrom,
        &own,
        &mut room[..],
        512,
        libc::MSG_DONTWAIT,
        0,
        0
    ) {
        Ok(_) => Ok(PROOF.to_vec()),
        Err(fail) if fail.errno == libc::EAGAIN => sys::done(),
        Err(fail) => Err(fail),
    }
}

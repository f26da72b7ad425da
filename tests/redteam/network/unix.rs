//! Unix sockets: by path, by abstract name, without a name.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::Result;
use nix::libc::{self, AF_UNIX, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
use serde_json::json;

use super::ground::{self, DATAGRAM, SEQUENCED, STREAM, Service};
use super::listener;
use super::wire::{self, Message};
use crate::attempt::{Attempt, write};
use crate::field::{Field, Side, User};
use crate::ring::{Entry, LACKS, op};
use crate::stage::receive;
use crate::sys::{self, Try, call};
use crate::victim::PROOF;

/// What abstract names are about.
const NAMES: [&str; 5] = ["stream", "datagram", "seqpacket", "uring", "zeros"];
/// The name of a socket in its directory: longer paths do not fit.
const NAME: &[u8] = b"s";

/// The abstract names of a side, without the marker.
pub fn names(side: Side) -> impl Iterator<Item = String> {
    User::BOTH
        .into_iter()
        .flat_map(move |user| NAMES.map(|name| abstract_name(name, user, side)))
}

fn abstract_name(name: &str, user: User, side: Side) -> String {
    format!("agentguard-redteam.{}.{}.{name}", side.name(), user.name())
}

const fn path(
    id: &'static str,
    prepare: fn(&Field) -> Result<()>,
    attack: fn(&Field) -> Try,
) -> Attempt {
    write(id, attack).prepare(prepare).look(listener::look)
}

pub const ATTEMPTS: &[Attempt] = &[
    path(
        "net-unix-stream",
        |field| at_path(field, STREAM),
        |field| connected(&field.dir, SOCK_STREAM),
    ),
    path(
        "net-unix-seqpacket",
        |field| at_path(field, SEQUENCED),
        |field| connected(&field.dir, SOCK_SEQPACKET),
    ),
    path("net-unix-datagram-connect", datagram, |field| {
        connected(&field.dir, SOCK_DGRAM)
    }),
    path("net-unix-datagram-sendto", datagram, |field| {
        call!(SYS_chdir, &field.dir)?;
        wire::send_to(&socket(SOCK_DGRAM)?, &sys::unix_address(NAME), 0)
    }),
    path("net-unix-datagram-sendmsg", datagram, |field| {
        call!(SYS_chdir, &field.dir)?;
        Message::to(&sys::unix_address(NAME)).send(&socket(SOCK_DGRAM)?, 0)
    }),
    path("net-unix-datagram-sendmmsg", datagram, |field| {
        call!(SYS_chdir, &field.dir)?;
        let to = sys::unix_address(NAME);
        let socket = socket(SOCK_DGRAM)?;
        wire::send_many(wire::raw(&socket), &[Message::to(&to), Message::to(&to)])?;
        sys::done()
    }),
    path("net-unix-datagram-connected-elsewhere", datagram, |field| {
        let socket = socket(SOCK_DGRAM)?;
        let own = self::socket(SOCK_DGRAM)?;
        // A socket of the same run, whose name the kernel chooses.
        wire::bind(&own, &sys::unix_address(b"")[..2])?;
        wire::connect(&socket, &wire::name(&own)?)?;
        sys::mark(&socket)?;
        call!(SYS_chdir, &field.dir)?;
        wire::send_to(&socket, &sys::unix_address(NAME), 0)
    }),
    path(
        "net-unix-by-symlink",
        |field| at_path(field, STREAM),
        |field| {
            let link = field.scratch("link");
            let _ = fs::remove_file(&link);
            call!(SYS_symlink, &field.at("s"), &link)?;
            call!(SYS_chdir, &field.work)?;
            reached(b"link", SOCK_STREAM)
        },
    ),
    path(
        "net-unix-by-bind-mount",
        |field| at_path(field, STREAM),
        |field| {
            let at = field.scratch("mounted");
            fs::create_dir_all(&at)?;
            super::spaces::own_mounts(field)?;
            let flags = libc::MS_BIND | libc::MS_REC;
            call!(SYS_mount, &field.dir, &at, 0, flags, 0)?;
            connected(&at, SOCK_STREAM)
        },
    ),
    path(
        "net-unix-by-descriptor",
        |field| at_path(field, STREAM),
        |field| {
            let directory = sys::open(&field.dir, libc::O_PATH | libc::O_DIRECTORY)?;
            let name = format!("/proc/self/fd/{}/s", directory.as_raw_fd());
            reached(name.as_bytes(), SOCK_STREAM)
        },
    ),
    path(
        "net-unix-by-own-hard-link",
        |field| at_path(field, STREAM),
        |field| {
            let link = field.scratch("hard");
            let _ = fs::remove_file(&link);
            call!(SYS_link, &field.at("s"), &link)?;
            call!(SYS_chdir, &field.work)?;
            reached(b"hard", SOCK_STREAM)
        },
    ),
    path(
        "net-unix-by-own-rename",
        |field| at_path(field, STREAM),
        |field| {
            call!(SYS_rename, &field.at("s"), &field.scratch("moved"))?;
            call!(SYS_chdir, &field.work)?;
            reached(b"moved", SOCK_STREAM)
        },
    ),
    path("net-unix-renamed-by-others", renamed, |field| {
        connected(&field.dir, SOCK_STREAM)
    }),
    path(
        "net-unix-uring-connect",
        |field| at_path(field, STREAM),
        |field| {
            call!(SYS_chdir, &field.dir)?;
            uring(&sys::unix_address(NAME))
        },
    )
    .lacks(LACKS),
    path(
        "net-unix-abstract-stream",
        |field| at_name(field, "stream", STREAM),
        |field| {
            let socket = socket(SOCK_STREAM)?;
            wire::connect(&socket, &field.noted_bytes("to"))?;
            sys::mark(&socket)
        },
    ),
    path(
        "net-unix-abstract-seqpacket",
        |field| at_name(field, "seqpacket", SEQUENCED),
        |field| {
            let socket = socket(SOCK_SEQPACKET)?;
            wire::connect(&socket, &field.noted_bytes("to"))?;
            sys::mark(&socket)
        },
    ),
    path(
        "net-unix-abstract-datagram",
        |field| at_name(field, "datagram", DATAGRAM),
        |field| wire::send_to(&socket(SOCK_DGRAM)?, &field.noted_bytes("to"), 0),
    ),
    path(
        "net-unix-abstract-uring",
        |field| at_name(field, "uring", STREAM),
        |field| uring(&field.noted_bytes("to")),
    )
    .lacks(LACKS),
    path("net-unix-abstract-longer", longer, |field| {
        // The name of a rule, with a byte more: another name.
        let socket = socket(SOCK_STREAM)?;
        wire::connect(&socket, &field.noted_bytes("to"))?;
        sys::mark(&socket)
    }),
    path(
        "net-unix-received-stream",
        |field| at_path(field, STREAM),
        |_| sys::mark(&receive()?),
    )
    .receives(|field| others(field, SOCK_STREAM)),
    path("net-unix-received-datagram", datagram, |_| {
        sys::mark(&receive()?)
    })
    .receives(|field| others(field, SOCK_DGRAM)),
    path(
        "net-unix-received-unnamed",
        |_| Ok(()),
        |_| sys::mark(&receive()?),
    )
    .receives(|field| pair(field, SOCK_STREAM))
    .never(),
    path(
        "net-unix-received-unnamed-datagram",
        |_| Ok(()),
        |_| sys::mark(&receive()?),
    )
    .receives(|field| pair(field, SOCK_DGRAM))
    .never(),
    path(
        "net-unix-inherited-unnamed",
        |_| Ok(()),
        |field| sys::mark_raw(wire::need(field.inherited)?),
    )
    .inherits(|field| pair(field, SOCK_STREAM)),
    write("net-unix-bind-path", |field| {
        call!(SYS_chdir, &field.dir)?;
        wire::bind(&socket(SOCK_STREAM)?, &sys::unix_address(b"new"))?;
        sys::done()
    }),
    write("net-unix-bind-abstract", |field| {
        let name = abstract_name("stream.bound", field.user, field.side);
        wire::bind(&socket(SOCK_STREAM)?, &wire::abstract_name(&name))?;
        Ok(PROOF.to_vec())
    }),
    write("net-unix-bind-chosen", |_| {
        wire::bind(&socket(SOCK_STREAM)?, &sys::unix_address(b"")[..2])?;
        Ok(PROOF.to_vec())
    }),
];

fn socket(kind: i32) -> Try<OwnedFd> {
    wire::socket(AF_UNIX, kind, 0)
}

/// Connects to a name from the working directory on, and sends the mark.
fn reached(name: &[u8], kind: i32) -> Try {
    let socket = socket(kind)?;
    wire::connect(&socket, &sys::unix_address(name))?;
    sys::mark(&socket)
}

fn connected(directory: &Path, kind: i32) -> Try {
    call!(SYS_chdir, directory)?;
    reached(NAME, kind)
}

fn uring(to: &[u8]) -> Try {
    let socket = socket(SOCK_STREAM)?;
    let entry = Entry {
        code: op::CONNECT,
        fd: wire::raw(&socket),
        address: to.as_ptr() as u64,
        offset: to.len() as u64,
        ..Entry::default()
    };
    super::uring::alone(&entry, "IORING_OP_CONNECT")?;
    sys::mark(&socket)
}

/// Does something in a directory of the driver, which goes back.
fn within<T>(directory: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = std::env::current_dir()?;
    std::env::set_current_dir(directory)?;
    let result = work();
    std::env::set_current_dir(before)?;
    result
}

/// A listener in a directory, which the user may reach.
fn bound_in(field: &Field, directory: &Path, service: Service) -> Result<()> {
    let socket = socket(service.kind)?;
    within(directory, || {
        Ok(wire::bind(&socket, &sys::unix_address(NAME))?)
    })?;
    field.own(&directory.join("s"), 0o777)?;
    listen(field, socket, service)
}

fn listen(field: &Field, socket: OwnedFd, service: Service) -> Result<()> {
    let accepts = service.kind != SOCK_DGRAM;
    if accepts {
        call!(SYS_listen, &socket, 16)?;
    }
    ground::watch(field, socket, accepts)
}

fn at_path(field: &Field, service: Service) -> Result<()> {
    bound_in(field, &field.dir, service)
}

fn datagram(field: &Field) -> Result<()> {
    at_path(field, DATAGRAM)
}

/// Bound elsewhere and moved to its place: it has the name that it has now. For the control
/// it was bound where there is no rule, for the denied side where there is one.
fn renamed(field: &Field) -> Result<()> {
    let from = match field.side {
        Side::Allowed => field.root.join("facts"),
        Side::Denied => field.work.clone(),
    };
    bound_in(field, &from, STREAM)?;
    Ok(fs::rename(from.join("s"), field.at("s"))?)
}

fn at_name(field: &Field, name: &str, service: Service) -> Result<()> {
    let address = wire::abstract_name(&abstract_name(name, field.user, field.side));
    let socket = socket(service.kind)?;
    wire::bind(&socket, &address)?;
    ground::note(field, &address, &address, json!({}))?;
    listen(field, socket, service)
}

/// For the control the name of a rule; for the denied side the same with a zero behind it.
fn longer(field: &Field) -> Result<()> {
    let name = abstract_name("zeros", field.user, Side::Allowed);
    let mut address = wire::abstract_name(&name);
    if !field.is_control() {
        address.push(0);
    }
    let socket = socket(SOCK_STREAM)?;
    wire::bind(&socket, &address)?;
    ground::note(field, &address, &address, json!({}))?;
    listen(field, socket, STREAM)
}

/// A socket of the driver that is connected to the listener in the directory.
fn others(field: &Field, kind: i32) -> Result<OwnedFd> {
    let socket = socket(kind)?;
    within(&field.dir, || {
        Ok(wire::connect(&socket, &sys::unix_address(NAME))?)
    })?;
    Ok(socket)
}

/// One end of a pair; the other is the driver's.
fn pair(field: &Field, kind: i32) -> Result<OwnedFd> {
    let mut room = [0; 8];
    call!(
        SYS_socketpair,
        AF_UNIX,
        kind | libc::SOCK_CLOEXEC,
        0,
        &mut room[..]
    )?;
    let [a, b, c, d, e, f, g, h] = room;
    let (ours, theirs) = (
        i32::from_ne_bytes([a, b, c, d]),
        i32::from_ne_bytes([e, f, g, h]),
    );
    listener::watch_peer(field, sys::owned(ours.into()))?;
    Ok(sys::owned(theirs.into()))
}

//! Namespaces of the network: those of others, and those of the agent's own.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::libc::{
    self, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM,
};

use super::ground::{self, Place, STREAM};
use super::listener;
use super::{interface, rtnetlink as netlink, wire};
use crate::attempt::{Attempt, write};
use crate::field::{Field, User};
use crate::sys::{self, Try, call};
use crate::victim::PROOF;

const fn own(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack).lifted()
}

pub const ATTEMPTS: &[Attempt] = &[
    write("net-namespace-of-others", |field| {
        let space = wire::need(field.inherited)?;
        call!(SYS_setns, space, CLONE_NEWNET)?;
        let to = field.noted_bytes("to");
        let socket = wire::socket_to(&to, SOCK_STREAM)?;
        wire::connect(&socket, &to)?;
        sys::mark(&socket)
    })
    .prepare(listen_elsewhere)
    .inherits(|field| Ok(sys::open(&space(field), libc::O_RDONLY)?))
    .look(listener::look)
    .root_only("entering a network namespace needs CAP_SYS_ADMIN"),
    write("net-namespace-of-own", |field| {
        let to = field.noted_bytes("to");
        own_network(field)?;
        let socket = wire::socket_to(&to, SOCK_STREAM)?;
        wire::connect(&socket, &to)?;
        sys::mark(&socket)
    })
    .prepare(|field| ground::listen(field, Place::V4, STREAM))
    .look(listener::look)
    .lacks(&[(libc::ENETUNREACH, "a network of its own leads nowhere")]),
    write("net-namespace-socket-of-before", |field| {
        // A socket stays in the network that it was made in.
        let to = field.noted_bytes("to");
        let socket = wire::socket_to(&to, SOCK_STREAM)?;
        own_network(field)?;
        wire::connect(&socket, &to)?;
        sys::mark(&socket)
    })
    .prepare(|field| ground::listen(field, Place::V4, STREAM))
    .look(listener::look),
    own("net-namespace-raw-socket", |field| {
        own_network(field)?;
        wire::socket(libc::AF_INET, SOCK_RAW, libc::IPPROTO_RAW)?;
        Ok(PROOF.to_vec())
    }),
    own("net-namespace-packet-socket", |field| {
        own_network(field)?;
        wire::socket(libc::AF_PACKET, SOCK_DGRAM, 0)?;
        Ok(PROOF.to_vec())
    }),
    own("net-namespace-flags", |field| {
        own_network(field)?;
        interface::switch_on_loopback()?;
        Ok(PROOF.to_vec())
    }),
    own("net-namespace-new-address", |field| {
        own_network(field)?;
        let address = interface::v4(field.side, 1);
        netlink::once(&netlink::new_address(1, &address, 32, &[]))?;
        Ok(PROOF.to_vec())
    }),
    own("net-namespace-mark", |field| {
        const SO_MARK: i32 = 36;
        own_network(field)?;
        let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
        wire::set_number(&socket, libc::SOL_SOCKET, SO_MARK, 1)?;
        Ok(PROOF.to_vec())
    }),
];

/// Goes to a network of its own: an ordinary user with users of its own.
fn own_network(field: &Field) -> Try {
    unshare(field, CLONE_NEWNET)
}

/// Goes to a network of the driver's own, with everything that it starts: what a run on a host
/// makes and sets is gone with it.
pub fn alone() -> Try {
    call!(SYS_unshare, CLONE_NEWNET)?;
    interface::switch_on_loopback()
}

/// Goes to mounts of its own.
pub fn own_mounts(field: &Field) -> Try {
    unshare(field, CLONE_NEWNS)
}

fn unshare(field: &Field, what: i32) -> Try {
    let users = match field.user {
        User::Root => 0,
        User::Ordinary => CLONE_NEWUSER,
    };
    call!(SYS_unshare, what | users)?;
    sys::done()
}

/// Where the driver keeps a network that is not its own.
fn space(field: &Field) -> std::path::PathBuf {
    listener::space(field)
}

/// A listener in a network of its own, at the address of the side.
fn listen_elsewhere(field: &Field) -> Result<()> {
    let mine = sys::open(Path::new("/proc/self/ns/net"), libc::O_RDONLY)?;
    call!(SYS_unshare, CLONE_NEWNET)?;
    let made = elsewhere(field);
    call!(SYS_setns, &mine, CLONE_NEWNET)?;
    listener::keep_space(field, made.context("a network of its own")?);
    Ok(())
}

fn elsewhere(field: &Field) -> Result<OwnedFd> {
    interface::switch_on_loopback()?;
    let address = interface::v4(field.side, 1);
    netlink::once(&netlink::new_address(1, &address, 32, &[]))?;
    let to = wire::v4(address, 0);
    let socket = wire::socket_to(&to, SOCK_STREAM)?;
    wire::bind(&socket, &to)?;
    call!(SYS_listen, &socket, 4)?;
    let to = wire::name(&socket)?;
    ground::watch(field, socket, true)?;
    ground::note(field, &to, &to, serde_json::json!({}))?;
    Ok(sys::open(Path::new("/proc/self/ns/net"), libc::O_RDONLY)?)
}

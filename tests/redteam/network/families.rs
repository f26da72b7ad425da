//! Families and protocols for which there are no rules: making a socket is refused.

use anyhow::Result;
use nix::libc::{self, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM};

use super::ground::{self, Place, SCTP};
use super::listener;
use super::{ROOT_ONLY, wire};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::sys::{self, Try};
use crate::victim::PROOF;

/// Errors of `socket` where the kernel has no such sockets.
const LACKS: &[(i32, &str)] = &[
    (libc::EAFNOSUPPORT, "the kernel has no such family"),
    (libc::ESOCKTNOSUPPORT, "the kernel has no such sockets"),
    (libc::EPROTONOSUPPORT, "the kernel has no such protocol"),
    (libc::ENODEV, "the machine has no such device"),
];

const IPPROTO_L2TP: i32 = 115;
const SOCK_DCCP: i32 = 6;
const IPPROTO_DCCP: i32 = 33;
const AF_SMC: i32 = 43;
const AF_KCM: i32 = 41;
const AF_QIPCRTR: i32 = 42;
const AF_PHONET: i32 = 35;
const AF_MCTP: i32 = 45;
/// Protocol of the PPP over Ethernet, and of the tunnels of L2TP.
const PX_PROTO_OE: i32 = 0;

const fn made(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack).lifted().lacks(LACKS)
}

const fn sctp(
    id: &'static str,
    prepare: fn(&Field) -> Result<()>,
    attack: fn(&Field) -> Try,
) -> Attempt {
    made(id, attack).prepare(prepare).look(listener::look)
}

pub const ATTEMPTS: &[Attempt] = &[
    sctp("net-sctp-connect-v4", sctp_v4, connect_sctp),
    sctp("net-sctp-connect-v6", sctp_v6, connect_sctp),
    sctp("net-sctp-connectx-v4", sctp_v4, connect_several),
    sctp("net-sctp-sendto-v4", sctp_v4, |field| {
        let to = field.noted_bytes("to");
        let socket = wire::socket(libc::AF_INET, SOCK_SEQPACKET, libc::IPPROTO_SCTP)?;
        wire::send_to(&socket, &to, 0)
    }),
    made("net-sctp-socket", |_| {
        socket(libc::AF_INET, SOCK_SEQPACKET, libc::IPPROTO_SCTP)
    }),
    made("net-dccp-socket-v4", |_| {
        socket(libc::AF_INET, SOCK_DCCP, IPPROTO_DCCP)
    }),
    made("net-dccp-socket-v6", |_| {
        socket(libc::AF_INET6, SOCK_DCCP, IPPROTO_DCCP)
    }),
    made("net-l2tp-socket-v4", |_| {
        socket(libc::AF_INET, SOCK_DGRAM, IPPROTO_L2TP)
    }),
    made("net-l2tp-socket-v6", |_| {
        socket(libc::AF_INET6, SOCK_DGRAM, IPPROTO_L2TP)
    }),
    made("net-mptcp-socket", |_| {
        socket(libc::AF_INET, SOCK_STREAM, libc::IPPROTO_MPTCP)
    }),
    made("net-packet-socket", |_| {
        socket(libc::AF_PACKET, SOCK_DGRAM, 0)
    })
    .root_only(ROOT_ONLY),
    made("net-raw-socket", |_| {
        socket(libc::AF_INET, SOCK_RAW, libc::IPPROTO_RAW)
    })
    .root_only(ROOT_ONLY),
    made("net-xdp-socket", |_| socket(libc::AF_XDP, SOCK_RAW, 0)).root_only(ROOT_ONLY),
    made("net-vsock-stream-socket", |_| {
        socket(libc::AF_VSOCK, SOCK_STREAM, 0)
    }),
    made("net-vsock-datagram-socket", |_| {
        socket(libc::AF_VSOCK, SOCK_DGRAM, 0)
    }),
    made("net-vsock-seqpacket-socket", |_| {
        socket(libc::AF_VSOCK, SOCK_SEQPACKET, 0)
    }),
    made("net-alg-socket", |_| {
        socket(libc::AF_ALG, SOCK_SEQPACKET, 0)
    }),
    made("net-bluetooth-hci-socket", |_| {
        socket(libc::AF_BLUETOOTH, SOCK_RAW, 1)
    }),
    made("net-bluetooth-l2cap-socket", |_| {
        socket(libc::AF_BLUETOOTH, SOCK_SEQPACKET, 0)
    }),
    made("net-can-raw-socket", |_| socket(libc::AF_CAN, SOCK_RAW, 1)),
    made("net-can-bcm-socket", |_| {
        socket(libc::AF_CAN, SOCK_DGRAM, 2)
    }),
    made("net-tipc-socket", |_| {
        socket(libc::AF_TIPC, SOCK_SEQPACKET, 0)
    }),
    made("net-rds-socket", |_| {
        socket(libc::AF_RDS, SOCK_SEQPACKET, 0)
    }),
    made("net-smc-socket", |_| socket(AF_SMC, SOCK_STREAM, 0)),
    made("net-kcm-socket", |_| socket(AF_KCM, SOCK_DGRAM, 0)),
    made("net-qipcrtr-socket", |_| socket(AF_QIPCRTR, SOCK_DGRAM, 0)),
    made("net-phonet-socket", |_| socket(AF_PHONET, SOCK_DGRAM, 0)).root_only(ROOT_ONLY),
    made("net-key-socket", |_| socket(libc::AF_KEY, SOCK_RAW, 2)).root_only(ROOT_ONLY),
    made("net-pppoe-socket", |_| {
        socket(libc::AF_PPPOX, SOCK_STREAM, PX_PROTO_OE)
    }),
    made("net-llc-socket", |_| socket(libc::AF_LLC, SOCK_STREAM, 0)).root_only(ROOT_ONLY),
    made("net-nfc-socket", |_| socket(libc::AF_NFC, SOCK_STREAM, 1)),
    made("net-ieee802154-socket", |_| {
        socket(libc::AF_IEEE802154, SOCK_DGRAM, 0)
    }),
    made("net-mctp-socket", |_| socket(AF_MCTP, SOCK_DGRAM, 0)),
    made("net-inet-other-protocol", |_| {
        socket(libc::AF_INET, SOCK_RAW, libc::IPPROTO_GRE)
    })
    .root_only(ROOT_ONLY),
    made("net-socketpair-tipc", |_| {
        let mut room = [0; 8];
        crate::sys::call!(SYS_socketpair, libc::AF_TIPC, SOCK_STREAM, 0, &mut room[..])?;
        Ok(PROOF.to_vec())
    }),
];

fn socket(family: i32, kind: i32, protocol: i32) -> Try {
    wire::socket(family, kind, protocol)?;
    Ok(PROOF.to_vec())
}

fn sctp_v4(field: &Field) -> Result<()> {
    ground::listen(field, Place::V4, SCTP)
}

fn sctp_v6(field: &Field) -> Result<()> {
    ground::listen(field, Place::V6, SCTP)
}

fn connect_sctp(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = wire::socket(wire::family(&to), SOCK_STREAM, libc::IPPROTO_SCTP)?;
    wire::connect(&socket, &to)?;
    sys::mark(&socket)
}

/// An association with several addresses by an option: no `connect` is called.
fn connect_several(field: &Field) -> Try {
    const CONNECT_SEVERAL: i32 = 110;
    let to = field.noted_bytes("to");
    let socket = wire::socket(libc::AF_INET, SOCK_STREAM, libc::IPPROTO_SCTP)?;
    wire::set(&socket, libc::IPPROTO_SCTP, CONNECT_SEVERAL, &to)?;
    sys::mark(&socket)
}

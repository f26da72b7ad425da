//! Sockets below UDP and TCP: raw ones, ping, packets of an interface.

use std::os::fd::OwnedFd;

use anyhow::Result;
use nix::libc::{self, SOCK_DGRAM, SOCK_RAW};

use super::ground::{self, DATAGRAM, Place};
use super::listener;
use super::wire::{self, Message};
use super::{ROOT_ONLY, interface};
use crate::attempt::{Attempt, write};
use crate::field::{Field, Side};
use crate::sys::{self, MARK, Try, call};
use crate::victim::PROOF;

const ECHO_V4: u8 = 8;
const ECHO_V6: u8 = 128;
/// Header of a socket of packets: family, protocol, interface.
const ETHERNET_IP: u16 = 0x0800;

const fn at(
    id: &'static str,
    prepare: fn(&Field) -> Result<()>,
    attack: fn(&Field) -> Try,
) -> Attempt {
    write(id, attack)
        .prepare(prepare)
        .look(listener::look)
        .lifted()
}

const fn root(attempt: Attempt) -> Attempt {
    attempt.root_only(ROOT_ONLY)
}

pub const ATTEMPTS: &[Attempt] = &[
    root(at("net-raw-icmp-v4", icmp_v4, |field| {
        let to = field.noted_bytes("to");
        let socket = wire::socket(libc::AF_INET, SOCK_RAW, libc::IPPROTO_ICMP)?;
        wire::send_bytes_to(&socket, &echo(ECHO_V4), &to, 0)
    })),
    root(at("net-raw-icmp-v6", icmp_v6, |field| {
        let to = field.noted_bytes("to");
        let socket = wire::socket(libc::AF_INET6, SOCK_RAW, libc::IPPROTO_ICMPV6)?;
        wire::send_bytes_to(&socket, &echo(ECHO_V6), &to, 0)
    })),
    root(at("net-raw-icmp-connect", icmp_v4, |field| {
        let socket = wire::socket(libc::AF_INET, SOCK_RAW, libc::IPPROTO_ICMP)?;
        wire::connect(&socket, &field.noted_bytes("to"))?;
        call!(SYS_write, &socket, &echo(ECHO_V4)[..], 8 + MARK.len())?;
        sys::done()
    })),
    root(at("net-raw-udp-v4", udp_v4, |field| {
        let to = field.noted_bytes("to");
        let socket = wire::socket(libc::AF_INET, SOCK_RAW, libc::IPPROTO_UDP)?;
        let host = wire::with_port(&to, 0);
        wire::send_bytes_to(&socket, &wire::udp(wire::port(&to)), &host, 0)
    })),
    root(at("net-raw-udp-v6", udp_v6, raw_udp_v6)),
    root(at("net-raw-header-included-option", udp_v4, |field| {
        let socket = wire::socket(libc::AF_INET, SOCK_RAW, libc::IPPROTO_UDP)?;
        wire::set_number(&socket, libc::IPPROTO_IP, libc::IP_HDRINCL, 1)?;
        own_header(&socket, field)
    })),
    root(at("net-raw-header-included-protocol", udp_v4, |field| {
        let socket = wire::socket(libc::AF_INET, SOCK_RAW, libc::IPPROTO_RAW)?;
        own_header(&socket, field)
    })),
    root(at("net-raw-header-elsewhere", udp_v4, |field| {
        // The header says where it goes; the address of the call, to a friend.
        let to = field.noted_bytes("to");
        let socket = wire::socket(libc::AF_INET, SOCK_RAW, libc::IPPROTO_RAW)?;
        let friend = wire::with_port(&field.noted_bytes("friend"), 0);
        wire::send_bytes_to(&socket, &packet(&to), &friend, 0)
    })),
    at("net-ping-v4", icmp_v4, |field| {
        let to = field.noted_bytes("to");
        let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, libc::IPPROTO_ICMP)?;
        wire::send_bytes_to(&socket, &echo(ECHO_V4), &to, 0)
    }),
    at("net-ping-v6", icmp_v6, |field| {
        let to = field.noted_bytes("to");
        let socket = wire::socket(libc::AF_INET6, SOCK_DGRAM, libc::IPPROTO_ICMPV6)?;
        wire::send_bytes_to(&socket, &echo(ECHO_V6), &to, 0)
    }),
    at("net-ping-connect-v4", icmp_v4, |field| {
        let socket = wire::socket(libc::AF_INET, SOCK_DGRAM, libc::IPPROTO_ICMP)?;
        wire::connect(&socket, &field.noted_bytes("to"))?;
        call!(SYS_write, &socket, &echo(ECHO_V4)[..], 8 + MARK.len())?;
        sys::done()
    }),
    root(at("net-packet-listen", udp_v4, |field| {
        // What others send can be seen by it.
        let protocol = i32::from(ETHERNET_IP.to_be());
        let socket = wire::socket(libc::AF_PACKET, SOCK_DGRAM, protocol)?;
        let plain = wire::socket(libc::AF_INET, SOCK_DGRAM, 0)?;
        let friend = field.noted_bytes("friend");
        let _ = wire::send_to(&plain, &friend, 0);
        let mut room = vec![0; 2_048];
        let got = call!(SYS_recvfrom, &socket, &mut room[..], 2_048, 0, 0, 0)?;
        room.truncate(got as usize);
        Ok(PROOF.to_vec())
    })),
    root(at("net-packet-sendto", udp_v4, |field| {
        let socket = wire::socket(libc::AF_PACKET, SOCK_DGRAM, 0)?;
        let packet = packet(&field.noted_bytes("to"));
        wire::send_bytes_to(&socket, &packet, &loopback(), 0)
    })),
    root(at("net-packet-raw-sendto", udp_v4, |field| {
        let socket = wire::socket(libc::AF_PACKET, SOCK_RAW, 0)?;
        let mut frame = vec![0; 12];
        frame.extend(ETHERNET_IP.to_be_bytes());
        frame.extend(packet(&field.noted_bytes("to")));
        wire::send_bytes_to(&socket, &frame, &loopback(), 0)
    })),
    root(at("net-packet-old", udp_v4, |field| {
        // The interface of Linux 2.0: the device by its name.
        const SOCK_PACKET: i32 = 10;
        let protocol = i32::from(ETHERNET_IP.to_be());
        let socket = wire::socket(libc::AF_INET, SOCK_PACKET, protocol)?;
        let mut frame = vec![0; 12];
        frame.extend(ETHERNET_IP.to_be_bytes());
        frame.extend(packet(&field.noted_bytes("to")));
        let mut name = wire::with_family(&[0; 18], libc::AF_PACKET);
        name[2..4].copy_from_slice(b"lo");
        name[16..18].copy_from_slice(&ETHERNET_IP.to_be_bytes());
        wire::send_bytes_to(&socket, &frame, &name, 0)
    })),
    root(at("net-packet-bound-write", udp_v4, |field| {
        let protocol = i32::from(ETHERNET_IP.to_be());
        let socket = wire::socket(libc::AF_PACKET, SOCK_DGRAM, protocol)?;
        wire::bind(&socket, &loopback())?;
        let packet = packet(&field.noted_bytes("to"));
        Message::new(&loopback(), &[&packet], &[]).send(&socket, 0)
    })),
];

fn icmp_v4(field: &Field) -> Result<()> {
    ground::raw(field, Place::V4, libc::IPPROTO_ICMP)
}

fn icmp_v6(field: &Field) -> Result<()> {
    ground::raw(field, Place::V6, libc::IPPROTO_ICMPV6)
}

fn udp_v4(field: &Field) -> Result<()> {
    ground::listen(field, Place::V4, DATAGRAM)
}

fn udp_v6(field: &Field) -> Result<()> {
    ground::listen(field, Place::V6, DATAGRAM)
}

/// An echo request with the mark; the kernel fills the checksum of IPv6 in.
fn echo(kind: u8) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, 0, 7, 0, 1];
    bytes.extend(MARK);
    let sum = wire::checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

/// The kernel fills in the checksum that it is told to, which IPv6 needs.
fn raw_udp_v6(field: &Field) -> Try {
    const CHECKSUM_AT: i32 = 6;
    let to = field.noted_bytes("to");
    let socket = wire::socket(libc::AF_INET6, SOCK_RAW, libc::IPPROTO_UDP)?;
    wire::set_number(
        &socket,
        libc::IPPROTO_IPV6,
        libc::IPV6_CHECKSUM,
        CHECKSUM_AT,
    )?;
    let host = wire::with_port(&to, 0);
    wire::send_bytes_to(&socket, &wire::udp(wire::port(&to)), &host, 0)
}

/// A whole packet to the field's listener. It comes from a neighbour: the kernel takes none
/// in that says to be of this machine.
fn packet(to: &[u8]) -> Vec<u8> {
    let body = wire::udp(wire::port(to));
    let from = interface::v4(Side::Allowed, 77);
    wire::packet_v4(libc::IPPROTO_UDP as u8, from, &wire::host(to), &body)
}

fn own_header(socket: &OwnedFd, field: &Field) -> Try {
    let to = field.noted_bytes("to");
    wire::send_bytes_to(socket, &packet(&to), &wire::with_port(&to, 0), 0)
}

/// The loopback interface as an address of packets.
fn loopback() -> Vec<u8> {
    let mut bytes = (libc::AF_PACKET as u16).to_ne_bytes().to_vec();
    bytes.extend(ETHERNET_IP.to_be_bytes());
    bytes.extend(1_i32.to_ne_bytes());
    bytes.extend([0, 0, 0, 6]);
    bytes.extend([0; 8]);
    bytes
}

//! Netlink: asking is free, changing is not; and the old interface of `ioctl`.

use std::path::Path;

use anyhow::Result;
use nix::libc;

use super::ground::{self, Place, STREAM};
use super::listener;
use super::rtnetlink::{self as netlink, kernel, once, open};
use super::wire::{self, Message};
use super::{interface, uring};
use crate::attempt::{Attempt, Look, write};
use crate::field::{Field, User};
use crate::mounts;
use crate::ring::{Entry, LACKS, op};
use crate::sys::{self, Try, call};
use crate::victim::PROOF;

const CHANGES: &str = "the network is changed with CAP_NET_ADMIN";
const NETLINK: &[(i32, &str)] = &[(libc::EPROTONOSUPPORT, "the kernel has no such netlink")];
const NETLINK_SMC: i32 = 22;

const fn asks(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
}

const fn changes(id: &'static str, look: Look, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack).look(look).lifted().root_only(CHANGES)
}

const fn family(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack).lifted().lacks(NETLINK)
}

pub const ATTEMPTS: &[Attempt] = &[
    asks("net-netlink-ask-links", |_| {
        once(&netlink::get_links())?;
        Ok(PROOF.to_vec())
    }),
    changes("net-netlink-new-link", link_look, |field| {
        netlink::make_link(link(field))
    }),
    changes(
        "net-netlink-new-address-v4",
        |field| has(field, &fresh(field, 1)),
        |field| once(&new_address(field, 1)),
    ),
    changes(
        "net-netlink-new-address-v6",
        |field| has(field, &fresh_v6(field)),
        |field| {
            let address = wire::host(&fresh_v6(field));
            once(&netlink::new_address(
                interface::index(),
                &address,
                128,
                &[],
            ))
        },
    ),
    changes("net-netlink-new-route", routes, |field| {
        let to = [203, 0, 113, 64 + interface::side(field.side)];
        once(&netlink::new_route(interface::index(), to))
    }),
    changes(
        "net-netlink-after-a-question",
        |field| has(field, &fresh(field, 2)),
        |field| {
            let both = [netlink::get_links(), new_address(field, 2)].concat();
            sent(&[&both])
        },
    ),
    changes(
        "net-netlink-in-pieces",
        |field| has(field, &fresh(field, 3)),
        |field| {
            // The header, which says what is asked, is cut in the middle.
            let request = new_address(field, 3);
            sent(&[&request[..3], &request[3..9], &request[9..]])
        },
    ),
    changes(
        "net-netlink-write",
        |field| has(field, &fresh(field, 4)),
        |field| {
            let socket = open(libc::NETLINK_ROUTE)?;
            wire::connect(&socket, &kernel())?;
            let request = new_address(field, 4);
            call!(SYS_write, &socket, &request[..], request.len())?;
            netlink::answer(&socket)
        },
    ),
    changes(
        "net-netlink-datagram-socket",
        |field| has(field, &fresh(field, 5)),
        |field| {
            let socket = wire::socket(libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_ROUTE)?;
            netlink::ask(&socket, &new_address(field, 5))
        },
    ),
    changes(
        "net-netlink-uring-send",
        |field| has(field, &fresh(field, 6)),
        |field| {
            let socket = open(libc::NETLINK_ROUTE)?;
            let request = new_address(field, 6);
            let entry = Entry {
                code: op::SEND,
                fd: wire::raw(&socket),
                address: request.as_ptr() as u64,
                length: request.len() as u32,
                ..Entry::default()
            };
            uring::alone(&entry, "IORING_OP_SEND")?;
            netlink::answer(&socket)
        },
    )
    .lacks(LACKS),
    changes(
        "net-netlink-inherited",
        |field| has(field, &fresh(field, 7)),
        |field| {
            let request = new_address(field, 7);
            let length = request.len();
            call!(
                SYS_write,
                wire::need(field.inherited)?,
                &request[..],
                length
            )?;
            sys::done()
        },
    )
    .inherits(|_| Ok(open(libc::NETLINK_ROUTE)?)),
    changes(
        "net-ioctl-address",
        |field| has(field, &fresh(field, 8)),
        |field| {
            let mut request = interface::name_of_request(label(field));
            request[16..32].copy_from_slice(&fresh(field, 8));
            ioctl(libc::SIOCSIFADDR, &request)
        },
    ),
    changes("net-ioctl-route", routes, |field| {
        let to = [203, 0, 113, 96 + interface::side(field.side)];
        let name = interface::name_of_request(interface::NAME);
        // `struct rtentry`: destination, gateway and mask, flags, ..., the device's name.
        let mut request = vec![0; 8];
        request.extend(wire::v4(to, 0));
        request.extend(wire::v4([0; 4], 0));
        request.extend(wire::v4([255; 4], 0));
        request.extend(5_u64.to_ne_bytes());
        request.resize(120, 0);
        let at = name.as_ptr() as u64;
        request[88..96].copy_from_slice(&at.to_ne_bytes());
        ioctl(libc::SIOCADDRT, &request)
    }),
    changes("net-ioctl-flags", flags, |field| {
        let socket = wire::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
        let mut request = interface::name_of_request(interface::NAME);
        call!(SYS_ioctl, &socket, libc::SIOCGIFFLAGS, &mut request[..])?;
        // Debugging has no effect there, but shows.
        request[16] ^= libc::IFF_DEBUG as u8;
        ioctl(libc::SIOCSIFFLAGS, &request)?;
        let _ = field;
        sys::done()
    }),
    changes("net-tun-interface", link_look, |field| {
        const TUNSETIFF: u32 = 0x4004_54ca;
        const TUNSETPERSIST: u32 = 0x4004_54cb;
        let tun = sys::open(Path::new("/dev/net/tun"), libc::O_RDWR)?;
        let mut request = interface::name_of_request(link(field));
        request[16..18].copy_from_slice(&(libc::IFF_TUN as u16).to_ne_bytes());
        call!(SYS_ioctl, &tun, TUNSETIFF, &request[..])?;
        call!(SYS_ioctl, &tun, TUNSETPERSIST, 1)?;
        sys::done()
    })
    .prepare(|_| {
        mounts::need_module("tun");
        Ok(())
    })
    .lacks(&[
        (libc::ENOENT, "the machine has no /dev/net/tun"),
        (libc::ENODEV, "the kernel has no module tun"),
    ]),
    destroy("net-netlink-destroy-socket"),
    family("net-netlink-generic-socket", |_| {
        socket(libc::NETLINK_GENERIC)
    }),
    family("net-netlink-netfilter-socket", |_| {
        socket(libc::NETLINK_NETFILTER)
    }),
    family("net-netlink-xfrm-socket", |_| socket(libc::NETLINK_XFRM)),
    family("net-netlink-audit-socket", |_| socket(libc::NETLINK_AUDIT)),
    family("net-netlink-uevent-socket", |_| {
        socket(libc::NETLINK_KOBJECT_UEVENT)
    }),
    family("net-netlink-crypto-socket", |_| {
        socket(libc::NETLINK_CRYPTO)
    }),
    family("net-netlink-connector-socket", |_| {
        socket(libc::NETLINK_CONNECTOR)
    }),
    family("net-netlink-usersock-socket", |_| {
        socket(libc::NETLINK_USERSOCK)
    }),
    family("net-netlink-fib-socket", |_| {
        socket(libc::NETLINK_FIB_LOOKUP)
    }),
    family("net-netlink-scsi-socket", |_| {
        socket(libc::NETLINK_SCSITRANSPORT)
    }),
    family("net-netlink-rdma-socket", |_| socket(libc::NETLINK_RDMA)),
    family("net-netlink-smc-socket", |_| socket(NETLINK_SMC)),
];

/// Ends a connection of somebody else.
const fn destroy(id: &'static str) -> Attempt {
    write(id, |field| {
        const SOCK_DESTROY: u16 = 21;
        const ACKNOWLEDGE: u16 = 4;
        const ESTABLISHED: u32 = 1 << 1;
        let (from, to) = (field.noted_bytes("from"), field.noted_bytes("to"));
        let mut body = vec![libc::AF_INET as u8, libc::IPPROTO_TCP as u8, 0, 0];
        body.extend(sys::halves(&[ESTABLISHED]));
        body.extend(&from[2..4]);
        body.extend(&to[2..4]);
        for address in [&from, &to] {
            body.extend(wire::host(address));
            body.extend([0; 12]);
        }
        body.extend(sys::halves(&[0, u32::MAX, u32::MAX]));
        let request = netlink::request(SOCK_DESTROY, ACKNOWLEDGE, &body);
        netlink::ask(&open(libc::NETLINK_SOCK_DIAG)?, &request)
    })
    .prepare(|field| {
        ground::listen(field, Place::V4, STREAM)?;
        let socket = ground::connected(field, STREAM)?;
        let (to, from) = (field.noted_bytes("to"), wire::name(&socket)?);
        listener::hold(field, socket);
        ground::note(field, &to, &to, serde_json::json!({ "from": from }))
    })
    .look(listener::look_at_held)
    .lifted()
    .root_only(CHANGES)
    .lacks(&[(libc::EOPNOTSUPP, "the kernel destroys no sockets")])
}

fn socket(protocol: i32) -> Try {
    open(protocol)?;
    Ok(PROOF.to_vec())
}

/// An address that the machine does not have: of a network that nobody has.
fn fresh(field: &Field, number: u8) -> Vec<u8> {
    wire::v4([203, 0, 113, 2 * number + interface::side(field.side)], 0)
}

fn fresh_v6(field: &Field) -> Vec<u8> {
    wire::v6(interface::v6(field.side, 0xabc), 0, 0)
}

fn new_address(field: &Field, number: u8) -> Vec<u8> {
    let address = wire::host(&fresh(field, number));
    netlink::new_address(interface::index(), &address, 32, &[])
}

/// A second name of the interface, which gets an address of its own.
fn label(field: &Field) -> &'static str {
    match (field.user, field.is_control()) {
        (User::Root, true) => "agredteam:1",
        (User::Root, false) => "agredteam:2",
        (User::Ordinary, true) => "agredteam:3",
        (User::Ordinary, false) => "agredteam:4",
    }
}

fn link(field: &Field) -> &'static str {
    interface::MADE[usize::from(!field.is_control())]
}

/// Whether the machine has this address.
fn has(_: &Field, address: &[u8]) -> Result<String> {
    let socket = wire::socket_to(address, libc::SOCK_DGRAM)?;
    Ok(format!("{:?}\n", wire::bind(&socket, address).is_ok()))
}

/// Whether there is such an interface; it goes, for the next that makes one.
fn link_look(field: &Field) -> Result<String> {
    let name = link(field);
    let is_there = nix::net::if_::if_nametoindex(name).is_ok();
    if is_there {
        interface::remove(name);
    }
    Ok(format!("{name}: {is_there}\n"))
}

fn routes(_: &Field) -> Result<String> {
    Ok(std::fs::read_to_string("/proc/net/route")?)
}

fn flags(_: &Field) -> Result<String> {
    let socket = wire::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let mut request = interface::name_of_request(interface::NAME);
    call!(SYS_ioctl, &socket, libc::SIOCGIFFLAGS, &mut request[..])?;
    Ok(format!("{:?}", &request[16..18]))
}

fn sent(pieces: &[&[u8]]) -> Try {
    let socket = open(libc::NETLINK_ROUTE)?;
    Message::new(&kernel(), pieces, &[]).send(&socket, 0)?;
    // The last answer is about what changes; those before are what was asked.
    loop {
        let answer = netlink::answer(&socket)?;
        if answer.get(4..6) == Some(&(libc::NLMSG_ERROR as u16).to_ne_bytes()) {
            return Ok(answer);
        }
    }
}

fn ioctl(code: u64, request: &[u8]) -> Try {
    let socket = wire::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    call!(SYS_ioctl, &socket, code, request)?;
    sys::done()
}

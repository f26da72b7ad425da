//! Requests to the kernel about interfaces, addresses and routes.

use std::os::fd::OwnedFd;

use nix::libc;

use super::wire;
use crate::sys::{self, Fail, Try, call};

/// What a request says beside its type.
const REQUEST: u16 = 1;
/// Asks for an answer also if it was done.
const ACKNOWLEDGE: u16 = 4;
/// Makes something new.
const CREATE: u16 = 0x400 | 0x200;
/// Asks for everything.
const DUMP: u16 = 0x300;

/// A bare request.
pub fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = sys::halves(&[16 + body.len() as u32]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | REQUEST).to_ne_bytes());
    bytes.extend(sys::halves(&[1, 0]));
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute of a request.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Asks for the interfaces.
pub fn get_links() -> Vec<u8> {
    request(libc::RTM_GETLINK, DUMP, &[0; 16])
}

/// Makes an interface that leads nowhere, and switches it on.
pub fn make_link(name: &str) -> Try {
    match once(&new_link(name, "dummy")) {
        // Some hosts' kernels have no dummy interfaces. These send nothing anywhere either.
        Err(fail) if fail.errno == libc::EOPNOTSUPP => once(&new_link(name, "ifb")),
        outcome => outcome,
    }
}

fn new_link(name: &str, kind: &str) -> Vec<u8> {
    let flags = (libc::IFF_UP | libc::IFF_MULTICAST) as u32;
    let mut body = sys::halves(&[0, 0, flags | libc::IFF_NOARP as u32, flags]);
    body.extend(attribute(
        libc::IFLA_IFNAME,
        &[name.as_bytes(), b"\0"].concat(),
    ));
    let kind = attribute(libc::IFLA_INFO_KIND, &[kind.as_bytes(), b"\0"].concat());
    body.extend(attribute(libc::IFLA_LINKINFO, &kind));
    request(libc::RTM_NEWLINK, CREATE | ACKNOWLEDGE, &body)
}

/// Removes an interface.
pub fn delete_link(index: u32) -> Vec<u8> {
    let body = sys::halves(&[0, index, 0, 0]);
    request(libc::RTM_DELLINK, ACKNOWLEDGE, &body)
}

/// Gives an interface an address, and an IPv4 one a broadcast address.
pub fn new_address(index: u32, address: &[u8], prefix: u8, broadcast: &[u8]) -> Vec<u8> {
    let is_v4 = address.len() == 4;
    let family = if is_v4 { libc::AF_INET } else { libc::AF_INET6 };
    // No search for others that have it.
    let flags = if is_v4 { 0 } else { libc::IFA_F_NODAD as u8 };
    let mut body = vec![family as u8, prefix, flags, 0];
    body.extend(sys::halves(&[index]));
    body.extend(attribute(libc::IFA_LOCAL, address));
    body.extend(attribute(libc::IFA_ADDRESS, address));
    if !broadcast.is_empty() {
        body.extend(attribute(libc::IFA_BROADCAST, broadcast));
    }
    request(libc::RTM_NEWADDR, CREATE | ACKNOWLEDGE, &body)
}

/// A route to an IPv4 host by an interface.
pub fn new_route(index: u32, to: [u8; 4]) -> Vec<u8> {
    const MAIN: u8 = 254;
    const PROTOCOL_STATIC: u8 = 4;
    const SCOPE_LINK: u8 = 253;
    const UNICAST: u8 = 1;
    let mut body = vec![libc::AF_INET as u8, 32, 0, 0, MAIN, PROTOCOL_STATIC];
    body.extend([SCOPE_LINK, UNICAST, 0, 0, 0, 0]);
    body.extend(attribute(libc::RTA_DST, &to));
    body.extend(attribute(libc::RTA_OIF, &index.to_ne_bytes()));
    request(libc::RTM_NEWROUTE, CREATE | ACKNOWLEDGE, &body)
}

/// A netlink socket.
pub fn open(protocol: i32) -> Try<OwnedFd> {
    wire::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)
}

/// The kernel's address.
pub fn kernel() -> Vec<u8> {
    wire::with_family(&[0; 12], libc::AF_NETLINK)
}

/// What the kernel answers: an error, or its first bytes.
pub fn answer(socket: &OwnedFd) -> Try {
    let mut room = vec![0; 16 * 1024];
    let got = call!(SYS_recvfrom, socket, &mut room[..], 16 * 1024, 0, 0, 0)?;
    room.truncate(got as usize);
    if room.len() >= 20 && room[4..6] == (libc::NLMSG_ERROR as u16).to_ne_bytes() {
        let code = i32::from_ne_bytes([room[16], room[17], room[18], room[19]]);
        if code != 0 {
            return Err(Fail::new("netlink", -code));
        }
    }
    Ok(room)
}

/// Asks, and waits for the answer.
pub fn ask(socket: &OwnedFd, request: &[u8]) -> Try {
    wire::send_bytes_to(socket, request, &kernel(), 0)?;
    answer(socket)
}

/// Asks once.
pub fn once(request: &[u8]) -> Try {
    ask(&open(libc::NETLINK_ROUTE)?, request)
}

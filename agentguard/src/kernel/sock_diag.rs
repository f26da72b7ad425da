//! Ending connections of others (`sock_diag(7)`, `SOCK_DESTROY`, Linux 4.5): whoever waits at
//! one that was cut hears of it at once (`ECONNABORTED`) and not when TCP gives up.
//!
//! No maintained crate sends this message.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use agentguard_common::event::NamedTail;

/// `SOCK_DESTROY` (linux/sock_diag.h)
const DESTROY: u16 = 21;
/// `NLM_F_REQUEST | NLM_F_ACK`
const REQUEST_ACK: u16 = 5;
const NLMSG_ERROR: u16 = 2;
const HEADER: usize = 16;

/// Ends a TCP connection of this network namespace.
///
/// # Errors
/// The kernel's answer: `ENOENT` if there is no such connection (any more), `EOPNOTSUPP` if
/// it was built without `CONFIG_INET_DIAG_DESTROY`.
pub fn destroy(connection: &NamedTail) -> io::Result<()> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let request = request(connection);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
    let mut answer = [0; 512];
    // The kernel answers within `sendto`.
    let len = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    errno(answer.get(..len).unwrap_or_default())
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` (linux/inet_diag.h).
fn request(connection: &NamedTail) -> Vec<u8> {
    const TCP: u8 = 6;
    let is_v4 = connection.to.is_v4 != 0;
    let family = if is_v4 {
        nix::libc::AF_INET
    } else {
        nix::libc::AF_INET6
    };
    let mut body = vec![u8::try_from(family).unwrap_or_default(), TCP, 0, 0];
    // Every state.
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(connection.from_port.to_be_bytes());
    body.extend(connection.to.port.to_be_bytes());
    for words in [connection.from, connection.to.address] {
        body.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    }
    // Any interface.
    body.extend(0_u32.to_ne_bytes());
    let cookie = connection.cookie;
    body.extend((cookie as u32).to_ne_bytes());
    body.extend(((cookie >> 32) as u32).to_ne_bytes());
    let len = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(len.to_ne_bytes());
    message.extend(DESTROY.to_ne_bytes());
    message.extend(REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn errno(answer: &[u8]) -> io::Result<()> {
    let short = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = answer.get(4..6).ok_or_else(short)?;
    let code = answer.get(HEADER..HEADER + 4).ok_or_else(short)?;
    let code: [u8; 4] = code.try_into().map_err(|_| short())?;
    match (kind == NLMSG_ERROR.to_ne_bytes(), i32::from_ne_bytes(code)) {
        (true, 0) => Ok(()),
        (true, code) => Err(io::Error::from_raw_os_error(-code)),
        (false, _) => Err(short()),
    }
}

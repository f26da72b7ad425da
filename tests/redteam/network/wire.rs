//! Socket addresses, messages and requests as the kernel's structures have them.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc;

use crate::sys::{self, Fail, MARK, Try, call};

/// Seconds after which a call that sends gives up: a lost packet is no refusal.
const PATIENCE: u64 = 2;
/// `MSG_FASTOPEN`: connect with the data.
pub const FAST_OPEN: i32 = libc::MSG_FASTOPEN;

/// An IPv4 address and port.
pub fn v4(address: [u8; 4], port: u16) -> Vec<u8> {
    let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    bytes.extend(port.to_be_bytes());
    bytes.extend(address);
    bytes.extend([0; 8]);
    bytes
}

/// An IPv6 address and port; the scope is the interface of a link-local address.
pub fn v6(address: [u8; 16], port: u16, scope: u32) -> Vec<u8> {
    let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
    bytes.extend(port.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(address);
    bytes.extend(scope.to_ne_bytes());
    bytes
}

/// Eight words of an IPv6 address as bytes.
pub fn words_v6(words: [u16; 8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (at, word) in words.iter().enumerate() {
        bytes[2 * at..2 * at + 2].copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// The family of a socket address; of none, when nothing was noted.
pub fn family(address: &[u8]) -> i32 {
    match address {
        [first, second, ..] => i32::from(u16::from_ne_bytes([*first, *second])),
        _ => 0,
    }
}

/// The port of an IPv4 or IPv6 socket address.
pub fn port(address: &[u8]) -> u16 {
    match address {
        [_, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

/// The bare address of an IPv4 or IPv6 socket address.
pub fn host(address: &[u8]) -> Vec<u8> {
    let range = if family(address) == libc::AF_INET {
        4..8
    } else {
        8..24
    };
    address.get(range).unwrap_or_default().to_vec()
}

/// With another port.
pub fn with_port(address: &[u8], port: u16) -> Vec<u8> {
    let mut bytes = address.to_vec();
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// With another family, and nothing else changed.
pub fn with_family(address: &[u8], family: i32) -> Vec<u8> {
    let mut bytes = address.to_vec();
    bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    bytes
}

/// An IPv4 address as an IPv6 address.
pub fn mapped(address: &[u8]) -> Vec<u8> {
    let mut inner = [0; 16];
    inner[10..12].fill(0xff);
    inner[12..].copy_from_slice(&host(address));
    v6(inner, port(address), 0)
}

/// What disconnects a socket.
pub fn unspecified() -> Vec<u8> {
    vec![0; 16]
}

/// The unspecified address, by which the kernel means the local host, with the same port.
pub fn any(address: &[u8]) -> Vec<u8> {
    if family(address) == libc::AF_INET {
        v4([0; 4], port(address))
    } else {
        v6([0; 16], port(address), 0)
    }
}

/// The name of an abstract unix socket.
pub fn abstract_name(name: &str) -> Vec<u8> {
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.push(0);
    address.extend(name.as_bytes());
    address
}

/// A socket that gives up sending after a while.
pub fn socket(family: i32, kind: i32, protocol: i32) -> Try<OwnedFd> {
    let fd = call!(SYS_socket, family, kind | libc::SOCK_CLOEXEC, protocol)?;
    let socket = sys::owned(fd);
    for option in [libc::SO_SNDTIMEO, libc::SO_RCVTIMEO] {
        // Families without time limits do not wait either.
        let _ = set(
            &socket,
            libc::SOL_SOCKET,
            option,
            &sys::words(&[PATIENCE, 0]),
        );
    }
    Ok(socket)
}

/// A socket for this address.
pub fn socket_to(address: &[u8], kind: i32) -> Try<OwnedFd> {
    socket(family(address), kind, 0)
}

/// Sets an option.
pub fn set(socket: &OwnedFd, level: i32, option: i32, value: &[u8]) -> Try {
    call!(SYS_setsockopt, socket, level, option, value, value.len())?;
    sys::done()
}

/// Sets an option to a number.
pub fn set_number(socket: &OwnedFd, level: i32, option: i32, value: i32) -> Try {
    set(socket, level, option, &value.to_ne_bytes())
}

/// An option that is a number.
pub fn number(socket: &OwnedFd, level: i32, option: i32) -> Try<i32> {
    let mut room = [0; 4];
    let mut length = 4_i32.to_ne_bytes();
    call!(
        SYS_getsockopt,
        socket,
        level,
        option,
        &mut room[..],
        &mut length[..]
    )?;
    Ok(i32::from_ne_bytes(room))
}

/// What the kernel tells of a connection: the first bytes of `struct tcp_info`.
pub fn tcp_info(socket: &OwnedFd) -> Try<[u8; 8]> {
    let mut room = [0; 8];
    let mut length = 8_i32.to_ne_bytes();
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    call!(
        SYS_getsockopt,
        socket,
        level,
        option,
        &mut room[..],
        &mut length[..]
    )?;
    Ok(room)
}

/// Connects.
pub fn connect(socket: &OwnedFd, address: &[u8]) -> Try {
    call!(SYS_connect, socket, address, address.len())?;
    sys::done()
}

/// Binds.
pub fn bind(socket: &OwnedFd, address: &[u8]) -> Try {
    call!(SYS_bind, socket, address, address.len())?;
    sys::done()
}

/// The address that a socket has.
pub fn name(socket: &OwnedFd) -> Try {
    let mut room = vec![0; 128];
    let mut length = 128_i32.to_ne_bytes();
    call!(SYS_getsockname, socket, &mut room[..], &mut length[..])?;
    room.truncate(i32::from_ne_bytes(length) as usize);
    Ok(room)
}

/// Sends the mark to an address.
pub fn send_to(socket: &OwnedFd, address: &[u8], flags: i32) -> Try {
    send_bytes_to(socket, MARK, address, flags)
}

/// Sends bytes to an address.
pub fn send_bytes_to(socket: &OwnedFd, bytes: &[u8], address: &[u8], flags: i32) -> Try {
    call!(
        SYS_sendto,
        socket,
        bytes,
        bytes.len(),
        flags,
        address,
        address.len()
    )?;
    sys::done()
}

/// Sends the mark to where the socket is connected.
pub fn send_raw(socket: i32, flags: i32) -> Try {
    call!(SYS_sendto, socket, MARK, MARK.len(), flags, 0, 0)?;
    sys::done()
}

/// A control message.
pub fn control(level: i32, kind: i32, value: &[u8]) -> Vec<u8> {
    let mut bytes = sys::words(&[16 + value.len() as u64]);
    bytes.extend(sys::halves(&[level.cast_unsigned(), kind.cast_unsigned()]));
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A message with what its header refers to.
#[derive(Debug)]
pub struct Message {
    header: Vec<u8>,
    _name: Vec<u8>,
    _body: Vec<u8>,
    _iov: Vec<u8>,
    _control: Vec<u8>,
}

impl Message {
    /// The mark to an address; an empty one is none.
    pub fn to(name: &[u8]) -> Self {
        Self::new(name, &[MARK], &[])
    }

    /// Pieces of bytes to an address, with control messages.
    pub fn new(name: &[u8], pieces: &[&[u8]], control: &[u8]) -> Self {
        let (name, control) = (name.to_vec(), control.to_vec());
        let body = pieces.concat();
        let mut iov = Vec::new();
        let mut at = body.as_ptr() as u64;
        for piece in pieces {
            iov.extend(sys::words(&[at, piece.len() as u64]));
            at += piece.len() as u64;
        }
        let address = |bytes: &Vec<u8>| match bytes.len() {
            0 => 0,
            _ => bytes.as_ptr() as u64,
        };
        let header = sys::words(&[
            address(&name),
            name.len() as u64,
            iov.as_ptr() as u64,
            pieces.len() as u64,
            address(&control),
            control.len() as u64,
            0,
        ]);
        Self {
            header,
            _name: name,
            _body: body,
            _iov: iov,
            _control: control,
        }
    }

    /// Its header.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Sends it.
    pub fn send(&self, socket: &OwnedFd, flags: i32) -> Try {
        call!(SYS_sendmsg, socket, self.header(), flags)?;
        sys::done()
    }
}

/// Sends several in one call; how many were sent.
pub fn send_many(socket: i32, messages: &[Message]) -> Try<i64> {
    let mut vector = Vec::new();
    for message in messages {
        vector.extend(message.header());
        vector.extend([0; 8]);
    }
    call!(SYS_sendmmsg, socket, &vector[..], messages.len(), 0)
}

/// The Internet checksum.
pub fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A UDP datagram of the mark with its header, without a checksum.
pub fn udp(to: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [9, to, 8 + MARK.len() as u16, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(MARK);
    bytes
}

/// An IPv4 packet around it.
pub fn packet_v4(protocol: u8, from: [u8; 4], to: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend((20 + body.len() as u16).to_be_bytes());
    bytes.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    bytes.extend(from);
    bytes.extend(to);
    let sum = checksum(&bytes);
    bytes[10..12].copy_from_slice(&sum);
    bytes.extend(body);
    bytes
}

/// The descriptor that an attempt was promised; without one it fails.
pub fn need(fd: i32) -> Try<i32> {
    if fd < 0 {
        return Err(Fail::new("no descriptor was given", 0));
    }
    Ok(fd)
}

/// The number of a descriptor.
pub fn raw(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}

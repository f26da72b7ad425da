//! The internet of the red team: an interface that leads nowhere, with addresses of
//! this machine. Everything that goes to them stays here.

use std::ffi::CString;
use std::fs;

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;

use super::nameserver;
use super::rtnetlink as netlink;
use super::wire::words_v6;
use crate::field::Side;
use crate::sys::{Try, call};

/// Its name.
pub const NAME: &str = "agredteam";
/// What attempts to make an interface call theirs.
pub const MADE: [&str; 2] = ["agmade-ok", "agmade-no"];
/// Settings that attempts need: everybody may have ping sockets, and this machine follows
/// source routes, and takes data with the first packet of TCP at listeners that ask for it.
const SETTINGS: [(&str, &str); 4] = [
    ("/proc/sys/net/ipv4/tcp_fastopen", "3"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/net/ipv4/conf/all/accept_source_route", "1"),
    ("/proc/sys/net/ipv4/conf/lo/accept_source_route", "1"),
];

/// The part of the addresses that says which side.
pub fn side(side: Side) -> u8 {
    match side {
        Side::Allowed => 1,
        Side::Denied => 2,
    }
}

/// An IPv4 address of this machine: 1 is where listeners are, 9 a friend, 255 broadcast.
pub fn v4(of: Side, last: u8) -> [u8; 4] {
    match of {
        Side::Allowed => [192, 0, 2, last],
        Side::Denied => [198, 51, 100, last],
    }
}

/// An IPv6 address of this machine.
pub fn v6(of: Side, last: u16) -> [u8; 16] {
    words_v6([0xfd77, 0, 0, side(of).into(), 0, 0, 0, last])
}

/// A link-local address of the interface.
pub fn link_local(of: Side) -> [u8; 16] {
    words_v6([0xfe80, 0, 0, 0, 0, 0, 0x77, side(of).into()])
}

/// A multicast group.
pub fn group_v4(of: Side) -> [u8; 4] {
    [239, 77, 0, side(of)]
}

/// A multicast group.
pub fn group_v6(of: Side) -> [u8; 16] {
    words_v6([0xff15, 0, 0, 0, 0, 0, 0x77, side(of).into()])
}

/// The number of the interface.
pub fn index() -> u32 {
    if_nametoindex(NAME).unwrap_or(0)
}

/// It stands for as long as this lives.
#[derive(Debug)]
pub struct Interface {
    settings: Vec<(&'static str, String)>,
}

impl Interface {
    /// Makes it.
    pub fn make() -> Result<Self> {
        let mut interface = Self {
            settings: Vec::new(),
        };
        for (path, value) in SETTINGS {
            let before = fs::read_to_string(path).with_context(|| path.to_owned())?;
            interface.settings.push((path, before));
            fs::write(path, value).with_context(|| format!("{path}: {value}"))?;
        }
        remove(NAME);
        netlink::make_link(NAME).context("cannot make an interface")?;
        address(&v4(Side::Allowed, 9), 32, &[])?;
        address(&v6(Side::Allowed, 9), 128, &[])?;
        for side in Side::BOTH {
            address(&v4(side, 1), 24, &v4(side, 255))?;
            address(&v6(side, 1), 64, &[])?;
            address(&link_local(side), 64, &[])?;
        }
        for address in [nameserver::V6, nameserver::STRANGER_V6] {
            add(&words_v6(address))?;
        }
        Ok(interface)
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        for name in MADE.into_iter().chain([NAME]) {
            remove(name);
        }
        for (path, value) in &self.settings {
            let _ = fs::write(path, value);
        }
    }
}

fn address(address: &[u8], prefix: u8, broadcast: &[u8]) -> Result<()> {
    let request = netlink::new_address(index(), address, prefix, broadcast);
    netlink::once(&request).with_context(|| format!("cannot add the address {address:?}"))?;
    Ok(())
}

/// Gives it one address more, which goes with it; it may have it already.
pub fn add(of: &[u8]) -> Result<()> {
    let prefix = of.len() as u8 * 8;
    let request = netlink::new_address(index(), of, prefix, &[]);
    match netlink::once(&request) {
        Err(fail) if fail.errno != nix::libc::EEXIST => {
            Err(fail).with_context(|| format!("cannot add the address {of:?}"))
        }
        _ => Ok(()),
    }
}

/// Removes an interface, if it is there.
pub fn remove(name: &str) {
    if let Ok(index) = if_nametoindex(name) {
        let _ = netlink::once(&netlink::delete_link(index));
    }
}

/// Switches the loopback interface of the network namespace on.
pub fn switch_on_loopback() -> Try {
    let socket = super::wire::socket(nix::libc::AF_INET, nix::libc::SOCK_DGRAM, 0)?;
    let mut request = name_of_request("lo");
    request[16..18].copy_from_slice(&(nix::libc::IFF_UP as u16).to_ne_bytes());
    call!(SYS_ioctl, &socket, nix::libc::SIOCSIFFLAGS, &request[..])?;
    crate::sys::done()
}

/// A request about an interface by the old interface, `struct ifreq`.
pub fn name_of_request(name: &str) -> Vec<u8> {
    let mut request = CString::new(name).unwrap_or_default().into_bytes();
    request.resize(40, 0);
    request
}

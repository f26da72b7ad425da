//! Ports for later: nobody has them by chance when they are needed.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, ensure};

/// Below what the kernel gives to sockets that name none (32,768 and above).
const PORTS: Range<u16> = 23_000..32_000;

/// A port of 127.0.0.1 that is free for TCP and UDP, and of which this process gets no other
/// use; the one beside it (`port ^ 1`) is not given either.
///
/// # Errors
/// All are taken.
pub fn unused() -> Result<u16> {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let pairs = u32::from(PORTS.end - PORTS.start) / 2;
    // Each process begins elsewhere: suites may run beside each other.
    let first = std::process::id().wrapping_mul(53);
    loop {
        let taken = u32::from(TAKEN.fetch_add(1, Ordering::Relaxed));
        ensure!(taken < pairs, "no port of 127.0.0.1 is free");
        let port = PORTS.start + u16::try_from(first.wrapping_add(taken) % pairs * 2)?;
        let at = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return Ok(port);
        }
    }
}

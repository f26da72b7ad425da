//! Sockets.

use super::*;
use crate::verifier;

impl Socket {
    /// Its protocol state; `None` before it has one.
    #[inline(always)]
    pub fn sock(self) -> Option<Sock> {
        let sock: *const u8 = self.load::<SOCKET_SK, _>();
        if Sock(sock).is_none() { None } else { Some(Sock(sock)) }
    }
}

impl Sock {
    /// IP protocol number.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        self.load::<SK_PROTOCOL, _>()
    }

    /// Address family.
    #[inline(always)]
    pub fn family(self) -> u16 {
        self.load::<SK_FAMILY, _>()
    }
}

impl Message {
    /// Kernel address of the destination's address; zero if none was given.
    #[inline(always)]
    pub fn name(self) -> u64 {
        verifier::number(self.load::<MSG_NAME, _>())
    }
}

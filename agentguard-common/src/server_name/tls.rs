//! The TLS part: records, and the hellos in them (RFC 8446, 4.1.2 and 5.1).

use super::{MOST_BYTES, NAME, PIECE_AT, Reading, Step, seen, stage};

/// The head of a TLS record, and the first byte in it.
const RECORD_HEAD: u32 = 6;
const CLIENT_HELLO: u8 = 1;
/// Less than the length of an encrypted end of a handshake: 12 bytes, 4 before, a tag of 8.
const SHORTEST_END: u32 = 24;
/// Bytes of a hello up to the length of the session id.
const SESSION_BEHIND: u32 = 39;
/// The extension of a hello that data follow at once (RFC 8446, 4.2.10).
const EARLY_DATA: u32 = 42;

/// Types of TLS records (RFC 8446, 5.1).
pub(super) mod record {
    pub const CIPHER_CHANGE: u8 = 20;
    pub const ALERT: u8 = 21;
    pub const HANDSHAKE: u8 = 22;
    pub const DATA: u8 = 23;
}

impl Reading {
    /// Some servers skip an empty change of ciphers (OpenSSL) or a warning (Go) before a
    /// hello; no client sends that.
    #[inline(always)]
    pub(super) fn stray(&mut self) -> Step {
        let is_record = self.byte(0) == 3 && self.byte(1) <= 4 && self.short(2) <= 2;
        if is_record {
            Step::Unreadable
        } else {
            Step::Done
        }
    }

    #[inline(always)]
    pub(super) fn hello(&mut self) -> Step {
        let behind = self.at + self.want;
        match self.stage {
            stage::RECORD => {
                let len = self.short(2);
                // Servers skip empty records.
                if len == 0 && self.byte(0) == 3 {
                    return Step::Unreadable;
                }
                if self.byte(4) != CLIENT_HELLO {
                    return Step::Done;
                }
                let hello = self.short(5) << 8 | self.short(6) & 0xff;
                self.head(len, hello, self.byte(42))
            }
            stage::CIPHERS => self.ask(stage::COMPRESSION, behind + self.short(0), 1),
            stage::COMPRESSION => {
                let at = behind + u32::from(self.byte(0));
                if at == self.end {
                    return Step::Done;
                }
                self.ask(stage::EXTENSIONS, at, 2)
            }
            stage::EXTENSIONS => {
                if behind + self.short(0) != self.end {
                    return Step::Unreadable;
                }
                self.extension(behind)
            }
            stage::EXTENSION => {
                let len = self.short(2);
                if behind + len > self.end {
                    return Step::Unreadable;
                }
                if self.short(0) == EARLY_DATA {
                    self.pending |= seen::EARLY_DATA;
                }
                if self.short(0) != 0 {
                    return self.extension(behind + len);
                }
                self.matched = len;
                self.ask(stage::NAMES, behind, 5)
            }
            stage::NAMES => {
                let (list, len) = (self.short(0), self.short(3));
                // One name of the type host_name: there is no other type, and one of a type.
                let whole = list + 2 == self.matched && len + 3 == list && self.byte(2) == 0;
                if !whole || len == 0 || len > NAME as u32 {
                    return Step::Unreadable;
                }
                self.ask(stage::NAME, behind, len)
            }
            _ => {
                self.name_len = self.want;
                self.name_at = PIECE_AT as u32;
                match self.extension(behind) {
                    Step::Unreadable => Step::Unreadable,
                    _ => Step::Name,
                }
            }
        }
    }

    /// Asks for the next extension or, if there is none, for what follows the hello.
    #[inline(always)]
    fn extension(&mut self, at: u32) -> Step {
        if at == self.end {
            self.end = 0;
            return self.ask(stage::AGAIN, at, RECORD_HEAD);
        }
        self.ask(stage::EXTENSION, at, 4)
    }

    /// Begins with a hello of this length, in a record of that.
    #[inline(always)]
    fn head(&mut self, record: u32, hello: u32, session: u8) -> Step {
        // A hello in several records, or one that is not as long as it says, is not what
        // clients send.
        if hello + 4 != record || session > 32 || record > 16_384 {
            return Step::Unreadable;
        }
        self.end = self.start + 9 + hello;
        self.ask(stage::CIPHERS, self.at + self.want + u32::from(session), 2)
    }

    /// What follows a hello: another one, if the server wanted another key
    /// (HelloRetryRequest), and there are servers that take the name from that. A change of
    /// ciphers may be before it, and early data, which the server then skips.
    #[inline(always)]
    pub(super) fn again(&mut self) -> Step {
        if self.stage == stage::SECOND {
            return self.second();
        }
        let len = self.short(3);
        let behind = self.at + RECORD_HEAD - 1 + len;
        let is_early = self.pending & seen::EARLY_DATA != 0;
        match self.byte(0) {
            record::HANDSHAKE if len == 0 => Step::Unreadable,
            record::CIPHER_CHANGE | record::ALERT if len == 0 || len > 2 => Step::Unreadable,
            record::HANDSHAKE if self.byte(5) == CLIENT_HELLO => {
                self.start = self.at;
                self.matched = len;
                self.ask(stage::SECOND, self.at + RECORD_HEAD, 38)
            }
            record::CIPHER_CHANGE => {
                self.pending |= seen::CIPHER_CHANGE;
                self.ask(stage::AGAIN, behind, RECORD_HEAD)
            }
            record::ALERT => self.ask(stage::AGAIN, behind, RECORD_HEAD),
            // Without an end where they are welcome: servers skip less than that.
            record::DATA if is_early && len != 0 && behind <= MOST_BYTES => {
                self.ask(stage::AGAIN, behind, RECORD_HEAD)
            }
            _ => Step::Done,
        }
    }

    /// Behind a change of ciphers it may be the encrypted end of a handshake instead, if a
    /// session of TLS 1.2 goes on, in which every byte is anything. One in twenty thousand of
    /// those looks like a hello too (of those with AES, one in 170,000); TLS 1.3 has none.
    #[inline(always)]
    fn second(&mut self) -> Step {
        let hello = self.short(0) << 8 | u32::from(self.byte(2));
        // Nothing encrypted is shorter, and no server takes a longer hello.
        let is_long = self.matched >= SHORTEST_END && self.byte(0) > 2;
        // No session has a longer name. (In a shorter record that byte is of the next.)
        let is_encrypted = is_long || self.matched >= SESSION_BEHIND && self.byte(37) > 32;
        if self.pending & seen::CIPHER_CHANGE != 0 && is_encrypted {
            return Step::Done;
        }
        self.pending = 0;
        self.head(self.matched, hello, self.byte(37))
    }
}

//! Server names: what the first bytes of a TCP connection say of whom it is for, in a TLS
//! ClientHello (RFC 8446, 4.1.2; RFC 6066, 3) or an HTTP/1 request (RFC 9112). The parser
//! asks for one small piece of the stream after the other, so that it does not matter how
//! the stream is cut into packets, and skips what it does not need.

use crate::resolver::GrantRanges;

/// The longest name, in bytes (RFC 1035, 2.3.4).
pub const NAME: usize = 255;
/// The longest piece that is asked for, in bytes.
pub const PIECE: usize = 255;
/// Where the piece is in [`Reading::room`]; what is collected before it.
pub const PIECE_AT: usize = 256;
/// The most bytes of a connection that are looked at: a request with longer headers, or a
/// longer hello, counts as unreadable.
pub const MOST_BYTES: u32 = 32 * 1024;

/// Key of what a policy says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct NameKey {
    /// The policy generation.
    pub generation: u32,
    /// The agent.
    pub agent: u16,
    /// 0: that name; 1: every name below it.
    pub below: u16,
    /// The name, in lower case without a dot at its end, at the end of the field; zeros
    /// before it.
    pub name: [u8; 256],
}

impl NameKey {
    /// The key of a name; `None` if it is too long.
    #[must_use]
    pub fn new(generation: u32, agent: u32, below: bool, name: &str) -> Option<Self> {
        let mut key = Self {
            generation,
            agent: u16::try_from(agent).ok()?,
            below: u16::from(below),
            name: [0; 256],
        };
        let start = 256_usize.checked_sub(name.len()).filter(|at| *at > 0)?;
        key.name[start..].copy_from_slice(name.as_bytes());
        Some(key)
    }
}

/// What rules say of a name: ranges of ports, of the key's generation.
pub type NameRanges = GrantRanges;

/// How far the first bytes of a connection were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Reading {
    /// Number of the stream's first byte in TCP.
    pub first: u32,
    /// One of [`stage`].
    pub stage: u32,
    /// Where the piece that is asked for begins in the stream.
    pub at: u32,
    /// Its length, from 1 to [`PIECE`].
    pub want: u32,
    /// How many bytes of it are there.
    pub have: u32,
    /// Where the TLS hello ends, or 0.
    pub end: u32,
    /// Where the TLS hello begins.
    pub start: u32,
    /// How far a word is matched.
    pub matched: u32,
    /// The length of a name that was found.
    pub name_len: u32,
    /// Where it begins in `room`.
    pub name_at: u32,
    /// HTTP: whether a name of the request line waits for the line to end. TLS: [`seen`].
    pub pending: u32,
    /// The length of `named`; 0: no name was found.
    pub named_len: u32,
    /// The name that was found last, in lower case.
    pub named: [u8; 256],
    /// What is collected, and from [`PIECE_AT`] the piece.
    pub room: [u8; 768],
    /// Where a name is made ready to be looked up.
    pub key: NameKey,
}

/// What is read next.
pub mod stage {
    /// The first byte.
    pub const FIRST: u32 = 0;
    /// The rest of `SSLRequest` or `GSSENCRequest` of PostgreSQL.
    pub const POSTGRES: u32 = 1;
    /// TLS: the record's head and the hello's, to the length of the session id.
    pub const RECORD: u32 = 2;
    /// TLS: the length of the cipher suites.
    pub const CIPHERS: u32 = 3;
    /// TLS: the length of the compression methods.
    pub const COMPRESSION: u32 = 4;
    /// TLS: the length of the extensions.
    pub const EXTENSIONS: u32 = 5;
    /// TLS: the head of an extension.
    pub const EXTENSION: u32 = 6;
    /// TLS: the head of the list of names.
    pub const NAMES: u32 = 7;
    /// TLS: the name.
    pub const NAME: u32 = 8;
    /// HTTP: the method.
    pub const METHOD: u32 = 9;
    /// HTTP: the first byte of the target.
    pub const TARGET: u32 = 10;
    /// HTTP: a target with a host in it.
    pub const AUTHORITY: u32 = 11;
    /// HTTP: the rest of the request line.
    pub const LINE: u32 = 12;
    /// HTTP: the beginning of a header line.
    pub const HEADER: u32 = 13;
    /// HTTP: the rest of a line that says nothing.
    pub const SKIP: u32 = 14;
    /// HTTP: the name of a header that may be `Host`.
    pub const HOST: u32 = 15;
    /// HTTP: the value of `Host`.
    pub const VALUE: u32 = 16;
    /// HTTP: after an empty line of `Host`, which may be continued.
    pub const FOLDED: u32 = 17;
    /// HTTP: after a carriage return at the beginning of a line.
    pub const BLANK: u32 = 18;
    /// Nothing: everything was read.
    pub const OVER: u32 = 19;
    /// The head of a record that no client begins with.
    pub const STRAY: u32 = 20;
    /// TLS: the head of a record behind a hello, and the first byte in it.
    pub const AGAIN: u32 = 21;
    /// TLS: the head of what may be another hello, to the length of the session id.
    pub const SECOND: u32 = 22;
    /// HTTP: after a carriage return in a line.
    pub const RETURN: u32 = 23;
}

/// [`Reading::pending`] in TLS.
pub mod seen {
    /// The hello says that data follow it at once.
    pub const EARLY_DATA: u32 = 1;
    /// A change of ciphers: what follows may be encrypted.
    pub const CIPHER_CHANGE: u32 = 2;
}

/// What a piece said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Another piece is asked for.
    More = 0,
    /// A name was found; after it, another piece is asked for.
    Name = 1,
    /// There are no more names.
    Done = 2,
    /// It is neither a hello nor a request that could be read to its end.
    Unreadable = 3,
}

/// What makes a line a request, in lower case: servers differ in what they let stand behind it.
const VERSION: u64 = u64::from_le_bytes(*b" http/\0\0");
/// [`Reading::matched`] when that has been read.
const VERSION_READ: u32 = 6;
const HOST: u32 = u32::from_le_bytes(*b"host");
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
mod record {
    pub const CIPHER_CHANGE: u8 = 20;
    pub const ALERT: u8 = 21;
    pub const HANDSHAKE: u8 = 22;
    pub const DATA: u8 = 23;
}

/// What methods are made of (RFC 9110, 5.6.2).
#[inline(always)]
const fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z'
        | b'^'..=b'z' | b'|' | b'~')
}

/// What servers take for a space in a request line (RFC 9112, 3), or skip before it: those
/// that are written in Python, whatever that takes for one.
#[inline(always)]
const fn is_space(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t' | 0x0b | 0x0c | b'\r' | 0x1c..=0x1f | 0x85 | 0xa0
    )
}

impl Reading {
    /// Nothing was read.
    pub const NEW: Self = Self {
        first: 0,
        stage: stage::FIRST,
        at: 0,
        want: 1,
        have: 0,
        end: 0,
        start: 0,
        matched: 0,
        name_len: 0,
        name_at: 0,
        pending: 0,
        named_len: 0,
        named: [0; 256],
        room: [0; 768],
        key: NameKey {
            generation: 0,
            agent: 0,
            below: 0,
            name: [0; 256],
        },
    };

    /// Does with a packet what the kernel program does, as if every name were allowed: for
    /// tests, and for those who look for a stream that breaks it.
    #[cfg(any(test, feature = "user"))]
    pub fn packet(&mut self, start: u32, bytes: &[u8], mut name: impl FnMut(&[u8])) -> Step {
        loop {
            let (offset, count) = self.wanted(start, bytes.len() as u32);
            if count == 0 {
                return Step::More;
            }
            let (offset, to) = (offset as usize, PIECE_AT + self.have as usize);
            self.room[to..to + count as usize]
                .copy_from_slice(&bytes[offset..offset + count as usize]);
            self.have += count;
            if self.have < self.want {
                return Step::More;
            }
            match self.step() {
                Step::More => {}
                Step::Name => {
                    let at = self.name_at as usize;
                    name(&self.room[at..at + self.name_len as usize]);
                }
                end => return end,
            }
        }
    }

    /// Begins with a stream whose first byte has this number.
    #[inline(always)]
    pub fn begin(&mut self, first: u32) {
        self.first = first;
        self.stage = stage::FIRST;
        self.at = 0;
        self.want = 1;
        self.have = 0;
        self.end = 0;
        self.start = 0;
        self.matched = 0;
        self.name_len = 0;
        self.name_at = 0;
        self.pending = 0;
        self.named_len = 0;
    }

    /// A byte of the piece.
    #[inline(always)]
    const fn byte(&self, at: usize) -> u8 {
        self.room[PIECE_AT + at]
    }

    #[inline(always)]
    const fn short(&self, at: usize) -> u32 {
        (self.byte(at) as u32) << 8 | self.byte(at + 1) as u32
    }

    /// Asks for a piece.
    #[inline(always)]
    fn ask(&mut self, stage: u32, at: u32, want: u32) -> Step {
        self.stage = stage;
        self.at = at;
        self.want = want;
        self.have = 0;
        let over = at > MOST_BYTES || (self.end != 0 && at + want > self.end);
        if over { Step::Unreadable } else { Step::More }
    }

    /// Where the bytes are that are missing of the piece, in a packet that has `len` bytes of
    /// the stream from `start` on, and how many; 0 if it has none of them.
    #[must_use]
    #[inline(always)]
    pub const fn wanted(&self, start: u32, len: u32) -> (u32, u32) {
        let next = self.at + self.have;
        if next < start || next - start >= len {
            return (0, 0);
        }
        let (there, missing) = (start + len - next, self.want - self.have);
        (next - start, if there < missing { there } else { missing })
    }

    /// Takes the piece that was asked for, which is there.
    #[inline(always)]
    pub fn step(&mut self) -> Step {
        match self.stage {
            stage::FIRST => self.first_byte(),
            stage::POSTGRES => self.postgres(),
            stage::RECORD..=stage::NAME => self.hello(),
            stage::STRAY => self.stray(),
            stage::AGAIN | stage::SECOND => self.again(),
            _ => self.request(),
        }
    }

    #[inline(always)]
    fn first_byte(&mut self) -> Step {
        /// To the length of the session id, which it has.
        const HEAD: u32 = 43;
        self.start = self.at;
        self.pending = 0;
        let next = self.at + 1;
        match self.byte(0) {
            record::HANDSHAKE => self.ask(stage::RECORD, next, HEAD),
            record::CIPHER_CHANGE | record::ALERT | record::DATA => self.ask(stage::STRAY, next, 4),
            0 => self.ask(stage::POSTGRES, next, 7),
            byte if is_token(byte) => self.ask(stage::METHOD, next, 1),
            // Servers overlook empty lines before a request, and spaces.
            byte if byte == b'\n' || is_space(byte) => self.ask(stage::FIRST, next, 1),
            _ => Step::Done,
        }
    }

    /// Some servers skip an empty change of ciphers (OpenSSL) or a warning (Go) before a
    /// hello; no client sends that.
    #[inline(always)]
    fn stray(&mut self) -> Step {
        let is_record = self.byte(0) == 3 && self.byte(1) <= 4 && self.short(2) <= 2;
        if is_record {
            Step::Unreadable
        } else {
            Step::Done
        }
    }

    /// `SSLRequest` is 8, 80877103; `GSSENCRequest` is 8, 80877104. What follows the server's
    /// answer begins anew.
    #[inline(always)]
    fn postgres(&mut self) -> Step {
        let head = self.short(0) << 8 | u32::from(self.byte(2));
        let code = self.short(3) << 16 | self.short(5);
        if head == 8 && matches!(code, 80_877_103 | 80_877_104) {
            self.ask(stage::FIRST, self.at + 7, 1)
        } else {
            Step::Done
        }
    }

    #[inline(always)]
    fn hello(&mut self) -> Step {
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
    fn again(&mut self) -> Step {
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

    #[inline(always)]
    fn request(&mut self) -> Step {
        let byte = self.byte(0);
        let (stage, step) = match self.stage {
            stage::METHOD..=stage::LINE => self.request_line(byte),
            _ => self.header(byte),
        };
        match (step, self.ask(stage, self.at + 1, 1)) {
            (Step::Done, _) => Step::Done,
            (_, Step::Unreadable) | (Step::Unreadable, _) => Step::Unreadable,
            (step, _) => step,
        }
    }

    /// What comes after a byte of the request line, and what it said. Nothing that does not
    /// end in `HTTP/1.x` is a request: many protocols begin with a word.
    #[inline(always)]
    fn request_line(&mut self, byte: u8) -> (u32, Step) {
        match self.stage {
            stage::METHOD => match byte {
                byte if is_token(byte) => (stage::METHOD, Step::More),
                byte if is_space(byte) => (stage::TARGET, Step::More),
                _ => (stage::METHOD, Step::Done),
            },
            stage::TARGET => match byte {
                b'/' | b'*' => {
                    self.matched = 0;
                    (stage::LINE, Step::More)
                }
                b'\n' => (stage::TARGET, Step::Done),
                byte if is_space(byte) => (stage::TARGET, Step::More),
                _ => {
                    self.name_len = 0;
                    self.matched = 0;
                    self.pending = 1;
                    self.collect(byte, stage::AUTHORITY)
                }
            },
            stage::AUTHORITY => self.authority(byte),
            _ => {
                self.matched = match (self.matched, byte) {
                    (VERSION_READ, _) => VERSION_READ,
                    (_, byte) if is_space(byte) => 1,
                    (at @ 1..6, byte) if byte | 0x20 == (VERSION >> (8 * at)) as u8 => at + 1,
                    _ => 0,
                };
                if byte != b'\n' {
                    return (stage::LINE, Step::More);
                }
                if self.matched != VERSION_READ {
                    return (stage::LINE, Step::Done);
                }
                let named = self.pending != 0 && self.name_len != 0;
                self.pending = 0;
                self.name_at = 0;
                (stage::HEADER, if named { Step::Name } else { Step::More })
            }
        }
    }

    /// A target such as `http://host:80/path`, or `host:443` of CONNECT: the name is what comes
    /// before the first colon that no `//` follows. `matched`: 1 after a colon, 2 after one
    /// slash, 3 in the host behind `//`, 6 behind a colon there, 4 and 5 when the name is
    /// complete.
    #[inline(always)]
    fn authority(&mut self, byte: u8) -> (u32, Step) {
        match byte {
            byte if is_space(byte) => {
                self.matched = 1;
                return (stage::LINE, Step::More);
            }
            b'\n' => return (stage::AUTHORITY, Step::Done),
            _ => {}
        }
        match (self.matched, byte) {
            (0, b':') => self.matched = 1,
            (1, b'/') => self.matched = 2,
            (2, b'/') => {
                self.name_len = 0;
                self.matched = 3;
            }
            // `user:password@host`
            (3 | 6, b'@') => {
                self.name_len = 0;
                self.matched = 3;
            }
            // Readers differ about it.
            (0 | 1 | 2 | 4, b'@') => return (stage::AUTHORITY, Step::Unreadable),
            (1 | 2, _) => self.matched = 4,
            (3, b':') => self.matched = 6,
            (3 | 6, b'/' | b'?' | b'#') => self.matched = 5,
            (0 | 3, byte) => return self.collect(byte, stage::AUTHORITY),
            _ => {}
        }
        (stage::AUTHORITY, Step::More)
    }

    #[inline(always)]
    fn header(&mut self, byte: u8) -> (u32, Step) {
        match self.stage {
            stage::SKIP | stage::RETURN if byte == b'\n' => (stage::HEADER, Step::More),
            // There are servers for which a line may end without a line feed.
            stage::SKIP | stage::RETURN if byte == b'\r' => (stage::RETURN, Step::More),
            stage::SKIP => (stage::SKIP, Step::More),
            stage::BLANK if byte == b'\n' => (stage::BLANK, Step::Done),
            stage::BLANK => (stage::SKIP, Step::More),
            stage::HOST => self.host(byte),
            stage::VALUE => self.value(byte),
            stage::FOLDED if matches!(byte, b' ' | b'\t') => (stage::VALUE, Step::More),
            _ => match byte {
                b'\r' => (stage::BLANK, Step::More),
                b'\n' => (stage::HEADER, Step::Done),
                b'h' | b'H' => {
                    self.matched = 1;
                    (stage::HOST, Step::More)
                }
                _ => (stage::SKIP, Step::More),
            },
        }
    }

    #[inline(always)]
    fn host(&mut self, byte: u8) -> (u32, Step) {
        match (self.matched, byte) {
            (_, b'\n') => (stage::HEADER, Step::More),
            (_, b'\r') => (stage::RETURN, Step::More),
            (4, b' ' | b'\t') => (stage::HOST, Step::More),
            (4, b':') => {
                self.name_len = 0;
                (stage::VALUE, Step::More)
            }
            (at @ 1..4, byte) if byte | 0x20 == (HOST >> (8 * at)) as u8 => {
                self.matched = at + 1;
                (stage::HOST, Step::More)
            }
            _ => (stage::SKIP, Step::More),
        }
    }

    #[inline(always)]
    fn value(&mut self, byte: u8) -> (u32, Step) {
        let empty = self.name_len == 0;
        match byte {
            b' ' | b'\t' | b'\r' if empty => (stage::VALUE, Step::More),
            b'\n' if empty => (stage::FOLDED, Step::More),
            // An address of IPv6 is no name.
            b'[' if empty => (stage::SKIP, Step::More),
            b'\n' => {
                self.name_at = 0;
                (stage::HEADER, Step::Name)
            }
            b'\r' => {
                self.name_at = 0;
                (stage::RETURN, Step::Name)
            }
            b' ' | b'\t' | b':' => {
                self.name_at = 0;
                (stage::SKIP, Step::Name)
            }
            byte => self.collect(byte, stage::VALUE),
        }
    }

    #[inline(always)]
    fn collect(&mut self, byte: u8, stage: u32) -> (u32, Step) {
        // Stored first: verifiers of old kernels do not see what a comparison bounds.
        self.room[(self.name_len & 0xff) as usize] = byte;
        if self.name_len >= NAME as u32 {
            return (stage, Step::Unreadable);
        }
        self.name_len += 1;
        (stage, Step::More)
    }
}

const _: () = assert!(size_of::<NameKey>() == 264);
const _: () = assert!(size_of::<Reading>() == 1336);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::String;
    use std::vec::Vec;

    use super::*;

    /// The names in these packets, and what came of the last.
    fn read(packets: &[&[u8]]) -> (Vec<String>, Step) {
        let mut reading = Reading::NEW;
        let mut names = Vec::new();
        let mut start = 0;
        for packet in packets {
            let step = reading.packet(start, packet, |name| {
                names.push(String::from_utf8_lossy(name).into_owned());
            });
            if step != Step::More {
                return (names, step);
            }
            start += packet.len() as u32;
        }
        (names, Step::More)
    }

    fn with_len(bytes: &[u8], width: usize) -> Vec<u8> {
        let len = (bytes.len() as u32).to_be_bytes();
        [&len[4 - width..], bytes].concat()
    }

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &with_len(body, 2)].concat()
    }

    fn server_name(name: &[u8]) -> Vec<u8> {
        extension(0, &with_len(&[&[0], &with_len(name, 2)[..]].concat(), 2))
    }

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 3, 1][..], &with_len(body, 2)].concat()
    }

    fn hello_of(extensions: &[u8]) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &with_len(&[9; 32], 1),
            &with_len(&[0x13, 1, 0x13, 2], 2),
            &with_len(&[0], 1),
            &with_len(extensions, 2),
        ]
        .concat();
        let handshake = [&[1][..], &with_len(&body, 3)].concat();
        record(22, &handshake)
    }

    fn hello(name: &[u8]) -> Vec<u8> {
        hello_of(
            &[
                extension(10, &[0; 300]),
                server_name(name),
                extension(43, &[2, 3, 4]),
            ]
            .concat(),
        )
    }

    /// However it is cut into packets.
    fn cut_anywhere(stream: &[u8], names: &[&str], end: Step) {
        for at in 0..=stream.len() {
            let (head, tail) = stream.split_at(at);
            assert_eq!(read(&[head, tail]), read(&[stream]), "cut at {at}");
        }
        let singly: Vec<&[u8]> = stream.chunks(1).collect();
        let (found, step) = read(&singly);
        assert_eq!(
            (found.as_slice(), step),
            (names.map_owned().as_slice(), end)
        );
    }

    trait Owned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl Owned for &[&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|name| String::from(*name)).collect()
        }
    }

    #[test]
    fn a_hello_names_its_server_however_it_is_cut() {
        let goes_on = |hello: Vec<u8>| [hello, record(23, &[0; 40])].concat();
        let streams: [(Vec<u8>, &[&str]); 4] = [
            (hello(b"api.example"), &["api.example"]),
            (hello_of(&server_name(b"a.b")), &["a.b"]),
            (hello_of(&extension(43, &[2, 3, 4])), &[]),
            (
                [&[0, 0, 0, 8, 4, 210, 22, 47][..], &hello(b"db.example")].concat(),
                &["db.example"],
            ),
        ];
        for (stream, names) in streams {
            cut_anywhere(&stream, names, Step::More);
            cut_anywhere(&goes_on(stream), names, Step::Done);
        }
        let long = [b'a'; NAME];
        assert_eq!(read(&[&hello(&long)]).0[0].len(), NAME);
    }

    #[test]
    fn what_follows_a_hello_may_be_another() {
        let (first, second) = (hello(b"a.example"), hello(b"b.example"));
        let change = record(20, &[1]);
        let early = hello_of(&[server_name(b"a.example"), extension(42, &[])].concat());
        let data = record(23, &[0; 40]);
        for between in [Vec::new(), change.clone(), change.repeat(3)] {
            let stream = [&first[..], &between, &second].concat();
            cut_anywhere(&stream, &["a.example", "b.example"], Step::More);
        }
        let stream = [&early[..], &change, &data, &data, &second].concat();
        cut_anywhere(&stream, &["a.example", "b.example"], Step::More);
        let endless = [early, data.repeat(1_000)].concat();
        assert_eq!(read(&[&endless]).1, Step::Done);
        // The key exchange of TLS 1.2, the encrypted end of a handshake, an alert.
        for next in [
            record(22, &[16, 0, 0, 1]),
            [change.clone(), record(22, &[7; 40])].concat(),
            // It looks like a hello, but for the length of its session id.
            [
                change.clone(),
                record(22, &[&[1, 0][..], &[40; 38]].concat()),
            ]
            .concat(),
        ] {
            cut_anywhere(&[&first[..], &next].concat(), &["a.example"], Step::Done);
        }
        let ended = [&first[..], &record(21, &[2, 40])].concat();
        cut_anywhere(&ended, &["a.example"], Step::More);
        let pieces = [record(22, &second[5..6]), record(22, &second[6..])].concat();
        let more = [pieces, record(22, &[]), record(20, &[])];
        for bad in more
            .iter()
            .flat_map(|more| [more.clone(), [&change[..], more].concat()])
        {
            let stream = [&first[..], &bad, &[0; 64]].concat();
            assert_eq!(read(&[&stream]).1, Step::Unreadable, "{bad:?}");
        }
    }

    #[test]
    fn what_some_servers_skip_before_a_hello_is_unreadable() {
        let hello = hello(b"a.example");
        let skipped = [
            record(22, &[]),
            record(20, &[]),
            record(20, &[1]),
            record(21, &[1, 90]),
        ];
        for before in skipped {
            let stream = [&before[..], &hello].concat();
            assert_eq!(read(&[&stream]).1, Step::Unreadable, "{before:?}");
        }
    }

    #[test]
    fn a_hello_that_contradicts_itself_is_unreadable() {
        let twice = hello_of(&[server_name(b"a.example"), server_name(b"b.example")].concat());
        assert_eq!(read(&[&twice]).0, ["a.example", "b.example"]);
        let mut fragment = hello(b"api.example");
        fragment[3..5].copy_from_slice(&[0, 100]);
        let mut beyond = hello(b"api.example");
        // The length of the extensions.
        beyond[5 + 4 + 2 + 32 + 33 + 6 + 2] ^= 1;
        let two_names = hello_of(&extension(
            0,
            &[0, 10, 0, 0, 2, b'a', b'b', 0, 0, 2, b'c', b'd'],
        ));
        let empty = hello_of(&extension(0, &[0, 3, 0, 0, 0]));
        for stream in [fragment, beyond, two_names, empty, hello(&[b'a'; 256])] {
            assert_eq!(read(&[&stream]).1, Step::Unreadable);
        }
    }

    #[test]
    fn a_request_names_its_host_however_it_is_cut() {
        let requests: [(&str, &[&str]); 17] = [
            (
                "GET / HTTP/1.1\r\nHost: api.example\r\n\r\n",
                &["api.example"],
            ),
            ("GET / HTTP/1.1\nhOsT:api.example:80\n\n", &["api.example"]),
            (
                "\r\nPOST /x HTTP/1.1\r\nA: b\r\nHost : a.b \r\n\r\n",
                &["a.b"],
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &["a", "b"]),
            (
                "GET / HTTP/1.1\r\nHost:\r\n folded.example\r\n\r\n",
                &["folded.example"],
            ),
            (
                "GET http://a.b/c HTTP/1.1\r\nHost: d\r\n\r\n",
                &["a.b", "d"],
            ),
            (
                "GET http://x:y@a.b:8/@e HTTP/1.1\r\nHost: d\r\n\r\n",
                &["a.b", "d"],
            ),
            ("CONNECT a.b:443 HTTP/1.1\r\nHost: d\r\n\r\n", &["a.b", "d"]),
            ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", &[]),
            ("a_b\t/ http/1.1 \r\nHost: a\r\n\r\n", &["a"]),
            (" \r\x1fGET\r/\x1cHTTP/1.1\r\nHost: a\r\n\r\n", &["a"]),
            (
                "GET http://a.b/\rHTTP/1.1\r\nHost: a\r\n\r\n",
                &["a.b", "a"],
            ),
            (
                "GET / HTTP/1.1\r\nA: b\r\rHost: a\rHost: b\r\n\r\n",
                &["a", "b"],
            ),
            ("GET / HTTP/1.1\r\nA: b\r\r\nHo\r\nHost: a\r\n\r\n", &["a"]),
            ("GET /a/HTTP/1.1 HTTP/1.0\r\nHosts: a\r\n\r\n", &[]),
            ("PRI * HTTP/2.0\r\n\r\n", &[]),
            ("EHLO mail.example\r\n", &[]),
        ];
        for (request, names) in requests {
            cut_anywhere(request.as_bytes(), names, Step::Done);
        }
        let unreadable = ["GET http:@a/ HTTP/1.1\r\n", "CONNECT a@b:1 HTTP/1.1\r\n"];
        for request in unreadable {
            assert_eq!(read(&[request.as_bytes()]).1, Step::Unreadable, "{request}");
        }
        let endless = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 40_000]].concat();
        assert_eq!(read(&[&endless]).1, Step::Unreadable);
    }

    #[test]
    fn other_protocols_name_nobody() {
        let others: [&[u8]; 6] = [
            b"SSH-2.0-OpenSSH\r\n",
            b"PING\r\n",
            b"{\"a\":1}",
            &[0, 0, 0, 8, 1, 2, 3, 4],
            &[22, 3, 3, 0, 50, 2, 0, 0, 46, 0, 0, 0],
            b"*1\r\n",
        ];
        for stream in others {
            let padded = [stream, &[0; 64]].concat();
            assert_eq!(read(&[&padded]), (Vec::new(), Step::Done));
        }
    }

    #[test]
    fn keys_hold_names_at_their_end() {
        let key = NameKey::new(1, 2, true, "a.b").unwrap();
        assert_eq!((&key.name[253..], key.name[252]), (&b"a.b"[..], 0));
        assert!(NameKey::new(1, 2, false, &"a".repeat(256)).is_none());
    }
}

//! Server names: what the first bytes of a TCP connection say of whom it is for, in a TLS
//! ClientHello (RFC 8446, 4.1.2; RFC 6066, 3) or an HTTP/1 request (RFC 9112). The parser
//! asks for one small piece of the stream after the other, so that it does not matter how
//! the stream is cut into packets, and skips what it does not need.

mod http;
mod tls;

use self::tls::record;
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
}

const _: () = assert!(size_of::<NameKey>() == 264);
const _: () = assert!(size_of::<Reading>() == 1336);

#[cfg(test)]
mod tests;

//! The HTTP/1 part: the request line and the headers, byte by byte (RFC 9112).

use super::{NAME, Reading, Step, is_space, is_token, stage};

/// What makes a line a request, in lower case: servers differ in what they let stand behind it.
const VERSION: u64 = u64::from_le_bytes(*b" http/\0\0");
/// [`Reading::matched`] when that has been read.
const VERSION_READ: u32 = 6;
const HOST: u32 = u32::from_le_bytes(*b"host");

impl Reading {
    #[inline(always)]
    pub(super) fn request(&mut self) -> Step {
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

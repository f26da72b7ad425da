//! The path automaton: names in, verdict row out.
//!
//! It reads the names of a file from the root of its *file system* down (never
//! through mounts, so bind mounts, `chroot` and mount namespaces change
//! nothing), one step a name. A step is one exact lookup of (state, name);
//! when that misses and the state has patterns in play, the name runs through
//! a small byte automaton whose end state is looked up the same way; else the
//! state's `any` edge is taken. The cost depends on the path, not on the number
//! of rules. docs/adr/0002 compares this with one byte automaton for all.

use crate::verb::Verb;

/// Bytes of a name that one transition key holds. Longer names take several
/// keys in a row, so that names of any length compare in full: nothing is hashed.
pub const CHUNK: usize = 27;

/// Chunks of the longest name.
pub const CHUNKS_PER_NAME: u32 = (crate::limits::NAME_BYTES as u32).div_ceil(CHUNK as u32);

/// The state from which no rule can match any more: every verb has its default.
pub const DEAD: u32 = 0;

/// `TransitionKey::kind` of a chunk that more chunks of the same name follow.
pub const KIND_MORE: u8 = 0x40;
/// `TransitionKey::kind` of a pattern class; `bytes` holds it little-endian.
pub const KIND_CLASS: u8 = 0x80;

/// Key of a transition: a state and a (piece of a) name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TransitionKey {
    /// The state left.
    pub state: u32,
    /// Length of the last chunk (1 to 27), [`KIND_MORE`] or [`KIND_CLASS`].
    pub kind: u8,
    /// The bytes, padded with zeros.
    pub bytes: [u8; CHUNK],
}

/// One state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct PathState {
    /// Next state for a name that no named transition takes.
    pub any: u32,
    /// Verdict row for a path that ends here; 0: no rule matches.
    pub row: u32,
    /// Start state of the byte automaton for patterns in play; 0: none.
    pub glob: u32,
    /// See [`state_flag`].
    pub flags: u32,
}

/// Bits of [`PathState::flags`].
pub mod state_flag {
    /// Whatever names follow, the state stays the same: reading can stop.
    pub const FINAL: u32 = 1;
    /// The state has exact children.
    pub const NAMED: u32 = 2;
    /// Some path below has a stricter verdict than a file made here would:
    /// moving this directory away would shed rules.
    pub const RULED_BELOW: u32 = 4;
}

/// One state of a byte automaton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GlobState {
    /// Class of names that end here; 0: none of the patterns match.
    pub class: u32,
    /// Zero: map elements are multiples of eight bytes.
    pub reserved: u32,
    /// Next state by byte; 0: no pattern can match any more.
    pub next: [u16; 256],
}

/// Verdicts and blamed rules of the file verbs at one end state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct PathRow {
    /// Two bits a verb, verb 0 lowest; 0: no rule.
    pub verdicts: u16,
    /// Zero.
    pub reserved: u16,
    /// Rule index by verb, where a rule matched.
    pub rules: [u16; Verb::FILE_COUNT],
}

impl PathRow {
    /// Two bits of the verb.
    #[must_use]
    #[inline(always)]
    pub const fn bits(&self, verb: Verb) -> u8 {
        (self.verdicts >> (2 * verb as u16)) as u8 & 3
    }
}

/// Key of a start state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct StartKey {
    /// `PolicyRecord::starts` of the policy that asks.
    pub starts: u32,
    /// Kernel-internal device number of the file system (`s_dev`).
    pub device: u32,
}

/// Where the tables are: kernel maps behind the verifier, vectors in userspace.
pub trait PathTables {
    /// State by number, if the number is valid.
    fn state(&self, state: u32) -> Option<PathState>;
    /// Target of a transition.
    fn transition(&self, key: &TransitionKey) -> Option<u32>;
    /// Class of a name under the byte automaton that starts at `start`; 0: none.
    fn classify(&self, start: u32, name: &impl Name) -> u32;
}

/// A name as the tables read it.
pub trait Name {
    /// Length in bytes, 1 to 255.
    fn len(&self) -> u32;
    /// Where it is in kernel memory; zero in userspace. Lets the kernel tables
    /// classify it in a function of scalars, which the verifier checks once.
    fn address(&self) -> u64 {
        0
    }
    /// Whether it is empty (never so for a real name).
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `into` with the bytes from `offset`, as many as `count`.
    /// Returns false if they cannot be read.
    fn read(&self, offset: u32, count: u32, into: &mut [u8; CHUNK]) -> bool;
}

/// The name could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// One step: the state after `name`.
///
/// # Errors
/// [`Unreadable`] if the name's bytes or a state cannot be read: the caller denies.
#[inline(always)]
pub fn step<T: PathTables, N: Name>(tables: &T, state: u32, name: &N) -> Result<u32, Unreadable> {
    let Some(info) = tables.state(state) else {
        return Err(Unreadable);
    };
    if info.flags & state_flag::NAMED != 0
        && let Some(next) = exact(tables, state, name)?
    {
        return Ok(next);
    }
    if info.glob != 0 {
        let class = tables.classify(info.glob, name);
        if class == u32::MAX {
            return Err(Unreadable);
        }
        if class != 0 {
            let mut key = TransitionKey { state, kind: KIND_CLASS, bytes: [0; CHUNK] };
            let class = class.to_le_bytes();
            key.bytes[0] = class[0];
            key.bytes[1] = class[1];
            key.bytes[2] = class[2];
            key.bytes[3] = class[3];
            if let Some(next) = tables.transition(&key) {
                return Ok(next);
            }
        }
    }
    Ok(info.any)
}

/// The exact transition of a name, chunk by chunk.
#[inline(always)]
fn exact<T: PathTables, N: Name>(
    tables: &T,
    state: u32,
    name: &N,
) -> Result<Option<u32>, Unreadable> {
    let len = name.len();
    let mut key = TransitionKey { state, kind: 0, bytes: [0; CHUNK] };
    let mut offset = 0;
    for _ in 0..CHUNKS_PER_NAME {
        let rest = len - offset;
        let last = rest <= CHUNK as u32;
        let count = if last { rest } else { CHUNK as u32 };
        if last {
            key.bytes = [0; CHUNK];
        }
        if !name.read(offset, count, &mut key.bytes) {
            return Err(Unreadable);
        }
        key.kind = if last { count as u8 } else { KIND_MORE };
        let Some(next) = tables.transition(&key) else {
            return Ok(None);
        };
        if last {
            return Ok(Some(next));
        }
        key.state = next;
        offset += CHUNK as u32;
    }
    Ok(None)
}

const _: () = assert!(size_of::<TransitionKey>() == 32);
const _: () = assert!(size_of::<PathState>() == 16);
const _: () = assert!(size_of::<PathRow>() == 16);
const _: () = assert!(size_of::<GlobState>() == 520);
const _: () = assert!(CHUNKS_PER_NAME == 10);

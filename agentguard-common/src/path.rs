//! The path automata: names in, verdict rows out.
//!
//! Two are walked side by side, because in one automaton their states multiply:
//! one for rules whose names have fixed places ("fixed"), one for rules with `**`
//! before the end ("deep"). The strictest of what both end in decides.
//!
//! An automaton reads the names of a file from the root of its *file system* down (never
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

/// Kind of a key whose chunk more chunks of the same name follow.
const KIND_MORE: u8 = 0x40;
/// Kind of a key that holds a pattern class, not a piece of a name.
const KIND_CLASS: u8 = 0x80;

/// Key of a transition: a state, and a piece of a name or a class of names.
///
/// Little-endian: 27 bytes of the name, padded with zeros; the kind (1 to 27, the
/// length of a last chunk; or more chunks follow; or a class); the state. Whole
/// words, so that the kernel builds it on its stack without byte loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct TransitionKey {
    /// The key.
    pub words: [u64; 4],
}

impl TransitionKey {
    /// Bytes that a reader of names may be given: it fills at most [`CHUNK`] of
    /// them, but the verifier only believes a power of two less one.
    pub const BYTES: usize = 32;

    /// Completes a key whose first bytes hold `count` bytes of a name.
    #[must_use]
    #[inline(always)]
    pub const fn name(mut self, state: u32, count: u32, last: bool) -> Self {
        self.complete(state, count, last);
        self
    }

    /// The same in place.
    #[inline(always)]
    pub const fn complete(&mut self, state: u32, count: u32, last: bool) {
        let kind = if last { count as u8 } else { KIND_MORE };
        self.words[3] = self.words[3] & 0xff_ffff | (kind as u64) << 24 | (state as u64) << 32;
    }

    /// The key of a class of names.
    #[must_use]
    #[inline(always)]
    pub const fn class(state: u32, class: u32) -> Self {
        Self {
            words: [
                class as u64,
                0,
                0,
                (KIND_CLASS as u64) << 24 | (state as u64) << 32,
            ],
        }
    }

    /// The state that the transition leaves.
    #[must_use]
    #[inline(always)]
    pub const fn state(&self) -> u32 {
        (self.words[3] >> 32) as u32
    }

    /// The same transition out of another state.
    #[must_use]
    #[inline(always)]
    pub const fn with_state(mut self, state: u32) -> Self {
        self.words[3] = self.words[3] & 0xffff_ffff | (state as u64) << 32;
        self
    }
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

/// Verdicts and blamed rules, at one end state, of the file verbs and of `connect`, which a
/// unix socket is asked about by the name of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct PathRow {
    /// Two bits a verb, verb 0 lowest; 0: no rule.
    pub verdicts: u16,
    /// Rule index by verb, where a rule matched.
    pub rules: [u16; Verb::PATH_COUNT],
}

impl PathRow {
    /// Two bits of the verb.
    #[must_use]
    #[inline(always)]
    pub const fn bits(&self, verb: Verb) -> u8 {
        (self.verdicts >> (2 * verb as u16)) as u8 & 3
    }

    /// Rule index of the verb. Written out: an array index that depends on a
    /// verb costs the verifier a bounds proof.
    #[must_use]
    #[inline(always)]
    pub const fn rule(&self, verb: Verb) -> u16 {
        match verb {
            Verb::Read => self.rules[0],
            Verb::Write => self.rules[1],
            Verb::Create => self.rules[2],
            Verb::Delete => self.rules[3],
            Verb::Attributes => self.rules[4],
            _ => self.rules[5],
        }
    }

    /// Rule index of `connect`, of unix sockets. Not an arm of [`PathRow::rule`]: with one for
    /// each rule the compiler makes an index of the verb.
    #[must_use]
    #[inline(always)]
    pub const fn connect_rule(&self) -> u16 {
        self.rules[6]
    }
}

/// Key of a start position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct StartKey {
    /// `PolicyRecord::starts` of the policy that asks.
    pub starts: u32,
    /// Kernel-internal device number of the file system (`s_dev`).
    pub device: u32,
}

/// In place of a device number in a [`StartKey`]: the automaton of abstract names of unix
/// sockets. The verb `create` stands for binding one there.
pub const ABSTRACT_NAMES: u32 = u32::MAX;

/// The same for the automaton of cgroups, whose names are walked from the root down.
pub const CGROUPS: u32 = u32::MAX - 1;

/// Key of a file that has several names of which not all are equally free. The value is a
/// [`PathRow`]: the strictest of what its names say, defaults written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct LinkKey {
    /// `PolicyRecord::starts` of the policy that asks.
    pub starts: u32,
    /// Device number of its file system (`s_dev`).
    pub device: u32,
    /// Inode number.
    pub inode: u64,
}

/// In a row of [`LinkKey`]: no rule, the verb's default.
pub const NO_RULE: u16 = u16::MAX;

/// Where a walk is in the two automata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Position {
    /// State in the automaton of rules whose names have fixed places.
    pub fixed: u32,
    /// State in the automaton of rules with `**` before the end.
    pub deep: u32,
}

impl Position {
    /// Whether no rule can match any more.
    #[must_use]
    #[inline(always)]
    pub const fn is_dead(&self) -> bool {
        self.fixed == DEAD && self.deep == DEAD
    }
}

/// The rows that a walk ends in.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Of the fixed automaton.
    pub fixed: &'a PathRow,
    /// Of the deep automaton.
    pub deep: &'a PathRow,
}

impl Rows<'_> {
    /// Two bits of the verb: the stricter of both; 0: no rule in either.
    #[must_use]
    #[inline(always)]
    pub const fn bits(&self, verb: Verb) -> u8 {
        let (fixed, deep) = (self.fixed.bits(verb), self.deep.bits(verb));
        if fixed > deep { fixed } else { deep }
    }

    /// The rule behind the bits of `connect`.
    #[must_use]
    #[inline(always)]
    pub const fn connect_rule(&self) -> u16 {
        let (fixed, deep) = (
            self.fixed.bits(Verb::Connect),
            self.deep.bits(Verb::Connect),
        );
        let (first, second) = (self.fixed.connect_rule(), self.deep.connect_rule());
        if fixed > deep || fixed == deep && first < second {
            first
        } else {
            second
        }
    }

    /// The rule behind [`Rows::bits`]: among equally strict ones the first written.
    #[must_use]
    #[inline(always)]
    pub fn rule(&self, verb: Verb) -> u16 {
        let (fixed, deep) = (self.fixed.bits(verb), self.deep.bits(verb));
        let (first, second) = (self.fixed.rule(verb), self.deep.rule(verb));
        if fixed > deep || fixed == deep && first < second {
            first
        } else {
            second
        }
    }
}

/// Where the tables are: kernel maps behind the verifier, vectors in userspace.
pub trait PathTables {
    /// State by number, if the number is valid.
    fn state(&self, state: u32) -> Option<PathState>;
    /// Target of a transition.
    fn transition(&self, key: &TransitionKey) -> Option<u32>;
    /// Target of a state's exact child of this name. The kernel tables put [`exact`]
    /// into a function of its own, whose stack is free again before `classify`.
    ///
    /// # Errors
    /// The name's bytes cannot be read.
    #[inline(always)]
    fn named(&self, state: u32, name: &impl Name) -> Result<Option<u32>, Unreadable>
    where
        Self: Sized,
    {
        exact(self, state, name)
    }
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
    /// The `count` bytes (1 to [`CHUNK`]) from `offset`, at the start of an
    /// otherwise zero key; `None` if they cannot be read.
    fn read(&self, offset: u32, count: u32) -> Option<TransitionKey>;
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
        && let Some(next) = tables.named(state, name)?
    {
        return Ok(next);
    }
    if info.glob != 0 {
        let class = tables.classify(info.glob, name);
        if class == u32::MAX {
            return Err(Unreadable);
        }
        if class != 0
            && let Some(next) = tables.transition(&TransitionKey::class(state, class))
        {
            return Ok(next);
        }
    }
    Ok(info.any)
}

/// The exact transition of a name, chunk by chunk.
///
/// # Errors
/// [`Unreadable`] if the name's bytes cannot be read.
#[inline(always)]
pub fn exact<T: PathTables, N: Name>(
    tables: &T,
    state: u32,
    name: &N,
) -> Result<Option<u32>, Unreadable> {
    let len = name.len();
    let mut from = state;
    let mut offset = 0;
    // At most CHUNKS_PER_NAME times: a name has 255 bytes at most.
    while offset < len {
        let rest = len - offset;
        let last = rest <= CHUNK as u32;
        let count = if last { rest } else { CHUNK as u32 };
        // Completed in place: in the kernel each copy is stack.
        let Some(mut key) = name.read(offset, count) else {
            return Err(Unreadable);
        };
        key.complete(from, count, last);
        let Some(next) = tables.transition(&key) else {
            return Ok(None);
        };
        if last {
            return Ok(Some(next));
        }
        from = next;
        offset += CHUNK as u32;
    }
    Ok(None)
}

const _: () = assert!(size_of::<TransitionKey>() == 32);
const _: () = assert!(size_of::<Position>() == 8);
const _: () = assert!(size_of::<PathState>() == 16);
const _: () = assert!(size_of::<PathRow>() == 16);
const _: () = assert!(size_of::<GlobState>() == 520);
const _: () = assert!(size_of::<LinkKey>() == 16);
const _: () = assert!(CHUNKS_PER_NAME == 10);

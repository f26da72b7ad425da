//! Verbs: what a permission is about.

/// What a tagged task wants to do to an object (design: "verb").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Verb {
    /// Open for reading, list a directory.
    Read = 0,
    /// Open for writing, truncate.
    Write = 1,
    /// Make a name: create, `mkdir`, `mknod`, `symlink`, target of link and rename.
    Create = 2,
    /// Remove a name: `unlink`, `rmdir`, source of rename.
    Delete = 3,
    /// Change mode, owner, times or extended attributes.
    Attributes = 4,
    /// Execute.
    Exec = 5,
    /// Connect or send to an address.
    Connect = 6,
    /// Bind to an address.
    Listen = 7,
}

impl Verb {
    /// Number of verbs.
    pub const COUNT: usize = 8;
    /// Verbs about paths come first: `0..FILE_COUNT`.
    pub const FILE_COUNT: usize = 6;
    /// Verbs that paths have rules about: those and `connect`, for unix sockets.
    pub const PATH_COUNT: usize = 7;

    /// All verbs, in order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Read,
        Self::Write,
        Self::Create,
        Self::Delete,
        Self::Attributes,
        Self::Exec,
        Self::Connect,
        Self::Listen,
    ];

    /// The name in manifests, events and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Attributes => "attributes",
            Self::Exec => "exec",
            Self::Connect => "connect",
            Self::Listen => "listen",
        }
    }

    /// The verb with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// A set of verbs about paths, as a bit mask: one system call can need several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Verbs(pub u8);

impl Verbs {
    /// No verb.
    pub const NONE: Self = Self(0);

    /// The set of one verb.
    #[must_use]
    pub const fn of(verb: Verb) -> Self {
        Self(1 << verb as u8)
    }

    /// This set and one verb more.
    #[must_use]
    #[inline(always)]
    pub const fn and(self, verb: Verb) -> Self {
        Self(self.0 | 1 << verb as u8)
    }

    /// Whether every verb of `others` is in the set.
    #[must_use]
    #[inline(always)]
    pub const fn has_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether the verb is in the set.
    #[must_use]
    #[inline(always)]
    pub const fn has(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u8) != 0
    }

    /// Whether the set is empty.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

//! Verdicts, their reasons, and the mode that says whether they bite.

/// What a policy says about one operation. Ordered by strictness: the largest
/// of several matching rules wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// It may happen.
    Allow = 1,
    /// A person decides; until then it does not happen.
    Ask = 2,
    /// It may not happen.
    Deny = 3,
}

impl Verdict {
    /// Number of verdicts, plus one for "no rule" at zero, as packed in rows.
    pub const COUNT: usize = 4;

    /// The name in manifests, events and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }

    /// Unpacks two bits; zero means that no rule matched.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 3 {
            1 => Some(Self::Allow),
            2 => Some(Self::Ask),
            3 => Some(Self::Deny),
            _ => None,
        }
    }
}

/// Why a verdict is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// A rule of the manifest matched; the event names it.
    Rule = 0,
    /// No rule matched: the verb's default.
    Default = 1,
    /// A built-in protection matched (credentials, AgentGuard itself).
    Protected = 2,
    /// The run was revoked.
    Revoked = 3,
    /// The run is paused.
    Paused = 4,
    /// The run's lease has ended.
    LeaseExpired = 5,
    /// The agent has no policy in force.
    NoPolicy = 6,
    /// More names than [`PATH_DEPTH`](crate::limits::PATH_DEPTH).
    TooDeep = 7,
    /// The kernel's memory could not be read as expected.
    ReadFailed = 8,
    /// An address family that no rule can name.
    Family = 9,
    /// The tag names a run or an agent that the tables do not hold.
    Unknown = 10,
    /// A built-in allowance (`/dev/null`, anonymous pipes, ...).
    Builtin = 11,
    /// A process outside the run, without the privilege `ptrace-outside` or `signal-outside`.
    OutsideRun = 12,
    /// Moving, linking or covering it would shed rules: under the other name something
    /// could be done that its rules now refuse.
    ShedsRules = 13,
    /// A device file that no rule names, without the privilege `devices`.
    Device = 14,
    /// Never allowed to an agent: it would put other decisions out of sight.
    Forbidden = 15,
    /// Needs a privilege that the manifest does not allow.
    Privilege = 16,
    /// The file has other names, and one of these is less free.
    OtherName = 17,
    /// A question of the DNS that the daemon's resolver would answer, and it does not listen.
    ResolverAbsent = 18,
    /// What the connection said of the server that it is for (a TLS hello, an HTTP request)
    /// names one that no rule allows, or cannot be read.
    ServerName = 19,
}

impl Reason {
    /// All reasons, in order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::Rule,
        Self::Default,
        Self::Protected,
        Self::Revoked,
        Self::Paused,
        Self::LeaseExpired,
        Self::NoPolicy,
        Self::TooDeep,
        Self::ReadFailed,
        Self::Family,
        Self::Unknown,
        Self::Builtin,
        Self::OutsideRun,
        Self::ShedsRules,
        Self::Device,
        Self::Forbidden,
        Self::Privilege,
        Self::OtherName,
        Self::ResolverAbsent,
        Self::ServerName,
    ];

    /// The name in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Default => "default",
            Self::Protected => "protected",
            Self::Revoked => "revoked",
            Self::Paused => "paused",
            Self::LeaseExpired => "lease-expired",
            Self::NoPolicy => "no-policy",
            Self::TooDeep => "too-deep",
            Self::ReadFailed => "read-failed",
            Self::Family => "family",
            Self::Unknown => "unknown",
            Self::Builtin => "builtin",
            Self::OutsideRun => "outside-run",
            Self::ShedsRules => "sheds-rules",
            Self::Device => "device",
            Self::Forbidden => "forbidden",
            Self::Privilege => "privilege",
            Self::OtherName => "other-name",
            Self::ResolverAbsent => "resolver-absent",
            Self::ServerName => "server-name",
        }
    }

    /// The reason with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// Whether verdicts bite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Decide and record, never block.
    Observe = 1,
    /// Decide, record and block.
    Enforce = 2,
}

impl Mode {
    /// The name in manifests and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

/// One decision: the verdict, why, and by which rule of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Index of the agent's rule; meaningful for [`Reason::Rule`] and
    /// [`Reason::Protected`] only.
    pub rule: u16,
}

impl Decision {
    /// A denial that no rule of the manifest made.
    #[must_use]
    #[inline(always)]
    pub const fn deny(reason: Reason) -> Self {
        Self {
            verdict: Verdict::Deny,
            reason,
            rule: 0,
        }
    }

    /// A built-in allowance.
    #[must_use]
    #[inline(always)]
    pub const fn builtin() -> Self {
        Self {
            verdict: Verdict::Allow,
            reason: Reason::Builtin,
            rule: 0,
        }
    }

    /// Whether the operation fails under this mode.
    #[must_use]
    #[inline(always)]
    pub const fn blocks(self, mode: Mode) -> bool {
        matches!(mode, Mode::Enforce) && !matches!(self.verdict, Verdict::Allow)
    }
}

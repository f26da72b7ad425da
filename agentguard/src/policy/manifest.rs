//! The checked form of a manifest: what is here has been validated, so whoever
//! compiles or reports it does not have to check again.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use super::net::{NetHost, NetObject, NetRule, NetTarget, Protocol, Transport};
pub use super::path::{Component, GlobPattern, GlobToken, PathObject, PathPattern};

/// Defines an enum whose variants have exactly one spelling each in a manifest.
macro_rules! keywords {
    (
        $(#[$meta:meta])*
        $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
        }

        impl $name {
            /// Every variant, in the order in which the documentation lists them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The spelling in a manifest.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The variant with this exact spelling.
            #[must_use]
            pub fn from_keyword(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|item| item.as_str() == text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

keywords! {
    /// What a permission is about.
    Verb {
        /// Opening a file for reading, listing a directory, reading a link.
        Read = "read",
        /// Changing the content of a file that exists.
        Write = "write",
        /// Making a new name.
        Create = "create",
        /// Removing a name.
        Delete = "delete",
        /// Changing mode, owner, times or extended attributes.
        Attributes = "attributes",
        /// Executing a program.
        Exec = "exec",
        /// Connecting or sending to an address.
        Connect = "connect",
        /// Binding to an address to be reached on.
        Listen = "listen",
    }
}

impl Verb {
    /// Whether the verb's rules are network rules; the others' are path rules.
    #[must_use]
    pub const fn is_network(self) -> bool {
        matches!(self, Self::Connect | Self::Listen)
    }

    /// The verdict where no rule matches and the manifest names no default.
    #[must_use]
    pub const fn built_in_default(self) -> Verdict {
        match self {
            Self::Read | Self::Exec => Verdict::Allow,
            _ => Verdict::Deny,
        }
    }
}

keywords! {
    /// What is decided about an operation. The order is the strictness: where
    /// several rules match, the greatest verdict wins.
    Verdict {
        /// It may happen.
        Allow = "allow",
        /// It is held until a person decides.
        Ask = "ask",
        /// It is refused.
        Deny = "deny",
    }
}

keywords! {
    /// Where an agent runs. The same name in two environments is two identities.
    Environment {
        /// For trying things out.
        Development = "development",
        /// Like production, without its data.
        Staging = "staging",
        /// The real thing.
        Production = "production",
    }
}

keywords! {
    /// In whose right an agent acts.
    Authority {
        /// In its own.
        Service = "service",
        /// In a person's, who must be named when a run starts.
        Delegated = "delegated",
    }
}

keywords! {
    /// Whether verdicts bind.
    Mode {
        /// Decide and record, never block.
        Observe = "observe",
        /// Decide, record and block.
        Enforce = "enforce",
    }
}

keywords! {
    /// What happens to a run that reaches one of its limits.
    OnLimit {
        /// Every process of the run stops until an operator resumes it.
        Pause = "pause",
        /// The run's rights end; its processes live on and are refused everything.
        Revoke = "revoke",
        /// Every process of the run is killed.
        Kill = "kill",
    }
}

keywords! {
    /// What is denied to every agent unless its manifest allows it by name.
    Privilege {
        /// Tracing or reading the memory of processes outside the run.
        PtraceOutside = "ptrace-outside",
        /// Signalling processes outside the run.
        SignalOutside = "signal-outside",
        /// Mounting and unmounting.
        Mount = "mount",
        /// Making or entering namespaces.
        Namespaces = "namespaces",
        /// The bpf system call and performance events.
        Bpf = "bpf",
        /// Loading and unloading kernel modules.
        Modules = "modules",
        /// Raw and packet sockets.
        RawSockets = "raw-sockets",
        /// Writing below sysfs, procfs or cgroupfs.
        KernelSettings = "kernel-settings",
        /// Opening device files beyond the harmless ones.
        Devices = "devices",
        /// Changing what starts by itself later: cron, units, shell start-up files.
        Persistence = "persistence",
        /// Asking an untagged service to act: docker, systemd, D-Bus, at, cron.
        Handoff = "handoff",
        /// Executing setuid, setgid or file-capability programs.
        Setuid = "setuid",
    }
}

/// A place in a manifest. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file, as it was named to the loader.
    pub file: Arc<Path>,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Location {
    /// The form in which events blame a rule: `file:line`.
    #[must_use]
    pub fn file_line(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A value and where it stands. Two are equal when the values are.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub location: Location,
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Located<T> {}

/// One rule: what it matches, as it is written, and where.
#[derive(Clone, Debug)]
pub struct Rule<T> {
    /// What the rule matches.
    pub matcher: T,
    /// The rule as it is written in the manifest.
    pub text: Box<str>,
    /// Where it is written; events blame its `file:line`.
    pub location: Location,
}

/// The rules of one verb.
#[derive(Clone, Debug)]
pub struct RuleSet<T> {
    /// What is allowed.
    pub allow: Vec<Rule<T>>,
    /// What is held until a person decides.
    pub ask: Vec<Rule<T>>,
    /// What is denied.
    pub deny: Vec<Rule<T>>,
    /// The verdict where no rule matches, if the manifest names one.
    pub default: Option<Verdict>,
}

impl<T> Default for RuleSet<T> {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            ask: Vec::new(),
            deny: Vec::new(),
            default: None,
        }
    }
}

impl<T> RuleSet<T> {
    /// The rules with one verdict.
    #[must_use]
    pub fn with_verdict(&self, verdict: Verdict) -> &[Rule<T>] {
        match verdict {
            Verdict::Allow => &self.allow,
            Verdict::Ask => &self.ask,
            Verdict::Deny => &self.deny,
        }
    }

    /// All rules with their verdicts, the least strict first.
    pub fn iter(&self) -> impl Iterator<Item = (Verdict, &Rule<T>)> {
        Verdict::ALL.iter().flat_map(|&verdict| {
            self.with_verdict(verdict)
                .iter()
                .map(move |rule| (verdict, rule))
        })
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.allow.len() + self.ask.len() + self.deny.len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What an agent may do. A verb is `None` where the manifest does not name it.
#[derive(Clone, Debug, Default)]
pub struct Permissions {
    /// Rules for reading.
    pub read: Option<RuleSet<PathPattern>>,
    /// Rules for writing; also for `create`, `delete` and `attributes` where those are `None`.
    pub write: Option<RuleSet<PathPattern>>,
    /// Rules for making names.
    pub create: Option<RuleSet<PathPattern>>,
    /// Rules for removing names.
    pub delete: Option<RuleSet<PathPattern>>,
    /// Rules for changing attributes.
    pub attributes: Option<RuleSet<PathPattern>>,
    /// Rules for executing.
    pub exec: Option<RuleSet<PathPattern>>,
    /// Rules for connecting.
    pub connect: Option<RuleSet<NetRule>>,
    /// Rules for listening.
    pub listen: Option<RuleSet<NetRule>>,
    /// What is allowed by name.
    pub privileges: Vec<Located<Privilege>>,
}

impl Permissions {
    /// The path rules that govern a verb: its own, or those of `write` for
    /// `create`, `delete` and `attributes` where the manifest does not name
    /// them. `None` for network verbs and where nothing is named.
    #[must_use]
    pub fn path_rules(&self, verb: Verb) -> Option<&RuleSet<PathPattern>> {
        match verb {
            Verb::Read => self.read.as_ref(),
            Verb::Write => self.write.as_ref(),
            Verb::Create => self.create.as_ref().or(self.write.as_ref()),
            Verb::Delete => self.delete.as_ref().or(self.write.as_ref()),
            Verb::Attributes => self.attributes.as_ref().or(self.write.as_ref()),
            Verb::Exec => self.exec.as_ref(),
            Verb::Connect | Verb::Listen => None,
        }
    }

    /// The network rules that govern a verb; `None` for path verbs and where
    /// nothing is named.
    #[must_use]
    pub fn net_rules(&self, verb: Verb) -> Option<&RuleSet<NetRule>> {
        match verb {
            Verb::Connect => self.connect.as_ref(),
            Verb::Listen => self.listen.as_ref(),
            _ => None,
        }
    }

    /// The verdict of a verb where no rule matches: the one that the manifest
    /// names, or the built-in one. A default under `write` counts for the verbs
    /// that its rules cover.
    #[must_use]
    pub fn default_verdict(&self, verb: Verb) -> Verdict {
        let named = if verb.is_network() {
            self.net_rules(verb).and_then(|rules| rules.default)
        } else {
            self.path_rules(verb).and_then(|rules| rules.default)
        };
        named.unwrap_or(verb.built_in_default())
    }

    /// How many path rules the manifest holds.
    #[must_use]
    pub fn path_rule_count(&self) -> usize {
        [
            &self.read,
            &self.write,
            &self.create,
            &self.delete,
            &self.attributes,
            &self.exec,
        ]
        .into_iter()
        .flatten()
        .map(RuleSet::len)
        .sum()
    }

    /// How many network rules the manifest holds.
    #[must_use]
    pub fn net_rule_count(&self) -> usize {
        [&self.connect, &self.listen]
            .into_iter()
            .flatten()
            .map(RuleSet::len)
            .sum()
    }
}

/// What makes a process become this agent when it executes a program. Everything
/// that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecMatch {
    /// The program.
    pub exe: Option<PathPattern>,
    /// The user that executes it, by name or number.
    pub user: Option<String>,
    /// The digest of the program.
    pub sha256: Option<[u8; 32]>,
    /// The systemd unit in whose cgroup it runs.
    pub systemd_unit: Option<String>,
    /// Where the match is written.
    pub location: Location,
}

/// Bounds of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many tasks a run may have at once.
    pub processes: Option<u32>,
    /// How many denials a run may collect within a minute.
    pub denials_per_minute: Option<u32>,
    /// What happens at a limit.
    pub on_limit: OnLimit,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            processes: None,
            denials_per_minute: None,
            on_limit: OnLimit::Pause,
        }
    }
}

/// Who decides about held operations, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvals {
    /// Users or groups that may decide.
    pub approvers: Vec<String>,
    /// How long a request waits before it is denied.
    pub timeout: Duration,
    /// How often one approval may be used.
    pub uses: u32,
}

impl Default for Approvals {
    fn default() -> Self {
        Self {
            approvers: Vec::new(),
            timeout: Duration::from_secs(600),
            uses: 1,
        }
    }
}

/// What a test asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A file, by its path.
    Path(PathObject),
    /// A place in the network, or a socket.
    Net(NetObject),
}

/// An expectation about the manifest's own permissions, checked by `policy test`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTest {
    /// The verdict that the permissions must give.
    pub expect: Verdict,
    /// The verb asked about.
    pub verb: Verb,
    /// The object asked about.
    pub object: Object,
    /// The question as it is written.
    pub text: Box<str>,
    /// Where it is written.
    pub location: Location,
}

/// One agent's registration.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The agent's name; with the environment, its identity.
    pub name: String,
    /// What the agent is for.
    pub description: Option<String>,
    /// Who answers for the agent.
    pub owner: String,
    /// Where it runs.
    pub environment: Environment,
    /// In whose right it acts.
    pub authority: Authority,
    /// Whether verdicts bind.
    pub mode: Mode,
    /// The longest life of one run.
    pub lease: Option<Duration>,
    /// Who may start the agent with `agentguard run`, besides root.
    pub launch_users: Vec<String>,
    /// Which processes become the agent when they execute a program.
    pub matches: Vec<ExecMatch>,
    /// What the agent may do.
    pub permissions: Permissions,
    /// The agents that this one may start as sub-agents.
    pub delegates: Vec<Located<String>>,
    /// Bounds of one run.
    pub limits: Limits,
    /// Who decides about held operations, and how.
    pub approvals: Approvals,
    /// Expectations about the permissions.
    pub tests: Vec<PolicyTest>,
    /// SHA-256, in hex, of what the manifest means; comments, layout, the order
    /// of rules and the tests do not change it.
    pub version: String,
    /// Where the manifest begins.
    pub source: Location,
}

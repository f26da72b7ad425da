//! The checked form of a manifest: what is here has been validated, so whoever
//! compiles or reports it does not have to check again.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use super::net::{NetHost, NetObject, NetRule, NetTarget, Protocol, Transport};
pub use super::path::{Component, GlobPattern, GlobToken, PathObject, PathPattern};
pub use super::vocabulary::{Authority, Environment, Mode, OnLimit, Privilege, Verb, Verdict};

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
    /// The cgroup that it runs in, or below which, by its path in the version 2 hierarchy.
    pub cgroup: Option<PathPattern>,
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

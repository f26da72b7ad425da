//! What Landlock does not do of what a manifest says: collected while the rules
//! are derived, and reported with the rule and the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::text;
use crate::mounts::Names;
use crate::policy::manifest::{Privilege, Verb};

/// A difference between what a manifest says and what is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// What the rule is about.
    pub subjects: Vec<Subject>,
    /// The rule as it is written.
    pub rule: String,
    /// Where it is written: `file:line`, or `built-in`.
    pub at: String,
    /// Which way the difference goes.
    pub effect: Effect,
    /// Why, and for which places.
    pub reason: String,
}

/// Which way a difference goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// What the manifest denies, asks or restricts can be done.
    NotEnforced,
    /// What the manifest allows is refused.
    Narrowed,
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Subject {
    /// A verb.
    Verb(Verb),
    /// A privilege.
    Privilege(Privilege),
}

impl Subject {
    fn as_str(self) -> &'static str {
        match self {
            Self::Verb(verb) => verb.as_str(),
            Self::Privilege(privilege) => privilege.as_str(),
        }
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.as_str().to_owned()
    }
}

impl TryFrom<String> for Subject {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Verb::from_keyword(&text)
            .map(Self::Verb)
            .or_else(|| Privilege::from_keyword(&text).map(Self::Privilege))
            .ok_or_else(|| format!("`{text}` is neither a verb nor a privilege"))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotEnforced => "not enforced",
            Self::Narrowed => "narrowed",
        })
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subjects: Vec<_> = self.subjects.iter().map(|it| it.as_str()).collect();
        write!(
            f,
            "{}: {} `{}` ({}): {}",
            self.effect,
            subjects.join(", "),
            self.rule,
            self.at,
            self.reason
        )
    }
}

/// Why a rule is not in force as written. The order is that of the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// A denied name at any depth.
    AnyDepthDenied,
    /// A denied file has several names.
    HardLinks,
    /// A denied name at any depth inside what is allowed.
    Dropped,
    /// A denied name inside what is allowed.
    Split,
    /// A mount inside what is allowed to which the rule does not reach.
    MountBelow,
    /// `ask`.
    Held,
    /// An allowed name at any depth.
    AnyDepthAllowed,
    /// An allowed name with `*` or `?`.
    ExistingOnly,
    /// A single name to be made or removed.
    OneName,
    /// Making is allowed where changing is not.
    NeedsWrite,
    /// Removing is allowed where changing is not.
    StaysInPlace,
    /// What is allowed is not there.
    Missing,
    /// What is allowed is behind somebody's symbolic link.
    ForeignLink,
    /// Below the directory is allowed, the directory itself is not.
    NewDirectories,
    /// A pseudo file system whose files are the kernel's settings.
    KernelSettings,
    /// A directory that would have to be listed has too many entries.
    TooManyEntries(usize),
    /// A directory that would have to be listed cannot be.
    Unlistable(String),
    /// Something does not say what it is, or came while the tree was looked at.
    Unreachable,
    /// Too many rules.
    TooManyRules(usize),
}

impl Cause {
    fn effect(&self) -> Effect {
        match self {
            Self::AnyDepthDenied | Self::HardLinks => Effect::NotEnforced,
            _ => Effect::Narrowed,
        }
    }

    fn reason(&self, places: &str, subjects: &BTreeSet<Subject>) -> String {
        match self {
            Self::AnyDepthDenied => {
                "Landlock knows places, not names at any depth: matching files are not denied"
                    .to_owned()
            }
            Self::HardLinks => {
                format!("{places} has further names (hard links), under which it may be allowed")
            }
            Self::Dropped => format!(
                "it could match anywhere below {places}, and Landlock cannot deny inside what it allows: \
                 what is allowed there as a whole is refused"
            ),
            Self::Split => format!(
                "Landlock cannot deny inside what it allows, so beside it only what exists at launch \
                 is allowed: {}",
                refused_in(places, subjects)
            ),
            Self::MountBelow => format!(
                "something mounted below has other rules, so beside it only what exists at launch is \
                 allowed: {}",
                refused_in(places, subjects)
            ),
            Self::Held => "Landlock cannot hold a call until a person decides: refused".to_owned(),
            Self::AnyDepthAllowed => {
                "Landlock knows places, not names at any depth: nothing is allowed by it".to_owned()
            }
            Self::ExistingOnly => "only what exists and matches at launch is allowed".to_owned(),
            Self::OneName => {
                "Landlock lets a program make or remove all names of a directory or none: refused"
                    .to_owned()
            }
            Self::NeedsWrite => format!(
                "Landlock does not tell making from linking, so nothing can be made below {places}, \
                 where `write` is not allowed throughout"
            ),
            Self::StaysInPlace => format!(
                "Landlock does not tell moving from linking, so nothing can be moved to another \
                 directory below {places}, where `write` is not allowed throughout"
            ),
            Self::Missing => format!(
                "{places} does not exist at launch, or cannot be looked at, and Landlock can only allow \
                 what exists"
            ),
            Self::ForeignLink => format!(
                "it goes through {places}, a symbolic link that root does not own; write what it leads to"
            ),
            Self::NewDirectories => format!(
                "{places} itself may not be listed, so only those directories directly in it that \
                 exist at launch can be"
            ),
            Self::KernelSettings => format!(
                "{places} holds the kernel's settings; changing them needs the privilege `kernel-settings`"
            ),
            Self::TooManyEntries(limit) => format!(
                "something below {places} is denied, and there are more than {limit} names to allow \
                 around it: what is allowed there as a whole is refused"
            ),
            Self::Unlistable(error) => format!(
                "something below {places} is denied, and the names around it cannot be listed \
                 ({error}): what is allowed there as a whole is refused"
            ),
            Self::Unreachable => format!(
                "{places} did not tell what it is (another user's file system, or mounted just now): \
                 refused"
            ),
            Self::TooManyRules(limit) => format!(
                "more than {limit} Landlock rules are needed; from {places} on, what they would \
                 allow is refused"
            ),
        }
    }
}

/// Places named in one reason; the others are counted.
const PLACES_SHOWN: usize = 4;

/// Number of a rule in a report.
pub(super) type Origin = usize;

/// The defaults of a manifest, where a gap is about no rule.
pub(super) const DEFAULTS: Origin = 0;
/// The built-in protected set, which is reported as one.
pub(super) const PROTECTED: Origin = 1;

/// What happened to one rule for one reason.
#[derive(Default)]
struct Found {
    subjects: BTreeSet<Subject>,
    places: BTreeSet<Vec<u8>>,
}

/// Gaps in the making.
pub(super) struct Gaps {
    /// Text and place of each rule.
    origins: Vec<(String, String)>,
    found: BTreeMap<(Effect, Origin, Cause), Found>,
    fixed: Vec<Gap>,
}

impl Gaps {
    /// None so far; `at` is where the manifest is.
    pub fn new(at: &str) -> Self {
        Self {
            origins: vec![
                ("default".to_owned(), at.to_owned()),
                ("protected set".to_owned(), "built-in".to_owned()),
            ],
            found: BTreeMap::new(),
            fixed: Vec::new(),
        }
    }

    /// Makes a rule known.
    pub fn origin(&mut self, text: &str, at: String) -> Origin {
        self.origins.push((text.to_owned(), at));
        self.origins.len() - 1
    }

    /// Notes a gap about a rule.
    pub fn add(&mut self, cause: Cause, origin: Origin, verb: Verb) {
        let key = (cause.effect(), origin, cause);
        let found = self.found.entry(key).or_default();
        found.subjects.insert(Subject::Verb(verb));
    }

    /// Notes a gap about a rule at a place.
    pub fn add_at(&mut self, cause: Cause, origin: Origin, verb: Verb, place: &Names) {
        let key = (cause.effect(), origin, cause);
        let found = self.found.entry(key).or_default();
        found.subjects.insert(Subject::Verb(verb));
        found.places.insert(text::path_of(place));
    }

    /// Notes a gap that does not depend on a rule.
    pub fn add_fixed(&mut self, effect: Effect, subject: Subject, rule: &str, reason: &str) {
        self.fixed.push(Gap {
            subjects: vec![subject],
            rule: rule.to_owned(),
            at: self.origins[DEFAULTS].1.clone(),
            effect,
            reason: reason.to_owned(),
        });
    }

    /// The report: what is not enforced first.
    pub fn finish(self) -> Vec<Gap> {
        let mut gaps = self.fixed;
        for ((effect, origin, cause), found) in self.found {
            let (rule, at) = self.origins[origin].clone();
            gaps.push(Gap {
                reason: cause.reason(&list(&found.places), &found.subjects),
                subjects: found.subjects.into_iter().collect(),
                rule,
                at,
                effect,
            });
        }
        gaps.sort_by_key(|gap| gap.effect);
        gaps
    }
}

/// What cannot be done directly in directories that are allowed entry by entry.
fn refused_in(places: &str, subjects: &BTreeSet<Subject>) -> String {
    let has = |verb| subjects.contains(&Subject::Verb(verb));
    let mut refused = Vec::new();
    if has(Verb::Create) || has(Verb::Delete) {
        refused.push(format!(
            "nothing can be made or removed directly in {places}"
        ));
    }
    if has(Verb::Read) {
        refused.push(format!(
            "what comes later directly in {places} cannot be read, nor these directories be listed"
        ));
    }
    if has(Verb::Write) {
        refused.push(format!(
            "what comes later directly in {places} cannot be changed"
        ));
    }
    if has(Verb::Exec) {
        refused.push(format!(
            "what comes later directly in {places} cannot be executed"
        ));
    }
    refused.join("; ")
}

fn list(places: &BTreeSet<Vec<u8>>) -> String {
    let shown: Vec<String> = places
        .iter()
        .take(PLACES_SHOWN)
        .map(|place| text::encode(place))
        .collect();
    let more = places.len().saturating_sub(PLACES_SHOWN);
    if more == 0 {
        shown.join(", ")
    } else {
        format!("{} and {more} more", shown.join(", "))
    }
}

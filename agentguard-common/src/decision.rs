//! The decision function. Hooks gather the subject and the object; this says
//! what happens. Nothing else turns a rule into a verdict, in the kernel or out.

use crate::identity::{PolicyRecord, RunRecord, Tag, privilege, run_state};
use crate::net::NetMatch;
use crate::path::{NO_RULE, PathRow, Rows};
use crate::verb::{Verb, Verbs};
use crate::verdict::{Decision, Reason, Verdict};

/// Who asks: the tag and the records it points to.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The task's tag.
    pub tag: &'a Tag,
    /// The agent's policy in force.
    pub policy: &'a PolicyRecord,
    /// The run.
    pub run: &'a RunRecord,
}

/// What stands before any rule: the run's state, its lease, a policy at all.
/// `now` is `CLOCK_BOOTTIME` in nanoseconds; it is asked for only when the run
/// has a lease.
#[inline(always)]
pub fn standing(subject: &Subject<'_>, now: impl FnOnce() -> u64) -> Option<Decision> {
    if subject.run.serial != subject.tag.run_serial {
        return Some(Decision::deny(Reason::Unknown));
    }
    match subject.run.state {
        run_state::ACTIVE => {}
        run_state::PAUSED => return Some(Decision::deny(Reason::Paused)),
        run_state::REVOKED => return Some(Decision::deny(Reason::Revoked)),
        _ => return Some(Decision::deny(Reason::Unknown)),
    }
    if subject.run.lease_until != 0 && now() >= subject.run.lease_until {
        return Some(Decision::deny(Reason::LeaseExpired));
    }
    if subject.policy.generation == 0 {
        return Some(Decision::deny(Reason::NoPolicy));
    }
    None
}

/// Turns one verb's matched bits (0: no rule) into a decision.
#[inline(always)]
fn settle(policy: &PolicyRecord, verb: Verb, bits: u8, rule: u16) -> Decision {
    match Verdict::from_bits(bits) {
        Some(verdict) => Decision {
            verdict,
            reason: if u32::from(rule) < policy.protected_rules {
                Reason::Protected
            } else {
                Reason::Rule
            },
            rule,
        },
        None => Decision {
            verdict: match Verdict::from_bits(strictness(policy, verb, 0)) {
                Some(verdict) => verdict,
                None => Verdict::Deny,
            },
            reason: Reason::Default,
            rule: 0,
        },
    }
}

/// Whether an object would be less restricted under another name than under its own.
/// Each name is given by the verdicts of its two rows, `defaults` are the policy's: plain
/// numbers, so that the kernel has a function for it that is verified once.
#[inline(always)]
pub fn gains(from: [u16; 2], to: [u16; 2], defaults: u16) -> bool {
    let bits = |word: u16, verb: Verb| (word >> (2 * verb as u16)) & 3;
    let strictness = |rows: [u16; 2], verb: Verb| {
        let (fixed, deep) = (bits(rows[0], verb), bits(rows[1], verb));
        let most = if fixed > deep { fixed } else { deep };
        if most == 0 {
            bits(defaults, verb)
        } else {
            most
        }
    };
    let eased = |verb: Verb| strictness(from, verb) > strictness(to, verb);
    eased(Verb::Read) | eased(Verb::Write) | eased(Verb::Attributes) | eased(Verb::Exec)
}

/// Decides an operation on a device file: what no rule names is denied, whatever
/// the verb's default, unless the agent may use devices.
#[inline(always)]
pub fn decide_device(subject: &Subject<'_>, wanted: Verbs, rows: Rows<'_>) -> (Decision, Verb) {
    let (decision, verb) = decide_path(subject, wanted, rows);
    let by_default = matches!(decision.reason, Reason::Default);
    if by_default && subject.policy.privileges & privilege::DEVICES == 0 {
        return (Decision::deny(Reason::Device), verb);
    }
    (decision, verb)
}

/// Decides an operation that needs all of `wanted` on one path. Returns the
/// strictest verb's decision and that verb; for an empty set, read is judged.
#[inline(always)]
pub fn decide_path(subject: &Subject<'_>, wanted: Verbs, rows: Rows<'_>) -> (Decision, Verb) {
    // Bits and rules are compared first and settled once: of each verb only its
    // strictness and its rule matter.
    let mut verb = Verb::Read;
    let mut strictest = 0;
    let mut consider = |candidate: Verb| {
        if wanted.has(candidate) {
            let strictness = strictness(subject.policy, candidate, rows.bits(candidate));
            if strictness > strictest {
                strictest = strictness;
                verb = candidate;
            }
        }
    };
    consider(Verb::Write);
    consider(Verb::Create);
    consider(Verb::Delete);
    consider(Verb::Attributes);
    consider(Verb::Exec);
    consider(Verb::Read);
    let decision = settle(subject.policy, verb, rows.bits(verb), rows.rule(verb));
    (decision, verb)
}

/// Decides about a unix socket by the rows of its name: connecting to it, or binding it to an
/// abstract name.
#[inline(always)]
pub fn decide_unix(subject: &Subject<'_>, verb: Verb, rows: Rows<'_>) -> Decision {
    let (bits, rule) = match verb {
        Verb::Listen => (rows.bits(Verb::Create), rows.rule(Verb::Create)),
        _ => (rows.bits(Verb::Connect), rows.connect_rule()),
    };
    settle(subject.policy, verb, bits, rule)
}

/// What the other names of a file make of a decision about one: the decision and verb of that
/// of `wanted` which is least free under another name, if that is less free than `decided`
/// (a [`Verdict`] as a number). `others` is the file's row of [`LinkKey`](crate::path::LinkKey).
#[inline(always)]
pub fn decide_names(decided: u8, wanted: Verbs, others: &PathRow) -> Option<(Decision, Verb)> {
    let (mut strictest, mut verb) = (decided, Verb::Read);
    let mut consider = |candidate: Verb| {
        if wanted.has(candidate) && others.bits(candidate) > strictest {
            strictest = others.bits(candidate);
            verb = candidate;
        }
    };
    // Making and removing a name is no matter of the file.
    consider(Verb::Write);
    consider(Verb::Attributes);
    consider(Verb::Exec);
    consider(Verb::Read);
    if strictest == decided {
        return None;
    }
    let decision = Decision {
        verdict: if strictest == Verdict::Ask as u8 {
            Verdict::Ask
        } else {
            Verdict::Deny
        },
        reason: Reason::OtherName,
        rule: others.rule(verb),
    };
    Some((decision, verb))
}

/// The strictest of what two names of a file say about it, each given by its rows: one row
/// with the defaults written out, for [`decide_names`].
#[must_use]
pub fn strictest(one: &PathRow, other: &PathRow) -> PathRow {
    let mut row = PathRow::default();
    for (index, verb) in OBJECT_VERBS {
        let (mine, theirs) = (one.bits(verb), other.bits(verb));
        let from = if theirs > mine { other } else { one };
        row.verdicts |= u16::from(from.bits(verb)) << (2 * verb as u16);
        row.rules[index] = from.rule(verb);
    }
    row
}

/// What one name says about the file, with the defaults written out.
#[must_use]
pub fn resolved(policy: &PolicyRecord, rows: Rows<'_>) -> PathRow {
    let mut row = PathRow::default();
    for (index, verb) in OBJECT_VERBS {
        let bits = strictness(policy, verb, rows.bits(verb));
        row.verdicts |= u16::from(bits) << (2 * verb as u16);
        row.rules[index] = if rows.bits(verb) == 0 {
            NO_RULE
        } else {
            rows.rule(verb)
        };
    }
    row
}

/// Verbs that are about a file, not about a name of it, and their places in a row.
const OBJECT_VERBS: [(usize, Verb); 4] = [
    (0, Verb::Read),
    (1, Verb::Write),
    (4, Verb::Attributes),
    (5, Verb::Exec),
];

/// How strict one verb's matched bits (0: no rule, so its default) are, 1 to 3.
#[inline(always)]
fn strictness(policy: &PolicyRecord, verb: Verb, bits: u8) -> u8 {
    let bits = if bits == 0 {
        policy.default_bits(verb)
    } else {
        bits
    };
    // A default that is not set can only be a damaged record: closed.
    if bits == 0 { Verdict::Deny as u8 } else { bits }
}

/// Decides a network operation from what the tables said of its address.
#[inline(always)]
pub fn decide_net(subject: &Subject<'_>, verb: Verb, matched: NetMatch) -> Decision {
    settle(subject.policy, verb, matched.verdict, matched.rule)
}

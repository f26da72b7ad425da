//! What an agent may do: the rules of each verb, the privileges, and the tests.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;

use super::super::manifest::{
    Approvals, Located, NetObject, NetRule, NetTarget, Object, PathObject, PathPattern,
    Permissions, PolicyTest, Privilege, Rule, RuleSet, Verb, Verdict,
};
use super::super::net::{address_bits, parse_rule};
use super::super::text::{TextError, quote, suggestion};
use super::fields::{Checker, Field, Fields, Word};

/// Ports that people write behind an IPv6 address and forget the brackets.
const COMMON_PORTS: [&str; 12] = [
    "22", "25", "53", "80", "443", "853", "3306", "5432", "6379", "8080", "8443", "9090",
];

/// Reads `spec.permissions`.
pub fn permissions(checker: &mut Checker<'_>, field: Option<Field<'_>>) -> Permissions {
    let mut permissions = Permissions::default();
    let mut keys: Vec<&str> = Verb::ALL.iter().map(|verb| verb.as_str()).collect();
    keys.push("privileges");
    let Some(field) = field else {
        return permissions;
    };
    let Some(fields) = checker.mapping(field.value, field.key_span, "spec.permissions", &keys)
    else {
        return permissions;
    };
    for field in fields.iter() {
        let Some(verb) = Verb::from_keyword(field.name) else {
            permissions.privileges = privileges(checker, field);
            continue;
        };
        match verb {
            Verb::Read => permissions.read = path_rules(checker, field, verb),
            Verb::Write => permissions.write = path_rules(checker, field, verb),
            Verb::Create => permissions.create = path_rules(checker, field, verb),
            Verb::Delete => permissions.delete = path_rules(checker, field, verb),
            Verb::Attributes => permissions.attributes = path_rules(checker, field, verb),
            Verb::Exec => permissions.exec = path_rules(checker, field, verb),
            Verb::Connect => permissions.connect = net_rules(checker, field, verb),
            Verb::Listen => permissions.listen = net_rules(checker, field, verb),
        }
    }
    permissions
}

fn path_rules(
    checker: &mut Checker<'_>,
    field: Field<'_>,
    verb: Verb,
) -> Option<RuleSet<PathPattern>> {
    rule_set(checker, field, verb, PathPattern::parse, |_, _, _, _| {})
}

fn net_rules(checker: &mut Checker<'_>, field: Field<'_>, verb: Verb) -> Option<RuleSet<NetRule>> {
    let read = |text: &str| {
        let rule = parse_rule(text)?;
        match (&rule.target, verb) {
            (NetTarget::Name(_) | NetTarget::NameSuffix(_), Verb::Listen) => Err(TextError::new(
                format!("{} is a name; a socket listens on an address", quote(text)),
            )
            .with_help("write an address such as `127.0.0.1:8080`, or `*:8080` for all")),
            _ => Ok(rule),
        }
    };
    rule_set(checker, field, verb, read, warn_about_target)
}

fn rule_set<T: Display>(
    checker: &mut Checker<'_>,
    field: Field<'_>,
    verb: Verb,
    read: impl Fn(&str) -> Result<T, TextError>,
    lint: impl Fn(&mut Checker<'_>, Word<'_>, Verdict, &T),
) -> Option<RuleSet<T>> {
    let path = format!("spec.permissions.{verb}");
    let keys = ["allow", "ask", "deny", "default"];
    let fields = checker.mapping(field.value, field.key_span, &path, &keys)?;
    let mut set = RuleSet::default();
    // From the least strict verdict to the strictest, so that what is found is overruled.
    let mut seen: HashMap<String, (Verdict, u32)> = HashMap::new();
    for &verdict in Verdict::ALL {
        let Some(field) = fields.get(verdict.as_str()) else {
            continue;
        };
        let source = checker.source();
        let list = format!("{path}.{verdict}");
        let mut rules = Vec::new();
        for (word, matcher) in checker.texts(field.value, &list, &read) {
            lint(checker, word, verdict, &matcher);
            match seen.entry(matcher.to_string()) {
                Entry::Occupied(entry) => {
                    warn_about_repetition(checker, word, verdict, *entry.get());
                }
                Entry::Vacant(entry) => {
                    entry.insert((verdict, word.span.line));
                }
            }
            rules.push(Rule {
                matcher,
                text: word.value.into(),
                location: source.location(word.span),
            });
        }
        match verdict {
            Verdict::Allow => set.allow = rules,
            Verdict::Ask => set.ask = rules,
            Verdict::Deny => set.deny = rules,
        }
    }
    if let Some(field) = fields.get("default") {
        let path = format!("{path}.default");
        set.default = checker.keyword(field.value, &path, Verdict::ALL, Verdict::as_str);
    } else if verb.built_in_default() == Verdict::Allow && !set.allow.is_empty() {
        checker.warn(
            field.key_span,
            format!("{path} lists what is allowed, but what no rule names is allowed too"),
            "add `default: deny` to allow the listed alone, or `default: allow` if this is meant",
        );
    }
    Some(set)
}

fn warn_about_repetition(
    checker: &mut Checker<'_>,
    word: Word<'_>,
    verdict: Verdict,
    (earlier, line): (Verdict, u32),
) {
    let rule = quote(word.value);
    if earlier == verdict {
        let help = format!("it is already on line {line}");
        checker.warn(word.span, format!("{rule} is listed twice"), &help);
    } else {
        let message = format!("{rule} is under both `{earlier}` and `{verdict}`");
        let help = format!("the strictest wins: the one on line {line} has no effect");
        checker.warn(word.span, message, &help);
    }
}

/// Rules that are valid and probably not what was meant.
fn warn_about_target(checker: &mut Checker<'_>, word: Word<'_>, verdict: Verdict, rule: &NetRule) {
    match &rule.target {
        NetTarget::Cidr(address, prefix)
            if address.is_ipv6()
                && *prefix == address_bits(*address)
                && !word.value.starts_with('[')
                && word
                    .value
                    .rsplit_once(':')
                    .is_some_and(|(_, last)| COMMON_PORTS.contains(&last)) =>
        {
            let (host, port) = word.value.rsplit_once(':').unwrap_or_default();
            checker.warn(
                word.span,
                format!(
                    "{} is an IPv6 address as a whole, without a port",
                    quote(word.value)
                ),
                &format!("if {port} is meant as a port, write `[{host}]:{port}`"),
            );
        }
        NetTarget::Name(name) if name == "localhost" => checker.warn(
            word.span,
            "`localhost` is not asked of the DNS, so a rule with this name covers nothing",
            "write the addresses: `127.0.0.1` and `[::1]`",
        ),
        NetTarget::NameSuffix(suffix) if verdict == Verdict::Allow && !suffix.contains('.') => {
            checker.warn(
                word.span,
                format!(
                    "{} allows every name under a top-level domain",
                    quote(word.value)
                ),
                "name the domains that the agent needs",
            );
        }
        _ => {}
    }
}

fn privileges(checker: &mut Checker<'_>, field: Field<'_>) -> Vec<Located<Privilege>> {
    let path = "spec.permissions.privileges";
    let source = checker.source();
    let Some(fields) = checker.mapping(field.value, field.key_span, path, &["allow"]) else {
        return Vec::new();
    };
    let Some(field) = fields.get("allow") else {
        return Vec::new();
    };
    let read = |text: &str| {
        Privilege::from_keyword(text).ok_or_else(|| {
            let names: Vec<_> = Privilege::ALL.iter().map(|item| item.as_str()).collect();
            TextError::new(format!("{} is not a privilege", quote(text)))
                .with_help(suggestion(text, &names))
        })
    };
    let mut privileges: Vec<Located<Privilege>> = Vec::new();
    for (word, value) in checker.texts(field.value, "spec.permissions.privileges.allow", read) {
        let location = source.location(word.span);
        if privileges.iter().any(|other| other.value == value) {
            checker.warn(
                word.span,
                format!("`{value}` is listed twice"),
                "remove one of them",
            );
        } else {
            privileges.push(Located { value, location });
        }
    }
    privileges
}

/// Warns where a request would wait for a person that the manifest does not name.
pub fn warn_about_unanswered_requests(
    checker: &mut Checker<'_>,
    permissions: &Permissions,
    approvals: &Approvals,
    spec: &Fields<'_>,
) {
    let asks = |verb: &Verb| {
        let by_rule = permissions
            .path_rules(*verb)
            .is_some_and(|rules| !rules.ask.is_empty())
            || permissions
                .net_rules(*verb)
                .is_some_and(|rules| !rules.ask.is_empty());
        by_rule || permissions.default_verdict(*verb) == Verdict::Ask
    };
    if approvals.approvers.is_empty()
        && Verb::ALL.iter().any(asks)
        && let Some(field) = spec.get("permissions")
    {
        checker.warn(
            field.key_span,
            "there are `ask` rules, and nobody is named who may decide",
            "add `approvals: { approvers: [NAME] }` to spec, or each request is denied when it expires",
        );
    }
}

/// Reads `spec.tests`.
pub fn tests(checker: &mut Checker<'_>, field: Option<Field<'_>>) -> Vec<PolicyTest> {
    let mut tests = Vec::new();
    let Some(field) = field else {
        return tests;
    };
    for item in checker.items(field.value, "spec.tests") {
        let path = "an item of spec.tests";
        let keys = ["allow", "ask", "deny"];
        let Some(fields) = checker.mapping(item, item.span, path, &keys) else {
            continue;
        };
        let found: Vec<Field<'_>> = fields.iter().collect();
        let [field] = found[..] else {
            let help =
                "one verdict and its question, such as `{ deny: \"connect 1.1.1.1:53/udp\" }`";
            let message = format!("{path} has {} expectations instead of one", found.len());
            checker.error(item.span, message, Some(help.into()));
            continue;
        };
        let Some(expect) = Verdict::from_keyword(field.name) else {
            continue;
        };
        let Some((verb, object)) = checker.parsed(field.value, path, question) else {
            continue;
        };
        let Some(text) = checker.text(field.value, path) else {
            continue;
        };
        if matches!(object, Object::Path(_)) && text.contains(['*', '?']) {
            let message = "a test asks about one path; `*` and `?` stand for themselves here";
            checker.warn(field.value.span, message, "write the path of one file");
        }
        tests.push(PolicyTest {
            expect,
            verb,
            object,
            text: text.into(),
            location: checker.source().location(field.value.span),
        });
    }
    tests
}

/// Reads a verb and its object, such as `write /srv/out/a.json`.
fn question(text: &str) -> Result<(Verb, Object), TextError> {
    let Some((verb, object)) = text.split_once(' ') else {
        return Err(TextError::new(format!("{} is not a question", quote(text)))
            .with_help("write a verb and an object: `write /srv/x`, `connect 1.1.1.1:53/udp`"));
    };
    let Some(verb) = Verb::from_keyword(verb) else {
        let verbs: Vec<_> = Verb::ALL.iter().map(|verb| verb.as_str()).collect();
        return Err(TextError::new(format!("{} is not a verb", quote(verb)))
            .with_help(suggestion(verb, &verbs)));
    };
    let object = object.trim_start();
    let object = if verb.is_network() {
        Object::Net(NetObject::parse(object)?)
    } else {
        Object::Path(PathObject::from_bytes(object.as_bytes())?)
    };
    Ok((verb, object))
}

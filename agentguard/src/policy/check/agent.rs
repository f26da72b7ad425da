//! Who an agent is, how it starts, and its bounds: everything in a manifest
//! but the permissions.

use std::collections::HashSet;
use std::time::Duration;

use super::super::manifest::{
    Approvals, Authority, Environment, ExecMatch, Limits, Located, Location, Manifest, Mode,
    OnLimit, Permissions, PolicyTest,
};
use super::super::path::PathPattern;
use super::super::text::quote;
use super::fields::{Checker, Field, Fields, Word};
use super::permissions;
use super::words::{account_name, agent_name, bounded, description, digest, owner_name, unit_name};

/// A run that is to live longer should be renewed by someone.
const MAX_LEASE: Duration = Duration::from_secs(365 * 86_400);
/// A request that waits longer holds a stopped process for nobody.
const MAX_APPROVAL_TIMEOUT: Duration = Duration::from_secs(7 * 86_400);
/// The kernel side holds this many tagged tasks over all runs.
const MAX_PROCESSES: u32 = 262_144;
const MAX_DENIALS_PER_MINUTE: u32 = 1_000_000;
const MAX_USES: u32 = 1_000;

/// What stands under `spec`, with `None` for what is missing or wrong.
pub struct Spec {
    description: Option<String>,
    owner: Option<String>,
    /// The environment.
    pub environment: Option<Environment>,
    authority: Option<Authority>,
    mode: Option<Mode>,
    lease: Option<Duration>,
    launch_users: Vec<String>,
    matches: Vec<ExecMatch>,
    permissions: Permissions,
    delegates: Vec<Located<String>>,
    limits: Limits,
    approvals: Approvals,
    tests: Vec<PolicyTest>,
}

impl Spec {
    /// The manifest, if everything that it must have is there. Its version is
    /// still to be computed.
    pub fn into_manifest(self, name: &str, source: Location) -> Option<Manifest> {
        Some(Manifest {
            name: name.to_owned(),
            description: self.description,
            owner: self.owner?,
            environment: self.environment?,
            authority: self.authority?,
            mode: self.mode?,
            lease: self.lease,
            launch_users: self.launch_users,
            matches: self.matches,
            permissions: self.permissions,
            delegates: self.delegates,
            limits: self.limits,
            approvals: self.approvals,
            tests: self.tests,
            version: String::new(),
            source,
        })
    }
}

/// Reads `metadata`.
pub fn name<'n>(checker: &mut Checker<'_>, field: Field<'n>) -> Option<Word<'n>> {
    let fields = checker.mapping(field.value, field.key_span, "metadata", &["name"])?;
    let field = checker.required(&fields, "name", "write `name: …`")?;
    let value = checker.text(field.value, "metadata.name")?;
    let span = field.value.span;
    match agent_name(value) {
        Ok(_) => Some(Word { value, span }),
        Err(error) => {
            checker.text_error(span, error);
            None
        }
    }
}

/// Reads `spec`.
pub fn spec(checker: &mut Checker<'_>, field: Field<'_>) -> Option<Spec> {
    let keys = [
        "description",
        "owner",
        "environment",
        "authority",
        "mode",
        "lease",
        "enrol",
        "permissions",
        "delegates",
        "limits",
        "approvals",
        "tests",
    ];
    let fields = checker.mapping(field.value, field.key_span, "spec", &keys)?;
    let (launch_users, matches) = enrol(checker, &fields);
    let required = |checker: &mut Checker<'_>, name, help| checker.required(&fields, name, help);
    let owner = required(
        checker,
        "owner",
        "write who answers for the agent, such as `owner: team@example.com`",
    )
    .and_then(|field| checker.parsed(field.value, "spec.owner", owner_name));
    let environment = required(
        checker,
        "environment",
        "write development, staging or production",
    )
    .and_then(|field| {
        checker.keyword(
            field.value,
            "spec.environment",
            Environment::ALL,
            Environment::as_str,
        )
    });
    let authority = required(checker, "authority", "write `service` for an agent with its own rights, `delegated` for one that acts for a named person")
        .and_then(|field| {
            checker.keyword(field.value, "spec.authority", Authority::ALL, Authority::as_str)
        });
    let mode = required(
        checker,
        "mode",
        "write `observe` to record only, `enforce` to block",
    )
    .and_then(|field| checker.keyword(field.value, "spec.mode", Mode::ALL, Mode::as_str));
    let permissions = permissions::permissions(checker, fields.get("permissions"));
    let approvals = approvals(checker, &fields);
    permissions::warn_about_unanswered_requests(checker, &permissions, &approvals, &fields);
    Some(Spec {
        description: fields
            .get("description")
            .and_then(|field| checker.parsed(field.value, "spec.description", description)),
        owner,
        environment,
        authority,
        mode,
        lease: fields
            .get("lease")
            .and_then(|field| checker.parsed(field.value, "spec.lease", |t| bounded(t, MAX_LEASE))),
        launch_users,
        matches,
        permissions,
        delegates: delegates(checker, &fields),
        limits: limits(checker, &fields),
        approvals,
        tests: permissions::tests(checker, fields.get("tests")),
    })
}

fn enrol(checker: &mut Checker<'_>, spec: &Fields<'_>) -> (Vec<String>, Vec<ExecMatch>) {
    let mut users = Vec::new();
    let mut matches = Vec::new();
    let Some(enrol) = spec.get("enrol") else {
        return (users, matches);
    };
    let path = "spec.enrol";
    let Some(fields) = checker.mapping(enrol.value, enrol.key_span, path, &["launch", "match"])
    else {
        return (users, matches);
    };
    if let Some(launch) = fields.get("launch")
        && let Some(fields) = checker.mapping(
            launch.value,
            launch.key_span,
            "spec.enrol.launch",
            &["users"],
        )
        && let Some(field) = checker.required(&fields, "users", "write `users: [NAME, …]`")
    {
        let texts = checker.texts(field.value, "spec.enrol.launch.users", account_name);
        users.extend(texts.into_iter().map(|(_, user)| user));
    }
    if let Some(field) = fields.get("match") {
        for item in checker.items(field.value, "spec.enrol.match") {
            matches.extend(exec_match(checker, item));
        }
    }
    (users, matches)
}

fn exec_match(checker: &mut Checker<'_>, item: &super::Node) -> Option<ExecMatch> {
    let path = "an item of spec.enrol.match";
    let keys = ["exe", "user", "sha256", "systemd_unit", "cgroup"];
    let fields = checker.mapping(item, item.span, path, &keys)?;
    let exe = fields.get("exe");
    if exe.is_none() {
        if let Some(field) = fields.get("sha256") {
            let message = "`sha256` says which build of `exe` is meant, and `exe` is missing";
            checker.error(field.key_span, message, Some("add `exe: PATH`".into()));
        } else if fields.get("systemd_unit").is_none() && fields.get("cgroup").is_none() {
            let message = format!("{path} names no program: every program would match");
            let help = "add `exe: PATH`, `systemd_unit: NAME.service` or `cgroup: PATH`; a pattern such as `/opt/agents/**` is a program too";
            checker.error(item.span, message, Some(help.into()));
        }
    }
    Some(ExecMatch {
        exe: exe.and_then(|field| checker.parsed(field.value, "exe", PathPattern::parse)),
        user: fields
            .get("user")
            .and_then(|field| checker.parsed(field.value, "user", account_name)),
        sha256: fields
            .get("sha256")
            .and_then(|field| checker.parsed(field.value, "sha256", digest)),
        systemd_unit: fields
            .get("systemd_unit")
            .and_then(|field| checker.parsed(field.value, "systemd_unit", unit_name)),
        cgroup: fields
            .get("cgroup")
            .and_then(|field| checker.parsed(field.value, "cgroup", PathPattern::parse)),
        location: checker.source().location(item.span),
    })
}

fn delegates(checker: &mut Checker<'_>, spec: &Fields<'_>) -> Vec<Located<String>> {
    let Some(field) = spec.get("delegates") else {
        return Vec::new();
    };
    let source = checker.source();
    let mut delegates: Vec<Located<String>> = Vec::new();
    let mut seen = HashSet::new();
    for (word, value) in checker.texts(field.value, "spec.delegates", agent_name) {
        if seen.insert(value.clone()) {
            let location = source.location(word.span);
            delegates.push(Located { value, location });
        } else {
            checker.warn(
                word.span,
                format!("{} is named twice in spec.delegates", quote(&value)),
                "remove one of them",
            );
        }
    }
    delegates
}

fn limits(checker: &mut Checker<'_>, spec: &Fields<'_>) -> Limits {
    let mut limits = Limits::default();
    let keys = ["processes", "denials_per_minute", "on_limit"];
    if let Some(field) = spec.get("limits")
        && let Some(fields) = checker.mapping(field.value, field.key_span, "spec.limits", &keys)
    {
        limits.processes = fields.get("processes").and_then(|field| {
            checker.number(field.value, "spec.limits.processes", 1, MAX_PROCESSES)
        });
        limits.denials_per_minute = fields.get("denials_per_minute").and_then(|field| {
            let path = "spec.limits.denials_per_minute";
            checker.number(field.value, path, 1, MAX_DENIALS_PER_MINUTE)
        });
        if let Some(field) = fields.get("on_limit") {
            let path = "spec.limits.on_limit";
            let found = checker.keyword(field.value, path, OnLimit::ALL, OnLimit::as_str);
            limits.on_limit = found.unwrap_or(limits.on_limit);
        }
    }
    limits
}

fn approvals(checker: &mut Checker<'_>, spec: &Fields<'_>) -> Approvals {
    let mut approvals = Approvals::default();
    let keys = ["approvers", "timeout", "uses"];
    if let Some(field) = spec.get("approvals")
        && let Some(fields) = checker.mapping(field.value, field.key_span, "spec.approvals", &keys)
    {
        if let Some(field) = fields.get("approvers") {
            let texts = checker.texts(field.value, "spec.approvals.approvers", account_name);
            approvals.approvers = texts.into_iter().map(|(_, name)| name).collect();
        }
        if let Some(field) = fields.get("timeout") {
            let path = "spec.approvals.timeout";
            let found = checker.parsed(field.value, path, |t| bounded(t, MAX_APPROVAL_TIMEOUT));
            approvals.timeout = found.unwrap_or(approvals.timeout);
        }
        if let Some(field) = fields.get("uses") {
            let found = checker.number(field.value, "spec.approvals.uses", 1, MAX_USES);
            approvals.uses = found.unwrap_or(approvals.uses);
        }
    }
    approvals
}

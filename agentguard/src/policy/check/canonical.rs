//! The version of a manifest: a digest of what it means.
//!
//! What does not change who the agent is or what it may do is left out:
//! comments, layout, the order and repetition of rules, how a rule is spelt,
//! where it stands, and the tests.

use std::fmt::{Display, Write as _};

use sha2::{Digest, Sha256};

use super::super::duration;
use super::super::manifest::{ExecMatch, Manifest, Rule, RuleSet, Verb, Verdict};

/// Goes into each digest, and changes when what goes into it does.
const FORM: &str = "agentguard/v1 manifest 1";

/// Collects named lists of texts, each with its length in front, so that two
/// different manifests never feed the same bytes to the digest.
struct Form(Sha256);

impl Form {
    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    fn list<T: AsRef<str>>(&mut self, name: &str, items: impl IntoIterator<Item = T>) {
        let mut items: Vec<T> = items.into_iter().collect();
        items.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        items.dedup_by(|a, b| a.as_ref() == b.as_ref());
        self.text(name);
        self.0.update((items.len() as u64).to_le_bytes());
        for item in items {
            self.text(item.as_ref());
        }
    }

    fn rules<T: Display>(&mut self, verb: Verb, rules: &RuleSet<T>) {
        for &verdict in Verdict::ALL {
            let texts = rules.with_verdict(verdict).iter();
            let texts = texts.map(|rule: &Rule<T>| rule.matcher.to_string());
            self.list(&format!("{verb}.{verdict}"), texts);
        }
        let default = rules.default.map(Verdict::as_str);
        self.list(&format!("{verb}.default"), default);
    }
}

/// SHA-256 of what a manifest means, in hex.
pub fn version(manifest: &Manifest) -> String {
    let mut form = Form(Sha256::new());
    form.text(FORM);
    form.list("name", [&manifest.name]);
    form.list("description", &manifest.description);
    form.list("owner", [&manifest.owner]);
    form.list("environment", [manifest.environment.as_str()]);
    form.list("authority", [manifest.authority.as_str()]);
    form.list("mode", [manifest.mode.as_str()]);
    form.list("lease", manifest.lease.map(duration::format));
    form.list("launch.users", &manifest.launch_users);
    form.list("match", manifest.matches.iter().map(exec_match));
    permissions(&mut form, manifest);
    let delegates = manifest.delegates.iter().map(|item| &item.value);
    form.list("delegates", delegates);
    let limits = &manifest.limits;
    form.list("processes", limits.processes.map(|n| n.to_string()));
    let denials = limits.denials_per_minute.map(|n| n.to_string());
    form.list("denials_per_minute", denials);
    form.list("on_limit", [limits.on_limit.as_str()]);
    let approvals = &manifest.approvals;
    form.list("approvers", &approvals.approvers);
    form.list("timeout", [duration::format(approvals.timeout)]);
    form.list("uses", [approvals.uses.to_string()]);
    hex(&form.0.finalize())
}

fn permissions(form: &mut Form, manifest: &Manifest) {
    let permissions = &manifest.permissions;
    let path_verbs = [
        (Verb::Read, &permissions.read),
        (Verb::Write, &permissions.write),
        (Verb::Create, &permissions.create),
        (Verb::Delete, &permissions.delete),
        (Verb::Attributes, &permissions.attributes),
        (Verb::Exec, &permissions.exec),
    ];
    // A verb that is named without rules is not one that is not named.
    for (verb, rules) in path_verbs {
        if let Some(rules) = rules {
            form.rules(verb, rules);
        }
    }
    let net_verbs = [
        (Verb::Connect, &permissions.connect),
        (Verb::Listen, &permissions.listen),
    ];
    for (verb, rules) in net_verbs {
        if let Some(rules) = rules {
            form.rules(verb, rules);
        }
    }
    let privileges = permissions.privileges.iter();
    form.list("privileges", privileges.map(|item| item.value.as_str()));
}

/// One match as one text; none of its parts can hold a line end.
fn exec_match(item: &ExecMatch) -> String {
    let exe = item.exe.as_ref().map(ToString::to_string);
    let digest = item.sha256.as_ref().map(|digest| hex(digest));
    let cgroup = item.cgroup.as_ref().map(ToString::to_string);
    let parts = [
        ("exe", exe.as_deref()),
        ("user", item.user.as_deref()),
        ("sha256", digest.as_deref()),
        ("systemd_unit", item.systemd_unit.as_deref()),
        ("cgroup", cgroup.as_deref()),
    ];
    let mut text = String::new();
    for (name, part) in parts {
        if let Some(part) = part {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}={part}");
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

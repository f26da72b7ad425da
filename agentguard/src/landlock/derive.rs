//! From a manifest to Landlock rules.

use std::collections::BTreeMap;

use agentguard_common::verb as kernel;

use super::access::{Access, Class, EXEC, READ, VERBS};
use super::gap::{Cause, DEFAULTS, Effect, Gaps, Origin, PROTECTED, Subject};
use super::links::Links;
use super::matcher::{PathRule, VerbRules, is_floating, plain};
use super::places::{Places, Privileges};
use super::programs;
use super::tree::{Kind, Tree};
use super::walk::Walk;
use super::{Concessions, RuleNode, Rules};
use crate::mounts::{Names, names};
use crate::policy::compile::protected::Protection;
use crate::policy::manifest::{
    Component, Manifest, Mode, PathPattern, Privilege, Rule, RuleSet, Verb, Verdict,
};

/// Devices that every program needs, by their usual names.
const DEVICES: [&str; 7] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
];
/// Where pseudo terminals come and go.
const TERMINALS: &str = "/dev/pts";

/// See [`super::rules`].
pub(super) fn derive(
    manifest: &Manifest,
    protections: &[Protection],
    concessions: Concessions,
    tree: &dyn Tree,
) -> Rules {
    let mut gaps = Gaps::new(&manifest.source.file_line());
    let mut rules = Rules {
        enforce: manifest.mode == Mode::Enforce,
        mount_namespace: tree.namespace(),
        handled: Access::NONE,
        scope_signals: false,
        nodes: Vec::new(),
        gaps: Vec::new(),
    };
    if !rules.enforce {
        gaps.add_fixed(
            Effect::NotEnforced,
            Subject::Verb(Verb::Read),
            "mode: observe",
            "Landlock cannot observe: nothing is confined and no file operation is recorded",
        );
        rules.gaps = gaps.finish();
        return rules;
    }
    let reader = Reader {
        manifest,
        protections,
        concessions,
        tree,
    };
    let verbs = reader.verbs(&mut gaps);
    let classes = classes(manifest, &verbs, concessions);
    rules.handled = handled(&classes);
    rules.scope_signals = !is_privileged(manifest, Privilege::SignalOutside);
    fixed_gaps(manifest, &verbs, concessions, &mut gaps);
    let nodes = nodes(manifest, &verbs, &classes, tree, &mut gaps);
    rules.nodes = nodes.into_values().collect();
    rules.gaps = gaps.finish();
    rules
}

fn is_privileged(manifest: &Manifest, privilege: Privilege) -> bool {
    let mut allowed = manifest.permissions.privileges.iter();
    allowed.any(|it| it.value == privilege)
}

/// The classes of rights to be handled: those that change always, the others
/// where anything is refused.
fn classes(manifest: &Manifest, verbs: &[VerbRules], concessions: Concessions) -> Vec<Class> {
    let devices = is_privileged(manifest, Privilege::Devices);
    let mut classes = vec![Class::write(), Class::create(devices), Class::remove()];
    if verbs[READ].restrict() {
        classes.push(Class::read_file());
        if !concessions.listing {
            classes.push(Class::read_dir());
        }
    }
    if verbs[EXEC].restrict() {
        classes.push(Class::execute());
    }
    classes
}

fn handled(classes: &[Class]) -> Access {
    classes
        .iter()
        .fold(Access::MAKE_DEVICE, |all, class| all | class.directory)
}

fn nodes(
    manifest: &Manifest,
    verbs: &[VerbRules],
    classes: &[Class],
    tree: &dyn Tree,
    gaps: &mut Gaps,
) -> BTreeMap<Names, RuleNode> {
    let privileges = Privileges {
        devices: is_privileged(manifest, Privilege::Devices),
        kernel_settings: is_privileged(manifest, Privilege::KernelSettings),
    };
    let places = Places::new(tree.mounts(), verbs, privileges);
    let mut walk = Walk::new(tree, &places, classes, privileges.devices, gaps);
    // First, so that a limit never takes them.
    needed_by_all(tree, handled(classes), &mut walk);
    let mut nodes = walk.run();
    if verbs[EXEC].default != Verdict::Allow {
        programs::add_interpreters(tree, &places, &mut nodes, gaps);
    }
    nodes
}

/// `/dev/null` and its like, which no rule is about.
fn needed_by_all(tree: &dyn Tree, handled: Access, walk: &mut Walk<'_>) {
    let access = handled & (Access::CHANGE | Access::READ_FILE);
    for device in DEVICES {
        let path = names(device.as_bytes());
        if let Ok(Some(entry)) = tree.entry(&path)
            && entry.kind.is_harmless_device()
        {
            walk.grant(&path, &entry, access);
        }
    }
    let path = names(TERMINALS.as_bytes());
    let is_devpts = |id| {
        let mut mounts = tree.mounts().mounts().iter();
        mounts.any(|mount| mount.id == id && mount.kind == "devpts")
    };
    if let Ok(Some(entry)) = tree.entry(&path)
        && entry.kind == Kind::Directory
        && is_devpts(entry.mount)
    {
        walk.grant(&path, &entry, access);
    }
}

/// Reads the path rules of a manifest.
struct Reader<'a> {
    manifest: &'a Manifest,
    protections: &'a [Protection],
    concessions: Concessions,
    tree: &'a dyn Tree,
}

impl Reader<'_> {
    fn verbs(&self, gaps: &mut Gaps) -> Vec<VerbRules> {
        // One origin for one rule, though `write` governs several verbs.
        let mut origins = BTreeMap::new();
        VERBS
            .iter()
            .map(|verb| self.verb(*verb, &mut origins, gaps))
            .collect()
    }

    fn verb(
        &self,
        verb: Verb,
        origins: &mut BTreeMap<*const Rule<PathPattern>, Origin>,
        gaps: &mut Gaps,
    ) -> VerbRules {
        let permissions = &self.manifest.permissions;
        let mut rules = VerbRules {
            verb,
            default: permissions.default_verdict(verb),
            rules: Vec::new(),
        };
        if rules.default == Verdict::Ask {
            gaps.add(Cause::Held, DEFAULTS, verb);
        }
        for protection in self.protections {
            let applies = protection.verbs.has(kernel_verb(verb));
            if applies && !protection.is_lifted_for(self.manifest) {
                rules.rules.push(PathRule::new(
                    plain(&protection.pattern),
                    Verdict::Deny,
                    PROTECTED,
                    protection.lifted_at,
                ));
            }
        }
        let written = permissions.path_rules(verb);
        for (verdict, rule) in written.into_iter().flat_map(RuleSet::iter) {
            let origin = *origins
                .entry(std::ptr::from_ref(rule))
                .or_insert_with(|| gaps.origin(&rule.text, rule.location.file_line()));
            let parts = plain(rule.matcher.components());
            if verdict == Verdict::Allow {
                self.allow(&mut rules, parts, origin, gaps);
            } else {
                self.deny(&mut rules, parts, verdict, origin, gaps);
            }
        }
        rules
    }

    fn allow(&self, rules: &mut VerbRules, parts: Vec<Component>, origin: Origin, gaps: &mut Gaps) {
        // Where the default allows, a rule can only lift a protection.
        let matters = rules.default != Verdict::Allow;
        let mut note = |cause| {
            if matters {
                gaps.add(cause, origin, rules.verb);
            }
        };
        if is_floating(&parts) {
            note(Cause::AnyDepthAllowed);
            return;
        }
        let is_name = matches!(rules.verb, Verb::Create | Verb::Delete);
        if is_name && parts.last() != Some(&Component::AnyDepth) {
            if !is_device_file(&parts) {
                note(Cause::OneName);
            }
            return;
        }
        let is_pattern = parts.iter().any(|part| matches!(part, Component::Glob(_)));
        if is_pattern && !is_device_file(&parts) {
            note(Cause::ExistingOnly);
        }
        let links = Links::new(self.tree);
        match links.resolve(&parts, true) {
            Ok(Some(resolved)) => {
                rules
                    .rules
                    .push(PathRule::new(resolved, Verdict::Allow, origin, None));
            }
            Ok(None) => {}
            Err(link) => gaps.add_at(Cause::ForeignLink, origin, rules.verb, &link),
        }
        rules
            .rules
            .push(PathRule::new(parts, Verdict::Allow, origin, None));
    }

    fn deny(
        &self,
        rules: &mut VerbRules,
        parts: Vec<Component>,
        verdict: Verdict,
        origin: Origin,
        gaps: &mut Gaps,
    ) {
        if verdict == Verdict::Ask {
            gaps.add(Cause::Held, origin, rules.verb);
        }
        // To refuse a name anywhere would be to refuse everything.
        let is_hopeless =
            parts.first() == Some(&Component::AnyDepth) && rules.default == Verdict::Allow;
        if is_floating(&parts) && (is_hopeless || self.concessions.patterns) {
            gaps.add(Cause::AnyDepthDenied, origin, rules.verb);
            return;
        }
        if let Ok(Some(resolved)) = Links::new(self.tree).resolve(&parts, false) {
            rules
                .rules
                .push(PathRule::new(resolved, verdict, origin, None));
        }
        rules
            .rules
            .push(PathRule::new(parts, verdict, origin, None));
    }
}

/// Rules on device files say nothing about making or removing them.
fn is_device_file(parts: &[Component]) -> bool {
    matches!(parts, [Component::Exact(first), ..] if **first == *b"dev")
}

fn kernel_verb(verb: Verb) -> kernel::Verb {
    match verb {
        Verb::Read => kernel::Verb::Read,
        Verb::Write => kernel::Verb::Write,
        Verb::Create => kernel::Verb::Create,
        Verb::Delete => kernel::Verb::Delete,
        Verb::Attributes => kernel::Verb::Attributes,
        Verb::Exec => kernel::Verb::Exec,
        Verb::Connect => kernel::Verb::Connect,
        Verb::Listen => kernel::Verb::Listen,
    }
}

/// What Landlock leaves out or adds whatever the rules are.
fn fixed_gaps(manifest: &Manifest, verbs: &[VerbRules], concessions: Concessions, gaps: &mut Gaps) {
    let mut add = |effect, verb, rule: &str, reason: &str| {
        gaps.add_fixed(effect, Subject::Verb(verb), rule, reason);
    };
    let attributes = manifest.permissions.path_rules(Verb::Attributes);
    let is_restricted = attributes
        .is_none_or(|rules| !rules.deny.is_empty() || !rules.ask.is_empty())
        || manifest.permissions.default_verdict(Verb::Attributes) != Verdict::Allow;
    if is_restricted {
        add(
            Effect::NotEnforced,
            Verb::Attributes,
            "attributes",
            "Landlock does not mediate mode, owner, times and extended attributes: file permissions alone decide",
        );
    }
    if verbs[READ].restrict() {
        add(
            Effect::NotEnforced,
            Verb::Read,
            "read",
            "Landlock does not mediate what symbolic links say and what stat tells",
        );
    }
    if verbs[READ].restrict() && concessions.listing {
        add(
            Effect::NotEnforced,
            Verb::Read,
            "read",
            "conceded: every directory can be listed",
        );
    }
    if verbs[READ].default != Verdict::Allow {
        add(
            Effect::Narrowed,
            Verb::Exec,
            "read",
            "Landlock wants programs and their interpreters to be readable: what may not be read does not start",
        );
    }
    if verbs[EXEC].restrict() {
        add(
            Effect::NotEnforced,
            Verb::Exec,
            "exec",
            "Landlock mediates execve alone: what can be read can be run by mapping it (`ld.so PROGRAM`), \
             by an interpreter, or from memory (memfd)",
        );
    }
    privilege_gaps(manifest, verbs, gaps);
}

/// Privileges that a confined process cannot have, and one that it may have.
fn privilege_gaps(manifest: &Manifest, verbs: &[VerbRules], gaps: &mut Gaps) {
    let lost = [
        (
            Privilege::Mount,
            "Landlock refuses every change of mounts to those whom it confines",
        ),
        (
            Privilege::PtraceOutside,
            "Landlock refuses tracing processes outside the run to those whom it confines",
        ),
        (
            Privilege::Setuid,
            "no_new_privs, which Landlock needs, lets setuid programs start without their privileges",
        ),
    ];
    for (privilege, reason) in lost {
        if is_privileged(manifest, privilege) {
            gaps.add_fixed(
                Effect::Narrowed,
                Subject::Privilege(privilege),
                privilege.as_str(),
                reason,
            );
        }
    }
    if !is_privileged(manifest, Privilege::Devices) && !verbs[READ].restrict() {
        gaps.add_fixed(
            Effect::NotEnforced,
            Subject::Privilege(Privilege::Devices),
            "devices",
            "no rule denies reading, so reading is not confined, that of device files neither",
        );
    }
}

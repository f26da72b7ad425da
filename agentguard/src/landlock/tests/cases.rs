//! Single cases.

use super::super::{Access, Concessions, Effect, MAX_ENTRIES, MAX_RULES, Rules, rules};
use super::memory::MemoryTree;
use super::{MOUNTS, SYSTEM, case, case_with, manifest, tree};
use crate::policy::compile::protected::protections;
use crate::policy::manifest::Mode;

const WRITE: Access = Access::WRITE_FILE;
const READ: Access = Access::READ_FILE;
const LIST: Access = Access::READ_DIR;

#[test]
fn a_hierarchy_gets_all_rights_of_changing_at_once() {
    let case = case(
        &["1 /srv/out/old"],
        "    write: { allow: ['/srv/out/**'] }\n",
    );
    expect_test::expect![[r#"
        /dev/null: write_file, truncate, ioctl_dev
        /dev/pts: write_file, truncate, ioctl_dev
        /dev/tty: write_file, truncate, ioctl_dev
        /srv/out: write_file, remove_dir, remove_file, make_dir, make_reg, make_sock, make_fifo, make_sym, refer, truncate, ioctl_dev
    "#]]
    .assert_eq(&case.listing());
    case.reports_nothing_about("/srv/out/**");
    // Nothing denies reading or executing: neither is handled.
    assert!((case.rules.handled & (READ | LIST | Access::EXECUTE)).is_empty());
    // Device nodes are never made, though no rule gives that right.
    assert!(case.rules.handled.contains(Access::MAKE_DEVICE));
}

#[test]
fn a_denied_name_splits_the_hierarchy_around_it() {
    let case = case(
        &[
            "1 /srv/a/keep/f",
            "1 /srv/a/x/f",
            "1 /srv/a/file",
            "1 /srv/b/f",
        ],
        "    write: { allow: ['/srv/**'], deny: ['/srv/a/keep/**'], ask: ['/srv/a/file'] }\n",
    );
    case.allows(
        WRITE | Access::MAKE | Access::REMOVE,
        &["/srv/b", "/srv/b/new", "/srv/a/x"],
    );
    case.refuses(
        WRITE,
        &[
            "/srv/a/keep/f",
            "/srv/a/keep/new",
            "/srv/a/file",
            "/srv/a/new",
        ],
    );
    case.refuses(Access::REMOVE, &["/srv", "/srv/a", "/srv/a/keep"]);
    case.reports(
        Effect::Narrowed,
        "/srv/a/keep/**",
        "made or removed directly in /srv, /srv/a;",
    );
    case.reports(Effect::Narrowed, "/srv/a/file", "refused");
}

#[test]
fn one_file_can_be_changed_but_not_made() {
    let case = case(
        &["1 /srv/log"],
        "    write: { allow: ['/srv/log', '/srv/absent', '/srv/*.txt', '/nowhere/**'] }\n",
    );
    case.allows(WRITE, &["/srv/log"]);
    case.refuses(WRITE, &["/srv/absent", "/srv/new", "/nowhere/x"]);
    case.refuses(Access::MAKE, &["/srv"]);
    case.reports(
        Effect::Narrowed,
        "/srv/log",
        "all names of a directory or none",
    );
    case.reports(
        Effect::Narrowed,
        "/srv/absent",
        "/srv/absent does not exist",
    );
    case.reports(
        Effect::Narrowed,
        "/srv/*.txt",
        "exists and matches at launch",
    );
    case.reports(Effect::Narrowed, "/nowhere/**", "/nowhere does not exist");
}

#[test]
fn patterns_of_fixed_depth_are_expanded() {
    let case = case(
        &[
            "1 /home/v/out/f",
            "1 /home/u/out/f",
            "1 /srv/a1.log",
            "1 /srv/b1.log",
            "1 /srv/a2/",
        ],
        "    write: { allow: ['/home/*/out/**', '/srv/a?.log', '/srv/a?/*'] }\n",
    );
    case.allows(WRITE | Access::MAKE, &["/home/v/out/new", "/home/u/out"]);
    case.allows(WRITE, &["/srv/a1.log"]);
    case.refuses(WRITE, &["/home/v", "/srv/b1.log"]);
    // One level below is not everything below.
    case.refuses(WRITE, &["/srv/a2/new"]);
    case.refuses(Access::MAKE, &["/srv/a2"]);
}

#[test]
fn names_at_any_depth_are_refused_where_they_allow_and_close_what_they_are_denied_in() {
    let permissions = "    write: { allow: ['/home/u/src/**', '/tmp/**/x', '/home/u/notes'], deny: ['**/.envrc'] }\n";
    let case = case(&["1 /tmp/a/x"], permissions);
    case.refuses(WRITE, &["/home/u/src/main.c", "/tmp/a/x"]);
    case.allows(WRITE, &["/home/u/notes"]);
    case.reports(Effect::Narrowed, "**/.envrc", "below /home/u/src");
    case.reports(Effect::Narrowed, "/tmp/**/x", "not names at any depth");
    let conceded = case_with(
        tree(&["1 /tmp/a/x"]),
        permissions,
        &[],
        Concessions {
            patterns: true,
            ..Concessions::default()
        },
    );
    conceded.allows(WRITE | Access::MAKE, &["/home/u/src"]);
    conceded.reports(Effect::NotEnforced, "**/.envrc", "not denied");
}

#[test]
fn denied_reading_allows_everything_beside_it() {
    let case = case(
        &["1 /srv/payroll/2026/may", "1 /srv/pub/f", "1 /srv/note"],
        "    read: { deny: ['/srv/payroll/**'] }\n",
    );
    case.allows(
        READ,
        &[
            "/etc/passwd",
            "/srv/pub/new",
            "/srv/note",
            "/proc/version",
            "/usr/bin/sudo",
        ],
    );
    case.allows(READ, &["/dev/null", "/dev/pts/0"]);
    case.allows(LIST, &["/etc", "/srv/pub", "/proc"]);
    case.refuses(
        READ,
        &[
            "/srv/payroll/2026/may",
            "/srv/payroll/x",
            "/srv/new",
            "/new",
        ],
    );
    case.refuses(LIST, &["/", "/srv", "/srv/payroll", "/srv/payroll/2026"]);
    // Reading a disk would read the denied files.
    case.refuses(READ, &["/dev/sda"]);
    case.reports(
        Effect::Narrowed,
        "/srv/payroll/**",
        "directly in /, /srv cannot be read",
    );
    let open = case_with(
        tree(&["1 /srv/payroll/2026/may"]),
        "    read: { deny: ['/srv/payroll/**'] }\n",
        &[],
        Concessions {
            listing: true,
            ..Concessions::default()
        },
    );
    open.allows(LIST, &["/", "/srv/payroll/2026"]);
    open.refuses(READ, &["/srv/payroll/2026/may"]);
    open.reports(Effect::NotEnforced, "read", "every directory can be listed");
}

#[test]
fn reading_is_not_handled_for_names_at_any_depth_alone() {
    let case = case(&[], "    read: { deny: ['**/*.key'] }\n");
    assert!((case.rules.handled & (READ | LIST)).is_empty());
    case.reports(Effect::NotEnforced, "**/*.key", "not denied");
    case.reports(Effect::NotEnforced, "devices", "not confined");
}

#[test]
fn a_name_at_any_depth_below_a_directory_closes_the_directory() {
    let case = case(
        &["1 /srv/a/f", "1 /srv/b/f"],
        "    read: { deny: ['/srv/a/**/.env'] }\n",
    );
    case.refuses(READ, &["/srv/a/f"]);
    case.allows(READ, &["/srv/b/f", "/srv/b/.env"]);
    case.reports(Effect::Narrowed, "/srv/a/**/.env", "below /srv/a");
}

#[test]
fn the_protected_set_is_denied_and_lifted_where_a_rule_spells_it_out() {
    let permissions =
        "    read: { allow: ['/home/u/.ssh/config'] }\n    write: { allow: ['/home/u/**'] }\n";
    let case = case_with(
        tree(&[]),
        permissions,
        protections(),
        Concessions::default(),
    );
    case.refuses(
        READ,
        &["/home/u/.ssh/id", "/etc/shadow", "/home/u/.ssh/new"],
    );
    case.allows(
        READ,
        &["/home/u/.ssh/config", "/etc/passwd", "/home/u/src/main.c"],
    );
    case.refuses(
        WRITE,
        &["/home/u/.ssh/id", "/home/u/.ssh/config", "/home/u/new"],
    );
    case.allows(WRITE | Access::MAKE, &["/home/u/src"]);
    case.reports(Effect::Narrowed, "protected set", "/home/u");
}

#[test]
fn a_rule_follows_mounts_but_not_into_aliases() {
    let mounts = format!(
        "{MOUNTS}30 21 8:5 / /srv/data rw - ext4 /dev/sdb rw\n\
         31 21 8:1 /etc /srv/alias rw - ext4 /dev/sda1 rw\n"
    );
    let files = [
        SYSTEM,
        &["1 /srv/data/", "1 /srv/alias/", "1 /srv/x/", "5 /f"],
    ]
    .concat();
    let made = |permissions: &str| {
        let tree = MemoryTree::new(&mounts, &files);
        case_with(tree, permissions, &[], Concessions::default())
    };
    let case = made("    write: { allow: ['/srv/**'] }\n");
    case.allows(WRITE, &["/srv/data/f", "/srv/x/new"]);
    case.refuses(WRITE, &["/srv/alias/passwd", "/etc/passwd", "/srv/new"]);
    case.reports(
        Effect::Narrowed,
        "/srv/**",
        "something mounted below has other rules",
    );
    let case = made("    write: { allow: ['/srv/alias/**'] }\n");
    case.allows(WRITE, &["/srv/alias/passwd", "/etc/passwd"]);
    // What is denied under one name is denied under the other.
    let case = made("    read: { deny: ['/etc/shadow'] }\n");
    case.refuses(READ, &["/srv/alias/shadow", "/etc/shadow"]);
    case.allows(READ, &["/srv/alias/passwd", "/etc/passwd"]);
    let case = made("    read: { deny: ['/srv/alias/shadow'] }\n");
    case.refuses(READ, &["/srv/alias/shadow", "/etc/shadow"]);
    case.allows(READ, &["/srv/alias/passwd", "/etc/passwd"]);
}

#[test]
fn denied_programs_do_not_start_and_the_others_do() {
    let case = case(&[], "    exec: { deny: ['/usr/bin/sudo'] }\n");
    case.refuses(Access::EXECUTE, &["/usr/bin/sudo", "/usr/bin/new"]);
    case.allows(
        Access::EXECUTE,
        &[
            "/usr/bin/env",
            "/usr/lib64/ld-linux-x86-64.so.2",
            "/home/u/src/new",
        ],
    );
    case.reports(Effect::NotEnforced, "exec", "ld.so PROGRAM");
}

#[test]
fn allowed_programs_bring_their_loader() {
    let only = case(
        &[],
        "    exec: { default: deny, allow: ['/usr/bin/python3'] }\n",
    );
    only.allows(
        Access::EXECUTE,
        &["/usr/bin/python3.11", "/usr/lib64/ld-linux-x86-64.so.2"],
    );
    only.refuses(Access::EXECUTE, &["/usr/bin/env", "/usr/lib64"]);
    only.reports(
        Effect::NotEnforced,
        "exec",
        "/usr/lib64/ld-linux-x86-64.so.2 can be executed",
    );
    let all = case(&[], "    exec: { default: deny, allow: ['/usr/bin/**'] }\n");
    all.allows(
        Access::EXECUTE,
        &["/usr/bin/env", "/usr/lib64/ld-linux-x86-64.so.2"],
    );
    let denied = case(
        &[],
        "    exec: { default: deny, allow: ['/usr/bin/env'], deny: ['/usr/lib64/**'] }\n",
    );
    denied.refuses(Access::EXECUTE, &["/usr/lib64/ld-linux-x86-64.so.2"]);
}

#[test]
fn rules_that_allow_follow_links_of_root_alone() {
    let case = case(
        &[
            "1 /srv/mine->/data/x",
            "1 /srv/theirs=>/etc",
            "1 /data/x/f",
            "1 /data/y/",
        ],
        "    write: { allow: ['/srv/mine/**', '/srv/theirs/**'] }\n    read: { deny: ['/srv/theirs/shadow'] }\n",
    );
    case.allows(WRITE, &["/data/x/f"]);
    case.refuses(WRITE, &["/etc/passwd"]);
    case.refuses(READ, &["/etc/shadow"]);
    case.reports(
        Effect::Narrowed,
        "/srv/theirs/**",
        "/srv/theirs, a symbolic link that root does not own",
    );
}

#[test]
fn making_and_moving_need_write_too() {
    let case = case(
        &["1 /srv/in/f", "1 /srv/q/f"],
        "    write: {}\n    create: { allow: ['/srv/in/**'] }\n    delete: { allow: ['/srv/q/**'] }\n",
    );
    case.refuses(Access::MAKE, &["/srv/in"]);
    case.allows(Access::REMOVE, &["/srv/q"]);
    case.refuses(Access::REFER, &["/srv/q"]);
    case.reports(
        Effect::Narrowed,
        "/srv/in/**",
        "does not tell making from linking",
    );
    case.reports(Effect::Narrowed, "/srv/q/**", "nothing can be moved");
}

#[test]
fn kernel_settings_and_devices_need_their_privileges() {
    let without = case(&["1 /srv/f"], "    write: { default: allow }\n");
    without.refuses(WRITE, &["/proc/sys/kernel", "/dev/sda"]);
    without.refuses(Access::MAKE, &["/", "/proc", "/dev"]);
    without.allows(WRITE, &["/srv/f", "/etc/passwd", "/dev/null", "/dev/shm/x"]);
    let with = case(
        &["1 /srv/f"],
        "    write: { default: allow }\n    privileges: { allow: [devices, kernel-settings] }\n",
    );
    with.allows(
        WRITE | Access::MAKE | Access::MAKE_DEVICE,
        &["/", "/proc/sys/kernel", "/dev/sda"],
    );
}

#[test]
fn a_denied_file_with_several_names_is_reported() {
    let case = case(&["1 /srv/secret+"], "    read: { deny: ['/srv/secret'] }\n");
    case.reports(Effect::NotEnforced, "/srv/secret", "hard links");
}

#[test]
fn directories_too_large_or_unreadable_are_closed() {
    let many: Vec<String> = (0..=MAX_ENTRIES).map(|n| format!("1 /big/f{n}")).collect();
    let mut files: Vec<&str> = many.iter().map(String::as_str).collect();
    files.extend(["1 /unreadable/secret", "1 /unreadable/pub"]);
    let case = case(
        &files,
        "    read: { deny: ['/big/f7', '/unreadable/secret'] }\n",
    );
    case.refuses(
        READ,
        &[
            "/big/f7",
            "/big/f8",
            "/unreadable/secret",
            "/unreadable/pub",
        ],
    );
    case.allows(READ, &["/etc/passwd"]);
    case.reports(Effect::Narrowed, "default", "more than 8192 names");
    case.reports(Effect::Narrowed, "default", "cannot be listed");
}

#[test]
fn the_number_of_rules_is_bounded() {
    let many: Vec<String> = (0..3)
        .flat_map(|d| (0..MAX_ENTRIES - 1).map(move |n| format!("1 /big{d}/f{n}")))
        .collect();
    let files: Vec<&str> = many.iter().map(String::as_str).collect();
    let case = case(
        &files,
        "    read: { deny: ['/big0/f7', '/big1/f7', '/big2/f7'] }\n",
    );
    assert_eq!(case.rules.nodes.len(), MAX_RULES);
    case.refuses(READ, &["/big0/f7", "/big1/f7", "/big2/f7", "/big2/f9"]);
    case.allows(READ, &["/dev/null", "/big0/f8"]);
    case.reports(
        Effect::Narrowed,
        "default",
        "more than 16384 Landlock rules",
    );
}

#[test]
fn observing_confines_nothing() {
    let mut manifest = manifest("    write: { deny: ['/**'] }\n");
    manifest.mode = Mode::Observe;
    let rules = rules(&manifest, protections(), Concessions::default(), &tree(&[]));
    assert!(!rules.enforce && rules.nodes.is_empty() && rules.handled.is_empty());
    assert_eq!(rules.gaps.len(), 1);
    assert!(rules.gaps[0].reason.contains("cannot observe"));
}

#[test]
fn rules_survive_the_way_to_the_launcher() {
    let case = case(
        &["1 /srv/out/f"],
        "    write: { allow: ['/srv/out/**'], ask: ['/srv/out/a'] }\n    privileges: { allow: [mount] }\n",
    );
    let json = serde_json::to_string(&case.rules).unwrap();
    assert_eq!(serde_json::from_str::<Rules>(&json).unwrap(), case.rules);
    assert!(
        json.contains("\"narrowed\"") && json.contains("\"mount\""),
        "{json}"
    );
}

#[test]
fn what_does_not_answer_is_refused_and_hides_nothing_else() {
    let case = case(
        &["1 /home/u/gvfs!", "1 /home/u/key", "1 /home/u/z"],
        "    read: { deny: ['/home/u/key'] }\n",
    );
    case.allows(READ, &["/home/u/z", "/home/u/notes"]);
    case.refuses(READ, &["/home/u/gvfs"]);
    case.reports(
        Effect::Narrowed,
        "default",
        "/home/u/gvfs did not tell what it is",
    );
}

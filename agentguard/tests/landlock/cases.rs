//! The cases.

use std::path::PathBuf;

use agentguard::landlock::{Access, Effect, supported};

use crate::lab::{Lab, confined};
use crate::probe::{Job, manifest, run};

/// One case.
pub struct Case {
    pub name: &'static str,
    pub needs_root: bool,
    pub run: fn(),
}

macro_rules! cases {
    ($($name:ident $(($needs:ident))?,)+) => {
        /// All cases.
        pub const ALL: &[Case] = &[$(Case {
            name: stringify!($name),
            needs_root: false $(|| stringify!($needs).len() > 0)?,
            run: $name,
        },)+];
    };
}

cases! {
    landlock_answers_where_the_kernel_lists_it,
    writing_is_confined_to_what_is_allowed,
    names_are_made_and_removed_only_where_allowed,
    names_move_and_link_only_within_what_is_allowed,
    truncating_is_writing,
    denied_reading_is_split_out_of_an_open_tree,
    denied_writing_is_split_out_of_an_allowed_tree,
    denied_programs_do_not_start,
    allowed_programs_start_with_their_loader_and_others_do_not,
    descendants_and_threads_are_confined_too,
    what_every_program_needs_stays_open,
    the_gaps_are_as_reported,
    a_second_confinement_only_narrows,
    signals_stay_inside_the_run,
    observing_confines_nothing,
    what_was_replaced_gets_no_rights,
    a_process_with_threads_is_not_confined_in_part,
    rules_of_another_mount_namespace_are_refused,
    bind_mounts_reach_the_same_verdict(root),
    mounts_cannot_be_changed_and_devices_not_made(root),
    an_ordinary_user_confines_itself(root),
}

const WRITE_OUT: &str = "    write: { allow: ['@/out/**'] }\n";

fn landlock_answers_where_the_kernel_lists_it() {
    let abi = supported().unwrap_or_else(|reason| panic!("{reason}"));
    assert!(abi >= 1);
}

fn writing_is_confined_to_what_is_allowed() {
    let report = confined(
        &["out/old", "out/sub/old", "other/old"],
        WRITE_OUT,
        &[
            ("write @/out/old", "ok"),
            ("write @/out/sub/old", "ok"),
            ("write @/other/old", "EACCES"),
            ("read @/other/old", "ok"),
        ],
    );
    let confined = report.confined.unwrap();
    assert_eq!(confined.abi, supported().unwrap());
    assert!(confined.handled.contains(Access::WRITE_FILE | Access::MAKE));
    assert!(confined.rules >= 1 && confined.skipped.is_empty());
}

fn names_are_made_and_removed_only_where_allowed() {
    let files = ["out/a", "out/d/", "out/sub/", "other/a", "other/d/"];
    let in_both = |word: &str, name: &str| {
        [
            (format!("{word} @/out/{name}"), "ok"),
            (format!("{word} @/out/sub/{name}-2"), "ok"),
            (format!("{word} @/other/{name}"), "EACCES"),
        ]
    };
    let mut tries: Vec<(String, &str)> = ["create", "mkdir", "symlink", "fifo", "socket"]
        .iter()
        .flat_map(|word| in_both(word, &format!("new-{word}")))
        .collect();
    for (word, name) in [("unlink", "a"), ("rmdir", "d")] {
        tries.push((format!("{word} @/out/{name}"), "ok"));
        tries.push((format!("{word} @/other/{name}"), "EACCES"));
    }
    let tries: Vec<(&str, &str)> = tries
        .iter()
        .map(|(line, end)| (line.as_str(), *end))
        .collect();
    confined(&files, WRITE_OUT, &tries);
}

fn names_move_and_link_only_within_what_is_allowed() {
    if supported().unwrap() < 2 {
        // Reported as a gap: nothing moves to another directory.
        return;
    }
    confined(
        &[
            "out/a", "out/b", "out/c", "out/e", "out/f", "out/g", "out/d/", "other/a", "other/b",
            "other/c", "other/e", "other/d/",
        ],
        WRITE_OUT,
        &[
            ("rename @/out/a @/out/a2", "ok"),
            ("rename @/out/a2 @/out/d/a", "ok"),
            ("link @/out/b @/out/b2", "ok"),
            ("link @/out/b @/out/d/b", "ok"),
            ("exchange @/out/b @/out/c", "ok"),
            ("rename @/other/a @/other/a2", "EACCES"),
            ("rename @/out/e @/other/x", "EACCES"),
            ("rename @/other/b @/out/x", "EACCES"),
            ("exchange @/out/f @/other/c", "EACCES"),
            ("link @/out/g @/other/x2", "EACCES"),
            // It would be writable under its new name.
            ("link @/other/e @/out/x2", "EXDEV"),
        ],
    );
}

fn truncating_is_writing() {
    let tries = [
        ("truncate @/out/a", "ok"),
        ("open-truncating @/out/a", "ok"),
        ("open-truncating @/other/a", "EACCES"),
        ("truncate @/other/a", "EACCES"),
    ];
    let known = if supported().unwrap() >= 3 { 4 } else { 3 };
    let report = confined(&["out/a", "other/a"], WRITE_OUT, &tries[..known]);
    let confined = report.confined.unwrap();
    assert_eq!(
        confined.gaps.iter().any(|gap| gap.rule == "truncate"),
        known == 3
    );
}

fn denied_reading_is_split_out_of_an_open_tree() {
    let report = confined(
        &[
            "pub/f",
            "secret/f",
            "secret/g",
            "secret/deep/f",
            "note",
            "key",
        ],
        "    read: { deny: ['@/secret/**', '@/key'] }\n    write: { allow: ['@/**'] }\n",
        &[
            ("read @/pub/f", "ok"),
            ("read @/note", "ok"),
            ("read /proc/self/status", "ok"),
            ("list @/pub", "ok"),
            // Reported: what comes later directly in a split directory is closed.
            ("create @/new", "ok"),
            ("read @/new", "EACCES"),
            ("create @/pub/new", "ok"),
            ("read @/pub/new", "ok"),
            ("read @/secret/f", "EACCES"),
            ("read @/secret/deep/f", "EACCES"),
            ("list @/secret/deep", "EACCES"),
            ("read @/key", "EACCES"),
            // Neither a new name nor a moved one opens it.
            ("link @/key @/pub/key", "EXDEV"),
            ("rename @/secret/f @/pub/f2", "EXDEV"),
            ("rename @/secret @/renamed", "ok"),
            ("read @/renamed/g", "EACCES"),
        ],
    );
    assert!(report.confined.unwrap().handled.contains(Access::READ_FILE));
}

fn denied_writing_is_split_out_of_an_allowed_tree() {
    confined(
        &["out/a/f", "out/keep/f", "out/g"],
        "    write: { allow: ['@/out/**'], deny: ['@/out/keep/**'] }\n",
        &[
            ("write @/out/a/f", "ok"),
            ("create @/out/a/new", "ok"),
            ("write @/out/g", "ok"),
            ("write @/out/keep/f", "EACCES"),
            ("create @/out/keep/new", "EACCES"),
            ("unlink @/out/keep/f", "EACCES"),
            // Reported: directly in a split directory nothing is made.
            ("create @/out/new", "EACCES"),
            ("rename @/out/keep @/out/a/keep", "EACCES"),
        ],
    );
}

/// Copies a program into a lab, so that rules about it bear on nothing else.
fn with_programs(lab: &Lab) {
    for name in ["bin/good", "bin/bad"] {
        let path = lab.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy("/bin/true", path).unwrap();
    }
}

fn denied_programs_do_not_start() {
    let lab = Lab::new(&[]);
    with_programs(&lab);
    lab.expect(
        Job::default(),
        &[("exec @/bin/good", "ok"), ("exec @/bin/bad", "ok")],
    );
    let job = Job {
        rules: vec![lab.rules("    exec: { deny: ['@/bin/bad'] }\n")],
        ..Job::default()
    };
    lab.expect(
        job,
        &[
            ("exec @/bin/good", "ok"),
            ("exec @/bin/bad", "EACCES"),
            ("read @/bin/bad", "ok"),
        ],
    );
}

fn allowed_programs_start_with_their_loader_and_others_do_not() {
    let lab = Lab::new(&[]);
    with_programs(&lab);
    for allowed in ["@/bin/good", "@/bin/g*"] {
        let permissions = format!("    exec: {{ default: deny, allow: ['{allowed}'] }}\n");
        let job = Job {
            rules: vec![lab.rules(&permissions)],
            ..Job::default()
        };
        lab.expect(
            job,
            &[
                ("exec @/bin/good", "ok"),
                ("exec @/bin/bad", "EACCES"),
                ("exec /bin/true", "EACCES"),
            ],
        );
    }
}

fn descendants_and_threads_are_confined_too() {
    confined(
        &["out/a", "other/a"],
        WRITE_OUT,
        &[
            ("thread write @/out/a", "ok"),
            ("thread write @/other/a", "EACCES"),
            ("descendant descendant write @/out/a", "ok"),
            ("descendant write @/other/a", "EACCES"),
            ("descendant descendant write @/other/a", "EACCES"),
            ("descendant thread descendant unlink @/other/a", "EACCES"),
        ],
    );
}

fn what_every_program_needs_stays_open() {
    confined(
        &["secret"],
        "    write: {}\n    read: { deny: ['@/secret'] }\n",
        &[
            ("write /dev/null", "ok"),
            ("open-truncating /dev/null", "ok"),
            ("read /dev/null", "ok"),
            ("write /dev/zero", "ok"),
            ("read /dev/zero", "ok"),
            ("read /dev/urandom", "ok"),
            ("write /dev/random", "ok"),
            ("write /proc/self/comm", "EACCES"),
        ],
    );
}

fn the_gaps_are_as_reported() {
    let lab = Lab::new(&["a", "f.key", "bin/"]);
    with_programs(&lab);
    let rules = lab.rules(
        "    write: {}\n    read: { deny: ['**/*.key'] }\n    exec: { deny: ['@/bin/bad'] }\n",
    );
    for rule in ["attributes", "**/*.key", "exec"] {
        let reported = rules
            .gaps
            .iter()
            .any(|gap| gap.rule == rule && gap.effect == Effect::NotEnforced);
        assert!(reported, "{rule}: {:#?}", rules.gaps);
    }
    let job = Job {
        rules: vec![rules],
        ..Job::default()
    };
    lab.expect(job, &[("chmod @/a", "ok"), ("read @/f.key", "ok")]);
}

fn a_second_confinement_only_narrows() {
    let lab = Lab::new(&["out/a", "both/a", "other/a"]);
    let job = Job {
        rules: vec![
            lab.rules("    write: { allow: ['@/out/**', '@/both/**'] }\n"),
            lab.rules("    write: { allow: ['@/other/**', '@/both/**'] }\n"),
        ],
        ..Job::default()
    };
    lab.expect(
        job,
        &[
            ("write @/both/a", "ok"),
            ("write @/out/a", "EACCES"),
            ("write @/other/a", "EACCES"),
        ],
    );
}

fn signals_stay_inside_the_run() {
    let lab = Lab::new(&[]);
    let outside = format!("signal {}", std::process::id());
    let (kept, end) = if supported().unwrap() >= 6 {
        (true, "EPERM")
    } else {
        (false, "ok")
    };
    let with = |permissions: &str| Job {
        rules: vec![lab.rules(permissions)],
        ..Job::default()
    };
    let report = lab.expect(with("    write: {}\n"), &[(&outside, end)]);
    assert_eq!(report.confined.unwrap().signals, kept);
    let allowed = "    privileges: { allow: [signal-outside] }\n";
    lab.expect(with(allowed), &[(&outside, "ok")]);
}

fn observing_confines_nothing() {
    let lab = Lab::new(&["a"]);
    let tree = agentguard::landlock::HostTree::here().unwrap();
    let manifest = manifest("observe", "    write: { deny: ['/**'] }\n");
    let rules = agentguard::landlock::rules(&manifest, &[], Default::default(), &tree);
    assert!(rules.gaps[0].reason.contains("cannot observe"));
    let job = Job {
        rules: vec![rules],
        ..Job::default()
    };
    let report = lab.expect(job, &[("write @/a", "ok"), ("unlink @/a", "ok")]);
    let confined = report.confined.unwrap();
    assert!(confined.abi == 0 && confined.handled.is_empty());
}

fn what_was_replaced_gets_no_rights() {
    let lab = Lab::new(&["out/a", "out2/a", "other/a", "gone/a"]);
    let rules = lab.rules("    write: { allow: ['@/out/**', '@/out2/**', '@/gone/**'] }\n");
    std::fs::rename(lab.path("out"), lab.path("was-out")).unwrap();
    std::os::unix::fs::symlink(lab.path("other"), lab.path("out")).unwrap();
    std::fs::remove_dir_all(lab.path("gone")).unwrap();
    let job = Job {
        rules: vec![rules],
        ..Job::default()
    };
    let report = lab.expect(
        job,
        &[
            ("write @/out2/a", "ok"),
            ("write @/out/a", "EACCES"),
            ("write @/other/a", "EACCES"),
            ("write @/was-out/a", "EACCES"),
        ],
    );
    let skipped = report.confined.unwrap().skipped;
    let reasons: Vec<&str> = skipped.iter().map(|it| it.reason.as_str()).collect();
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert!(
        reasons.iter().any(|it| it.contains("replaced")),
        "{reasons:?}"
    );
    assert!(
        reasons.iter().any(|it| it.contains("No such file")),
        "{reasons:?}"
    );
}

fn a_process_with_threads_is_not_confined_in_part() {
    let lab = Lab::new(&["a"]);
    let report = run(&Job {
        rules: vec![lab.rules(WRITE_OUT)],
        with_thread: true,
        ..Job::default()
    });
    let error = report.error.unwrap();
    assert!(error.contains("2 threads"), "{error}");
}

fn rules_of_another_mount_namespace_are_refused() {
    let lab = Lab::new(&["a"]);
    let mut rules = lab.rules(WRITE_OUT);
    rules.mount_namespace += 1;
    let report = run(&Job {
        rules: vec![rules],
        ..Job::default()
    });
    let error = report.error.unwrap();
    assert!(error.contains("another mount namespace"), "{error}");
}

fn bind_mounts_reach_the_same_verdict() {
    let lab = Lab::new(&[
        "secret/deep/f",
        "secret/f",
        "pub/f",
        "alias/",
        "out/a/f",
        "out/alias/",
        "other/f",
    ]);
    let bind = |from: &str, to: &str| (lab.path(from), lab.path(to));
    let binds: Vec<(PathBuf, PathBuf)> = vec![
        bind("secret/deep", "alias"),
        // What is mounted where writing is allowed is not thereby allowed.
        bind("other", "out/alias"),
    ];
    let job = Job {
        binds,
        manifest: Some(
            lab.fill("    read: { deny: ['@/secret/**'] }\n    write: { allow: ['@/out/**'] }\n"),
        ),
        ..Job::default()
    };
    lab.expect(
        job,
        &[
            ("read @/pub/f", "ok"),
            ("read @/secret/f", "EACCES"),
            ("read @/alias/f", "EACCES"),
            ("write @/out/a/f", "ok"),
            ("read @/out/alias/f", "ok"),
            ("write @/out/alias/f", "EACCES"),
            ("write @/other/f", "EACCES"),
        ],
    );
}

fn mounts_cannot_be_changed_and_devices_not_made() {
    let lab = Lab::new(&["out/a", "other/a"]);
    let job = Job {
        rules: vec![lab.rules(WRITE_OUT)],
        ..Job::default()
    };
    lab.expect(
        job,
        &[
            ("bind @/other @/out", "EPERM"),
            ("device @/out/null", "EACCES"),
            ("create @/out/new", "ok"),
        ],
    );
    let lab = Lab::new(&["out/a"]);
    let job = Job {
        rules: vec![lab.rules(&format!(
            "{WRITE_OUT}    privileges: {{ allow: [devices] }}\n"
        ))],
        ..Job::default()
    };
    lab.expect(job, &[("device @/out/null", "ok")]);
}

fn an_ordinary_user_confines_itself() {
    let lab = Lab::new(&["out/a", "other/a"]);
    let as_user = |rules| Job {
        rules,
        user: Some(65534),
        ..Job::default()
    };
    let free = [("write @/out/a", "ok"), ("write @/other/a", "ok")];
    lab.expect(as_user(Vec::new()), &free);
    lab.expect(
        as_user(vec![lab.rules(WRITE_OUT)]),
        &[
            ("write @/out/a", "ok"),
            ("create @/out/new", "ok"),
            ("write @/other/a", "EACCES"),
        ],
    );
}

//! What a person sees when a policy is wrong: one golden text for each mistake.
//!
//! After a change of wording: `UPDATE_EXPECT=1 cargo test -p agentguard --test policy_errors`,
//! then read the difference.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use agentguard::policy::{LoadOptions, load_dir, load_paths};
use expect_test::{Expect, expect};
use tempfile::TempDir;

/// A manifest that is right, to be spoilt.
const GOOD: &str = "\
apiVersion: agentguard/v1
kind: Agent
metadata:
  name: summarizer
spec:
  owner: finance@example.com
  environment: production
  authority: service
  mode: enforce
";

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
        // Whatever the umask is here, only the cases about modes are about modes.
        set_mode(&dir.path().join(name), 0o644);
    }
    dir
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What loading a directory prints, with the directory's name made constant.
fn output(dir: &Path, options: LoadOptions) -> String {
    let text = match load_dir(dir, options) {
        Ok(set) => {
            let warnings: Vec<_> = set.warnings.iter().map(ToString::to_string).collect();
            format!("{} agents\n{}", set.manifests.len(), warnings.join("\n\n"))
        }
        Err(diagnostics) => diagnostics.to_string(),
    };
    text.replace(dir.to_str().unwrap(), "agents.d") + "\n"
}

fn check_files(files: &[(&str, &[u8])], expected: &Expect) {
    let dir = directory(files);
    expected.assert_eq(&output(dir.path(), LoadOptions::default()));
}

fn check(content: &str, expected: &Expect) {
    check_files(&[("x.yaml", content.as_bytes())], expected);
}

/// The good manifest with more under `spec`.
fn check_spec(more: &str, expected: &Expect) {
    check(&format!("{GOOD}{more}"), expected);
}

#[test]
fn a_right_manifest_has_nothing_to_say() {
    check(
        GOOD,
        &expect![[r#"
        1 agents

    "#]],
    );
}

#[test]
fn unknown_keys_are_named_with_the_nearest_valid_one() {
    check_spec(
        "  permissions:\n    conect:\n      allow: [\"*:443\"]\n    write: { alow: [], purpose: x }\n",
        &expect![[r#"
            error: agents.d/x.yaml:11:5: unknown key `conect` in spec.permissions
               |
            11 |     conect:
               |     ^^^^^^
            help: did you mean `connect`?

            error: agents.d/x.yaml:13:14: unknown key `alow` in spec.permissions.write
               |
            13 |     write: { alow: [], purpose: x }
               |              ^^^^
            help: did you mean `allow`?

            error: agents.d/x.yaml:13:24: unknown key `purpose` in spec.permissions.write
               |
            13 |     write: { alow: [], purpose: x }
               |                        ^^^^^^^
            help: valid here: allow, ask, deny, default
        "#]],
    );
}

#[test]
fn a_key_in_the_wrong_place_is_sent_home() {
    check(
        &GOOD.replace("spec:", "owner: x\nspec:\n  name: y"),
        &expect![[r#"
            error: agents.d/x.yaml:5:1: unknown key `owner` in the manifest
              |
            5 | owner: x
              | ^^^^^
            help: it belongs in spec

            error: agents.d/x.yaml:7:3: unknown key `name` in spec
              |
            7 |   name: y
              |   ^^^^
            help: it belongs in metadata
        "#]],
    );
}

#[test]
fn wrong_types_say_what_was_found() {
    check_spec(
        "  description: 1.10\n  lease: [2h]\n  delegates: ocr\n  limits: { processes: many, denials_per_minute: 0x10 }\n  permissions:\n    write: [\"/srv/**\"]\n    read: { deny: [yes, true, ~] }\n",
        &expect![[r#"
            error: agents.d/x.yaml:11:10: spec.lease must be text, not a list
               |
            11 |   lease: [2h]
               |          ^

            error: agents.d/x.yaml:12:14: spec.delegates must be a list, not the text `ocr`
               |
            12 |   delegates: ocr
               |              ^^^
            help: write a list: ["ocr"]

            error: agents.d/x.yaml:13:24: spec.limits.processes must be a number, not the text `many`
               |
            13 |   limits: { processes: many, denials_per_minute: 0x10 }
               |                        ^^^^
            help: write a whole number from 1 to 262144

            error: agents.d/x.yaml:13:50: spec.limits.denials_per_minute cannot be `0x10`
               |
            13 |   limits: { processes: many, denials_per_minute: 0x10 }
               |                                                  ^^^^
            help: write a whole number from 1 to 1000000

            error: agents.d/x.yaml:15:12: spec.permissions.write must be a mapping, not a list
               |
            15 |     write: ["/srv/**"]
               |            ^
            help: keys here: allow, ask, deny, default

            error: agents.d/x.yaml:16:20: `yes` is not an absolute path
               |
            16 |     read: { deny: [yes, true, ~] }
               |                    ^^^
            help: begin with `/`, or with `**/` to match at any depth: `**/yes`

            error: agents.d/x.yaml:16:25: an item of spec.permissions.read.deny must be text, not the truth value `true`
               |
            16 |     read: { deny: [yes, true, ~] }
               |                         ^^^^
            help: put it in quotes: "true"

            error: agents.d/x.yaml:16:31: an item of spec.permissions.read.deny must be text, not nothing
               |
            16 |     read: { deny: [yes, true, ~] }
               |                               ^
        "#]],
    );
}

#[test]
fn missing_keys_are_all_named() {
    check(
        "apiVersion: agentguard/v1\nmetadata: {}\nspec: { mode: audit }\n",
        &expect![[r#"
            error: agents.d/x.yaml:1:1: missing key `kind` in the manifest
              |
            1 | apiVersion: agentguard/v1
              | ^
            help: write `kind: Agent`

            error: agents.d/x.yaml:2:1: missing key `name` in metadata
              |
            2 | metadata: {}
              | ^^^^^^^^
            help: write `name: …`

            error: agents.d/x.yaml:3:1: missing key `owner` in spec
              |
            3 | spec: { mode: audit }
              | ^^^^
            help: write who answers for the agent, such as `owner: team@example.com`

            error: agents.d/x.yaml:3:1: missing key `environment` in spec
              |
            3 | spec: { mode: audit }
              | ^^^^
            help: write development, staging or production

            error: agents.d/x.yaml:3:1: missing key `authority` in spec
              |
            3 | spec: { mode: audit }
              | ^^^^
            help: write `service` for an agent with its own rights, `delegated` for one that acts for a named person

            error: agents.d/x.yaml:3:15: spec.mode cannot be `audit`
              |
            3 | spec: { mode: audit }
              |               ^^^^^
            help: valid here: observe, enforce
        "#]],
    );
}

#[test]
fn duplicate_keys_name_the_first() {
    check_spec(
        "  mode: observe\n",
        &expect![[r#"
        error: agents.d/x.yaml:10:3: duplicate key `mode` in spec
           |
        10 |   mode: observe
           |   ^^^^
        help: it is already on line 9
    "#]],
    );
}

#[test]
fn a_duplicate_agent_names_both_places() {
    check_files(
        &[("a.yaml", GOOD.as_bytes()), ("b.yml", GOOD.as_bytes())],
        &expect![[r#"
            error: agents.d/b.yml:4:9: agent `summarizer` (production) is declared twice; the other is at agents.d/a.yaml:4:9
              |
            4 |   name: summarizer
              |         ^^^^^^^^^^
            help: rename one of them, remove one, or give it another environment
        "#]],
    );
}

#[test]
fn the_same_name_in_two_environments_is_two_agents() {
    let both = format!("{GOOD}---\n{}", GOOD.replace("production", "staging"));
    check(
        &both,
        &expect![[r#"
        2 agents

    "#]],
    );
}

#[test]
fn the_same_match_in_two_manifests_is_refused() {
    let first = format!("{GOOD}  enrol: {{ match: [{{ exe: /usr/bin/agent }}] }}\n");
    let second = first.replace("name: summarizer", "name: other");
    check_files(
        &[("a.yaml", first.as_bytes()), ("b.yaml", second.as_bytes())],
        &expect![[r#"
            error: agents.d/b.yaml:10:20: the same processes match agent `summarizer` (production) at agents.d/a.yaml:10:20
               |
            10 |   enrol: { match: [{ exe: /usr/bin/agent }] }
               |                    ^
            help: a process becomes one agent: make the matches differ, or remove one
        "#]],
    );
}

#[test]
fn bad_globs() {
    check_spec(
        "  permissions:\n    read:\n      deny:\n        - /srv/**.pem\n        - \"/etc/[a-z]*\"\n        - ~/.ssh/**\n        - out/*.json\n        - /srv/\n        - /srv/../etc\n",
        &expect![[r#"
            error: agents.d/x.yaml:13:11: `**` must stand between slashes, not within a name as in `**.pem`
               |
            13 |         - /srv/**.pem
               |           ^^^^^^^^^^^
            help: did you mean `/srv/**/*.pem`?

            error: agents.d/x.yaml:14:11: character classes (`[a-z]`) are not supported in patterns
               |
            14 |         - "/etc/[a-z]*"
               |           ^^^^^^^^^^^^^
            help: use `?` for any one character; for the character itself write `\[` (in YAML, within single quotes)

            error: agents.d/x.yaml:15:11: `~` is not expanded: rules do not depend on who is logged in
               |
            15 |         - ~/.ssh/**
               |           ^^^^^^^^^
            help: write the home directory out, such as `/home/alice/.ssh/**`

            error: agents.d/x.yaml:16:11: `out/*.json` is not an absolute path
               |
            16 |         - out/*.json
               |           ^^^^^^^^^^
            help: begin with `/`, or with `**/` to match at any depth: `**/out/*.json`

            error: agents.d/x.yaml:17:11: `/srv/` ends with a slash
               |
            17 |         - /srv/
               |           ^^^^^
            help: write `/srv` for the directory itself, `/srv/**` for everything below it, or both

            error: agents.d/x.yaml:18:11: a rule's path cannot hold the name `..`
               |
            18 |         - /srv/../etc
               |           ^^^^^^^^^^^
            help: write the path that is meant, as the kernel resolves it
        "#]],
    );
}

#[test]
fn an_unquoted_star_is_explained() {
    check_spec(
        "  permissions:\n    read:\n      deny: [**/*.pem]\n",
        &expect![[r#"
            error: agents.d/x.yaml:12:14: `**/*.pem` is a YAML alias, and no anchor has that name
               |
            12 |       deny: [**/*.pem]
               |              ^^^^^^^^
            help: to write a pattern, put it in quotes: "**/*.pem"
        "#]],
    );
}

#[test]
fn bad_networks_and_ports() {
    check_spec(
        "  permissions:\n    connect:\n      allow:\n        - 10.20.0.0/33\n        - 10.20.1.0/16\n        - 10.0.0.300\n        - api.example.com:70000\n        - api.example.com:90-80\n        - fd00::/8:443\n        - https://api.example.com\n    listen:\n      allow: [localhost:80]\n",
        &expect![[r#"
            error: agents.d/x.yaml:13:11: `33` is not a prefix length
               |
            13 |         - 10.20.0.0/33
               |           ^^^^^^^^^^^^
            help: IPv4 prefix lengths are 0 to 32

            error: agents.d/x.yaml:14:11: 10.20.1.0/16 has bits set after its prefix
               |
            14 |         - 10.20.1.0/16
               |           ^^^^^^^^^^^^
            help: write `10.20.0.0/16` for the network, or `10.20.1.0` for this address

            error: agents.d/x.yaml:15:11: `10.0.0.300` is not an IPv4 address
               |
            15 |         - 10.0.0.300
               |           ^^^^^^^^^^
            help: four numbers from 0 to 255, without leading zeros: `10.20.0.1`

            error: agents.d/x.yaml:16:11: port `70000` is over 65535
               |
            16 |         - api.example.com:70000
               |           ^^^^^^^^^^^^^^^^^^^^^
            help: ports are 1 to 65535; leave the port out to mean all

            error: agents.d/x.yaml:17:11: the ports 90-80 run backwards
               |
            17 |         - api.example.com:90-80
               |           ^^^^^^^^^^^^^^^^^^^^^
            help: write 80-90

            error: agents.d/x.yaml:18:11: an IPv6 network with a port stands in brackets
               |
            18 |         - fd00::/8:443
               |           ^^^^^^^^^^^^
            help: write `[fd00::]/8:443`

            error: agents.d/x.yaml:19:11: this is a URL; rules name hosts and ports, not schemes and pages
               |
            19 |         - https://api.example.com
               |           ^^^^^^^^^^^^^^^^^^^^^^^
            help: write `api.example.com:443`

            error: agents.d/x.yaml:21:15: `localhost:80` is a name; a socket listens on an address
               |
            21 |       allow: [localhost:80]
               |               ^^^^^^^^^^^^
            help: write an address such as `127.0.0.1:8080`, or `*:8080` for all
        "#]],
    );
}

#[test]
fn names_outside_the_charset() {
    for (name, expected) in [
        (
            "inv/oice",
            expect![[r#"
            error: agents.d/x.yaml:4:9: `inv/oice` is not an agent name: it holds `/`
              |
            4 |   name: inv/oice
              |         ^^^^^^^^
            help: 1 to 63 of the characters A-Z a-z 0-9 . _ - make a name
        "#]],
        ),
        (
            "\"inv oice\"",
            expect![[r#"
            error: agents.d/x.yaml:4:9: `inv oice` is not an agent name: it holds ` `
              |
            4 |   name: "inv oice"
              |         ^^^^^^^^^^
            help: 1 to 63 of the characters A-Z a-z 0-9 . _ - make a name
        "#]],
        ),
        (
            "..",
            expect![[r#"
            error: agents.d/x.yaml:4:9: `..` is not an agent name: it would be a step in a path
              |
            4 |   name: ..
              |         ^^
            help: 1 to 63 of the characters A-Z a-z 0-9 . _ - make a name
        "#]],
        ),
        (
            "\"\"",
            expect![[r#"
            error: agents.d/x.yaml:4:9: `` is not an agent name: it is empty
              |
            4 |   name: ""
              |         ^^
            help: 1 to 63 of the characters A-Z a-z 0-9 . _ - make a name
        "#]],
        ),
        (
            "42",
            expect![[r#"
            error: agents.d/x.yaml:4:9: metadata.name must be text, not the number `42`
              |
            4 |   name: 42
              |         ^^
            help: put it in quotes: "42"
        "#]],
        ),
    ] {
        check(&GOOD.replace("summarizer", name), &expected);
    }
    check(
        &GOOD.replace("summarizer", &"n".repeat(64)),
        &expect![[r#"
        error: agents.d/x.yaml:4:9: `nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn` is not an agent name: it has 64 characters
          |
        4 |   name: nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn
          |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: 1 to 63 of the characters A-Z a-z 0-9 . _ - make a name
    "#]],
    );
}

#[test]
fn bad_words_and_numbers() {
    let spoilt = GOOD
        .replace("finance@example.com", "finance@")
        .replace("production", "prod")
        .replace("service", "delegate")
        .replace("enforce", "enforcing");
    check(
        &format!(
            "{spoilt}  lease: 90\n  limits: {{ processes: 0, on_limit: stop }}\n  approvals: {{ uses: 1.5, timeout: 8d, approvers: [\"a b\"] }}\n  enrol:\n    match:\n      - {{ exe: agent }}\n      - {{ user: svc }}\n      - {{ sha256: abc }}\n      - {{ systemd_unit: invoice }}\n"
        ),
        &expect![[r#"
            error: agents.d/x.yaml:6:10: `finance@` does not name an owner: it is not a mail address
              |
            6 |   owner: finance@
              |          ^^^^^^^^
            help: write a mail address or the name of a team or person

            error: agents.d/x.yaml:7:16: spec.environment cannot be `prod`
              |
            7 |   environment: prod
              |                ^^^^
            help: did you mean `production`?

            error: agents.d/x.yaml:8:14: spec.authority cannot be `delegate`
              |
            8 |   authority: delegate
              |              ^^^^^^^^
            help: did you mean `delegated`?

            error: agents.d/x.yaml:9:9: spec.mode cannot be `enforcing`
              |
            9 |   mode: enforcing
              |         ^^^^^^^^^
            help: valid here: observe, enforce

            error: agents.d/x.yaml:10:10: `90` is not a duration: the unit is missing
               |
            10 |   lease: 90
               |          ^^
            help: write whole numbers with a unit, the longest first: 90s, 10m, 2h, 1d, 1h30m

            error: agents.d/x.yaml:11:24: spec.limits.processes cannot be `0`
               |
            11 |   limits: { processes: 0, on_limit: stop }
               |                        ^
            help: write a whole number from 1 to 262144

            error: agents.d/x.yaml:11:37: spec.limits.on_limit cannot be `stop`
               |
            11 |   limits: { processes: 0, on_limit: stop }
               |                                     ^^^^
            help: valid here: pause, revoke, kill

            error: agents.d/x.yaml:12:22: spec.approvals.uses cannot be `1.5`
               |
            12 |   approvals: { uses: 1.5, timeout: 8d, approvers: ["a b"] }
               |                      ^^^
            help: write a whole number from 1 to 1000

            error: agents.d/x.yaml:12:36: `8d` is out of bounds
               |
            12 |   approvals: { uses: 1.5, timeout: 8d, approvers: ["a b"] }
               |                                    ^^
            help: write 1s to 7d

            error: agents.d/x.yaml:12:52: `a b` is not an account name
               |
            12 |   approvals: { uses: 1.5, timeout: 8d, approvers: ["a b"] }
               |                                                    ^^^^^
            help: write the name as `getent` shows it: no spaces, colons, commas or slashes

            error: agents.d/x.yaml:15:16: `agent` is not an absolute path
               |
            15 |       - { exe: agent }
               |                ^^^^^
            help: begin with `/`, or with `**/` to match at any depth: `**/agent`

            error: agents.d/x.yaml:16:9: an item of spec.enrol.match names no program: every program would match
               |
            16 |       - { user: svc }
               |         ^
            help: add `exe: PATH`, `systemd_unit: NAME.service` or `cgroup: PATH`; a pattern such as `/opt/agents/**` is a program too

            error: agents.d/x.yaml:17:11: `sha256` says which build of `exe` is meant, and `exe` is missing
               |
            17 |       - { sha256: abc }
               |           ^^^^^^
            help: add `exe: PATH`

            error: agents.d/x.yaml:17:19: `abc` is not a SHA-256 digest
               |
            17 |       - { sha256: abc }
               |                   ^^^
            help: write the 64 hexadecimal digits that `sha256sum FILE` prints

            error: agents.d/x.yaml:18:25: `invoice` is not the name of a systemd unit
               |
            18 |       - { systemd_unit: invoice }
               |                         ^^^^^^^
            help: did you mean `invoice.service`?
        "#]],
    );
}

#[test]
fn bad_privileges_and_tests() {
    check_spec(
        "  permissions:\n    privileges: { allow: [bfp], deny: [mount] }\n  tests:\n    - { deny: \"conect 1.1.1.1:53\" }\n    - { deny: \"connect 10.0.0.0/8:53\" }\n    - { allow: \"write srv\" }\n    - { allow: write }\n    - {}\n    - \"write /srv\"\n",
        &expect![[r#"
            error: agents.d/x.yaml:11:27: `bfp` is not a privilege
               |
            11 |     privileges: { allow: [bfp], deny: [mount] }
               |                           ^^^
            help: did you mean `bpf`?

            error: agents.d/x.yaml:11:33: unknown key `deny` in spec.permissions.privileges
               |
            11 |     privileges: { allow: [bfp], deny: [mount] }
               |                                 ^^^^
            help: valid here: allow

            error: agents.d/x.yaml:13:15: `conect` is not a verb
               |
            13 |     - { deny: "conect 1.1.1.1:53" }
               |               ^^^^^^^^^^^^^^^^^^^
            help: did you mean `connect`?

            error: agents.d/x.yaml:14:15: `10.0.0.0/8:53` names many hosts
               |
            14 |     - { deny: "connect 10.0.0.0/8:53" }
               |               ^^^^^^^^^^^^^^^^^^^^^^^
            help: a question is about one place, such as `1.1.1.1:53/udp`

            error: agents.d/x.yaml:15:16: `srv` is not an absolute path
               |
            15 |     - { allow: "write srv" }
               |                ^^^^^^^^^^^
            help: begin with `/`

            error: agents.d/x.yaml:16:16: `write` is not a question
               |
            16 |     - { allow: write }
               |                ^^^^^
            help: write a verb and an object: `write /srv/x`, `connect 1.1.1.1:53/udp`

            error: agents.d/x.yaml:17:7: an item of spec.tests has 0 expectations instead of one
               |
            17 |     - {}
               |       ^
            help: one verdict and its question, such as `{ deny: "connect 1.1.1.1:53/udp" }`

            error: agents.d/x.yaml:18:7: an item of spec.tests must be a mapping, not the text `write /srv`
               |
            18 |     - "write /srv"
               |       ^^^^^^^^^^^^
            help: keys here: allow, ask, deny
        "#]],
    );
}

#[test]
fn an_empty_file() {
    check(
        "",
        &expect![[r#"
        error: agents.d/x.yaml: the file is empty: it declares no agent
        help: write a manifest, or remove the file
    "#]],
    );
    check(
        "# nothing yet\n---\n",
        &expect![[r#"
        error: agents.d/x.yaml: the file is empty: it declares no agent
        help: write a manifest, or remove the file
    "#]],
    );
}

#[test]
fn a_file_of_50_megabytes_is_not_read() {
    let dir = directory(&[]);
    // Sparse: reading it would still take its 50 MB of memory.
    let file = fs::File::create(dir.path().join("x.yaml")).unwrap();
    file.set_len(50_000_000).unwrap();
    expect![[r#"
        error: agents.d/x.yaml: the file has 50000000 bytes; a manifest file has at most 1048576
        help: split it into one file for each agent
    "#]]
    .assert_eq(&output(dir.path(), LoadOptions::default()));
}

#[test]
fn text_that_is_not_utf8() {
    let bytes = [GOOD.as_bytes(), b"  description: caf\xe9\n"].concat();
    check_files(
        &[("x.yaml", &bytes)],
        &expect![[r#"
        error: agents.d/x.yaml:10:19: the file is not UTF-8: byte 0xe9 at offset 183
           |
        10 |   description: caf�
           |                   ^
        help: save the file as UTF-8; in a rule write such a byte as `\xHH`
    "#]],
    );
    check_files(
        &[("x.yaml", b"\xff\xfea\0:\0")],
        &expect![[r#"
        error: agents.d/x.yaml:1:1: the file is not UTF-8: byte 0xff at offset 0
          |
        1 | ��a�:�
          | ^
        help: save the file as UTF-8; in a rule write such a byte as `\xHH`
    "#]],
    );
}

#[test]
fn text_that_is_not_yaml() {
    check_spec(
        "  permissions: [\n",
        &expect![[r#"
        error: agents.d/x.yaml:10:16: this is not well-formed YAML: unclosed bracket '['
           |
        10 |   permissions: [
           |                ^
    "#]],
    );
    check_spec(
        "\tlease: 1h\n",
        &expect![[r#"
            error: agents.d/x.yaml:9:9: this is not well-formed YAML: while scanning a plain scalar, found a tab
              |
            9 |   mode: enforce
              |         ^
            help: indent with spaces
        "#]],
    );
    check_spec(
        "  lease: !duration 1h\n",
        &expect![[r#"
        error: agents.d/x.yaml:10:20: this is not well-formed YAML: unsupported tag `!duration`
           |
        10 |   lease: !duration 1h
           |                    ^^
    "#]],
    );
    check(
        "just text\n",
        &expect![[r#"
        error: agents.d/x.yaml:1:1: the manifest must be a mapping, not the text `just text`
          |
        1 | just text
          | ^^^^^^^^^
        help: keys here: apiVersion, kind, metadata, spec
    "#]],
    );
}

#[test]
fn an_alias_bomb() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let items = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb += &format!("a{level}: &a{level} [{items}]\n");
    }
    check(
        &bomb,
        &expect![[r#"
            error: agents.d/x.yaml:5:15: the file's aliases stand for more than 20000 values
              |
            5 | a4: &a4 [*a3, *a3, *a3, *a3, *a3, *a3, *a3, *a3, *a3]
              |               ^^^
            help: write the lists out
        "#]],
    );
}

#[test]
fn deep_nesting() {
    check(
        &format!("a: {}", "[".repeat(500_000)),
        &expect![[r#"
        error: agents.d/x.yaml:1:36: lists and mappings nest deeper than 32 levels
          |
        1 | a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[…
          |                                    ^
        help: a manifest needs six
    "#]],
    );
    let block: Vec<_> = (0..40)
        .map(|depth| format!("{}a:", " ".repeat(depth)))
        .collect();
    check(
        &block.join("\n"),
        &expect![[r#"
        error: agents.d/x.yaml:33:33: lists and mappings nest deeper than 32 levels
           |
        33 |                                 a:
           |                                 ^
        help: a manifest needs six
    "#]],
    );
}

#[test]
fn too_many_values_and_documents() {
    check(
        &format!("a: [{}]", "x,".repeat(400_000)),
        &expect![[r#"
        error: agents.d/x.yaml:1:199999: the file has more than 100000 values
          |
        1 | …x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,…
          |                                          ^
        help: split the file into one for each agent
    "#]],
    );
    check(
        &"---\na: 1\n".repeat(300),
        &expect![[r#"
        error: agents.d/x.yaml:513:1: the file has more than 256 documents
            |
        513 | ---
            | ^^^
        help: split the file into one for each agent
    "#]],
    );
}

#[test]
fn merge_keys_and_aliases() {
    check_spec(
        "  permissions:\n    read: &rules { deny: [\"/srv/**\"] }\n    write: *rules\n    exec: { <<: *rules }\n",
        &expect![[r#"
            error: agents.d/x.yaml:13:13: unknown key `<<` in spec.permissions.exec
               |
            13 |     exec: { <<: *rules }
               |             ^^
            help: merge keys are not supported; write the keys out
        "#]],
    );
}

#[test]
fn directories_that_cannot_be_read() {
    let dir = directory(&[("file", b"")]);
    let missing = dir.path().join("missing");
    expect![[r#"
        error: agents.d: the directory does not exist
        help: make the directory, or name another
    "#]]
    .assert_eq(&output(&missing, LoadOptions::default()));
    let file = dir.path().join("file");
    expect![[r#"
        error: agents.d: this is not a directory
        help: name a directory that holds *.yaml files
    "#]]
    .assert_eq(&output(&file, LoadOptions::default()));
}

#[test]
fn files_that_are_not_files() {
    let dir = directory(&[]);
    fs::create_dir(dir.path().join("dir.yaml")).unwrap();
    symlink("nowhere", dir.path().join("link.yaml")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    expect![[r#"
        error: agents.d/dir.yaml: this is not a regular file
        help: a manifest is a file, or a symbolic link to one

        error: agents.d/link.yaml: the file does not exist
        help: make the file, or name another

        error: agents.d/pipe.yaml: this is not a regular file
        help: a manifest is a file, or a symbolic link to one
    "#]]
    .assert_eq(&output(dir.path(), LoadOptions::default()));
}

#[test]
fn only_manifest_files_are_read_and_in_order() {
    let second = GOOD.replace("summarizer", "second");
    let dir = directory(&[
        ("b.yaml", GOOD.as_bytes()),
        ("a.yml", second.as_bytes()),
        (".hidden.yaml", b"["),
        ("c.yaml~", b"["),
        ("#c.yaml#", b"["),
        ("c.yaml.bak", b"["),
        ("c.json", b"["),
    ]);
    let set = load_dir(dir.path(), LoadOptions::default()).unwrap();
    let names: Vec<_> = set.manifests.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["second", "summarizer"]);
}

#[test]
fn all_errors_of_all_files_at_once() {
    let bad_owner = GOOD.replace("owner: finance@example.com", "ownr: finance");
    let bad_rule = format!("{GOOD}  permissions: {{ connect: {{ deny: [\"10.0.0.0/99\"] }} }}\n");
    let files: [(&str, &[u8]); 5] = [
        ("a.yaml", GOOD.as_bytes()),
        ("b.yaml", bad_owner.as_bytes()),
        ("c.yaml", b"kind: [\n"),
        ("d.yaml", b""),
        ("e.yaml", bad_rule.as_bytes()),
    ];
    check_files(
        &files,
        &expect![[r#"
        error: agents.d/b.yaml:4:9: agent `summarizer` (production) is declared twice; the other is at agents.d/a.yaml:4:9
          |
        4 |   name: summarizer
          |         ^^^^^^^^^^
        help: rename one of them, remove one, or give it another environment

        error: agents.d/b.yaml:5:1: missing key `owner` in spec
          |
        5 | spec:
          | ^^^^
        help: write who answers for the agent, such as `owner: team@example.com`

        error: agents.d/b.yaml:6:3: unknown key `ownr` in spec
          |
        6 |   ownr: finance
          |   ^^^^
        help: did you mean `owner`?

        error: agents.d/c.yaml:1:7: this is not well-formed YAML: unclosed bracket '['
          |
        1 | kind: [
          |       ^

        error: agents.d/d.yaml: the file is empty: it declares no agent
        help: write a manifest, or remove the file

        error: agents.d/e.yaml:4:9: agent `summarizer` (production) is declared twice; the other is at agents.d/a.yaml:4:9
          |
        4 |   name: summarizer
          |         ^^^^^^^^^^
        help: rename one of them, remove one, or give it another environment

        error: agents.d/e.yaml:10:36: `99` is not a prefix length
           |
        10 |   permissions: { connect: { deny: ["10.0.0.0/99"] } }
           |                                    ^^^^^^^^^^^^^
        help: IPv4 prefix lengths are 0 to 32
    "#]],
    );
}

#[test]
fn files_that_others_can_change() {
    let dir = directory(&[("a.yaml", GOOD.as_bytes())]);
    set_mode(&dir.path().join("a.yaml"), 0o666);
    set_mode(dir.path(), 0o777);
    expect![[r#"
        1 agents
        warning: agents.d: others than its owner can write to this directory (mode 0777) and so change the policy
        help: chmod go-w agents.d

        warning: agents.d/a.yaml: others than its owner can write to this file (mode 0666) and so change the policy
        help: chmod go-w agents.d/a.yaml
    "#]].assert_eq(&output(dir.path(), LoadOptions::default()));
    let strict = LoadOptions {
        strict_permissions: true,
    };
    expect![[r#"
        error: agents.d: others than its owner can write to this directory (mode 0777) and so change the policy
        help: chmod go-w agents.d

        error: agents.d/a.yaml: others than its owner can write to this file (mode 0666) and so change the policy
        help: chmod go-w agents.d/a.yaml
    "#]].assert_eq(&output(dir.path(), strict));
}

#[test]
fn a_link_is_followed_and_its_target_judged() {
    let dir = directory(&[]);
    let elsewhere = directory(&[("real.yaml", GOOD.as_bytes())]);
    symlink(
        elsewhere.path().join("real.yaml"),
        dir.path().join("a.yaml"),
    )
    .unwrap();
    let set = load_dir(dir.path(), LoadOptions::default()).unwrap();
    assert_eq!((set.manifests.len(), set.warnings.len()), (1, 0));
    set_mode(elsewhere.path(), 0o777);
    let set = load_dir(dir.path(), LoadOptions::default()).unwrap();
    assert_eq!(set.warnings.len(), 1, "{:?}", set.warnings);
    assert_eq!(
        set.warnings[0].file,
        elsewhere.path().canonicalize().unwrap()
    );
}

#[test]
fn warnings_stay_beside_a_result() {
    check_spec(
        "  delegates: [ocr, ocr]\n  permissions:\n    read: { allow: [\"/srv/**\"] }\n    write:\n      allow: [/srv/out/**, /srv/a]\n      ask: [/srv/a]\n      deny: [/srv/b, /srv/b]\n    connect:\n      allow: [localhost:80, \"fd00::1:443\", \"*.com\"]\n  tests: [{ deny: \"write /srv/*\" }]\n",
        &expect![[r#"
            1 agents
            warning: agents.d/x.yaml:10:15: no manifest declares agent `ocr` in production
               |
            10 |   delegates: [ocr, ocr]
               |               ^^^
            help: until one does, starting it as a sub-agent is refused

            warning: agents.d/x.yaml:10:20: `ocr` is named twice in spec.delegates
               |
            10 |   delegates: [ocr, ocr]
               |                    ^^^
            help: remove one of them

            warning: agents.d/x.yaml:11:3: there are `ask` rules, and nobody is named who may decide
               |
            11 |   permissions:
               |   ^^^^^^^^^^^
            help: add `approvals: { approvers: [NAME] }` to spec, or each request is denied when it expires

            warning: agents.d/x.yaml:12:5: spec.permissions.read lists what is allowed, but what no rule names is allowed too
               |
            12 |     read: { allow: ["/srv/**"] }
               |     ^^^^
            help: add `default: deny` to allow the listed alone, or `default: allow` if this is meant

            warning: agents.d/x.yaml:15:13: `/srv/a` is under both `allow` and `ask`
               |
            15 |       ask: [/srv/a]
               |             ^^^^^^
            help: the strictest wins: the one on line 14 has no effect

            warning: agents.d/x.yaml:16:22: `/srv/b` is listed twice
               |
            16 |       deny: [/srv/b, /srv/b]
               |                      ^^^^^^
            help: it is already on line 16

            warning: agents.d/x.yaml:18:15: `localhost` is not asked of the DNS, so a rule with this name covers nothing
               |
            18 |       allow: [localhost:80, "fd00::1:443", "*.com"]
               |               ^^^^^^^^^^^^
            help: write the addresses: `127.0.0.1` and `[::1]`

            warning: agents.d/x.yaml:18:29: `fd00::1:443` is an IPv6 address as a whole, without a port
               |
            18 |       allow: [localhost:80, "fd00::1:443", "*.com"]
               |                             ^^^^^^^^^^^^^
            help: if 443 is meant as a port, write `[fd00::1]:443`

            warning: agents.d/x.yaml:18:44: `*.com` allows every name under a top-level domain
               |
            18 |       allow: [localhost:80, "fd00::1:443", "*.com"]
               |                                            ^^^^^^^
            help: name the domains that the agent needs

            warning: agents.d/x.yaml:19:19: a test asks about one path; `*` and `?` stand for themselves here
               |
            19 |   tests: [{ deny: "write /srv/*" }]
               |                   ^^^^^^^^^^^^^^
            help: write the path of one file
        "#]],
    );
}

#[test]
fn a_flood_of_errors_is_cut() {
    let rules = "        - x\n".repeat(1_000);
    let content = format!("{GOOD}  permissions:\n    read:\n      deny:\n{rules}");
    let dir = directory(&[("x.yaml", content.as_bytes())]);
    let errors = load_dir(dir.path(), LoadOptions::default()).unwrap_err();
    assert_eq!(errors.0.len(), 201);
    assert!(errors.to_string().contains("more than 200 problems"));
}

#[test]
fn named_files_need_no_suffix() {
    let dir = directory(&[("draft", GOOD.as_bytes())]);
    let set = load_paths(&[dir.path().join("draft")], LoadOptions::default()).unwrap();
    assert_eq!(set.manifests.len(), 1);
}

#[test]
fn diagnostics_serialise() {
    let dir = directory(&[("x.yaml", GOOD.replace("enforce", "enforced").as_bytes())]);
    let errors = load_dir(dir.path(), LoadOptions::default()).unwrap_err();
    let json = serde_json::to_string_pretty(&errors).unwrap();
    expect![[r#"
        [
          {
            "severity": "error",
            "file": "agents.d/x.yaml",
            "line": 9,
            "column": 9,
            "message": "spec.mode cannot be `enforced`",
            "help": "did you mean `enforce`?",
            "source_line": "  mode: enforced"
          }
        ]"#]]
    .assert_eq(&json.replace(dir.path().to_str().unwrap(), "agents.d"));
}

#[test]
fn what_is_too_much_over_all_files() {
    let rules = |verb: &str, rule: fn(usize) -> String, count: usize| {
        let rules: Vec<_> = (0..count).map(rule).collect();
        format!(
            "  permissions: {{ {verb}: {{ deny: [{}] }} }}\n",
            rules.join(",")
        )
    };
    let paths = format!("{GOOD}{}", rules("read", |n| format!("/p/{n}"), 16_385));
    let networks = format!(
        "{}{}",
        GOOD.replace("summarizer", "other"),
        rules("connect", |n| format!("a.example:{}", n + 1), 16_385)
    );
    let many: Vec<_> = (0..205)
        .map(|n| GOOD.replace("summarizer", &format!("agent-{n}")))
        .collect();
    let many = many.join("---\n");
    let numbered = |file: &str| many.replace("agent-", file);
    let dir = directory(&[
        ("a.yaml", paths.as_bytes()),
        ("b.yaml", networks.as_bytes()),
        ("c.yaml", numbered("c").as_bytes()),
        ("d.yaml", numbered("d").as_bytes()),
        ("e.yaml", numbered("e").as_bytes()),
        ("f.yaml", numbered("f").as_bytes()),
        ("g.yaml", numbered("g").as_bytes()),
    ]);
    expect![[r#"
        error: agents.d: the manifests hold 1027 agents; the limit over all agents is 1022
        help: remove agents that no longer run, or use patterns instead of lists

        error: agents.d: the manifests hold 16385 path rules; the limit over all agents is 16384
        help: remove agents that no longer run, or use patterns instead of lists

        error: agents.d: the manifests hold 16385 network rules; the limit over all agents is 16384
        help: remove agents that no longer run, or use patterns instead of lists
    "#]]
    .assert_eq(&output(dir.path(), LoadOptions::default()));
}

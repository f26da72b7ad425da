use expect_test::{Expect, expect};

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    read::parse(
        Path::new("/etc/agentguard/agentguard.yaml"),
        text.as_bytes(),
    )
    .map_err(|problems| problems.to_string())
}

fn refused(text: &str, expect: &Expect) {
    expect.assert_eq(&parse(text).unwrap_err());
}

#[test]
fn everything_has_a_default() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(parse("# agents_dir: /x\n\n").unwrap(), Config::default());
    assert_eq!(
        load(Path::new("/nonexistent.yaml"), false).unwrap(),
        Config::default()
    );
    let error = load(Path::new("/nonexistent.yaml"), true)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nonexistent.yaml: the configuration cannot be read"),
        "{error}"
    );
}

#[test]
fn every_key_is_read() {
    let text = "\
agents_dir: /a
state_dir: /s
runtime_dir: /r
pins_dir: /p
socket_group: 998
metrics:
  listen: '[::1]:9999'
  tls: { cert: /c, key: /k, client_ca: /ca }
resolver: { enabled: false, port: 5354, resolv_conf: /rc }
ledger: { fsync: interval, interval: 5s }
accept_degraded: [files, exec]
dormant_after: 7d
log: { level: debug, format: json }
mountinfo: /m
cgroup_root: /cg
slice: test.slice
";
    let expected = Config {
        agents_dir: "/a".into(),
        state_dir: "/s".into(),
        runtime_dir: "/r".into(),
        pins_dir: "/p".into(),
        socket_group: "998".into(),
        metrics: Some(Metrics {
            listen: "[::1]:9999".parse().unwrap(),
            tls: Some(tls::Files {
                cert: "/c".into(),
                key: "/k".into(),
                client_ca: Some("/ca".into()),
            }),
        }),
        resolver: Resolver {
            enabled: false,
            port: Some(5_354),
            resolv_conf: "/rc".into(),
        },
        fsync: Fsync::Interval(Duration::from_secs(5)),
        accept_degraded: BTreeSet::from(["exec".into(), "files".into()]),
        dormant_after: Duration::from_secs(7 * 86_400),
        log: Log {
            level: log::Level::Debug,
            format: log::Format::Json,
        },
        mountinfo: "/m".into(),
        cgroup_root: Some("/cg".into()),
        slice: "test.slice".into(),
    };
    assert_eq!(parse(text).unwrap(), expected);
}

/// The shipped file shows every setting, commented out, with its default.
#[test]
fn the_shipped_file_shows_the_defaults() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/agentguard.yaml");
    let shipped = std::fs::read_to_string(path).unwrap();
    assert_eq!(parse(&shipped).unwrap(), Config::default());
    let settings: String = shipped
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.is_empty() && (!line.starts_with(' ') || line.starts_with("  ")))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(parse(&settings).unwrap(), Config::default(), "{settings}");
    for key in read::KEYS {
        assert!(settings.contains(&format!("{key}:")), "{key} is not shown");
    }
}

#[test]
fn metrics_can_be_off() {
    assert_eq!(parse("metrics: null").unwrap().metrics, None);
    assert_eq!(parse("metrics: { listen: null }").unwrap().metrics, None);
    assert_eq!(
        parse("ledger: { fsync: never }").unwrap().fsync,
        Fsync::Never
    );
}

#[test]
fn the_command_line_wins() {
    let by = Overrides {
        state_dir: Some("/mine".into()),
        ..Overrides::default()
    };
    let config = parse("state_dir: /s\nagents_dir: /a")
        .unwrap()
        .overridden(by);
    assert_eq!(config.state_dir, Path::new("/mine"));
    assert_eq!(config.agents_dir, Path::new("/a"));
}

#[test]
fn all_problems_are_told_with_their_places() {
    refused(
        "\
agents-dir: /a
state_dir: relative
metrics: { listen: localhost, tls: { cert: /c } }
ledger: { fsync: sometimes }
log: { level: 3 }
slice: nothing
accept_degraded: files
",
        &expect![[r#"
            error: /etc/agentguard/agentguard.yaml:1:1: unknown key `agents-dir` in the configuration
              |
            1 | agents-dir: /a
              | ^^^^^^^^^^
            help: did you mean `agents_dir`?

            error: /etc/agentguard/agentguard.yaml:2:12: `relative` is not an absolute path
              |
            2 | state_dir: relative
              |            ^^^^^^^^
            help: the daemon has no directory of its own to start from: begin with `/`

            error: /etc/agentguard/agentguard.yaml:3:20: `localhost` is not an address with a port
              |
            3 | metrics: { listen: localhost, tls: { cert: /c } }
              |                    ^^^^^^^^^
            help: write it as 127.0.0.1:9470 or [::1]:9470, or null to serve no metrics

            error: /etc/agentguard/agentguard.yaml:3:31: missing key `key` in metrics.tls
              |
            3 | metrics: { listen: localhost, tls: { cert: /c } }
              |                               ^^^
            help: write `key: /path/of/key.pem`

            error: /etc/agentguard/agentguard.yaml:4:18: ledger.fsync cannot be `sometimes`
              |
            4 | ledger: { fsync: sometimes }
              |                  ^^^^^^^^^
            help: valid here: always, interval, never

            error: /etc/agentguard/agentguard.yaml:5:15: log.level must be text, not the number `3`
              |
            5 | log: { level: 3 }
              |               ^
            help: put it in quotes: "3"

            error: /etc/agentguard/agentguard.yaml:6:8: `nothing` is not the name of a slice
              |
            6 | slice: nothing
              |        ^^^^^^^
            help: write a name like agentguard.slice

            error: /etc/agentguard/agentguard.yaml:7:18: accept_degraded must be a list, not the text `files`
              |
            7 | accept_degraded: files
              |                  ^^^^^
            help: write a list: ["files"]"#]],
    );
}

#[test]
fn settings_that_contradict_each_other() {
    refused(
        "ledger: { fsync: always, interval: 5s }",
        &expect![[r#"
        error: /etc/agentguard/agentguard.yaml:1:26: ledger.interval has no meaning with this ledger.fsync
          |
        1 | ledger: { fsync: always, interval: 5s }
          |                          ^^^^^^^^
        help: remove it, or write `fsync: interval`"#]],
    );
    refused(
        "ledger: { interval: 2h }",
        &expect![[r#"
        error: /etc/agentguard/agentguard.yaml:1:21: `2h` is not between 1s and 1h
          |
        1 | ledger: { interval: 2h }
          |                     ^^"#]],
    );
    refused(
        "state_dir: /a\n---\nstate_dir: /b\n",
        &expect![[r#"
        error: /etc/agentguard/agentguard.yaml:3:1: the configuration is one document, and another begins here
          |
        3 | state_dir: /b
          | ^
        help: keep one of them"#]],
    );
}

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
ledger: { fsync: interval, interval: 5s }
accept_degraded: [files, exec]
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
        fsync: Fsync::Interval(Duration::from_secs(5)),
        accept_degraded: BTreeSet::from(["exec".into(), "files".into()]),
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
        &expect![[r#""#]],
    );
}

#[test]
fn settings_that_contradict_each_other() {
    refused("ledger: { fsync: always, interval: 5s }", &expect![[r#""#]]);
    refused("ledger: { interval: 2h }", &expect![[r#""#]]);
    refused("state_dir: /a\n---\nstate_dir: /b\n", &expect![[r#""#]]);
}

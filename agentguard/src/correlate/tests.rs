use agentguard_common::event::{Kind as RecordKind, NetTail, flag};
use agentguard_common::flow::{Flow, FlowKey, FlowSide, FlowState, NamedFlow};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Reason, Verdict};
use expect_test::{Expect, expect};

use super::*;
use crate::clock::Timestamp;
use crate::decode::decode;
use crate::kernel::RawRecord;
use crate::testing::{TAG, header, identity, net_record, path_record};

const RUN: Uuid = Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057);

/// A correlator that knows one run of `coder` and generation 1 of its policy.
fn correlator() -> Correlator {
    let mut correlator = Correlator::default();
    let mounts =
        b"22 1 0:8 / / rw - ext4 /dev/vda1 rw\n23 22 0:9 /data /mnt/data rw - ext4 /dev/vdb rw\n";
    correlator.learn_mounts(Arc::new(MountTable::parse(mounts).unwrap()));
    correlator.learn_policy(Arc::new(policy(1, "deny /srv/**")));
    correlator.learn_run(KnownRun {
        serial: TAG.run_serial,
        identity: Arc::new(identity("coder", RUN)),
        agent_version: "version-at-start".into(),
    });
    correlator
}

fn policy(generation: u32, text: &str) -> PolicyNames {
    let agent = AgentNames {
        index: TAG.agent,
        name: "coder".to_owned(),
        owner: "team@example.com".to_owned(),
        environment: "production".to_owned(),
        version: format!("version-{generation}").into(),
        rules: vec![RuleName {
            at: "coder.yaml:12".into(),
            text: text.into(),
        }],
    };
    PolicyNames::for_test(generation, vec![agent])
}

fn event(correlator: &mut Correlator, raw: &RawRecord) -> Option<Event> {
    let clock = Clock::booted_at(Timestamp::from_nanos(1_800_000_000_000_000_000));
    correlator.event(&decode(raw).unwrap(), clock)
}

fn check(correlator: &mut Correlator, raw: &RawRecord, expect: &Expect) {
    let event = event(correlator, raw).unwrap();
    expect.assert_eq(&serde_json::to_string_pretty(&event).unwrap());
}

#[test]
fn a_denied_path() {
    let raw = path_record(Verb::Write, Verdict::Deny, "/srv/payroll/a.csv");
    check(
        &mut correlator(),
        &raw,
        &expect![[r#"
        {
          "time": "2027-01-15T08:00:01.000000000Z",
          "seq": 0,
          "kind": "decision",
          "agent": "coder",
          "owner": "team@example.com",
          "environment": "production",
          "run": "01890a5d-ac96-774b-bcce-b302099a8057",
          "parent_run": null,
          "on_behalf_of": null,
          "task": "TICKET-1",
          "agent_version": "version-1",
          "run_seq": 1,
          "pid": 100,
          "tid": 101,
          "ppid": 99,
          "exe": null,
          "comm": "python3",
          "uid": 1000,
          "cgroup": 42,
          "verb": "write",
          "object": {
            "path": "/srv/payroll/a.csv",
            "device": 8,
            "inode": 4711
          },
          "verdict": "deny",
          "blocked": true,
          "mode": "enforce",
          "reason": "rule",
          "rule": "coder.yaml:12",
          "rule_text": "deny /srv/**",
          "policy_generation": 1,
          "count": 1
        }"#]],
    );
}

#[test]
fn a_denied_address() {
    let raw = net_record(Verb::Connect, Verdict::Deny, "192.0.2.7", 443);
    check(
        &mut correlator(),
        &raw,
        &expect![[r#"
        {
          "time": "2027-01-15T08:00:01.000000000Z",
          "seq": 0,
          "kind": "decision",
          "agent": "coder",
          "owner": "team@example.com",
          "environment": "production",
          "run": "01890a5d-ac96-774b-bcce-b302099a8057",
          "parent_run": null,
          "on_behalf_of": null,
          "task": "TICKET-1",
          "agent_version": "version-1",
          "run_seq": 1,
          "pid": 100,
          "tid": 101,
          "ppid": 99,
          "exe": null,
          "comm": "python3",
          "uid": 1000,
          "cgroup": 42,
          "verb": "connect",
          "object": {
            "address": "192.0.2.7",
            "port": 443,
            "protocol": "tcp",
            "name": null
          },
          "verdict": "deny",
          "blocked": true,
          "mode": "enforce",
          "reason": "rule",
          "rule": "coder.yaml:12",
          "rule_text": "deny /srv/**",
          "policy_generation": 1,
          "count": 1
        }"#]],
    );
}

#[test]
fn an_address_of_another_family() {
    let mut raw = net_record(Verb::Connect, Verdict::Deny, "::", 0);
    raw.tail[18..20].copy_from_slice(&16_u16.to_ne_bytes());
    raw.tail[20] = 2;
    let event = event(&mut correlator(), &raw).unwrap();
    let json = serde_json::to_value(&event).unwrap();
    expect![[r#"{"address":null,"family":16,"name":null,"port":0,"protocol":"6"}"#]]
        .assert_eq(&json["object"].to_string());
}

#[test]
fn exec_then_exit() {
    let mut correlator = correlator();
    let exec = RawRecord {
        header: header(RecordKind::Exec),
        tail: b"/usr/bin/curl".to_vec(),
    };
    check(
        &mut correlator,
        &exec,
        &expect![[r#"
        {
          "time": "2027-01-15T08:00:01.000000000Z",
          "seq": 0,
          "kind": "exec",
          "agent": "coder",
          "owner": "team@example.com",
          "environment": "production",
          "run": "01890a5d-ac96-774b-bcce-b302099a8057",
          "parent_run": null,
          "on_behalf_of": null,
          "task": "TICKET-1",
          "agent_version": "version-1",
          "run_seq": 1,
          "pid": 100,
          "tid": 101,
          "ppid": 99,
          "exe": "/usr/bin/curl",
          "comm": "python3",
          "uid": 1000,
          "cgroup": 42,
          "object": {
            "path": "/usr/bin/curl",
            "device": 8,
            "inode": 4711
          }
        }"#]],
    );
    let mut exit = RawRecord {
        header: header(RecordKind::Exit),
        tail: Vec::new(),
    };
    exit.header.code = 9;
    let json = serde_json::to_value(event(&mut correlator, &exit).unwrap()).unwrap();
    assert_eq!(json["exe"], "/usr/bin/curl");
    assert_eq!(
        (&json["exit_code"], &json["signal"]),
        (&serde_json::Value::Null, &9.into())
    );
    let denied = path_record(Verb::Write, Verdict::Deny, "/x");
    let json = serde_json::to_value(event(&mut correlator, &denied).unwrap()).unwrap();
    assert_eq!(json["exe"], serde_json::Value::Null);
}

#[test]
fn a_run_that_is_not_known_keeps_its_agent() {
    let mut correlator = Correlator::default();
    correlator.learn_policy(Arc::new(policy(1, "x")));
    let raw = path_record(Verb::Write, Verdict::Deny, "/x");
    let known_agent = event(&mut correlator, &raw).unwrap().identity.unwrap();
    assert_eq!(
        (known_agent.agent.as_str(), known_agent.run),
        ("coder", None)
    );
    let nothing = event(&mut Correlator::default(), &raw)
        .unwrap()
        .identity
        .unwrap();
    assert_eq!(nothing.agent, "unknown-0");
}

#[test]
fn the_rule_is_that_of_the_generation_that_decided() {
    let mut correlator = correlator();
    correlator.learn_policy(Arc::new(policy(2, "deny /new/**")));
    let mut raw = path_record(Verb::Write, Verdict::Deny, "/x");
    let rule_and_version = |correlator: &mut Correlator, raw: &RawRecord| {
        let json = serde_json::to_value(event(correlator, raw).unwrap()).unwrap();
        format!("{} {}", json["rule_text"], json["agent_version"])
    };
    assert_eq!(
        rule_and_version(&mut correlator, &raw),
        r#""deny /srv/**" "version-1""#
    );
    raw.header.generation = 2;
    assert_eq!(
        rule_and_version(&mut correlator, &raw),
        r#""deny /new/**" "version-2""#
    );
    raw.header.generation = 99;
    assert_eq!(
        rule_and_version(&mut correlator, &raw),
        r#"null "version-at-start""#
    );
}

#[test]
fn a_rule_index_beyond_the_table_names_no_rule() {
    let mut raw = path_record(Verb::Write, Verdict::Deny, "/x");
    raw.header.rule = u16::MAX;
    let json = serde_json::to_value(event(&mut correlator(), &raw).unwrap()).unwrap();
    assert_eq!(json["rule"], serde_json::Value::Null);
    assert_eq!(json["reason"], Reason::Rule.name());
}

#[test]
fn paths_that_are_not_text_keep_their_bytes() {
    let mut raw = path_record(Verb::Write, Verdict::Deny, "");
    raw.tail = b"/srv/\xff".to_vec();
    let json = serde_json::to_value(event(&mut correlator(), &raw).unwrap()).unwrap();
    assert_eq!(json["object"]["path"], "/srv/\u{fffd}");
    assert_eq!(json["object"]["path_hex"], "2f7372762fff");
}

#[test]
fn a_path_has_the_hosts_name() {
    let mut raw = path_record(Verb::Write, Verdict::Deny, "/data/x");
    raw.header.device = 9;
    let json = serde_json::to_value(event(&mut correlator(), &raw).unwrap()).unwrap();
    assert_eq!(json["object"]["path"], "/mnt/data/x");
    raw.header.flags = flag::ANONYMOUS;
    raw.tail = b"memfd:x".to_vec();
    let json = serde_json::to_value(event(&mut correlator(), &raw).unwrap()).unwrap();
    assert_eq!(json["object"]["path"], "memfd:x");
    assert_eq!(json["object"]["anonymous"], true);
}

#[test]
fn the_end_of_a_run_is_no_event_here_and_forgetting_it_forgets_its_processes() {
    let mut correlator = correlator();
    correlator.learn_process(TAG.run_serial, 100, "/usr/bin/python3");
    let ended = RawRecord {
        header: header(RecordKind::RunEnded),
        tail: Vec::new(),
    };
    assert!(event(&mut correlator, &ended).is_none());
    assert_eq!(correlator.run_id(TAG.run_serial), Some(RUN));
    correlator.forget_run(TAG.run_serial);
    assert_eq!(correlator.run_id(TAG.run_serial), None);
    let raw = path_record(Verb::Write, Verdict::Deny, "/x");
    assert_eq!(
        event(&mut correlator, &raw).unwrap().process.unwrap().exe,
        None
    );
}

#[test]
fn a_flow_has_its_place_its_names_and_its_bytes() {
    let mut correlator = correlator();
    correlator.learn_process(TAG.run_serial, 4711, "/usr/bin/curl");
    let given = ["192.0.2.7".parse().unwrap()];
    correlator.learn_name(TAG.run_serial, &"api.example".into(), &given);
    let mut named = NamedFlow {
        flow: Flow {
            first_ns: 1_000_000_000,
            last_ns: 3_500_000_000,
            sent: 100,
            received: 2_000,
            count: 2,
            agent: TAG.agent,
            generation: 1,
            pid: 4711,
            state: FlowState::Closed as u8,
            side: FlowSide::Outbound as u8,
            reserved: 0,
            with: NetTail {
                address: [0xc000_0207, 0, 0, 0],
                port: 443,
                family: 2,
                transport: 0,
                is_v4: 1,
                protocol: 6,
            },
        },
        name_len: 11,
        name: [0; 256],
    };
    named.name[..11].copy_from_slice(b"cdn.example");
    let key = FlowKey {
        run_serial: TAG.run_serial,
        what: 1,
    };
    let clock = Clock::booted_at(Timestamp::from_nanos(1_800_000_000_000_000_000));
    let event = correlator.flow(key, &named, clock);
    let expected = expect![[r#"
        {
          "time": "2027-01-15T08:00:03.500000000Z",
          "seq": 0,
          "kind": "flow",
          "agent": "coder",
          "owner": "team@example.com",
          "environment": "production",
          "run": "01890a5d-ac96-774b-bcce-b302099a8057",
          "parent_run": null,
          "on_behalf_of": null,
          "task": "TICKET-1",
          "agent_version": "version-1",
          "pid": 4711,
          "exe": "/usr/bin/curl",
          "object": {
            "address": "192.0.2.7",
            "port": 443,
            "protocol": "tcp",
            "name": "api.example",
            "server_name": "cdn.example"
          },
          "direction": "outbound",
          "state": "closed",
          "started": "2027-01-15T08:00:01.000000000Z",
          "duration_seconds": 2.5,
          "sent_bytes": 100,
          "received_bytes": 2000,
          "count": 2
        }"#]];
    expected.assert_eq(&serde_json::to_string_pretty(&event).unwrap());
}

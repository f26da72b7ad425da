use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::clock::Timestamp;
use crate::event::{Identity, Kind};
use crate::sinks::subscribers::{Filter, Scope};

fn options(directory: &Path) -> Options {
    Options {
        directory: directory.to_owned(),
        fsync: Fsync::Always,
        file_bytes: FILE_BYTES,
    }
}

fn open(options: Options) -> (Ledger, Recovered) {
    let live = HashSet::from([run_id()]);
    Ledger::open(options, &live).unwrap()
}

fn run_id() -> Uuid {
    Uuid::from_u128(7)
}

fn entry(seq: u64) -> Arc<Entry> {
    kind_of_entry(seq, Kind::Decision, Some(1))
}

fn kind_of_entry(seq: u64, kind: Kind, run_seq: Option<u64>) -> Arc<Entry> {
    let time = Timestamp::from_nanos(0);
    let verdict = if seq.is_multiple_of(2) {
        "deny"
    } else {
        "allow"
    };
    let line = serde_json::json!({
        "time": time, "seq": seq, "kind": kind, "agent": "coder", "run": run_id(),
        "run_seq": run_seq, "verdict": verdict, "pid": 100,
    });
    Arc::new(Entry {
        seq,
        kind,
        identity: Some(Arc::new(Identity {
            agent: "coder".to_owned(),
            owner: String::new(),
            environment: String::new(),
            run: Some(run_id()),
            parent_run: None,
            on_behalf_of: None,
            task: None,
            visible_to: None,
        })),
        verdict: None,
        stands_for: u64::from(run_seq.is_some()),
        line: format!("{line}\n").into_bytes().into(),
        then: None,
    })
}

fn records(directory: &Path) -> Vec<Value> {
    let files = recover::files(directory).unwrap();
    files
        .iter()
        .flat_map(|(_, path)| {
            let text = fs::read_to_string(path).unwrap();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect::<Vec<Value>>()
        })
        .collect()
}

fn seqs(directory: &Path) -> Vec<u64> {
    records(directory)
        .iter()
        .map(|record| record["seq"].as_u64().unwrap())
        .collect()
}

#[test]
fn numbers_and_counts_go_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, recovered) = open(options(dir.path()));
    assert_eq!(recovered.next_seq, 1);
    assert!((1..=3).all(|seq| ledger.offer(&entry(seq))));
    ledger.close();
    let (mut ledger, recovered) = open(options(dir.path()));
    assert_eq!(recovered.next_seq, 4);
    assert_eq!(recovered.recorded, HashMap::from([(run_id(), 3)]));
    assert!(ledger.offer(&entry(4)));
    ledger.close();
    assert_eq!(seqs(dir.path()), [1, 2, 3, 4]);
    let (_, path) = recover::files(dir.path()).unwrap().remove(0);
    assert_eq!(
        fs::metadata(path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn without_a_checkpoint_records_are_counted_anew_and_ended_runs_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = open(options(dir.path()));
    assert!((1..=3).all(|seq| ledger.offer(&entry(seq))));
    ledger.close();
    fs::remove_file(dir.path().join("checkpoint.json")).unwrap();
    let (mut ledger, recovered) = open(options(dir.path()));
    assert_eq!(recovered.recorded, HashMap::from([(run_id(), 3)]));
    assert!(ledger.offer(&kind_of_entry(4, Kind::RunEnded, None)));
    ledger.close();
    let (_, recovered) = open(options(dir.path()));
    assert!(recovered.recorded.is_empty());
}

/// Daemons that are killed soon after their start must not each count everything anew.
#[test]
fn what_was_counted_at_the_start_is_kept_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = dir.path().join("checkpoint.json");
    let (mut ledger, _) = open(options(dir.path()));
    assert!((1..=3).all(|seq| ledger.offer(&entry(seq))));
    ledger.close();
    fs::remove_file(&checkpoint).unwrap();
    let (ledger, _) = open(options(dir.path()));
    // The tests' harness bounds the time.
    while !checkpoint.exists() {
        std::thread::yield_now();
    }
    let kept: Value = serde_json::from_slice(&fs::read(&checkpoint).unwrap()).unwrap();
    assert_eq!(kept["seq"], 3);
    ledger.close();
}

#[test]
fn a_torn_record_is_removed_and_kept_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = open(options(dir.path()));
    assert!(ledger.offer(&entry(1)));
    ledger.close();
    let (_, path) = recover::files(dir.path()).unwrap().remove(0);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"time\":\"2026-").unwrap();
    let (mut ledger, recovered) = open(options(dir.path()));
    let torn = recovered.torn.unwrap();
    assert_eq!(
        (torn.bytes, torn.fragment.as_str()),
        (14, "{\"time\":\"2026-")
    );
    assert!(ledger.offer(&entry(recovered.next_seq)));
    ledger.close();
    assert_eq!(seqs(dir.path()), [1, 2]);
}

#[test]
fn a_file_that_is_one_torn_record_becomes_empty() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(recover::file_name(5)), vec![b'x'; 10_000]).unwrap();
    let (ledger, recovered) = open(options(dir.path()));
    assert_eq!(recovered.torn.unwrap().bytes, 10_000);
    assert_eq!(recovered.next_seq, 5);
    ledger.close();
}

#[test]
fn files_are_bounded_and_named_after_their_first_record() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options {
        file_bytes: 400,
        ..options(dir.path())
    };
    for seq in 1..=6 {
        let (mut ledger, recovered) = open(small.clone());
        assert_eq!(recovered.next_seq, seq);
        assert!(ledger.offer(&entry(seq)));
        ledger.close();
    }
    let files = recover::files(dir.path()).unwrap();
    assert!(files.len() > 1, "{files:?}");
    for (first, path) in &files {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.len() <= 400);
        let record: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(record["seq"], *first);
    }
    assert_eq!(seqs(dir.path()), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_the_queue_refuses_is_counted_and_told_later() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, entries) = sync_channel(2);
    let mut ledger = Ledger {
        queue,
        thread: None,
        health: Arc::new(Health::default()),
        missed: None,
    };
    let kept: Vec<bool> = (1..=5).map(|seq| ledger.offer(&entry(seq))).collect();
    assert_eq!(kept, [true, true, false, false, false]);
    assert_eq!(ledger.health().report().lost, 3);
    entries.recv().unwrap();
    entries.recv().unwrap();
    assert!(ledger.offer(&entry(6)));
    let note: Value = serde_json::from_slice(&entries.recv().unwrap().line).unwrap();
    assert_eq!(note["kind"], "records-lost");
    assert_eq!(
        (&note["lost"], &note["first_seq"], &note["last_seq"]),
        (&3.into(), &3.into(), &5.into())
    );
    assert_eq!(entries.recv().unwrap().seq, 6);
    drop(dir);
}

#[test]
fn allowed_operations_leave_room_for_denials() {
    let (queue, _entries) = sync_channel(QUEUE);
    let mut ledger = Ledger {
        queue,
        thread: None,
        health: Arc::new(Health::default()),
        missed: None,
    };
    let mut allowed = 0;
    while ledger.offer(&kind_of_entry(allowed, Kind::Exec, Some(1))) {
        allowed += 1;
    }
    assert_eq!(allowed, QUEUE as u64 - QUEUE_FOR_URGENT);
    assert!(ledger.offer(&kind_of_entry(allowed + 1, Kind::RunEnded, None)));
}

/// A device on which every write fails for want of room.
#[test]
fn a_full_disk_is_counted_and_shown_and_the_end_comes_in_time() {
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: there is no /dev/full");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = open(options(dir.path()));
    ledger.close();
    let path = dir.path().join(recover::file_name(1));
    let health = Arc::new(Health::default());
    let recovered = Recovered {
        next_seq: 1,
        file: Some(path.clone()),
        ..Recovered::default()
    };
    fs::remove_file(&path).unwrap();
    let mut writer = Writer::open(
        options(dir.path()),
        &recovered,
        HashMap::new(),
        Arc::clone(&health),
    )
    .unwrap();
    writer.write_to(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let (queue, entries) = sync_channel(8);
    queue.send(entry(1)).unwrap();
    drop(queue);
    health.ending.store(true, Ordering::Relaxed);
    writer.run(&entries);
    let report = health.report();
    assert!(!report.healthy);
    assert_eq!((report.records, report.lost), (0, 1));
    assert!(report.errors > 0);
    assert!(report.last_error.unwrap().contains("No space left"));
    ledger = open(options(dir.path())).0;
    ledger.close();
}

#[test]
fn the_newest_records_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options {
        file_bytes: 400,
        ..options(dir.path())
    };
    for seq in 1..=9 {
        let (mut ledger, _) = open(small.clone());
        assert!(ledger.offer(&entry(seq)));
        ledger.close();
    }
    let read = |last: usize, filter: Filter| -> Vec<u64> {
        let lines = tail(dir.path(), &Selection { filter, last }).unwrap();
        let seq = |line: &Vec<u8>| serde_json::from_slice::<Value>(line).unwrap()["seq"].as_u64();
        lines.iter().map(|line| seq(line).unwrap()).collect()
    };
    assert_eq!(read(3, Filter::default()), [7, 8, 9]);
    let denied = Filter {
        verdict: Some(agentguard_common::verdict::Verdict::Deny),
        ..Filter::default()
    };
    assert_eq!(read(3, denied), [4, 6, 8]);
    let of_another = Filter {
        scope: Scope::Run(Uuid::from_u128(8)),
        ..Filter::default()
    };
    assert!(read(3, of_another).is_empty());
    let agent = Filter {
        agent: Some("coder".into()),
        run: Some(run_id()),
        ..Filter::default()
    };
    assert_eq!(read(100, agent), (1..=9).collect::<Vec<u64>>());
}

//! Wrong manifests: each a clear error with its place, all of a set at once.

use std::fs;

use agentguard_tests::manifest::Manifest;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::any;

pub const TESTS: &[Test] = &[
    any("bad_input::all_errors_of_a_set_at_once", all_errors_at_once),
    any("bad_input::unreadable_places", unreadable_places),
    any(
        "bad_input::the_daemon_refuses_what_check_refuses",
        daemon_refuses,
    ),
];

/// The manifest to be spoilt: a line each, as people write them.
const GOOD: &str = "\
apiVersion: agentguard/v1
kind: Agent
metadata:
  name: NAME
spec:
  owner: tests@example.com
  environment: development
  authority: service
  mode: enforce
  permissions:
    connect:
      allow: [\"127.0.0.1:80\"]
    write:
      allow: [\"/srv/out/**\"]
";

/// File, what is replaced by what, and the line and a part of the error.
const SPOILT: [(&str, &str, &str, u64, &str); 7] = [
    (
        "key",
        "    connect:",
        "    conect:",
        11,
        "did you mean `connect`",
    ),
    ("type", "mode: enforce", "mode: [enforce]", 9, ""),
    ("glob", "/srv/out/**", "/srv/**.pem", 14, ""),
    (
        "cidr",
        "127.0.0.1:80",
        "10.20.1.0/16",
        12,
        "has bits set after its prefix",
    ),
    ("port", "127.0.0.1:80", "127.0.0.1:70000", 12, "70000"),
    ("name", "name: name", "name: a b/c", 4, ""),
    ("relative", "/srv/out/**", "srv/out/**", 14, ""),
];

fn all_errors_at_once(suite: &mut Suite) -> Result<()> {
    let directory = suite.places.fresh("bad")?;
    let write = |file: &str, text: &[u8]| fs::write(directory.join(format!("{file}.yaml")), text);
    for (file, from, to, _, _) in SPOILT {
        let text = GOOD.replace("NAME", file);
        ensure!(text.contains(from), "{file}: {from} is not in the manifest");
        write(file, text.replace(from, to).as_bytes())?;
    }
    write("twin-a", GOOD.replace("NAME", "twin").as_bytes())?;
    write("twin-b", GOOD.replace("NAME", "twin").as_bytes())?;
    write("empty", b"")?;
    write("latin", b"apiVersion: agentguard/v1\nkind: \xe9\n")?;
    write("broken", b"apiVersion: agentguard/v1\nkind: [Agent\n")?;
    fs::File::create(directory.join("huge.yaml"))?.set_len(50 << 20)?;
    let path = directory.to_string_lossy();
    let report = suite.daemon.cli(&["policy", "check", "--json", &path])?;
    ensure!(report.status.code() == Some(5), "{report:?}");
    let report: Value = serde_json::from_slice(&report.stdout)?;
    ensure!(report["ok"] == false, "{report}");
    let problems = report["diagnostics"].as_array().context("no diagnostics")?;
    let about = |file: &str| -> Result<&Value> {
        let name = format!("/{file}.yaml");
        problems
            .iter()
            .filter(|problem| problem["severity"] == "error")
            .find(|problem| {
                problem["file"]
                    .as_str()
                    .is_some_and(|file| file.ends_with(&name))
            })
            .with_context(|| format!("nothing about {file}: {report:#}"))
    };
    for (file, _, _, line, part) in SPOILT {
        let problem = about(file)?;
        let said = format!("{} {}", problem["message"], problem["help"]);
        ensure!(
            problem["line"] == line && problem["column"].is_u64(),
            "{file}: {problem}"
        );
        ensure!(said.contains(part), "{file}: {said}");
    }
    for file in ["twin-b", "empty", "latin", "broken", "huge"] {
        about(file)?;
    }
    // For people, with the place and the line shown.
    let text = suite.daemon.cli_ends(&["policy", "check", &path], 5)?;
    ensure!(
        text.contains("key.yaml:11:5: unknown key `conect`"),
        "{text}"
    );
    fs::remove_dir_all(&directory)?;
    Ok(())
}

fn unreadable_places(suite: &mut Suite) -> Result<()> {
    let absent = suite.places.at("no-such-directory");
    let said = suite.daemon.cli_ends(&["policy", "check", &absent], 5)?;
    ensure!(said.contains(&absent), "{said}");
    let good = suite.places.at("agents");
    suite.daemon.cli_ends(&["policy", "check", &good], 0)?;
    suite.daemon.cli_ends(&["run", "--agent", "worker"], 2)?;
    suite.daemon.cli_ends(&["runs", "show", "no-uuid"], 2)?;
    Ok(())
}

fn daemon_refuses(suite: &mut Suite) -> Result<()> {
    let file = suite.places.at("agents/key.yaml");
    fs::write(
        &file,
        GOOD.replace("NAME", "key").replace("connect:", "conect:"),
    )?;
    let said = suite.daemon.cli_ends(&["policy", "reload"], 1);
    let status = suite.daemon.json(&["status", "--json"]);
    fs::remove_file(&file)?;
    ensure!(said?.contains("key.yaml:11:5: unknown key `conect`"));
    let problems = status?["policy"]["problems"].to_string();
    ensure!(problems.contains("key.yaml:11:5"), "{problems}");
    // Gone with the file.
    suite.install(&Manifest::new("spare", "enforce"))?;
    suite.reload()?;
    fs::remove_file(suite.places.at("agents/spare.yaml"))?;
    suite.reload()
}

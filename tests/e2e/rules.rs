//! Many rules decide as few do, and change in one instant.

use agentguard_tests::manifest::Manifest;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::lsm;

pub const TESTS: &[Test] = &[
    lsm("rules::ten_thousand_decide_right", ten_thousand),
    lsm("rules::a_reload_is_one_instant", one_instant),
];

const RULES: usize = 10_000;

/// Literal rules, some with patterns, and denials inside of allowances.
fn many(suite: &Suite) -> Vec<String> {
    let at = |path: String| suite.places.at(&path);
    (0..RULES)
        .map(|index| match index % 100 {
            0 => at(format!("many/d{index}/**")),
            1 => at(format!("many/g{index}/part-*.txt")),
            2 => at(format!("many/q{index}/?/file")),
            _ => at(format!("many/l{index}/file")),
        })
        .collect()
}

fn ten_thousand(suite: &mut Suite) -> Result<()> {
    let denied = vec![suite.places.at("many/d100/except/**")];
    let manifest = Manifest::new("many", "enforce")
        .rules("write", "allow", &many(suite))
        .rules("write", "deny", &denied);
    suite.install(&manifest)?;
    suite.reload()?;
    let mut tagged = suite.tagged("many")?;
    let checks = [
        ("d0/x/y/z", true),
        ("d9900/file", true),
        ("d100/a/file", true),
        ("d100/except/file", false),
        ("d10/file", false),
        ("g101/part-7.txt", true),
        ("g101/part-.txt", true),
        ("g101/part-7.tx", false),
        ("g9901/below/part-7.txt", false),
        ("q202/a/file", true),
        ("q202/ab/file", false),
        ("l3/file", true),
        ("l5555/file", true),
        ("l9999/file", true),
        ("l9999/file2", false),
        ("l10003/file", false),
        ("unrelated/file", false),
    ];
    for (path, allowed) in checks {
        let path = suite.places.file(&format!("many/{path}"))?;
        let request = json!({ "op": "open_write", "path": path });
        if allowed {
            tagged.may(&request)?;
        } else {
            tagged.must_not(&request)?;
        }
    }
    Ok(())
}

/// A file that every generation allows, one that none does, and one that changes:
/// the first two are never judged wrong while generations change.
fn one_instant(suite: &mut Suite) -> Result<()> {
    let always = suite.places.file("always/file")?;
    let never = suite.places.file("never/file")?;
    let changing = suite.places.file("changing/file")?;
    let manifest = |suite: &Suite, changing: bool| {
        let mut rules = vec![suite.places.at("always/**")];
        // Two generations whose tables have nothing in common but these names.
        if changing {
            rules.extend(many(suite).into_iter().take(2_000));
            rules.push(suite.places.at("changing/**"));
        } else {
            rules.insert(0, suite.places.at("changing/other"));
        }
        Manifest::new("changing", "enforce").rules("write", "allow", &rules)
    };
    suite.install(&manifest(suite, true))?;
    suite.reload()?;
    let hammer = suite.hammer("changing", (2, 2_000), &[always, never, changing])?;
    for round in 0..6 {
        suite.install(&manifest(suite, round % 2 == 1))?;
        suite.reload()?;
    }
    let tallies = hammer.finish()?;
    for file in ["changing", "many"] {
        let _ = std::fs::remove_file(suite.places.at(&format!("agents/{file}.yaml")));
    }
    suite.reload()?;
    let count = |index: usize, what: &str| tallies[index][what].as_u64().context("no tally");
    ensure!(
        count(0, "opened")? > 100 && count(0, "refused")? == 0,
        "always allowed: {tallies}"
    );
    ensure!(
        count(1, "refused")? > 100 && count(1, "opened")? == 0,
        "never allowed: {tallies}"
    );
    ensure!(
        count(2, "refused")? > 0 && count(2, "opened")? > 0,
        "no change was seen: {tallies}"
    );
    for index in 0..3 {
        ensure!(count(index, "other")? == 0, "another error: {tallies}");
    }
    Ok(())
}

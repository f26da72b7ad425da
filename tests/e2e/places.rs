//! What the kernel programs keep about directories and files does not outlive a rename, by
//! whomever, nor another file of the name: the next operation is judged by what is there.

use std::fs;

use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use anyhow::Result;
use serde_json::json;

use crate::lsm;

pub const TESTS: &[Test] = &[
    lsm(
        "places::a_renamed_directory_is_judged_by_its_new_name",
        renamed,
    ),
    lsm(
        "places::a_new_directory_of_an_old_name_is_judged_anew",
        replaced,
    ),
    lsm(
        "places::a_renamed_file_is_judged_by_its_new_name",
        renamed_file,
    ),
    lsm(
        "places::a_file_with_a_second_name_is_judged_by_both",
        second_name,
    ),
    lsm(
        "places::what_was_decided_is_decided_for_one_agent_and_one_operation",
        for_one_agent,
    ),
    lsm(
        "places::a_directory_with_rules_below_it_stays_where_it_is",
        ruled_below,
    ),
];

/// Times that each is tried: what is kept is used from the second time on.
const ROUNDS: usize = 20;

fn renamed(suite: &mut Suite) -> Result<()> {
    suite.places.fresh("ok/moving/deep")?;
    suite.places.fresh("no/moving")?;
    suite.places.file("ok/moving/deep/file")?;
    to_and_fro(suite, "moving/deep", "moving/deep/file")
}

fn renamed_file(suite: &mut Suite) -> Result<()> {
    suite.places.file("ok/renamed-file")?;
    to_and_fro(suite, "renamed-file", "renamed-file")
}

/// Moves something between the allowed and the denied tree, by an untagged process (nobody asks
/// AgentGuard), while an agent writes to a file in it.
fn to_and_fro(suite: &mut Suite, moved: &str, file: &str) -> Result<()> {
    let at = |tree: &str, name: &str| suite.places.at(&format!("{tree}/{name}"));
    let write = |tree: &str| json!({ "op": "open_write", "path": at(tree, file) });
    let mut tagged = suite.tagged("worker")?;
    for _ in 0..ROUNDS {
        tagged.may(&write("ok"))?;
        tagged.may(&write("ok"))?;
        fs::rename(at("ok", moved), at("no", moved))?;
        tagged.must_not(&write("no"))?;
        tagged.must_not(&write("no"))?;
        fs::rename(at("no", moved), at("ok", moved))?;
    }
    tagged.may(&write("ok"))?;
    Ok(())
}

fn second_name(suite: &mut Suite) -> Result<()> {
    let (yes, no) = (
        suite.places.at("ok/second-name"),
        suite.places.at("no/second-name"),
    );
    let write = |path: &str| json!({ "op": "open_write", "path": path });
    let mut tagged = suite.tagged("worker")?;
    for _ in 0..ROUNDS {
        fs::write(&yes, "")?;
        tagged.may(&write(&yes))?;
        tagged.may(&write(&yes))?;
        // Its name says another thing than the one that was asked about.
        fs::hard_link(&yes, &no)?;
        tagged.must_not(&write(&no))?;
        fs::remove_file(&yes)?;
        tagged.must_not(&write(&no))?;
        fs::remove_file(&no)?;
    }
    Ok(())
}

fn for_one_agent(suite: &mut Suite) -> Result<()> {
    let path = suite.places.file("ok/for-one-agent")?;
    let (read, write) = (
        json!({ "op": "open_read", "path": path }),
        json!({ "op": "open_write", "path": path }),
    );
    suite.install(&suite.ruled("other", "enforce").rules(
        "write",
        "deny",
        std::slice::from_ref(&path),
    ))?;
    suite.reload()?;
    let mut worker = suite.tagged("worker")?;
    let mut other = suite.tagged("other")?;
    for _ in 0..ROUNDS {
        worker.may(&write)?;
        other.must_not(&write)?;
        other.may(&read)?;
        worker.may(&read)?;
    }
    drop(other);
    suite.remove("other")
}

fn replaced(suite: &mut Suite) -> Result<()> {
    suite.places.fresh("ok/replaced")?;
    suite.places.fresh("no/replaced")?;
    let (yes, no) = (
        suite.places.at("ok/replaced/d"),
        suite.places.at("no/replaced/d"),
    );
    let write =
        |directory: &str| json!({ "op": "open_write", "path": format!("{directory}/file") });
    let mut tagged = suite.tagged("worker")?;
    // File systems give the number of a removed directory to the next one.
    for _ in 0..ROUNDS {
        fs::create_dir(&yes)?;
        fs::write(format!("{yes}/file"), "")?;
        tagged.may(&write(&yes))?;
        fs::remove_dir_all(&yes)?;
        fs::create_dir(&no)?;
        fs::write(format!("{no}/file"), "")?;
        tagged.must_not(&write(&no))?;
        fs::remove_dir_all(&no)?;
    }
    Ok(())
}

fn ruled_below(suite: &mut Suite) -> Result<()> {
    suite.places.fresh("ok/ruled/kept")?;
    suite.places.fresh("ok/ruled/free")?;
    let before = suite.ruled("worker", "enforce");
    let ruled = before.clone().rules(
        "write",
        "deny",
        &[suite.places.at("ok/ruled/kept/secret/**")],
    );
    let rename = |from: &str, to: &str| json!({ "op": "rename", "path": suite.places.at(from), "to": suite.places.at(to) });
    let (kept, free) = (
        rename("ok/ruled/kept", "ok/ruled/moved"),
        rename("ok/ruled/free", "ok/ruled/moved"),
    );
    let mut tagged = suite.tagged("worker")?;
    suite.install(&ruled)?;
    suite.reload()?;
    tagged.must_not(&kept)?;
    tagged.may(&free)?;
    suite.install(&before)?;
    suite.reload()
}

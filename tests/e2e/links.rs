//! Hard links: the strictest of what a file's names say decides, whichever is used.

use std::fs;

use agentguard_tests::agent::Agent;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait::until;
use anyhow::Result;
use serde_json::{Value, json};

use crate::lsm;

pub const TESTS: &[Test] = &[
    lsm(
        "links::made_by_others_is_judged_by_its_strictest_name",
        made,
    ),
    lsm("links::made_before_the_policy_is_judged_by_it", before),
];

fn read(path: &str) -> Value {
    json!({ "op": "open_read", "path": path })
}

fn write(path: &str) -> Value {
    json!({ "op": "open_write", "path": path })
}

/// The daemon hears of a link after it was made.
fn is_refused(tagged: &mut Agent, request: &Value) -> Result<()> {
    until("the link is refused", || {
        Ok((tagged.ask(request)?["ok"] != true).then_some(()))
    })?;
    tagged.must_not(request)
}

fn made(suite: &mut Suite) -> Result<()> {
    suite.places.fresh("ok/links")?;
    suite.places.fresh("no/links")?;
    let secret = suite.places.file("secret/linked")?;
    let plain = suite.places.file("no/links/plain")?;
    let free = suite.places.file("ok/links/free")?;
    let mut tagged = suite.tagged("worker")?;
    let at = |name: &str| suite.places.at(&format!("ok/links/{name}"));
    let (of_secret, of_plain, of_free) = (at("of-secret"), at("of-plain"), at("of-free"));
    // By an untagged process: nobody asks AgentGuard.
    fs::hard_link(&secret, &of_secret)?;
    fs::hard_link(&plain, &of_plain)?;
    fs::hard_link(&free, &of_free)?;
    is_refused(&mut tagged, &read(&of_secret))?;
    // No rule is about its first name, so the default for writing is.
    is_refused(&mut tagged, &write(&of_plain))?;
    tagged.may(&read(&of_plain))?;
    // Both names are free.
    tagged.may(&write(&of_free))?;
    tagged.may(&write(&free))?;
    // What is left when the other name is gone.
    fs::remove_file(&secret)?;
    tagged.may(&read(&of_secret))?;
    // A name may be removed whatever the others say.
    tagged.may(&json!({ "op": "unlink", "path": of_plain }))?;
    Ok(())
}

fn before(suite: &mut Suite) -> Result<()> {
    suite.places.fresh("later")?;
    suite.places.fresh("ok/later")?;
    let first = suite.places.file("later/file")?;
    let alias = suite.places.at("ok/later/alias");
    fs::hard_link(&first, &alias)?;
    let twin = suite.places.file("ok/later/twin")?;
    fs::hard_link(&twin, suite.places.at("ok/later/other"))?;
    let rules = [suite.places.at("secret/**"), suite.places.at("later/**")];
    let manifest = suite
        .ruled("listed", "enforce")
        .rules("read", "deny", &rules);
    suite.install(&manifest)?;
    suite.reload()?;
    let mut tagged = suite.tagged("listed")?;
    is_refused(&mut tagged, &read(&alias))?;
    tagged.may(&read(&twin))?;
    suite.install(&suite.ruled("listed", "enforce").users(&["nobody"]))?;
    suite.reload()
}

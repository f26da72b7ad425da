//! Other names of a file lead to the verdict of its real name, both ways.

use std::path::{Path, PathBuf};

use agentguard_tests::agent::Agent;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::lsm;

pub const TESTS: &[Test] = &[
    lsm("aliases::symbolic_links", symbolic_links),
    lsm("aliases::bind_mounts", bind_mounts),
    lsm("aliases::chroot", chroot),
    lsm("aliases::proc", proc),
    lsm("aliases::private_mounts", private_mounts),
    lsm("aliases::working_directory", working_directory),
];

/// A file in the allowed and one in the denied tree.
struct Twins {
    ok: String,
    no: String,
}

fn twins(suite: &Suite) -> Result<Twins> {
    suite.places.fresh("ok/alias")?;
    suite.places.fresh("no/alias")?;
    Ok(Twins {
        ok: suite.places.file("ok/alias/sub/file")?,
        no: suite.places.file("no/alias/sub/file")?,
    })
}

fn open(path: impl AsRef<Path>) -> Value {
    json!({ "op": "open_write", "path": path.as_ref() })
}

/// Names to create, beside the file's name: creating is judged by the real name too.
fn create(path: impl AsRef<Path>) -> Value {
    json!({ "op": "create", "path": path.as_ref() })
}

fn symbolic_links(suite: &mut Suite) -> Result<()> {
    let files = twins(suite)?;
    let to_denied = suite.places.at("ok/alias/link");
    let to_allowed = suite.places.at("no/alias/link");
    std::os::unix::fs::symlink(&files.no, &to_denied)?;
    std::os::unix::fs::symlink(&files.ok, &to_allowed)?;
    let mut tagged = suite.tagged("worker")?;
    tagged.must_not(&open(&to_denied))?;
    tagged.may(&open(&to_allowed))?;
    suite.untagged()?.may(&open(&to_denied))?;
    Ok(())
}

/// A bind mount that goes when it is dropped.
struct Bind(PathBuf);

impl Bind {
    fn make(from: impl AsRef<Path>, to: PathBuf) -> Result<Self> {
        let none: Option<&str> = None;
        mount(Some(from.as_ref()), &to, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("bind mount on {}", to.display()))?;
        Ok(Self(to))
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn bind_mounts(suite: &mut Suite) -> Result<()> {
    let files = twins(suite)?;
    let denied_in_allowed = suite.places.fresh("ok/alias/bound")?;
    let allowed_in_denied = suite.places.fresh("no/alias/bound")?;
    let mut before = suite.tagged("worker")?;
    let _one = Bind::make(suite.places.at("no/alias/sub"), denied_in_allowed.clone())?;
    let _two = Bind::make(suite.places.at("ok/alias/sub"), allowed_in_denied.clone())?;
    let mut after = suite.tagged("worker")?;
    for tagged in [&mut before, &mut after] {
        tagged.must_not(&open(denied_in_allowed.join("file")))?;
        tagged.must_not(&create(denied_in_allowed.join("new")))?;
        tagged.may(&open(allowed_in_denied.join("file")))?;
        tagged.must_not(&open(&files.no))?;
        tagged.may(&open(&files.ok))?;
    }
    before.may(&create(allowed_in_denied.join("new")))?;
    let mut free = suite.untagged()?;
    free.may(&open(denied_in_allowed.join("file")))?;
    free.may(&create(denied_in_allowed.join("new")))?;
    Ok(())
}

fn in_chroot(agent: &mut Agent, root: &str, path: &str, allowed: bool) -> Result<()> {
    let request = json!({
        "op": "in_chroot", "directory": root,
        "operation": "open_write", "arguments": { "path": path },
    });
    if allowed {
        agent.may(&request).map(|_| ())
    } else {
        agent.must_not(&request)
    }
}

fn chroot(suite: &mut Suite) -> Result<()> {
    twins(suite)?;
    let root = suite.places.at("");
    let ok = suite.places.at("ok");
    let no = suite.places.at("no");
    // Below the denied tree, a tree that is named as the allowed one is on the host.
    let imitation = suite.places.file(&format!("no/alias{ok}/file"))?;
    let mut tagged = suite.tagged("worker")?;
    in_chroot(&mut tagged, &root, "/ok/alias/sub/file", true)?;
    in_chroot(&mut tagged, &root, "/no/alias/sub/file", false)?;
    in_chroot(&mut tagged, &ok, "/alias/sub/file", true)?;
    in_chroot(&mut tagged, &no, "/alias/sub/file", false)?;
    let inside = imitation
        .strip_prefix(&suite.places.at("no/alias"))
        .context("the imitation is elsewhere")?
        .to_owned();
    in_chroot(&mut tagged, &suite.places.at("no/alias"), &inside, false)?;
    let mut free = suite.untagged()?;
    in_chroot(&mut free, &no, "/alias/sub/file", true)?;
    Ok(())
}

fn proc(suite: &mut Suite) -> Result<()> {
    let files = twins(suite)?;
    let mut tagged = suite.tagged("worker")?;
    let mut free = suite.untagged()?;
    for root in [
        "/proc/self/root",
        "/proc/thread-self/root",
        "/proc/self/cwd/../../../../../..",
    ] {
        tagged.may(&open(format!("{root}{}", files.ok)))?;
        tagged.must_not(&open(format!("{root}{}", files.no)))?;
        free.may(&open(format!("{root}{}", files.no)))?;
    }
    let below = |directory: &str| {
        let directory = suite.places.at(directory);
        json!({
            "op": "through_descriptor", "directory": directory,
            "operation": "open_write", "name": "file",
        })
    };
    tagged.may(&below("ok/alias/sub"))?;
    tagged.must_not(&below("no/alias/sub"))?;
    Ok(())
}

fn private_mounts(suite: &mut Suite) -> Result<()> {
    twins(suite)?;
    let at = |path: &str| suite.places.at(path);
    suite.places.fresh("ok/alias/bound")?;
    suite.places.fresh("no/alias/bound")?;
    let request = |from: &str, to: &str| {
        json!({
            "op": "in_own_mounts", "source": at(from), "target": at(to),
            "operation": "open_write", "arguments": { "path": at(&format!("{to}/file")) },
        })
    };
    let denied_in_allowed = request("no/alias/sub", "ok/alias/bound");
    let allowed_in_denied = request("ok/alias/sub", "no/alias/bound");
    let mut tagged = suite.tagged("worker")?;
    tagged.must_not(&denied_in_allowed)?;
    tagged.may(&allowed_in_denied)?;
    suite.untagged()?.may(&denied_in_allowed)?;
    Ok(())
}

fn working_directory(suite: &mut Suite) -> Result<()> {
    twins(suite)?;
    let mut tagged = suite.tagged("worker")?;
    for (tree, allowed) in [("ok", true), ("no", false)] {
        for path in ["file", "../sub/file"] {
            let request = json!({
                "op": "within", "directory": suite.places.at(&format!("{tree}/alias/sub")),
                "operation": "open_write", "arguments": { "path": path },
            });
            if allowed {
                tagged.may(&request)?;
            } else {
                tagged.must_not(&request)?;
            }
        }
    }
    Ok(())
}

//! Every operation on a path: allowed in the allowed tree, refused before its effect
//! elsewhere, and no matter for others.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::lsm;

pub const TESTS: &[Test] = &[
    lsm("files::operations_on_names", operations_on_names),
    lsm("files::two_names_need_both", two_names_need_both),
    lsm("files::deny_wins_inside_the_allowed_tree", deny_wins),
    lsm("files::reading_what_is_denied", reading),
    lsm("files::reading_what_is_protected", protected),
    lsm("files::executing_what_is_denied", executing),
    lsm("files::other_file_systems", other_file_systems),
];

/// Operations on `{path}`, which is there as a file (`f`), a directory (`d`) or not
/// at all (`-`) before.
const OPERATIONS: [(&str, char); 19] = [
    ("open_write", 'f'),
    ("open_both", 'f'),
    ("open_append", 'f'),
    ("open_truncate", 'f'),
    ("create", '-'),
    ("create_or_open", '-'),
    ("create_or_open", 'f'),
    ("create_unnamed", 'd'),
    ("mkdir", '-'),
    ("unlink", 'f'),
    ("rmdir", 'd'),
    ("truncate", 'f'),
    ("chmod", 'f'),
    ("chown", 'f'),
    ("lchown", 'f'),
    ("mkfifo", '-'),
    ("mknod_device", '-'),
    ("bind_unix", '-'),
    ("symlink", '-'),
];

fn request(operation: &str, path: &Path) -> Value {
    let path = path.to_string_lossy();
    match operation {
        "chmod" => json!({ "op": operation, "path": path, "mode": 0o600 }),
        "symlink" => json!({ "op": operation, "path": "/etc/hostname", "to": path }),
        _ => json!({ "op": operation, "path": path }),
    }
}

fn prepare(path: &Path, what: char) -> Result<()> {
    match what {
        'f' => fs::write(path, "content\n")?,
        'd' => fs::create_dir(path)?,
        _ => {}
    }
    Ok(())
}

/// What can be seen of a tree.
fn picture(directory: &Path) -> Result<BTreeMap<String, (u32, u64, u32, u64)>> {
    let mut seen = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        // The size of a directory may change with its file system's mood.
        let size = if meta.is_dir() { 0 } else { meta.len() };
        let facts = (meta.mode(), size, meta.uid(), meta.nlink());
        seen.insert(path.to_string_lossy().into_owned(), facts);
        if meta.is_dir() {
            seen.extend(picture(&path)?);
        }
    }
    Ok(seen)
}

fn operations_on_names(suite: &mut Suite) -> Result<()> {
    let mut tagged = suite.tagged("worker")?;
    let mut free = suite.untagged()?;
    for (operation, what) in OPERATIONS {
        let at = |tree: &str| -> Result<_> {
            let directory = suite.places.fresh(&format!("{tree}/operations"))?;
            prepare(&directory.join("object"), what)?;
            Ok(directory)
        };
        let ok = at("ok")?;
        tagged.may(&request(operation, &ok.join("object")))?;
        let no = at("no")?;
        let before = picture(&no)?;
        tagged.must_not(&request(operation, &no.join("object")))?;
        let after = picture(&no)?;
        ensure!(
            before == after,
            "refused {operation} left a trace: {before:?} {after:?}"
        );
        free.may(&request(operation, &no.join("object")))?;
    }
    Ok(())
}

/// Operations with two names: allowed where both are in the allowed tree.
fn two_names_need_both(suite: &mut Suite) -> Result<()> {
    let mut tagged = suite.tagged("worker")?;
    let mut free = suite.untagged()?;
    for operation in ["rename", "link", "exchange"] {
        for (from, to, allowed) in [
            ("ok", "ok", true),
            ("ok", "no", false),
            ("no", "ok", false),
            ("no", "no", false),
        ] {
            let ok = suite.places.fresh("ok/two")?;
            let no = suite.places.fresh("no/two")?;
            let path = |tree: &str, name: &str| {
                if tree == "ok" {
                    ok.join(name)
                } else {
                    no.join(name)
                }
            };
            let (source, target) = (path(from, "source"), path(to, "target"));
            fs::write(&source, "content\n")?;
            if operation == "exchange" {
                fs::write(&target, "other\n")?;
            }
            let request = json!({ "op": operation, "path": source, "to": target });
            if allowed {
                tagged.may(&request)?;
                continue;
            }
            let before = (picture(&ok)?, picture(&no)?);
            tagged.must_not(&request)?;
            ensure!(
                before == (picture(&ok)?, picture(&no)?),
                "refused {request} left a trace"
            );
            free.may(&request)?;
        }
    }
    Ok(())
}

fn deny_wins(suite: &mut Suite) -> Result<()> {
    let denied = suite.places.file("ok/except/deep/file")?;
    let allowed = suite.places.file("ok/exception")?;
    let globbed = suite.places.file("ok-1/part7.txt")?;
    let unlike = suite.places.file("ok-1/part77.txt")?;
    let mut tagged = suite.tagged("worker")?;
    tagged.must_not(&json!({ "op": "open_write", "path": denied }))?;
    tagged.may(&json!({ "op": "open_write", "path": allowed }))?;
    tagged.may(&json!({ "op": "open_write", "path": globbed }))?;
    tagged.must_not(&json!({ "op": "open_write", "path": unlike }))?;
    for path in [denied, unlike] {
        suite
            .untagged()?
            .may(&json!({ "op": "open_write", "path": path }))?;
    }
    Ok(())
}

fn reading(suite: &mut Suite) -> Result<()> {
    let denied = suite.places.file("secret/below/file")?;
    let directory = suite.places.at("secret/below");
    let allowed = suite.places.file("no/readable")?;
    let mut tagged = suite.tagged("worker")?;
    let mut free = suite.untagged()?;
    tagged.may(&json!({ "op": "open_read", "path": allowed }))?;
    for request in [
        json!({ "op": "open_read", "path": denied }),
        json!({ "op": "list_directory", "path": directory }),
    ] {
        tagged.must_not(&request)?;
        free.may(&request)?;
    }
    Ok(())
}

fn protected(suite: &mut Suite) -> Result<()> {
    let home = suite.places.home().to_owned();
    fs::create_dir_all(home.join(".ssh"))?;
    fs::write(home.join(".ssh/id"), "key\n")?;
    fs::write(home.join("notes"), "text\n")?;
    let mut tagged = suite.tagged("worker")?;
    let mut free = suite.untagged()?;
    tagged.may(&json!({ "op": "open_read", "path": home.join("notes") }))?;
    for path in [home.join(".ssh/id"), "/etc/shadow".into()] {
        let request = json!({ "op": "open_read", "path": path });
        tagged.must_not(&request)?;
        free.may(&request)?;
    }
    Ok(())
}

fn executing(suite: &mut Suite) -> Result<()> {
    let program = |name: &str| -> Result<String> {
        let path = suite.places.at(&format!("bin/{name}"));
        fs::copy("/bin/true", &path).context("copying /bin/true")?;
        Ok(path)
    };
    let (allowed, denied) = (program("allowed")?, program("denied")?);
    let interpreted = suite.places.at("bin/script");
    fs::write(&interpreted, format!("#!{denied}\n"))?;
    fs::set_permissions(&interpreted, fs::Permissions::from_mode(0o755))?;
    let mut tagged = suite.tagged("worker")?;
    let mut free = suite.untagged()?;
    tagged.may(&json!({ "op": "execute", "path": allowed }))?;
    for path in [denied.clone(), interpreted] {
        tagged.must_not(&json!({ "op": "execute", "path": path }))?;
        free.may(&json!({ "op": "execute", "path": path }))?;
    }
    // The launched program itself.
    suite
        .daemon
        .cli_ends(&["run", "--agent", "worker", "--", &denied], 3)?;
    Ok(())
}

/// The rules are about the host's names, wherever a file system is mounted.
fn other_file_systems(suite: &mut Suite) -> Result<()> {
    let name = format!("agentguard-test-{}", std::process::id());
    let shared = Path::new("/dev/shm").join(&name);
    fs::write(&shared, "content\n")?;
    let mut tagged = suite.tagged("worker")?;
    let refused = tagged.must_not(&json!({ "op": "open_write", "path": shared }));
    let free = suite
        .untagged()?
        .may(&json!({ "op": "open_write", "path": shared }));
    fs::remove_file(&shared)?;
    refused?;
    free?;
    // What every program writes to.
    tagged.may(&json!({ "op": "open_write", "path": "/dev/null" }))?;
    Ok(())
}

//! The licences of everything that is linked into the binary and into its kernel object: most ask
//! that their text goes with every copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::host::{self, Host};
use crate::sh::Tool;

/// What goes into the package: the crate, its directory, the platform that it is built for.
const ROOTS: [(&str, &str, &str); 2] = [
    ("agentguard", ".", "x86_64-unknown-linux-gnu"),
    ("agentguard-ebpf", "agentguard-ebpf", "bpfel-unknown-none"),
];
/// How names of licence files begin, in capitals.
const FILES: [&str; 6] = [
    "LICENSE",
    "LICENCE",
    "COPYING",
    "COPYRIGHT",
    "NOTICE",
    "UNLICENSE",
];

/// One crate of somebody else.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    license: String,
    dir: PathBuf,
}

/// All notices as one text.
pub fn collect(host: &Host) -> Result<String> {
    let mut crates = BTreeSet::new();
    for (name, dir, platform) in ROOTS {
        let metadata = Tool::new(host::cargo())
            .args(["metadata", "--locked", "--format-version", "1"])
            .args(["--filter-platform", platform])
            .dir(&host.repo.join(dir))
            .read()?;
        let metadata =
            serde_json::from_str(&metadata).context("cannot read the output of cargo metadata")?;
        crates.extend(linked(&metadata, name)?);
    }
    render(&crates)
}

/// Crates that are linked into `root`: neither build scripts, nor macros, nor tests, nor our own.
fn linked(metadata: &Value, root: &str) -> Result<BTreeSet<Crate>> {
    let packages: BTreeMap<&str, &Value> = by_id(&metadata["packages"]);
    let nodes: BTreeMap<&str, &Value> = by_id(&metadata["resolve"]["nodes"]);
    let root = packages
        .iter()
        .find(|(_, package)| package["name"] == root)
        .with_context(|| format!("cargo metadata names no package {root}"))?;
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut next = vec![*root.0];
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        let (Some(package), Some(node)) = (packages.get(id), nodes.get(id)) else {
            bail!("cargo metadata says nothing about {id}");
        };
        if is_macro(package) {
            continue;
        }
        // Our own are not from a registry.
        if !package["source"].is_null() {
            found.insert(describe(package)?);
        }
        next.extend(
            list(&node["deps"])
                .filter(|it| is_linked(it))
                .filter_map(|it| it["pkg"].as_str()),
        );
    }
    Ok(found)
}

fn by_id(values: &Value) -> BTreeMap<&str, &Value> {
    list(values)
        .filter_map(|value| Some((value["id"].as_str()?, value)))
        .collect()
}

fn list(values: &Value) -> impl Iterator<Item = &Value> {
    values.as_array().into_iter().flatten()
}

fn is_macro(package: &Value) -> bool {
    list(&package["targets"]).any(|target| list(&target["kind"]).any(|kind| kind == "proc-macro"))
}

fn is_linked(dependency: &Value) -> bool {
    list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null())
}

fn describe(package: &Value) -> Result<Crate> {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let manifest = PathBuf::from(text("manifest_path"));
    Ok(Crate {
        name: text("name"),
        version: text("version"),
        license: text("license"),
        dir: manifest
            .parent()
            .with_context(|| format!("{} has no manifest", package["name"]))?
            .to_path_buf(),
    })
}

/// Each text once, after the list of crates that come under it.
fn render(crates: &BTreeSet<Crate>) -> Result<String> {
    let mut out = String::from(
        "AgentGuard contains the software named here, and Rust's standard library\n\
         (MIT OR Apache-2.0). Each licence text follows the names that it is for.\n\n",
    );
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for it in crates {
        let title = format!("{} {}", it.name, it.version);
        let _ = writeln!(out, "{title}: {}", it.license);
        for file in license_files(&it.dir)? {
            let bytes =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let text = String::from_utf8_lossy(&bytes).trim().replace("\r\n", "\n");
            texts.entry(text).or_default().push(title.clone());
        }
    }
    for (text, mut titles) in texts {
        titles.dedup();
        let _ = write!(
            out,
            "\n{}\n{}\n\n{text}\n",
            "=".repeat(72),
            titles.join(", ")
        );
    }
    Ok(out)
}

fn license_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot list {}", dir.display()))?
            .path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_uppercase();
        if path.is_file() && FILES.iter().any(|prefix| name.starts_with(prefix)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, source: Option<&str>, kind: &str) -> Value {
        json!({
            "id": name, "name": name, "version": "1.0.0", "license": "MIT", "source": source,
            "manifest_path": format!("/src/{name}/Cargo.toml"), "targets": [{ "kind": [kind] }],
        })
    }

    fn node(name: &str, deps: &[(&str, Option<&str>)]) -> Value {
        let deps: Vec<Value> = deps
            .iter()
            .map(|(pkg, kind)| json!({ "pkg": pkg, "dep_kinds": [{ "kind": kind }] }))
            .collect();
        json!({ "id": name, "deps": deps })
    }

    #[test]
    fn only_what_is_linked_is_named() {
        let registry = Some("registry");
        let metadata = json!({
            "packages": [
                package("ours", None, "bin"), package("common", None, "lib"),
                package("used", registry, "lib"), package("deep", registry, "lib"),
                package("derive", registry, "proc-macro"), package("syn", registry, "lib"),
                package("cc", registry, "lib"), package("testing", registry, "lib"),
            ],
            "resolve": { "nodes": [
                node("ours", &[("common", None), ("used", None), ("derive", None),
                               ("cc", Some("build")), ("testing", Some("dev"))]),
                node("common", &[]), node("used", &[("deep", None), ("used", None)]),
                node("deep", &[]), node("derive", &[("syn", None)]), node("syn", &[]),
                node("cc", &[]), node("testing", &[]),
            ] },
        });
        let found = linked(&metadata, "ours").unwrap();
        let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["deep", "used"]);
        assert!(linked(&metadata, "absent").is_err());
    }

    #[test]
    fn a_text_that_two_share_is_there_once() {
        let temp = tempfile::tempdir().unwrap();
        let make = |name: &str, file: &str, text: &str| {
            let dir = temp.path().join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(file), text).unwrap();
            Crate {
                name: name.into(),
                version: "1".into(),
                license: "MIT".into(),
                dir,
            }
        };
        let crates = BTreeSet::from([
            make("a", "LICENSE-MIT", "the text\r\nof it\n"),
            make("b", "license.md", "the text\nof it"),
            make("c", "COPYING", "another"),
        ]);
        let text = render(&crates).unwrap();
        assert_eq!(text.matches("the text\nof it").count(), 1, "{text}");
        assert!(text.contains("a 1, b 1\n"), "{text}");
        assert!(text.contains("c 1: MIT\n"), "{text}");
    }
}

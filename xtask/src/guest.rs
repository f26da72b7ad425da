//! What runs inside the test machines: the product and its end-to-end suite, linked
//! statically so that they need nothing of the machine's user space.

use anyhow::{Context as _, Result};

use crate::host::{self, Host};
use crate::sh::Tool;

/// Builds the product and the suite statically and puts them where machines find them.
pub fn build(host: &Host) -> Result<()> {
    let target = "x86_64-unknown-linux-gnu";
    let build = |words: &[&str]| {
        Tool::new(host::cargo())
            .args(words)
            .args(["--target", target, "--profile", "guest"])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .dir(&host.repo)
    };
    build(&["build", "--quiet", "--package", "agentguard"]).run()?;
    let listed = build(&[
        "test",
        "--no-run",
        "--package",
        "agentguard-tests",
        "--message-format",
        "json",
        "--quiet",
    ])
    .read()?;
    let guest = host.dir("guest")?;
    let built = host.target.join(target).join("guest").join("agentguard");
    std::fs::copy(&built, guest.join("agentguard"))
        .with_context(|| format!("cannot copy {}", built.display()))?;
    let suite = host.dir("guest-tests")?;
    for entry in std::fs::read_dir(&suite)?.flatten() {
        std::fs::remove_file(entry.path())?;
    }
    for line in listed.lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let name = message["target"]["name"].as_str();
        if let (Some(path), Some(name)) = (message["executable"].as_str(), name) {
            let is_test = message["profile"]["test"].as_bool().unwrap_or(false);
            let to = if is_test {
                suite.join(name)
            } else {
                guest.join(name)
            };
            std::fs::copy(path, &to).with_context(|| format!("cannot copy {path}"))?;
        }
    }
    Ok(())
}

//! `cargo xtask package`: the Debian package, from source to a file that lintian has nothing against.
//!
//! What goes where is in `[package.metadata.deb]` of agentguard/Cargo.toml; the scripts that run at
//! installation and removal are in agentguard/debian. Manual pages and completions come from the
//! built binary itself, so that they cannot differ from it.

mod notices;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::host::{self, Host, Need};
use crate::sh::{self, Tool};
use crate::tools::Pinned;

/// The crate that is packaged.
const CRATE: &str = "agentguard";
/// The tool that makes the package.
const CARGO_DEB: Pinned = Pinned {
    name: "cargo-deb",
    version: "3.8.0",
};
/// The tool that checks what is linked (deny.toml).
const CARGO_DENY: Pinned = Pinned {
    name: "cargo-deny",
    version: "0.20.2",
};
/// Programs that they and the checks call, and the packages they are in.
const NEEDS: &[Need] = &[
    ("dpkg-deb", "dpkg"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("lintian", "lintian"),
];
/// Below the release build's directory, which `target/release/` in the package's list of files
/// stands for, wherever the target directory is.
const GENERATED: &str = "package";
/// Shells, and what their completion files are called.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "agentguard"),
    ("zsh", "_agentguard"),
    ("fish", "agentguard.fish"),
];

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check licences and sources of what is linked as well (installs cargo-deny)
    #[arg(long)]
    audit: bool,
    /// No progress on standard error
    #[arg(long, short)]
    quiet: bool,
}

/// Builds and checks the package; prints where it is.
pub fn main(args: &Args) -> Result<ExitCode> {
    let host = Host::find(args.quiet)?;
    if args.audit {
        audit(&host)?;
    }
    let deb = build(&host)?;
    println!("{}", deb.display());
    Ok(ExitCode::SUCCESS)
}

/// Licences and sources of what is linked, by deny.toml. Not advisories: their database is
/// not on every machine, and is another one tomorrow.
fn audit(host: &Host) -> Result<()> {
    let cargo_deny = CARGO_DENY.install(host)?;
    host.timed("licences and sources of what is linked", || {
        Tool::new(&cargo_deny)
            .args(["--locked", "check", "bans", "licenses", "sources"])
            .dir(&host.repo)
            .run_quiet()
    })
}

/// Builds and checks the package.
pub fn build(host: &Host) -> Result<PathBuf> {
    host.need(NEEDS)?;
    let cargo_deb = CARGO_DEB.install(host)?;
    let _lock = host.lock(GENERATED)?;
    changelog_is_current(&host.repo)?;
    host.timed("building the release", || {
        Tool::new(host::cargo())
            .args(["build", "--quiet", "--release", "--locked", "-p", CRATE])
            .dir(&host.repo)
            .run()
    })?;
    let release = host.target.join("release");
    generate(host, &release)?;
    let deb = host.timed("packing", || {
        let printed = Tool::new(&cargo_deb)
            .args(["-p", CRATE, "--no-build", "--locked", "--quiet"])
            .dir(&host.repo)
            // What it calls must be the cargo that built.
            .env("CARGO", host::cargo())
            .read()?;
        let path = printed.lines().last().unwrap_or_default();
        let deb = PathBuf::from(path.trim());
        if !deb.is_file() {
            bail!("cargo-deb did not say where the package is, but:\n{printed}");
        }
        Ok(deb)
    })?;
    host.timed("lintian", || lint(&deb))?;
    Ok(deb)
}

/// Writes what the package has and the source tree has not.
fn generate(host: &Host, release: &Path) -> Result<()> {
    let into = release.join(GENERATED);
    if into.exists() {
        // Pages of commands that are gone must not stay.
        fs::remove_dir_all(&into).with_context(|| format!("cannot remove {}", into.display()))?;
    }
    let (man, completions) = (into.join("man"), into.join("completions"));
    for dir in [&man, &completions] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let program = release.join(CRATE);
    Tool::new(&program).arg("man").arg(&man).run_quiet()?;
    for (shell, name) in COMPLETIONS {
        let text = Tool::new(&program).args(["completions", shell]).read()?;
        write(&completions.join(name), &text)?;
    }
    let licenses = into.join("third-party-licenses.txt");
    write(&licenses, &notices::collect(host)?)?;
    let mut big = files(&man)?;
    big.push(licenses);
    // As Debian wants manual pages; without a time, the same pages give the same bytes.
    Tool::new("gzip")
        .args(["--best", "--no-name"])
        .args(big)
        .run_quiet()
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()
        .with_context(|| format!("cannot list {}", dir.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Debian's change log must speak of the version that is packaged.
fn changelog_is_current(repo: &Path) -> Result<()> {
    let file = repo.join(CRATE).join("debian/changelog");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    // The workspace's crates share one version, and xtask is one of them.
    let version = env!("CARGO_PKG_VERSION");
    let newest = newest_version(&text)
        .with_context(|| format!("{} does not begin with a version", file.display()))?;
    if newest != version {
        bail!(
            "{} is about {newest}, and the workspace's version is {version}: add an entry",
            file.display()
        );
    }
    Ok(())
}

/// The upstream version of the first entry: `agentguard (0.1.0-1) unstable; …`.
fn newest_version(changelog: &str) -> Option<&str> {
    let (_, rest) = changelog.lines().next()?.split_once('(')?;
    let (version, _) = rest.split_once(')')?;
    version.rsplit_once('-').map(|(upstream, _)| upstream)
}

/// Fails on errors and warnings that agentguard/debian/lintian-overrides does not answer.
fn lint(deb: &Path) -> Result<()> {
    Tool::new("lintian")
        .args(["--fail-on", "error,warning", "--allow-root"])
        .arg(deb)
        .env("LC_ALL", "C.UTF-8")
        .run_quiet()
        .with_context(|| {
            format!(
                "correct it, or answer it in agentguard/debian/lintian-overrides \
                 (`lintian-explain-tags TAG` explains; the package is {})",
                sh::quote(deb)
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_names_its_newest_version() {
        let text = "agentguard (1.2.3-4) unstable; urgency=medium\n\nagentguard (1.2.2-1) x\n";
        assert_eq!(newest_version(text), Some("1.2.3"));
        assert_eq!(newest_version("agentguard 1.2.3\n"), None);
        assert_eq!(newest_version(""), None);
    }

    #[test]
    fn debians_changelog_speaks_of_this_version() {
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        changelog_is_current(&repo).unwrap();
    }
}

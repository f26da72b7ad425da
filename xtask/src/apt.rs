//! Debian packages fetched with apt's own client, without touching the machine's apt state.
//!
//! The lists and the cache are ours, under the target directory; the mirrors, proxies and
//! credentials are the machine's, taken from its own apt configuration.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

use crate::host::{Host, find_program};
use crate::sh::Tool;

/// The release of the test machines' user space and older kernels.
pub const RELEASE: &str = "bookworm";
/// The suite with the newest kernel and with the Rust library source.
const BACKPORTS: &str = "trixie-backports";
/// Keys of the Debian archive, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Lists older than this are fetched again before a package is chosen.
const LISTS_FRESH: Duration = Duration::from_hours(7 * 24);

/// A private apt state.
#[derive(Debug)]
pub struct Apt<'a> {
    host: &'a Host,
    root: PathBuf,
}

impl<'a> Apt<'a> {
    /// Sets up the state; fetches the package lists when they are absent or old.
    pub fn open(host: &'a Host) -> Result<Self> {
        host.need(&[("apt-get", "apt"), ("dpkg-deb", "dpkg")])?;
        let root = host.dir("apt")?;
        for dir in ["state/lists/partial", "cache/archives/partial", "none"] {
            fs::create_dir_all(root.join(dir))
                .with_context(|| format!("cannot create {}/{dir}", root.display()))?;
        }
        let sources = format!("{}{}", base_sources()?, source_line(&mirror()?, BACKPORTS));
        let list = root.join("sources.list");
        let changed = fs::read_to_string(&list).ok().as_deref() != Some(&sources);
        fs::write(&list, sources).with_context(|| format!("cannot write {}", list.display()))?;
        let apt = Self { host, root };
        let stamp = apt.root.join("updated");
        if changed || !is_younger(&stamp, LISTS_FRESH) {
            match apt.update() {
                Err(error) if stamp.exists() && !changed => {
                    host.step(format_args!("going on with old package lists: {error:#}"));
                }
                result => result?,
            }
        }
        Ok(apt)
    }

    /// The machine this state belongs to.
    pub fn host(&self) -> &Host {
        self.host
    }

    /// Fetches the package lists.
    pub fn update(&self) -> Result<()> {
        self.host.timed("fetching Debian package lists", || {
            self.tool("apt-get").args(["-q", "update"]).run_quiet()
        })?;
        let stamp = self.root.join("updated");
        fs::write(&stamp, "").with_context(|| format!("cannot write {}", stamp.display()))
    }

    /// Names of all packages that start with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = self.tool("apt-cache").args(["pkgnames", prefix]).read()?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Versions of one package, newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = self.tool("apt-cache").args(["madison", package]).read()?;
        let column = |line: &str| line.split('|').nth(1).map(|text| text.trim().to_owned());
        Ok(table.lines().filter_map(column).collect())
    }

    /// Downloads packages (`name` or `name=version`) and unpacks them all into `into`.
    pub fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let temp = self.host.scratch()?;
        self.tool("apt-get")
            .args(["-q", "download"])
            .args(packages)
            .dir(temp.path())
            .run_quiet()?;
        fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
        let files = fs::read_dir(temp.path()).context("cannot list the downloads")?;
        for file in files {
            let file = file.context("cannot list the downloads")?.path();
            if file.extension().is_some_and(|ext| ext == "deb") {
                Tool::new("dpkg-deb")
                    .arg("-x")
                    .arg(&file)
                    .arg(into)
                    .run_quiet()?;
            }
        }
        Ok(())
    }

    /// An apt program that uses this state.
    fn tool(&self, program: &str) -> Tool {
        let path = |name: &str| self.root.join(name).display().to_string();
        Tool::new(program)
            .args(["-o", &format!("Dir::State={}", path("state"))])
            .args(["-o", &format!("Dir::Cache={}", path("cache"))])
            .args([
                "-o",
                &format!("Dir::Etc::SourceList={}", path("sources.list")),
            ])
            .args(["-o", &format!("Dir::Etc::SourceParts={}", path("none"))])
            .args(["-o", "Dir::State::Status=/var/lib/dpkg/status"])
            // The directories are this user's, not readable for apt's own one.
            .args(["-o", "APT::Sandbox::User="])
            .env("LC_ALL", "C.UTF-8")
    }
}

/// Source lines for the test machines' Debian release with its updates.
pub fn base_sources() -> Result<String> {
    let mirror = mirror()?;
    let security = security_mirror(&mirror)?;
    Ok([
        source_line(&mirror, RELEASE),
        source_line(&mirror, &format!("{RELEASE}-updates")),
        source_line(&security, &format!("{RELEASE}-security")),
    ]
    .concat())
}

fn source_line(mirror: &str, suite: &str) -> String {
    let signed = if Path::new(KEYRING).exists() {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    format!("deb {signed}{mirror} {suite} main\n")
}

/// The Debian mirror that this machine uses.
fn mirror() -> Result<String> {
    if let Ok(mirror) = env::var("AGENTGUARD_DEBIAN_MIRROR") {
        return Ok(mirror);
    }
    let plain = |suite: &str| !suite.contains(['-', '/']);
    find_mirror(&machine_sources()?, |source| {
        plain(&source.suite) && is_debian(&source.uri)
    })
    .context(
        "this machine's apt sources name no Debian mirror; \
         set AGENTGUARD_DEBIAN_MIRROR to one (and install debian-archive-keyring)",
    )
}

/// The mirror of the security suites; a full mirror given by hand is asked for both.
fn security_mirror(mirror: &str) -> Result<String> {
    if let Ok(mirror) = env::var("AGENTGUARD_DEBIAN_SECURITY_MIRROR") {
        return Ok(mirror);
    }
    let found = find_mirror(&machine_sources()?, |source| {
        source.suite.ends_with("-security") && is_debian(&source.uri)
    });
    Ok(found.unwrap_or_else(|| format!("{}-security", mirror.trim_end_matches('/'))))
}

fn is_debian(uri: &str) -> bool {
    let path = uri.trim_end_matches('/');
    path.ends_with("/debian") || path.ends_with("/debian-security")
}

/// One archive and suite of the machine's apt configuration.
#[derive(Debug, PartialEq)]
struct Source {
    uri: String,
    suite: String,
}

fn find_mirror(sources: &[Source], fits: impl Fn(&Source) -> bool) -> Option<String> {
    sources
        .iter()
        .find(|source| fits(source))
        .map(|source| source.uri.clone())
}

/// All archives of the machine's apt configuration, in both file formats.
fn machine_sources() -> Result<Vec<Source>> {
    let etc = Path::new("/etc/apt");
    let mut files = vec![etc.join("sources.list")];
    if let Ok(dir) = fs::read_dir(etc.join("sources.list.d")) {
        files.extend(dir.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        if file.extension().is_some_and(|ext| ext == "sources") {
            sources.extend(parse_deb822(&text));
        } else {
            sources.extend(parse_one_line(&text));
        }
    }
    if sources.is_empty() && find_program("apt-get").is_none() {
        bail!("this machine has no apt; test kernels and images come from Debian packages");
    }
    Ok(sources)
}

fn parse_one_line(text: &str) -> Vec<Source> {
    let parse = |line: &str| {
        let line = line.trim().strip_prefix("deb ")?.trim();
        let line = match line.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => line,
        };
        let mut words = line.split_whitespace();
        Some(Source {
            uri: words.next()?.to_owned(),
            suite: words.next()?.to_owned(),
        })
    };
    text.lines().filter_map(parse).collect()
}

fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| -> Vec<&str> {
            stanza
                .lines()
                .filter_map(|line| line.split_once(':'))
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .flat_map(|(_, value)| value.split_whitespace())
                .collect()
        };
        if !field("Types").contains(&"deb") || field("Enabled") == ["no"] {
            continue;
        }
        for uri in field("URIs") {
            for suite in field("Suites") {
                sources.push(Source {
                    uri: uri.to_owned(),
                    suite: suite.to_owned(),
                });
            }
        }
    }
    sources
}

/// Whether a file exists and was written less than `age` ago.
pub fn is_younger(file: &Path, age: Duration) -> bool {
    let written = file.metadata().and_then(|meta| meta.modified());
    written.is_ok_and(|at| {
        SystemTime::now()
            .duration_since(at)
            .is_ok_and(|old| old < age)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, suite: &str) -> Source {
        Source {
            uri: uri.to_owned(),
            suite: suite.to_owned(),
        }
    }

    #[test]
    fn both_formats_of_apt_sources_are_read() {
        let lines = "# comment\ndeb [arch=amd64 signed-by=/k.gpg] http://m.test/debian bookworm main\n\
                     deb-src http://m.test/debian bookworm main\n";
        assert_eq!(
            parse_one_line(lines),
            [source("http://m.test/debian", "bookworm")]
        );
        let stanzas = "Types: deb\n# why\nURIs: http://m.test/debian\nSuites: bookworm bookworm-updates\n\n\
                       Types: deb\nEnabled: no\nURIs: http://off.test/debian\nSuites: bookworm\n\n\
                       Types: deb-src\nURIs: http://m.test/debian\nSuites: bookworm\n";
        assert_eq!(
            parse_deb822(stanzas),
            [
                source("http://m.test/debian", "bookworm"),
                source("http://m.test/debian", "bookworm-updates")
            ]
        );
    }

    #[test]
    fn third_party_archives_are_no_debian_mirror() {
        assert!(is_debian("http://m.test/debian/"));
        assert!(is_debian("http://m.test/debian-security"));
        assert!(!is_debian("https://vendor.test/apt"));
    }
}

//! `cargo xtask build-ebpf`: the kernel object, from source to the committed bytes.
//!
//! The object is committed so that `cargo build` needs stable Rust alone. Its bytes depend on the
//! source, the locked dependencies, the pinned compiler and the linker's version, and on nothing
//! else: paths are mapped away, and debug information, which the loader does not read, is removed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::apt::Apt;
use crate::host::{self, Host};
use crate::sh::Tool;
use crate::tools::Pinned;

/// The kernel programs' crate, beside the workspace.
const CRATE: &str = "agentguard-ebpf";
/// The committed object.
const OBJECT: &str = "agentguard/src/kernel/agentguard.bpf.o";
/// Byte order is that of every machine the kernel matrix names.
const TARGET: &str = "bpfel-unknown-none";
/// The newest linker that uses the LLVM of the pinned compiler; later ones bring their own.
const LINKER: Pinned = Pinned {
    name: "bpf-linker",
    version: "0.10.3",
};
/// What a remapped path begins with, in place of this machine's directories.
const MAPPED: [&str; 3] = ["/agentguard", "/cargo", "/rust"];

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail when the committed object differs from what the source gives; change nothing
    #[arg(long)]
    check: bool,
    /// Keep the object with debug information in this file as well
    #[arg(long, value_name = "FILE")]
    debug_object: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short)]
    quiet: bool,
}

/// Builds the object, then writes or compares it.
pub fn main(args: &Args) -> Result<ExitCode> {
    let host = Host::find(args.quiet)?;
    let _lock = host.lock("ebpf")?;
    // A check trusts nothing that was built before.
    let fresh = args.check.then(|| host.scratch()).transpose()?;
    let target = match &fresh {
        Some(dir) => dir.path().to_path_buf(),
        None => host.dir("ebpf")?,
    };
    let built = build(&host, &target, &[CRATE], args.check)?.join(CRATE);
    if let Some(file) = &args.debug_object {
        fs::copy(&built, file)
            .with_context(|| format!("cannot copy {} to {}", built.display(), file.display()))?;
    }
    let object = strip(&host, &built)?;
    let committed = host.repo.join(OBJECT);
    if args.check {
        return check(&committed, &object);
    }
    if fs::read(&committed).is_ok_and(|old| old == object) {
        println!("{OBJECT} is what the source gives: {}", describe(&object));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(dir) = committed.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::write(&committed, &object)
        .with_context(|| format!("cannot write {}", committed.display()))?;
    println!("wrote {OBJECT}: {}", describe(&object));
    Ok(ExitCode::SUCCESS)
}

/// Fails unless the committed object is what the source gives.
pub fn committed_is_current(host: &Host) -> Result<()> {
    let _lock = host.lock("ebpf")?;
    let fresh = host.scratch()?;
    let built = build(host, fresh.path(), &[CRATE], true)?.join(CRATE);
    check(&host.repo.join(OBJECT), &strip(host, &built)?).map(|_| ())
}

/// Builds programs of the crate that are not in the committed object; returns their directory.
pub fn build_others(host: &Host, names: &[&str]) -> Result<PathBuf> {
    let _lock = host.lock("ebpf")?;
    build(host, &host.dir("ebpf")?, names, false)
}

/// Compares the committed object with the one just built.
fn check(committed: &Path, object: &[u8]) -> Result<ExitCode> {
    let old =
        fs::read(committed).with_context(|| format!("cannot read {}", committed.display()))?;
    if old != object {
        bail!(
            "{OBJECT} is not what the source gives:\n  committed: {}\n  built:     {}\n\
             run `cargo xtask build-ebpf` and commit the result",
            describe(&old),
            describe(object)
        );
    }
    println!("{OBJECT} is what the source gives: {}", describe(object));
    Ok(ExitCode::SUCCESS)
}

fn describe(object: &[u8]) -> String {
    let digest: String = Sha256::digest(object)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{} bytes, sha256 {digest}", object.len())
}

/// Builds objects of the crate, with debug information, and gives back the directory they are in.
fn build(host: &Host, target: &Path, names: &[&str], locked: bool) -> Result<PathBuf> {
    let source = host.repo.join(CRATE);
    if !source.join("Cargo.toml").exists() {
        bail!("there is no crate {}", source.display());
    }
    let sysroot = toolchain(host)?;
    library_source(host, &sysroot)?;
    let linker = LINKER.install(host)?;
    let wrapper = wrapper(target)?;
    host.timed("building the kernel programs", || {
        let mut cargo = Tool::new(host::cargo())
            .args(["build", "--release", "-Z", "build-std=core"])
            .args(["--target", TARGET, "--quiet"])
            .args(names.iter().flat_map(|name| ["--bin", name]))
            .arg("--target-dir")
            .arg(target)
            .dir(&source)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags(host, &sysroot)?)
            // Not a flag: flags are part of the crates' identity, so of symbol names.
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
            .env("RUSTC_WRAPPER", &wrapper)
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("RUSTFLAGS");
        if locked {
            cargo = cargo.arg("--locked");
        }
        cargo.run()
    })?;
    Ok(target.join(TARGET).join("release"))
}

/// Writes the script that keeps this machine's directories out of symbol names.
fn wrapper(target: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let file = target.join("rustc-wrapper.sh");
    let script = include_str!("ebpf/rustc-wrapper.sh");
    if fs::read_to_string(&file).ok().as_deref() != Some(script) {
        // Cargo does not see that what it built with another script is out of date.
        let built = target.join(TARGET);
        if built.exists() {
            fs::remove_dir_all(&built)
                .with_context(|| format!("cannot remove {}", built.display()))?;
        }
        fs::write(&file, script).with_context(|| format!("cannot write {}", file.display()))?;
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", file.display()))?;
    Ok(file)
}

/// The compiler's flags, separated as Cargo wants them.
fn flags(host: &Host, sysroot: &Path) -> Result<OsString> {
    let home = cargo_home()?;
    let mut flags: Vec<OsString> = ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"]
        .map(OsString::from)
        .into();
    for (from, to) in [host.repo.as_path(), &home, sysroot]
        .into_iter()
        .zip(MAPPED)
    {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    Ok(flags.join(&OsString::from("\u{1f}")))
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cargo"))
}

/// Checks that the pinned compiler is in use, and gives back its directory.
fn toolchain(host: &Host) -> Result<PathBuf> {
    let pinned = pinned_version(&host.repo)?;
    let rustc = || Tool::new("rustc").dir(&host.repo);
    let version = rustc().arg("--version").read()?;
    if version.split_whitespace().nth(1) != Some(&pinned) {
        bail!(
            "the object's bytes depend on rustc {pinned}, but this is {}; \
             run `rustup toolchain install {pinned}`",
            version.trim()
        );
    }
    Ok(rustc().args(["--print", "sysroot"]).read()?.trim().into())
}

/// The version in rust-toolchain.toml.
fn pinned_version(repo: &Path) -> Result<String> {
    let file = repo.join("rust-toolchain.toml");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| key.trim() == "channel")
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
        .with_context(|| format!("{} names no channel", file.display()))
}

/// Makes sure that the compiler's library source is there: `core` is built for the kernel from it.
fn library_source(host: &Host, sysroot: &Path) -> Result<()> {
    let to = sysroot.join("lib/rustlib/src/rust/library");
    if to.join("core/src/lib.rs").exists() {
        return Ok(());
    }
    let by_rustup = Tool::new("rustup")
        .args(["component", "add", "rust-src"])
        .dir(&host.repo)
        .run_quiet();
    let Err(by_rustup) = by_rustup else {
        return Ok(());
    };
    host.timed("fetching the Rust library source from Debian", || {
        debian_library_source(host, &pinned_version(&host.repo)?, &to)
    })
    .with_context(|| format!("rustup cannot add rust-src ({by_rustup:#}), and neither can Debian"))
}

/// Takes the library source out of Debian's package of the same compiler version.
fn debian_library_source(host: &Host, version: &str, to: &Path) -> Result<()> {
    let apt = Apt::open(host)?;
    let versions = apt.versions("rust-src")?;
    let wanted = versions
        .iter()
        .find(|candidate| candidate.starts_with(&format!("{version}+")))
        .with_context(|| format!("Debian has rust-src {versions:?}, not {version}"))?;
    let temp = host.scratch()?;
    apt.unpack(&[format!("rust-src={wanted}")], temp.path())?;
    let from = temp.path().join(format!("usr/src/rustc-{version}/library"));
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    // Copied aside and then renamed, so that an interrupted copy is never taken for a whole one.
    let partial = to.with_extension("partial");
    Tool::new("rm").arg("-rf").arg(&partial).run_quiet()?;
    Tool::new("cp")
        .arg("-a")
        .arg(&from)
        .arg(&partial)
        .run_quiet()?;
    fs::rename(&partial, to).with_context(|| format!("cannot create {}", to.display()))
}

/// Removes debug information with the compiler's own tool, whose version is pinned with it.
fn strip(host: &Host, object: &Path) -> Result<Vec<u8>> {
    let sysroot = toolchain(host)?;
    let libdir = Tool::new("rustc")
        .args(["--print", "target-libdir"])
        .dir(&host.repo)
        .read()?;
    let tool = Path::new(libdir.trim())
        .parent()
        .context("rustc names no library directory")?
        .join("bin/rust-objcopy");
    if !tool.exists() {
        bail!(
            "{} is missing from the compiler's installation",
            tool.display()
        );
    }
    let temp = host.scratch()?;
    let stripped = temp.path().join("object");
    Tool::new(tool)
        .arg("--strip-debug")
        .arg(object)
        .arg(&stripped)
        // It looks for the compiler's LLVM beside a directory it is not installed in.
        .env("LD_LIBRARY_PATH", sysroot.join("lib"))
        .run_quiet()?;
    let bytes = fs::read(&stripped).context("rust-objcopy wrote no object")?;
    if !bytes.windows(9).any(|window| window == b".BTF.ext\0") {
        bail!("the object has no type information: did the linker get --btf?");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_version_is_read() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("rust-toolchain.toml");
        fs::write(&file, "# one\n[toolchain]\nchannel = \"1.95.0\"\n").unwrap();
        assert_eq!(pinned_version(temp.path()).unwrap(), "1.95.0");
        fs::write(&file, "[toolchain]\n").unwrap();
        assert!(pinned_version(temp.path()).is_err());
    }

    #[test]
    fn a_difference_names_both_objects() {
        let temp = tempfile::tempdir().unwrap();
        let committed = temp.path().join("object");
        fs::write(&committed, "old").unwrap();
        assert!(check(&committed, b"old").is_ok());
        let error = check(&committed, b"newer").unwrap_err().to_string();
        for part in ["3 bytes", "5 bytes", "sha256", "build-ebpf"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

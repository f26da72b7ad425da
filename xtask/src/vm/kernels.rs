//! Debian's kernels: the newest package of each series, unpacked and made ready to boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::apt::{self, Apt};
use crate::host::Host;
use crate::sh::Tool;

use super::cli::{Flavour, Series};
use super::disk::{self, Disk};

/// A choice of package older than this is made again.
const CHOICE_FRESH: Duration = Duration::from_hours(7 * 24);
/// Changes when the files made from a package change, so that old caches are not used.
const LAYOUT: &str = "1";

/// A kernel ready to boot.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release name, such as `6.1.0-56-cloud-amd64`.
    pub version: String,
    /// The file QEMU starts.
    pub image: PathBuf,
    /// Its modules as a directory on this machine, with `modules.dep`.
    pub module_dir: PathBuf,
    /// Its modules as a disk of the machine.
    pub modules: Disk,
}

/// Gets the kernels asked for, from the cache or from Debian's archive.
pub fn prepare(
    host: &Host,
    series: &[Series],
    flavour: Flavour,
    refresh: bool,
) -> Result<Vec<Kernel>> {
    let _lock = host.lock("kernels")?;
    let cache = host.dir("kernels")?;
    let mut apt = None;
    let mut kernels = Vec::new();
    for &series in series {
        let choice = cache.join(format!("newest-{}-{}", series.name(), flavour.name()));
        let known = fs::read_to_string(&choice).ok().filter(|version| {
            !refresh && apt::is_younger(&choice, CHOICE_FRESH) && is_complete(&cache.join(version))
        });
        let version = if let Some(version) = known {
            version
        } else {
            let apt = match &apt {
                Some(apt) => apt,
                None => apt.insert(open_apt(host, refresh)?),
            };
            let version = fetch_newest(apt, series, flavour, &cache)?;
            fs::write(&choice, &version)
                .with_context(|| format!("cannot write {}", choice.display()))?;
            version
        };
        kernels.push(ready(&cache.join(&version), version)?);
    }
    Ok(kernels)
}

/// Makes sure that the newest release of a series is in the cache.
fn fetch_newest(apt: &Apt<'_>, series: Series, flavour: Flavour, cache: &Path) -> Result<String> {
    let attempt = || {
        let version = newest(apt, series, flavour)?;
        if !is_complete(&cache.join(&version)) {
            apt.host().timed(&format!("fetching Linux {version}"), || {
                fetch(apt, &version, cache)
            })?;
        }
        Ok(version)
    };
    attempt().or_else(|error: anyhow::Error| {
        // A release goes from the archive when the next one comes: the lists may be older.
        apt.host().step(format_args!(
            "trying again with new package lists: {error:#}"
        ));
        apt.update()?;
        attempt()
    })
}

fn open_apt(host: &Host, refresh: bool) -> Result<Apt<'_>> {
    let apt = Apt::open(host)?;
    if refresh {
        apt.update()?;
    }
    Ok(apt)
}

fn is_complete(dir: &Path) -> bool {
    fs::read_to_string(dir.join("layout")).is_ok_and(|layout| layout == LAYOUT)
}

/// The newest release of a series in the archive.
fn newest(apt: &Apt<'_>, series: Series, flavour: Flavour) -> Result<String> {
    let mut versions = Vec::new();
    for prefix in ["linux-image-", "linux-binary-"] {
        let names = apt.names(&format!("{prefix}{}.", series.name()))?;
        versions.extend(
            names
                .iter()
                .filter_map(|name| name.strip_prefix(prefix))
                .filter(|version| is_flavour(version, flavour))
                .map(str::to_owned),
        );
    }
    versions.sort_by_cached_key(|version| numbers(version));
    versions.pop().with_context(|| {
        format!(
            "Debian's archive has no kernel {} of the {} flavour; \
             is the mirror complete and are its lists fresh (--refresh)?",
            series.name(),
            flavour.name()
        )
    })
}

/// Whether a release name is of the flavour, and no debug, unsigned or real-time variant.
fn is_flavour(version: &str, flavour: Flavour) -> bool {
    let Some(stem) = version.strip_suffix("-amd64") else {
        return false;
    };
    match flavour {
        Flavour::Cloud => stem.ends_with("-cloud"),
        Flavour::Generic => stem.ends_with(|last: char| last.is_ascii_digit()),
    }
}

/// The numbers in a release name, by which releases sort.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// Downloads a release and makes its boot image and modules disk.
fn fetch(apt: &Apt<'_>, version: &str, cache: &Path) -> Result<()> {
    let kinds = ["image", "binary", "base", "modules"];
    let mut packages = Vec::new();
    for name in kinds.map(|kind| format!("linux-{kind}-{version}")) {
        if apt.names(&name)?.contains(&name) {
            packages.push(name);
        }
    }
    let temp = apt.host().scratch()?;
    apt.unpack(&packages, &temp.path().join("package"))?;
    let package = temp.path().join("package");
    let vmlinuz = [
        format!("boot/vmlinuz-{version}"),
        format!("usr/lib/modules/{version}/vmlinuz"),
    ]
    .map(|path| package.join(path))
    .into_iter()
    .find(|path| path.exists())
    .with_context(|| format!("the packages {packages:?} hold no vmlinuz"))?;
    unpack_image(apt.host(), &vmlinuz, &temp.path().join("vmlinux"))?;
    let from = ["lib/modules", "usr/lib/modules"]
        .map(|path| package.join(path).join(version))
        .into_iter()
        .find(|path| path.join("kernel").exists())
        .with_context(|| format!("the packages {packages:?} hold no modules"))?;
    index_modules(apt.host(), &from, version, temp.path())?;
    fs::write(temp.path().join("layout"), LAYOUT).context("cannot finish the kernel's cache")?;
    fs::remove_dir_all(&package).context("cannot remove the unpacked package")?;
    let to = cache.join(version);
    if to.exists() {
        fs::remove_dir_all(&to).with_context(|| format!("cannot replace {}", to.display()))?;
    }
    let made = temp.keep();
    fs::rename(&made, &to).with_context(|| format!("cannot create {}", to.display()))
}

/// Moves the modules to their place, indexes them and makes the disk with them.
fn index_modules(host: &Host, from: &Path, version: &str, dir: &Path) -> Result<()> {
    host.need(&[("depmod", "kmod")])?;
    let tree = dir.join("tree");
    let to = tree.join("lib/modules").join(version);
    let parent = tree.join("lib/modules");
    fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
    fs::rename(from, &to).with_context(|| format!("cannot move {}", from.display()))?;
    let depmod = crate::host::find_program("depmod").context("depmod is not there")?;
    Tool::new(depmod)
        .arg("-b")
        .arg(&tree)
        .arg(version)
        .run_quiet()?;
    disk::make(&parent, &dir.join("modules.ext4"), 16 << 20)
}

/// Takes the uncompressed kernel out of a bzImage: emulated unpacking costs seconds a boot.
fn unpack_image(host: &Host, vmlinuz: &Path, to: &Path) -> Result<()> {
    let image = fs::read(vmlinuz).with_context(|| format!("cannot read {}", vmlinuz.display()))?;
    let payload =
        payload(&image).with_context(|| format!("{} is not a kernel image", vmlinuz.display()))?;
    let packed = to.with_extension("packed");
    fs::write(&packed, payload).with_context(|| format!("cannot write {}", packed.display()))?;
    let (program, package) = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", "zstd"),
        [0x02, 0x21, 0x4c, 0x18, ..] => ("lz4", "lz4"),
        [0xfd, b'7', b'z', ..] => ("xz", "xz-utils"),
        [0x1f, 0x8b, ..] => ("gzip", "gzip"),
        _ => bail!("{} is packed in an unknown way", vmlinuz.display()),
    };
    host.need(&[(program, package)])?;
    let plain = Tool::new(program).arg("-dc").arg(&packed).read_bytes()?;
    fs::write(to, plain).with_context(|| format!("cannot write {}", to.display()))?;
    fs::remove_file(&packed).with_context(|| format!("cannot remove {}", packed.display()))
}

/// The packed kernel inside a bzImage, found by the boot protocol's header (2.08 and later).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    // The last four bytes are the unpacked size, which the unpackers take for rubbish.
    let end = start + word(0x24c)?.checked_sub(4)?;
    image.get(start..end)
}

/// The cached files of a release.
fn ready(dir: &Path, version: String) -> Result<Kernel> {
    let image = dir.join("vmlinux");
    if !image.exists() {
        bail!(
            "{} is missing; remove {} and try again",
            image.display(),
            dir.display()
        );
    }
    Ok(Kernel {
        image,
        module_dir: dir.join("tree/lib/modules").join(&version),
        modules: Disk {
            file: dir.join("modules.ext4"),
            name: "modules".to_owned(),
            at: "/lib/modules".to_owned(),
            writable: false,
        },
        version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flavours_are_told_apart() {
        for (version, cloud, generic) in [
            ("6.1.0-56-cloud-amd64", true, false),
            ("6.1.0-56-amd64", false, true),
            ("6.1.0-56-rt-amd64", false, false),
            ("6.12.117+deb12-amd64", false, true),
            ("6.12.117+deb12-cloud-amd64-dbg", false, false),
            ("6.12.117+deb12-cloud-amd64-unsigned", false, false),
            ("7.3.4+deb13-cloud-amd64", true, false),
        ] {
            assert_eq!(is_flavour(version, Flavour::Cloud), cloud, "{version}");
            assert_eq!(is_flavour(version, Flavour::Generic), generic, "{version}");
        }
    }

    #[test]
    fn releases_sort_by_number() {
        assert!(numbers("6.1.0-9-amd64") < numbers("6.1.0-56-amd64"));
        assert!(numbers("6.12.99+deb12-amd64") < numbers("6.12.117+deb12-amd64"));
    }

    #[test]
    fn a_payload_is_found_by_the_header_only() {
        let mut image = vec![0_u8; 4096];
        assert_eq!(payload(&image), None);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x1f1] = 1;
        image[0x248] = 16;
        image[0x24c] = 8;
        image[1040..1044].copy_from_slice(b"data");
        assert_eq!(payload(&image), Some(&b"data"[..]));
        image[0x24d] = 0xff;
        assert_eq!(payload(&image), None, "a length past the end");
    }
}

//! What only some file systems have: shared blocks, subvolumes, projects, names
//! without regard to case.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use agentguard_tests::daemon::both;
use anyhow::{Result, ensure};
use nix::libc::{O_CREAT, O_RDONLY, O_RDWR, O_WRONLY};
use nix::mount::{MsFlags, mount};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::sys::{self, Fail, Try, call};
use crate::{mounts, snapshot};

const FICLONE: u64 = 0x4004_9409;
const FICLONERANGE: u64 = 0x4020_940d;
const FIDEDUPERANGE: u64 = 0xc018_9436;
const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
const FS_CASEFOLD: u64 = 0x4000_0000;
const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
const FS_IOC_GETVERSION: u64 = 0x8008_7601;
const FS_IOC_SETVERSION: u64 = 0x4008_7602;
const BLOCK: usize = 4096;
/// The least that mkfs.btrfs takes.
const BTRFS: Kind = ("btrfs", 120 << 20);
const EXT4: Kind = ("ext4", 8 << 20);

/// A file system, and the size of one.
type Kind = (&'static str, u64);

pub const ATTEMPTS: &[Attempt] = &[
    write("ficlone-inherited", |field| {
        call!(SYS_ioctl, field.inherited, FICLONE, &source(field)?)?;
        sys::done()
    })
    .prepare(cloning)
    .inherits(inner)
    .look(look_at_clone),
    write("ficlonerange-inherited", |field| {
        let from = source(field)?;
        let range = sys::words(&[from.as_raw_fd() as u64, 0, BLOCK as u64, 0]);
        call!(SYS_ioctl, field.inherited, FICLONERANGE, &range[..])?;
        sys::done()
    })
    .prepare(cloning)
    .inherits(inner)
    .look(look_at_clone),
    write("fideduperange", dedupe)
        .prepare(cloning)
        .look(|field| snapshot::blocks(&ruled(field, BTRFS))),
    write("btrfs-file", |field| marked(&ruled(field, BTRFS)))
        .prepare(cloning)
        .look(look_at_clone),
    write("btrfs-subvolume", |field| {
        marked(&subvolume(field).join("g"))
    })
    .prepare(with_subvolume)
    .look(look_at_subvolume),
    write("btrfs-subvolume-mounted", |field| {
        marked(&field.scratch("d/g"))
    })
    .prepare(|field| {
        with_subvolume(field)?;
        let device = PathBuf::from(fs::read_to_string(base(field, BTRFS).join("device"))?);
        let path = subvolume(field);
        let options = format!(
            "subvol={}",
            path.strip_prefix(base(field, BTRFS))?.display()
        );
        field.make_dir(&field.scratch("d"))?;
        let at = field.scratch("d");
        mount(
            Some(&device),
            &at,
            Some("btrfs"),
            MsFlags::empty(),
            Some(&*options),
        )?;
        Ok(())
    })
    .look(look_at_subvolume),
    write("ioctl-set-project-quota", |field| {
        let fd = sys::open(&ruled(field, EXT4), O_RDONLY)?;
        let mut attributes = [0; 28];
        call!(SYS_ioctl, &fd, FS_IOC_FSGETXATTR, &mut attributes[..])?;
        attributes[12] = 77;
        call!(SYS_ioctl, &fd, FS_IOC_FSSETXATTR, &attributes[..])?;
        sys::done()
    })
    .prepare(folding)
    .look(look_at_folding),
    write("ioctl-set-version", |field| {
        let fd = sys::open(&ruled(field, EXT4), O_RDONLY)?;
        call!(SYS_ioctl, &fd, FS_IOC_SETVERSION, &sys::words(&[4711])[..])?;
        sys::done()
    })
    .prepare(folding)
    .look(|field| {
        let fd = sys::open(&ruled(field, EXT4), O_RDONLY)?;
        let mut version = [0; 8];
        call!(SYS_ioctl, &fd, FS_IOC_GETVERSION, &mut version[..])?;
        Ok(format!("{version:?}"))
    }),
    write("write-other-case", |field| {
        let path = ruled(field, EXT4);
        let name = path.file_name().unwrap_or_default().to_ascii_uppercase();
        let directory = if field.is_control() { "FREE" } else { "RULED" };
        marked(&base(field, EXT4).join("open").join(directory).join(name))
    })
    .prepare(folding)
    .look(look_at_folding),
    read("read-other-case", |field| {
        let directory = if field.is_control() { "SHELF" } else { "VAULT" };
        sys::read(&sys::open(
            &base(field, EXT4).join(directory).join("F"),
            O_RDONLY,
        )?)
    })
    .prepare(|field| {
        folding(field)?;
        let name = if field.is_control() { "shelf" } else { "vault" };
        let directory = base(field, EXT4).join(name);
        field.make_dir(&directory)?;
        field.put(&directory.join("f"))
    })
    .look(|_| {
        forget_names()?;
        Ok(String::new())
    }),
];

fn marked(path: &Path) -> Try {
    sys::mark(&sys::open(path, O_WRONLY)?)
}

/// The root of a file system that these attempts share, by user: making one takes long.
/// It is where the agent may do everything, but for the ruled directories in it.
fn base(field: &Field, (kind, _): Kind) -> PathBuf {
    let name = format!("{kind}.{}", field.user.name());
    field.root.join("ok/work").join(name)
}

/// The file of this attempt and side: denied in `ruled`, allowed in `free`.
fn ruled(field: &Field, kind: Kind) -> PathBuf {
    let directory = if field.is_control() { "free" } else { "ruled" };
    let name = field.dir.file_name().unwrap_or_default();
    base(field, kind).join("open").join(directory).join(name)
}

fn shared(field: &Field, kind: Kind, options: &[&str]) -> Result<()> {
    let base = base(field, kind);
    if !base.exists() {
        let device = mounts::file_system(field, kind, options, &base)?;
        if kind == EXT4 {
            fold(&base)?;
        }
        fs::write(base.join("device"), device.to_string_lossy().as_bytes())?;
    }
    for directory in ["open", "open/ruled", "open/free"] {
        field.make_dir(&base.join(directory))?;
    }
    field.put_bytes(&ruled(field, kind), &[b'.'; BLOCK])
}

fn cloning(field: &Field) -> Result<()> {
    shared(field, BTRFS, &["-q"])
}

fn inner(field: &Field) -> Result<OwnedFd> {
    Ok(sys::open(&ruled(field, BTRFS), O_RDWR)?)
}

fn look_at_clone(field: &Field) -> Result<String> {
    snapshot::of_path(&ruled(field, BTRFS))
}

/// A file of the agent's own with one block.
fn own_block(field: &Field, byte: u8) -> Try<OwnedFd> {
    let name = ruled(field, BTRFS);
    let path = base(field, BTRFS)
        .join("open")
        .join(name.file_name().unwrap_or_default())
        .with_extension(field.side.name());
    let fd = sys::open(&path, O_RDWR | O_CREAT)?;
    let block = [byte; BLOCK];
    call!(SYS_write, &fd, &block[..], BLOCK)?;
    call!(SYS_fsync, &fd)?;
    Ok(fd)
}

fn source(field: &Field) -> Try<OwnedFd> {
    own_block(field, b'!')
}

/// Has a block replaced by an equal one of the agent's own; reading and owning the
/// file is enough for the kernel.
fn dedupe(field: &Field) -> Try {
    let to = sys::open(&ruled(field, BTRFS), O_RDONLY)?;
    let from = own_block(field, b'.')?;
    // Offset and length; one target; its descriptor, offset, bytes done, status.
    let mut request = sys::words(&[0, BLOCK as u64, 1, to.as_raw_fd() as u64, 0, 0, 0]);
    call!(SYS_ioctl, &from, FIDEDUPERANGE, &mut request[..])?;
    let mut status = [0; 4];
    status.copy_from_slice(&request[48..52]);
    match i32::from_ne_bytes(status) {
        0 => sys::done(),
        status => Err(Fail::new("FIDEDUPERANGE", -status)),
    }
}

fn subvolume(field: &Field) -> PathBuf {
    ruled(field, BTRFS).with_extension("subvolume")
}

fn with_subvolume(field: &Field) -> Result<()> {
    cloning(field)?;
    let path = subvolume(field);
    let made = Command::new("btrfs")
        .args(["subvolume", "create"])
        .arg(&path)
        .output()?;
    ensure!(made.status.success(), "btrfs: {}", both(&made));
    field.own(&path, 0o755)?;
    field.put(&path.join("g"))
}

fn look_at_subvolume(field: &Field) -> Result<String> {
    snapshot::of_path(&subvolume(field))
}

/// ext4 on which names do not differ by case alone, and with projects.
fn folding(field: &Field) -> Result<()> {
    let options = [
        "-q",
        "-O",
        "casefold,project,quota,^metadata_csum",
        "-E",
        "encoding=utf8",
    ];
    shared(field, EXT4, &options)
}

/// Directories take it over from the one in which they are made.
fn fold(root: &Path) -> Result<()> {
    // It is given to empty ones only.
    fs::remove_dir(root.join("lost+found"))?;
    let root = sys::open(root, O_RDONLY)?;
    call!(
        SYS_ioctl,
        &root,
        FS_IOC_SETFLAGS,
        &sys::words(&[FS_CASEFOLD])[..]
    )?;
    Ok(())
}

fn look_at_folding(field: &Field) -> Result<String> {
    let seen = snapshot::of_path(&ruled(field, EXT4))?;
    forget_names()?;
    Ok(seen)
}

/// Has the kernel forget how names were last written: who looks one up first decides how
/// it is remembered.
fn forget_names() -> Result<()> {
    Ok(fs::write("/proc/sys/vm/drop_caches", "2")?)
}

//! What btrfs has beside files: shared blocks, subvolumes and their snapshots.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentguard_tests::daemon::both;
use anyhow::{Result, ensure};
use nix::libc::{O_RDONLY, O_RDWR};
use nix::mount::{MsFlags, mount};

use crate::attempt::{Attempt, read, write};
use crate::disks::{BLOCK, Disk, ruled, vault};
use crate::field::Field;
use crate::snapshot;
use crate::sys::{self, Fail, Try, call, content, marked};

const FICLONE: u64 = 0x4004_9409;
const FICLONERANGE: u64 = 0x4020_940d;
const FIDEDUPERANGE: u64 = 0xc018_9436;
const BTRFS_IOC_SNAP_CREATE: u64 = 0x5000_9401;
const BTRFS_IOC_SNAP_DESTROY: u64 = 0x5000_940f;
const BTRFS_IOC_TREE_SEARCH: u64 = 0xd000_9411;
const BTRFS_IOC_SUBVOL_SETFLAGS: u64 = 0x4008_941a;
const BTRFS_SUBVOL_RDONLY: u64 = 2;
const BTRFS_IOC_SEND: u64 = 0x4048_9426;
const BTRFS: Disk = Disk {
    kind: "btrfs",
    // The least that its mkfs takes.
    size: 120 << 20,
    options: &["-q"],
};

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
        .look(|field| snapshot::blocks(&BTRFS.file(field))),
    write("btrfs-file", |field| marked(&BTRFS.file(field)))
        .prepare(cloning)
        .look(look_at_clone),
    write("btrfs-subvolume", |field| {
        marked(&below_ruled(field).join("g"))
    })
    .prepare(with_subvolume)
    .look(look_at_subvolume),
    write("btrfs-subvolume-mounted", |field| {
        marked(&field.scratch("d/g"))
    })
    .prepare(|field| {
        with_subvolume(field)?;
        let device = BTRFS.device(field)?;
        let path = below_ruled(field);
        let below = path.strip_prefix(BTRFS.root(field))?;
        let options = format!("subvol={}", below.display());
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
    write("btrfs-subvolume-delete", |field| {
        let parent = sys::open(&kept(field), O_RDONLY)?;
        let request = arguments(0, ruled(field));
        call!(SYS_ioctl, &parent, BTRFS_IOC_SNAP_DESTROY, &request[..])?;
        sys::done()
    })
    .prepare(|field| {
        keep(field)?;
        let path = kept(field).join(ruled(field));
        subvolume(field, &path)?;
        field.put(&path.join("g"))
    })
    .look(|field| snapshot::of_path(&kept(field).join(ruled(field))))
    .root_only("without a mount option, subvolumes are deleted with CAP_SYS_ADMIN")
    .never(),
    write("btrfs-snapshot-in", |field| {
        snapshot_of(&kept(field), &BTRFS.open(field).join(ruled(field)), field)
    })
    .prepare(keep)
    .look(|field| {
        let copy = BTRFS
            .open(field)
            .join(ruled(field))
            .join(snapshot_name(field));
        Ok(format!("{}", copy.exists()))
    })
    .never(),
    read("read-btrfs-snapshot", |field| {
        snapshot_of(&kept(field), &BTRFS.open(field), field)?;
        let copy = BTRFS.open(field).join(snapshot_name(field));
        content(&copy.join(vault(field)).join("f"))
    })
    .prepare(keep_secret)
    .never(),
    read("read-btrfs-send", |field| {
        let (from, to) = sys::pipe()?;
        let kept = sys::open(&kept(field), O_RDONLY)?;
        // Where to; no sources to clone from, no parent; flags; version.
        let mut request = sys::words(&[to.as_raw_fd() as u64, 0, 0, 0, 0]);
        request.extend([0; 32]);
        call!(SYS_ioctl, &kept, BTRFS_IOC_SEND, &request[..])?;
        sys::read(&from)
    })
    .prepare(|field| {
        keep_secret(field)?;
        let kept = sys::open(&kept(field), O_RDONLY)?;
        let flags = sys::words(&[BTRFS_SUBVOL_RDONLY]);
        call!(SYS_ioctl, &kept, BTRFS_IOC_SUBVOL_SETFLAGS, &flags[..])?;
        Ok(())
    })
    .root_only("sending wants CAP_SYS_ADMIN")
    .never(),
    read("read-btrfs-tree-search", search)
        .prepare(keep_secret)
        .root_only("the trees are searched with CAP_SYS_ADMIN")
        .never(),
];

fn cloning(field: &Field) -> Result<()> {
    BTRFS.prepare(field)
}

fn inner(field: &Field) -> Result<OwnedFd> {
    Ok(sys::open(&BTRFS.file(field), O_RDWR)?)
}

fn look_at_clone(field: &Field) -> Result<String> {
    snapshot::of_path(&BTRFS.file(field))
}

fn source(field: &Field) -> Try<OwnedFd> {
    BTRFS.own_block(field, b'!')
}

/// Has a block replaced by an equal one of the agent's own; reading and owning the
/// file is enough for the kernel.
fn dedupe(field: &Field) -> Try {
    let to = sys::open(&BTRFS.file(field), O_RDONLY)?;
    let from = BTRFS.own_block(field, b'.')?;
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

fn below_ruled(field: &Field) -> PathBuf {
    BTRFS.file(field).with_extension("subvolume")
}

fn with_subvolume(field: &Field) -> Result<()> {
    cloning(field)?;
    let path = below_ruled(field);
    subvolume(field, &path)?;
    field.put(&path.join("g"))
}

fn subvolume(field: &Field, path: &Path) -> Result<()> {
    let made = Command::new("btrfs")
        .args(["subvolume", "create"])
        .arg(path)
        .output()?;
    ensure!(made.status.success(), "btrfs: {}", both(&made));
    field.own(path, 0o755)
}

fn look_at_subvolume(field: &Field) -> Result<String> {
    snapshot::of_path(&below_ruled(field))
}

/// A subvolume in which the agent may do everything, but for the names that rules name.
fn kept(field: &Field) -> PathBuf {
    let name = snapshot_name(field);
    BTRFS.root(field).join("kept").join(name)
}

fn snapshot_name(field: &Field) -> String {
    let name = field.dir.file_name().unwrap_or_default();
    format!("{}.{}", name.to_string_lossy(), field.side.name())
}

fn keep(field: &Field) -> Result<()> {
    cloning(field)?;
    field.make_dir(&BTRFS.root(field).join("kept"))?;
    subvolume(field, &kept(field))
}

fn keep_secret(field: &Field) -> Result<()> {
    keep(field)?;
    let directory = kept(field).join(vault(field));
    field.make_dir(&directory)?;
    field.put(&directory.join("f"))?;
    // In the trees, not only in memory.
    nix::unistd::syncfs(fs::File::open(&directory)?)?;
    Ok(())
}

/// `struct btrfs_ioctl_vol_args`: a descriptor and a name.
fn arguments(fd: u64, name: &str) -> Vec<u8> {
    let mut bytes = sys::words(&[fd]);
    bytes.extend(name.as_bytes());
    bytes.resize(BLOCK, 0);
    bytes
}

/// Gives everything in a subvolume further names, below another directory.
fn snapshot_of(subvolume: &Path, directory: &Path, field: &Field) -> Try {
    let from = sys::open(subvolume, O_RDONLY)?;
    let to = sys::open(directory, O_RDONLY)?;
    let request = arguments(from.as_raw_fd() as u64, &snapshot_name(field));
    call!(SYS_ioctl, &to, BTRFS_IOC_SNAP_CREATE, &request[..])?;
    sys::done()
}

/// Reads what the file system's own tree keeps of the file: small files lie within it.
fn search(field: &Field) -> Try {
    const EXTENT_DATA: u32 = 108;
    let inode = fs::metadata(kept(field).join(vault(field)).join("f"))?.ino();
    let kept = sys::open(&kept(field), O_RDONLY)?;
    // The tree of this descriptor; from and to: object, offset, transaction.
    let mut request = sys::words(&[0, inode, inode, 0, u64::MAX, 0, u64::MAX]);
    // From and to: type; how many.
    request.extend(sys::halves(&[EXTENT_DATA, EXTENT_DATA, 1, 0]));
    request.resize(BLOCK, 0);
    call!(SYS_ioctl, &kept, BTRFS_IOC_TREE_SEARCH, &mut request[..])?;
    Ok(request)
}

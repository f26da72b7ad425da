//! overlayfs: lower, upper and merged names of one object.

use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::libc::{self, O_RDONLY, O_WRONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::mounts;
use crate::snapshot;
use crate::sys::{self, Try, call, content, marked};

const FSCONFIG_SET_STRING: i32 = 1;
const FSCONFIG_CMD_CREATE: i32 = 6;

pub const ATTEMPTS: &[Attempt] = &[
    write("overlay-merged-denied", |field| marked(&field.at("m/f"))).prepare(|field| {
        field.make_dir(&field.scratch("lower"))?;
        field.put(&field.scratch("lower/f"))?;
        let (lower, upper) = (field.scratch("lower"), field.scratch("upper"));
        mounts::overlay(field, &lower, &upper, &field.at("m"))
    }),
    write("overlay-upper-denied", |field| {
        marked(&field.scratch("m/g"))
    })
    .prepare(upper_denied),
    write("overlay-upper-denied-create", |field| {
        sys::open(&field.scratch("m/new"), O_WRONLY | libc::O_CREAT)?;
        sys::done()
    })
    .prepare(upper_denied),
    write("overlay-lower-denied-copy-up", |field| {
        marked(&field.scratch("m/f"))
    })
    .prepare(lower_denied)
    .look(|field| {
        let mut merged = field.clone();
        merged.dir = field.scratch("m");
        snapshot::of_field(&merged)
    }),
    write("own-overlay-upper-denied", |field| {
        own(
            field,
            &field.scratch("lower"),
            &field.at("up"),
            &field.at("up"),
        )?;
        marked(&field.scratch("m/g"))
    })
    .prepare(|field| {
        field.make_dir(&field.scratch("lower"))?;
        field.make_dir(&field.at("up"))?;
        field.put(&field.at("up/g"))
    })
    // Of an overlay of the agent's own the policy knows nothing, so it is closed.
    .lifted(),
    read("read-overlay-lower-secret", |field| {
        content(&field.scratch("m/f"))
    })
    .prepare(lower_denied),
    read("read-overlay-upper-secret", |field| {
        content(&field.scratch("m/g"))
    })
    .prepare(upper_denied),
    read("read-overlay-merged-secret", |field| {
        content(&field.at("m/f"))
    })
    .prepare(|field| {
        field.make_dir(&field.scratch("lower"))?;
        field.put(&field.scratch("lower/f"))?;
        let (lower, upper) = (field.scratch("lower"), field.scratch("upper"));
        mounts::overlay(field, &lower, &upper, &field.at("m"))
    }),
    read("read-own-overlay-lower-secret", |field| {
        own(field, &field.dir, &field.scratch("upper"), &field.dir)?;
        content(&field.scratch("m/f"))
    }),
    read("read-own-overlay-by-fsmount", |field| {
        let at = field.scratch("m");
        std::fs::create_dir_all(&at)?;
        mounts::own_mounts(field)?;
        if field.is_control() {
            mounts::own_bind(&field.dir, &at)?;
            return content(&at.join("f"));
        }
        let context = sys::owned(call!(SYS_fsopen, c"overlay", 0)?);
        // Two lower directories: it needs no other.
        let lower = format!("{}:{}", field.dir.display(), field.work.display());
        let lower = sys::c_path(Path::new(&lower));
        call!(
            SYS_fsconfig,
            &context,
            FSCONFIG_SET_STRING,
            c"lowerdir",
            &*lower,
            0
        )?;
        call!(SYS_fsconfig, &context, FSCONFIG_CMD_CREATE, 0, 0, 0)?;
        let tree = sys::owned(call!(SYS_fsmount, &context, 0, 0)?);
        sys::read(&sys::open_at(tree.as_raw_fd(), Path::new("f"), O_RDONLY)?)
    }),
    write("container-volume", |field| {
        contained(field)?;
        marked(Path::new("/data/f"))
    })
    .prepare(container),
    read("read-container-volume", |field| {
        contained(field)?;
        content(Path::new("/data/f"))
    })
    .prepare(container),
];

/// Below the allowed tree, what is stored in the denied one.
fn upper_denied(field: &Field) -> anyhow::Result<()> {
    field.make_dir(&field.at("up"))?;
    field.put(&field.at("up/g"))?;
    // Upper and work directories have to be on one file system, and are.
    let (lower, upper) = (field.scratch("lower"), field.at("up"));
    mounts::overlay(field, &lower, &upper, &field.scratch("m"))
}

fn lower_denied(field: &Field) -> anyhow::Result<()> {
    mounts::overlay(
        field,
        &field.dir,
        &field.scratch("upper"),
        &field.scratch("m"),
    )
}

/// What a container's engine prepares: a root of layers, and the object as a volume in it.
fn container(field: &Field) -> anyhow::Result<()> {
    field.make_dir(&field.scratch("image/data"))?;
    let (lower, upper) = (field.scratch("image"), field.scratch("upper"));
    mounts::overlay(field, &lower, &upper, &field.scratch("m"))?;
    mounts::bind(&field.dir, &field.scratch("m/data"))
}

/// Goes into the container: mounts of its own, and its root.
fn contained(field: &Field) -> Try {
    mounts::own_mounts(field)?;
    // Of mounts that a user finds, none can be the root: one of its own, with what is below.
    let root = field.scratch("m");
    call!(SYS_mount, &root, &root, 0, libc::MS_BIND | libc::MS_REC, 0)?;
    mounts::pivot(&root)
}

/// Mounts an overlay, which no agent may. As a control, what it would show is shown by a
/// bind mount at the same place.
fn own(field: &Field, lower: &Path, upper: &Path, shown: &Path) -> Try {
    let (work, at) = (field.scratch("overlay-work"), field.scratch("m"));
    for directory in [&work, &at] {
        std::fs::create_dir_all(directory)?;
    }
    if !upper.exists() {
        std::fs::create_dir_all(upper)?;
    }
    mounts::own_mounts(field)?;
    if field.is_control() {
        return mounts::own_bind(shown, &at);
    }
    let options = sys::c_path(Path::new(&mounts::overlay_options(lower, upper, &work)));
    call!(SYS_mount, c"overlay", &at, c"overlay", 0, &*options)?;
    sys::done()
}

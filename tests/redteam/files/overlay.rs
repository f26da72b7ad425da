//! overlayfs: lower, upper and merged names of one object.

use std::path::Path;

use nix::libc::{O_RDONLY, O_WRONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::mounts;
use crate::snapshot;
use crate::sys::{self, Try, call};

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
        sys::open(&field.scratch("m/new"), O_WRONLY | nix::libc::O_CREAT)?;
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
];

fn marked(path: &Path) -> Try {
    sys::mark(&sys::open(path, O_WRONLY)?)
}

fn content(path: &Path) -> Try {
    sys::read(&sys::open(path, O_RDONLY)?)
}

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

/// An overlay in mounts of the process's own.
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

//! Names and objects that rules could miss: odd, long, deep, new, moved, on file
//! systems of other kinds.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::libc::{self, O_DIRECTORY, O_PATH, O_RDONLY, O_WRONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::snapshot;
use crate::sys::{self, Try, call, content, marked};

pub const ATTEMPTS: &[Attempt] = &[
    write("name-of-every-byte", |field| {
        marked(&field.at(every_byte()))
    })
    .prepare(|field| field.put(&field.at(every_byte()))),
    write("name-of-every-byte-create", |field| {
        sys::open(&field.at(every_byte()), O_WRONLY | libc::O_CREAT)?;
        sys::done()
    }),
    write("name-of-every-byte-unlink", |field| {
        call!(SYS_unlink, &field.at(every_byte()))?;
        sys::done()
    })
    .prepare(|field| field.put(&field.at(every_byte()))),
    write("name-of-single-bytes", |field| {
        for byte in single_bytes() {
            marked(&field.at(OsStr::from_bytes(&[byte])))?;
        }
        sys::done()
    })
    .prepare(|field| {
        single_bytes().try_for_each(|byte| field.put(&field.at(OsStr::from_bytes(&[byte]))))
    }),
    write("directory-of-every-byte", |field| {
        marked(&field.at(every_byte()).join("g"))
    })
    .prepare(|field| {
        field.make_dir(&field.at(every_byte()))?;
        field.put(&field.at(every_byte()).join("g"))
    }),
    read("read-name-of-every-byte", |field| {
        content(&field.at(every_byte()))
    })
    .prepare(|field| field.put(&field.at(every_byte()))),
    write("name-of-255-bytes", |field| {
        marked(&field.at("n".repeat(255)))
    })
    .prepare(|field| field.put(&field.at("n".repeat(255)))),
    write("name-of-255-bytes-create", |field| {
        sys::open(&field.at("n".repeat(255)), O_WRONLY | libc::O_CREAT)?;
        sys::done()
    }),
    write("deep-file", |field| marked(&deep(field).join("g"))).prepare(make_deep),
    write("deep-create", |field| {
        sys::open(&deep(field).join("new"), O_WRONLY | libc::O_CREAT)?;
        sys::done()
    })
    .prepare(make_deep),
    write("long-path", |field| {
        let directory = long(field, false)?;
        sys::mark(&sys::open_at(
            directory.as_raw_fd(),
            Path::new("g"),
            O_WRONLY,
        )?)
    })
    .prepare(make_long)
    .look(look_long),
    read("read-deep-file", |field| content(&deep(field).join("g"))).prepare(make_deep),
    read("read-long-path", |field| {
        let directory = long(field, false)?;
        sys::read(&sys::open_at(
            directory.as_raw_fd(),
            Path::new("g"),
            O_RDONLY,
        )?)
    })
    .prepare(make_long),
    write("recreated-file", |field| marked(&field.file())).late(recreate_file),
    write("recreated-directory", |field| marked(&field.file())).late(recreate_directory),
    write("moved-in-file", |field| marked(&field.at("g"))).late(move_file_in),
    write("moved-in-directory", |field| marked(&field.at("d/g"))).late(|field| {
        field.make_dir(&field.scratch("d"))?;
        field.put(&field.scratch("d/g"))?;
        Ok(fs::rename(field.scratch("d"), field.at("d"))?)
    }),
    write("renamed-parent", |field| marked(&field.at("b/g")))
        .prepare(|field| {
            field.make_dir(&field.at("a"))?;
            field.put(&field.at("a/g"))
        })
        .late(|field| Ok(fs::rename(field.at("a"), field.at("b"))?)),
    write("moved-out-while-entered", |field| {
        // The directory was in the allowed tree when the process got it.
        sys::mark(&sys::open_at(field.inherited, Path::new("g"), O_WRONLY)?)
    })
    .prepare(|field| {
        field.make_dir(&field.scratch("d"))?;
        field.put(&field.scratch("d/g"))
    })
    .inherits(|field| {
        let from = field.scratch("d");
        // Opened for several processes: it moves once.
        if from.exists() {
            fs::rename(&from, field.at("d"))?;
        }
        Ok(sys::open(&field.at("d"), O_PATH)?)
    }),
    write("moved-out-file", |field| marked(&field.scratch("g")))
        .late(move_file_out)
        .look(|field| snapshot::of_path(&field.scratch("g"))),
    read("read-moved-out-file", |field| content(&field.scratch("g"))).late(move_file_out),
    read("read-renamed-parent", |field| content(&field.at("b/g")))
        .prepare(|field| {
            field.make_dir(&field.at("a"))?;
            field.put(&field.at("a/g"))
        })
        .late(|field| Ok(fs::rename(field.at("a"), field.at("b"))?)),
    write("renamed-grandparent", |field| marked(&field.at("b/c/d/g")))
        .prepare(|field| {
            field.make_dir(&field.at("a/c/d"))?;
            field.put(&field.at("a/c/d/g"))
        })
        .late(|field| Ok(fs::rename(field.at("a"), field.at("b"))?)),
    write("open-symlink-race", race),
    read("read-recreated-file", |field| content(&field.file())).late(recreate_file),
    read("read-recreated-directory", |field| content(&field.file())).late(recreate_directory),
    read("read-moved-in-file", |field| content(&field.at("g"))).late(move_file_in),
];

/// Every byte that a name can have, once.
fn every_byte() -> OsString {
    let bytes: Vec<u8> = (1..=u8::MAX).filter(|byte| *byte != b'/').collect();
    OsStr::from_bytes(&bytes).to_owned()
}

/// Every byte that alone is a name.
fn single_bytes() -> impl Iterator<Item = u8> {
    (1..=u8::MAX).filter(|byte| !matches!(byte, b'/' | b'.'))
}

/// Deeper than rules can see; for the control, nearly as deep as they can.
fn deep(field: &Field) -> PathBuf {
    let levels = if field.is_control() { 50 } else { 100 };
    field.at((0..levels).map(|_| "d").collect::<PathBuf>())
}

fn make_deep(field: &Field) -> Result<()> {
    field.make_dir(&deep(field))?;
    field.put(&deep(field).join("g"))
}

/// A directory whose path is longer than any path may be (for the control, half as
/// long), reached level by level.
fn long(field: &Field, make: bool) -> Try<OwnedFd> {
    let levels = if field.is_control() { 8 } else { 24 };
    let name = PathBuf::from("l".repeat(240));
    let mut at = sys::open(&field.dir, O_PATH | O_DIRECTORY)?;
    for _ in 0..levels {
        if make {
            call!(SYS_mkdirat, &at, &name, 0o755)?;
            let uid = field.user.uid();
            call!(SYS_fchownat, &at, &name, uid, uid, 0)?;
        }
        at = sys::open_at(at.as_raw_fd(), &name, O_PATH | O_DIRECTORY)?;
    }
    Ok(at)
}

fn make_long(field: &Field) -> Result<()> {
    let directory = long(field, true)?;
    let flags = O_WRONLY | libc::O_CREAT;
    let fd = sys::open_at(directory.as_raw_fd(), Path::new("g"), flags)?;
    let text = format!("{}\n", field.token);
    call!(SYS_write, &fd, text.as_bytes(), text.len())?;
    let uid = field.user.uid();
    call!(SYS_fchown, &fd, uid, uid)?;
    Ok(())
}

fn look_long(field: &Field) -> Result<String> {
    let directory = long(field, false)?;
    let fd = sys::open_at(directory.as_raw_fd(), Path::new("g"), O_RDONLY)?;
    Ok(String::from_utf8_lossy(&sys::read(&fd)?).into_owned())
}

fn recreate_file(field: &Field) -> Result<()> {
    fs::remove_file(field.file())?;
    field.put(&field.file())
}

fn recreate_directory(field: &Field) -> Result<()> {
    fs::remove_dir_all(&field.dir)?;
    field.make_dir(&field.dir)?;
    field.put(&field.file())
}

fn move_file_in(field: &Field) -> Result<()> {
    field.put(&field.scratch("g"))?;
    Ok(fs::rename(field.scratch("g"), field.at("g"))?)
}

fn move_file_out(field: &Field) -> Result<()> {
    field.put(&field.at("g"))?;
    Ok(fs::rename(field.at("g"), field.scratch("g"))?)
}

/// Opens by a symbolic link that another process turns all the time between a file of the
/// agent's own and the object: a decision about the name as it was typed could be late.
fn race(field: &Field) -> Try {
    const TRIES: usize = 500;
    let (mine, link, next) = (
        field.scratch("mine"),
        field.scratch("link"),
        field.scratch("next"),
    );
    fs::write(&mine, "")?;
    // It may be there from an earlier try.
    let _ = fs::remove_file(&link);
    let _ = fs::remove_file(&next);
    call!(SYS_symlink, &mine, &link)?;
    let turner = sys::fork(|| {
        loop {
            for target in [field.file(), mine.clone()] {
                call!(SYS_symlink, &target, &next)?;
                call!(SYS_rename, &next, &link)?;
            }
        }
    })?;
    let mut refused = None;
    for _ in 0..TRIES {
        // What a link says while it is replaced may be anything: only refusals count.
        let fail = marked(&link).err();
        refused = fail.filter(|fail| fail.errno == libc::EPERM).or(refused);
        call!(SYS_sched_yield)?;
    }
    call!(SYS_kill, turner.pid, libc::SIGKILL)?;
    turner.wait()?;
    refused.map_or_else(sys::done, Err)
}

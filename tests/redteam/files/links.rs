//! Hard links: one object, two names.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::libc::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, O_PATH, O_RDONLY, O_WRONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::Field;
use crate::sys::{self, MARK, Try, call};

pub const ATTEMPTS: &[Attempt] = &[
    write("link-out", |field| {
        linked(&field.file(), &field.scratch("g"))?;
        sys::mark(&sys::open(&field.scratch("g"), O_WRONLY)?)
    }),
    write("link-in", |field| {
        fs::write(field.scratch("g"), MARK)?;
        linked(&field.scratch("g"), &field.at("new"))
    }),
    write("link-out-by-proc", |field| {
        let fd = sys::open(&field.file(), O_PATH)?;
        let by_proc = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let to = field.scratch("g");
        call!(
            SYS_linkat,
            AT_FDCWD,
            &by_proc,
            AT_FDCWD,
            &to,
            AT_SYMLINK_FOLLOW
        )?;
        sys::mark(&sys::open(&to, O_WRONLY)?)
    }),
    write("link-out-by-empty-path", |field| {
        let fd = sys::open(&field.file(), O_PATH)?;
        let to = field.scratch("g");
        call!(SYS_linkat, &fd, Path::new(""), AT_FDCWD, &to, AT_EMPTY_PATH)?;
        sys::mark(&sys::open(&to, O_WRONLY)?)
    })
    .lacks(&[(
        nix::libc::ENOENT,
        "the kernel wants CAP_DAC_READ_SEARCH for it",
    )]),
    write("link-made-before-policy", open_link).prepare(link_into_work),
    write("link-made-after-policy", open_link).late(link_into_work),
    write("link-of-new-file", open_link).late(|field| {
        fs::remove_file(field.file())?;
        field.put(&field.file())?;
        link_into_work(field)
    }),
    write("link-of-unruled-file", open_link)
        .prepare(|field| {
            // No rule names the file: it is the default that forbids writing to it.
            let outside = field.root.join(field.dir.file_name().context("no name")?);
            fs::rename(field.file(), &outside)?;
            fs::hard_link(&outside, field.scratch("g"))?;
            Ok(())
        })
        .look(|field| Ok(fs::read_to_string(field.scratch("g"))?)),
    read("read-link-out", |field| {
        linked(&field.file(), &field.scratch("g"))?;
        sys::read(&sys::open(&field.scratch("g"), O_RDONLY)?)
    }),
    read("read-link-from-vault", |field| {
        let base = field
            .work
            .join(if field.is_control() { "shelf" } else { "vault" });
        linked(&base.join("f"), &field.scratch("g"))?;
        sys::read(&sys::open(&field.scratch("g"), O_RDONLY)?)
    })
    .prepare(|field| {
        let base = field
            .work
            .join(if field.is_control() { "shelf" } else { "vault" });
        field.make_dir(&base)?;
        field.put(&base.join("f"))
    }),
    read("read-link-made-before-policy", read_link_of).prepare(link_into_work),
    read("read-link-made-after-policy", read_link_of).late(link_into_work),
];

fn linked(from: &Path, to: &Path) -> Try {
    call!(SYS_link, from, to)?;
    sys::done()
}

fn link_into_work(field: &Field) -> Result<()> {
    Ok(fs::hard_link(field.file(), field.scratch("g"))?)
}

fn open_link(field: &Field) -> Try {
    sys::mark(&sys::open(&field.scratch("g"), O_WRONLY)?)
}

fn read_link_of(field: &Field) -> Try {
    sys::read(&sys::open(&field.scratch("g"), O_RDONLY)?)
}

//! Hard links: one object, two names.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::libc::{
    AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, MAP_SHARED, O_PATH, O_RDONLY, O_RDWR, O_WRONLY,
    PROT_READ, PROT_WRITE,
};

use crate::attempt::{Attempt, read, write};
use crate::disks::vault;
use crate::field::Field;
use crate::files::handle;
use crate::mounts;
use crate::sys::{self, MARK, Map, Try, call, content, marked};

pub const ATTEMPTS: &[Attempt] = &[
    write("link-out", |field| {
        linked(&field.file(), &field.scratch("g"))?;
        marked(&field.scratch("g"))
    }),
    write("link-in", |field| {
        fs::write(field.scratch("g"), MARK)?;
        linked(&field.scratch("g"), &field.at("new"))
    }),
    write("link-out-by-proc", |field| {
        let fd = sys::open(&field.file(), O_PATH)?;
        let by_proc = sys::by_proc(&fd);
        let to = field.scratch("g");
        call!(
            SYS_linkat,
            AT_FDCWD,
            &by_proc,
            AT_FDCWD,
            &to,
            AT_SYMLINK_FOLLOW
        )?;
        marked(&to)
    }),
    write("link-out-by-empty-path", |field| {
        let fd = sys::open(&field.file(), O_PATH)?;
        let to = field.scratch("g");
        call!(SYS_linkat, &fd, Path::new(""), AT_FDCWD, &to, AT_EMPTY_PATH)?;
        marked(&to)
    })
    .lacks(&[(
        nix::libc::ENOENT,
        "the kernel wants CAP_DAC_READ_SEARCH for it",
    )]),
    write("link-made-before-policy", open_link).prepare(link_into_work),
    write("link-made-after-policy", open_link).late(link_into_work),
    write("link-chmod", |field| {
        call!(SYS_chmod, &field.scratch("g"), 0o600)?;
        sys::done()
    })
    .prepare(link_into_work),
    write("link-truncate", |field| {
        call!(SYS_truncate, &field.scratch("g"), 3)?;
        sys::done()
    })
    .prepare(link_into_work),
    write("link-setxattr", |field| {
        let name = c"user.redteam";
        call!(SYS_setxattr, &field.scratch("g"), name, MARK, MARK.len(), 0)?;
        sys::done()
    })
    .prepare(link_into_work),
    write("link-write-inherited", |field| {
        sys::mark_raw(field.inherited)
    })
    .prepare(link_into_work)
    .inherits(|field| Ok(sys::open(&field.scratch("g"), O_WRONLY)?)),
    write("link-mmap-inherited", |field| {
        let access = PROT_READ | PROT_WRITE;
        Map::new(4096, access, MAP_SHARED, field.inherited, 0)?.store(MARK);
        sys::done()
    })
    .prepare(|field| {
        field.put_bytes(&field.file(), &[b'.'; 4096])?;
        link_into_work(field)
    })
    .inherits(|field| Ok(sys::open(&field.scratch("g"), O_RDWR)?)),
    write("link-by-bind-mount", |field| marked(&field.scratch("d/g"))).late(|field| {
        // The second name is seen through a mount that came later.
        field.make_dir(&field.scratch("e"))?;
        fs::hard_link(field.file(), field.scratch("e/g"))?;
        field.make_dir(&field.scratch("d"))?;
        mounts::bind(&field.scratch("e"), &field.scratch("d"))
    }),
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
        content(&field.scratch("g"))
    }),
    read("read-link-from-vault", |field| {
        let base = field.work.join(vault(field));
        linked(&base.join("f"), &field.scratch("g"))?;
        content(&field.scratch("g"))
    })
    .prepare(|field| {
        let base = field.work.join(vault(field));
        field.make_dir(&base)?;
        field.put(&base.join("f"))
    }),
    read("read-link-made-before-policy", read_link_of).prepare(link_into_work),
    read("read-link-made-after-policy", read_link_of).late(link_into_work),
    read("read-link-by-handle", |field| {
        let handle = handle::of(&field.scratch("g"))?;
        sys::read(&handle::open(field, &handle, O_RDONLY)?)
    })
    .prepare(link_into_work)
    .root_only(handle::WHY),
    read("read-link-inherited", |field| {
        sys::read_raw(field.inherited)
    })
    .prepare(link_into_work)
    .inherits(|field| Ok(sys::open(&field.scratch("g"), O_RDONLY)?)),
];

fn linked(from: &Path, to: &Path) -> Try {
    call!(SYS_link, from, to)?;
    sys::done()
}

fn link_into_work(field: &Field) -> Result<()> {
    Ok(fs::hard_link(field.file(), field.scratch("g"))?)
}

fn open_link(field: &Field) -> Try {
    marked(&field.scratch("g"))
}

fn read_link_of(field: &Field) -> Try {
    content(&field.scratch("g"))
}

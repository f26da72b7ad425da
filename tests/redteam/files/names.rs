//! Names: making, removing and moving them.

use std::fs;
use std::path::Path;

use nix::libc::{
    AT_FDCWD, AT_REMOVEDIR, O_RDONLY, O_WRONLY, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT,
    S_IFBLK, S_IFCHR, S_IFIFO, S_IFREG, S_IFSOCK,
};

use crate::attempt::{Attempt, read, write};
use crate::disks::{ruled, vault};
use crate::field::Field;
use crate::sys::{self, MARK, Try, call};

const DEVICES: &str = "making devices wants CAP_MKNOD";

pub const ATTEMPTS: &[Attempt] = &[
    write("unlink", |field| {
        call!(SYS_unlink, &field.file())?;
        sys::done()
    }),
    write("rmdir", |field| {
        call!(SYS_rmdir, &field.at("d"))?;
        sys::done()
    })
    .prepare(|field| field.make_dir(&field.at("d"))),
    write("unlinkat-directory", |field| {
        call!(SYS_unlinkat, AT_FDCWD, &field.at("d"), AT_REMOVEDIR)?;
        sys::done()
    })
    .prepare(|field| field.make_dir(&field.at("d"))),
    write("rename-out", |field| {
        moved(&field.file(), &field.scratch("g"), 0)
    }),
    write("rename-in", |field| {
        mine(field)?;
        moved(&field.scratch("g"), &field.at("new"), 0)
    }),
    write("rename-over", |field| {
        mine(field)?;
        moved(&field.scratch("g"), &field.file(), 0)
    }),
    write("rename-within", |field| {
        moved(&field.file(), &field.at("new"), 0)
    }),
    write("rename-no-replace", |field| {
        mine(field)?;
        moved(&field.scratch("g"), &field.at("new"), RENAME_NOREPLACE)
    }),
    write("rename-exchange-out", |field| {
        mine(field)?;
        moved(&field.file(), &field.scratch("g"), RENAME_EXCHANGE)
    }),
    write("rename-exchange-in", |field| {
        mine(field)?;
        moved(&field.scratch("g"), &field.file(), RENAME_EXCHANGE)
    }),
    write("rename-whiteout", |field| {
        moved(&field.file(), &field.scratch("g"), RENAME_WHITEOUT)
    })
    .root_only("a whiteout is a device: CAP_MKNOD"),
    write("rename-prepared-tree", prepared_tree)
        .prepare(|field| {
            // On the denied side, `ruled/**` may not be written, but its parent may.
            if field.is_control() {
                Ok(())
            } else {
                field.make_dir(&open_to(field))
            }
        })
        .look(look_at_open),
    write("rename-ruled-parent", ruled_parent)
        .prepare(|field| {
            let dir = parent_to(field).join(ruled(field));
            field.make_dir(&open_to(field))?;
            field.make_dir(&parent_to(field))?;
            field.make_dir(&dir)?;
            field.put(&dir.join("f"))
        })
        .look(look_at_open),
    write("rename-ruled-directory", |field| {
        let moved_to = open_to(field).join("moved");
        moved(&open_to(field).join(ruled(field)), &moved_to, 0)?;
        sys::mark(&sys::open(&moved_to.join("f"), O_WRONLY)?)
    })
    .prepare(|field| {
        let dir = open_to(field).join(ruled(field));
        field.make_dir(&open_to(field))?;
        field.make_dir(&dir)?;
        field.put(&dir.join("f"))
    })
    .look(look_at_open),
    read("read-rename-parent", |field| {
        let base = field.work.join(vault(field));
        moved(&base, &field.scratch("elsewhere"), 0)?;
        sys::read(&sys::open(&field.scratch("elsewhere").join("f"), O_RDONLY)?)
    })
    .prepare(vaulted),
    read("read-rename-out", |field| {
        let base = field.work.join(vault(field));
        moved(&base.join("f"), &field.scratch("g"), 0)?;
        sys::read(&sys::open(&field.scratch("g"), O_RDONLY)?)
    })
    .prepare(vaulted),
    read("read-exchange-directory", |field| {
        let base = field.work.join(vault(field));
        call!(SYS_mkdir, &field.scratch("mine"), 0o755)?;
        moved(&field.scratch("mine"), &base, RENAME_EXCHANGE)?;
        sys::read(&sys::open(&field.scratch("mine").join("f"), O_RDONLY)?)
    })
    .prepare(vaulted),
    write("symlink", |field| {
        call!(SYS_symlink, &field.work, &field.at("new"))?;
        sys::done()
    }),
    write("mknod-file", |field| node(field, S_IFREG)),
    write("mknod-fifo", |field| node(field, S_IFIFO)),
    write("mknod-socket", |field| node(field, S_IFSOCK)),
    write("mknod-character-device", |field| node(field, S_IFCHR))
        .root_only(DEVICES)
        .lifted(),
    write("mknod-block-device", |field| node(field, S_IFBLK))
        .root_only(DEVICES)
        .lifted(),
    write("bind-unix-socket", bind),
];

fn moved(from: &Path, to: &Path, flags: u32) -> Try {
    call!(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags)?;
    sys::done()
}

/// A file of the agent's own, `g`.
fn mine(field: &Field) -> Try {
    fs::write(field.scratch("g"), MARK)?;
    sys::done()
}

fn node(field: &Field, kind: u32) -> Try {
    // Device 1:3 is /dev/null; other kinds ignore it.
    call!(SYS_mknod, &field.at("new"), kind | 0o644, 0x103)?;
    sys::done()
}

/// A directory below which the policy allows everything but `ruled` and `vault`.
fn open_to(field: &Field) -> std::path::PathBuf {
    field.scratch("open")
}

/// Below a directory that may be changed, one that must not be read.
fn vaulted(field: &Field) -> anyhow::Result<()> {
    let base = field.work.join(vault(field));
    field.make_dir(&base)?;
    field.put(&base.join("f"))
}

fn look_at_open(field: &Field) -> anyhow::Result<String> {
    let mut seen = String::new();
    // What is at, and was at, the ruled names; the agent may do the rest.
    for path in [
        open_to(field).join(ruled(field)),
        open_to(field).join("parent").join(ruled(field)),
        open_to(field).join("moved"),
        open_to(field).join("gone"),
    ] {
        let mut field = field.clone();
        field.dir = path;
        seen.push_str(&crate::snapshot::of_field(&field)?);
    }
    Ok(seen)
}

/// A tree made elsewhere becomes what a rule forbids to make.
fn prepared_tree(field: &Field) -> Try {
    let open = open_to(field);
    fs::create_dir_all(open.join("mine"))?;
    fs::write(open.join("mine/f"), MARK)?;
    moved(&open.join("mine"), &open.join(ruled(field)), 0)
}

/// The parent of a ruled directory moves, and the rule's names with it.
/// On the denied side, the directory that a rule names something below of.
fn parent_to(field: &Field) -> std::path::PathBuf {
    open_to(field).join(if field.is_control() {
        "unruled"
    } else {
        "parent"
    })
}

fn ruled_parent(field: &Field) -> Try {
    let open = open_to(field);
    moved(&parent_to(field), &open.join("gone"), 0)?;
    let file = open.join("gone").join(ruled(field)).join("f");
    sys::mark(&sys::open(&file, O_WRONLY)?)
}

fn bind(field: &Field) -> Try {
    // Longer names than 108 bytes do not fit: from the directory on.
    call!(SYS_chdir, &field.dir)?;
    let socket = sys::owned(call!(
        SYS_socket,
        nix::libc::AF_UNIX,
        nix::libc::SOCK_STREAM,
        0
    )?);
    let address = sys::unix_address(b"new");
    call!(SYS_bind, &socket, &address[..], address.len())?;
    sys::done()
}

//! Other ways to the same object that mounts, roots and namespaces make.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::libc::{self, AT_FDCWD, O_RDONLY, O_WRONLY};

use crate::attempt::{Attempt, read, write};
use crate::field::{Field, User};
use crate::mounts;
use crate::sys::{self, Try, call, content, marked};

const OPEN_TREE_CLONE: i32 = 1;

pub const ATTEMPTS: &[Attempt] = &[
    write("own-bind-mount", |field| marked(&bound(field)?)),
    write("own-bind-mount-of-file", |field| {
        mounts::own_mounts(field)?;
        std::fs::write(field.scratch("g"), "")?;
        mounts::own_bind(&field.file(), &field.scratch("g"))?;
        marked(&field.scratch("g"))
    }),
    write("own-detached-tree", |field| {
        let tree = detached(field)?;
        let fd = sys::open_at(tree.as_raw_fd(), Path::new("f"), O_WRONLY)?;
        sys::mark(&fd)
    }),
    write("own-chroot", |field| {
        rooted(field)?;
        marked(Path::new("/f"))
    }),
    write("own-pivot-root", |field| {
        pivoted(field)?;
        marked(Path::new("/f"))
    }),
    write("own-mount-namespace-by-setns", |field| {
        marked(&entered(field)?)
    })
    .root_only("another user's mounts are entered with CAP_SYS_ADMIN"),
    write("bind-mount-made-before-policy", |field| {
        marked(&field.scratch("d/f"))
    })
    .prepare(bind_in_work),
    write("bind-mount-made-after-policy", |field| {
        marked(&field.scratch("d/f"))
    })
    .late(bind_in_work),
    write("bind-mount-of-subdirectory", |field| {
        marked(&field.scratch("d/g"))
    })
    .late(|field| {
        field.make_dir(&field.at("below"))?;
        field.put(&field.at("below/g"))?;
        field.make_dir(&field.scratch("d"))?;
        mounts::bind(&field.at("below"), &field.scratch("d"))
    }),
    write("bind-mount-create", |field| {
        sys::open(&field.scratch("d/new"), O_WRONLY | libc::O_CREAT)?;
        sys::done()
    })
    .prepare(bind_in_work),
    write("tmpfs-mounted-before-policy", |field| {
        marked(&field.at("m/g"))
    })
    .prepare(tmpfs),
    write("tmpfs-mounted-after-policy", |field| {
        marked(&field.at("m/g"))
    })
    .late(tmpfs),
    write("ext4-mounted-after-policy", |field| {
        marked(&field.at("m/g"))
    })
    .late(disk),
    write("ext4-mounted-elsewhere-after-policy", |field| {
        marked(&field.scratch("d/g"))
    })
    .prepare(disk)
    .late(|field| {
        let device = std::fs::read_to_string(field.at("device"))?;
        field.make_dir(&field.scratch("d"))?;
        mounts::device(Path::new(&device), "ext4", &field.scratch("d"))
    }),
    read("read-ext4-mounted-after-policy", |field| {
        content(&field.at("m/g"))
    })
    .late(disk),
    read("read-own-bind-mount", |field| content(&bound(field)?)),
    read("read-own-detached-tree", |field| {
        let tree = detached(field)?;
        sys::read(&sys::open_at(tree.as_raw_fd(), Path::new("f"), O_RDONLY)?)
    }),
    read("read-own-chroot", |field| {
        rooted(field)?;
        content(Path::new("/f"))
    }),
    read("read-own-pivot-root", |field| {
        pivoted(field)?;
        content(Path::new("/f"))
    }),
    read("read-bind-mount-made-before-policy", |field| {
        content(&field.scratch("d/f"))
    })
    .prepare(bind_in_work),
    read("read-bind-mount-made-after-policy", |field| {
        content(&field.scratch("d/f"))
    })
    .late(bind_in_work),
    read("read-tmpfs-mounted-after-policy", |field| {
        content(&field.at("m/g"))
    })
    .late(tmpfs),
];

/// The file, through a bind mount in mounts of the process's own.
fn bound(field: &Field) -> Try<PathBuf> {
    mounts::own_mounts(field)?;
    let at = field.scratch("bound");
    std::fs::create_dir_all(&at)?;
    mounts::own_bind(&field.dir, &at)?;
    Ok(at.join("f"))
}

/// The directory as a tree that is mounted nowhere.
fn detached(field: &Field) -> Try<OwnedFd> {
    mounts::own_mounts(field)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC;
    Ok(sys::owned(call!(
        SYS_open_tree,
        AT_FDCWD,
        &field.dir,
        flags
    )?))
}

fn rooted(field: &Field) -> Try {
    if field.user == User::Ordinary {
        call!(SYS_unshare, libc::CLONE_NEWUSER)?;
    }
    call!(SYS_chroot, &field.dir)?;
    call!(SYS_chdir, Path::new("/"))?;
    sys::done()
}

fn pivoted(field: &Field) -> Try {
    mounts::own_mounts(field)?;
    // The new root has to be a mount.
    mounts::own_bind(&field.dir, &field.dir)?;
    mounts::pivot(&field.dir)
}

/// A child makes the bind mount in a namespace of its own; this process enters it.
fn entered(field: &Field) -> Try<PathBuf> {
    let at = field.scratch("bound");
    std::fs::create_dir_all(&at)?;
    let (from, to) = sys::pipe()?;
    let child = sys::fork(|| {
        mounts::own_mounts(field)?;
        mounts::own_bind(&field.dir, &at)?;
        sys::mark(&to)?;
        call!(SYS_pause)?;
        sys::done()
    })?;
    drop(to);
    let told = sys::read(&from)?;
    if told.is_empty() {
        return Err(sys::Fail::new("the child's mounts", child.wait()? >> 8));
    }
    let namespace = PathBuf::from(format!("/proc/{}/ns/mnt", child.pid));
    let namespace = sys::open(&namespace, O_RDONLY)?;
    call!(SYS_setns, &namespace, libc::CLONE_NEWNS)?;
    Ok(at.join("f"))
}

fn bind_in_work(field: &Field) -> anyhow::Result<()> {
    field.make_dir(&field.scratch("d"))?;
    mounts::bind(&field.dir, &field.scratch("d"))
}

fn disk(field: &Field) -> anyhow::Result<()> {
    let at = field.at("m");
    let device = mounts::file_system(field, ("ext4", 4 << 20), &["-q"], &at)?;
    std::fs::write(field.at("device"), device.to_string_lossy().as_bytes())?;
    field.put(&at.join("g"))
}

fn tmpfs(field: &Field) -> anyhow::Result<()> {
    mounts::tmpfs(field, &field.at("m"))?;
    field.put(&field.at("m/g"))
}

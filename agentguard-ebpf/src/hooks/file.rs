//! Files: opens, and what changes names, contents and attributes by path.

use agentguard_common::verb::{Verb, Verbs};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use crate::emit;
use crate::enforce;
use crate::kernel::{Argument, Dentry, File, Path};
use crate::verifier;

const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
/// Set while the kernel opens a program or an interpreter: `exec_check` decides that.
const FMODE_EXEC: u32 = 0x20;
const O_TRUNC: u32 = 0o1000;
const RENAME_EXCHANGE: u32 = 2;
const S_IFMT: u32 = 0o170_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFCHR: u32 = 0o020_000;

/// `int file_open(struct file *file)`
#[lsm(hook = "file_open")]
pub fn file_open(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(1);
    let Some((tag, task)) = enforce::tagged_task(prior) else {
        return prior;
    };
    let file = File::from_argument(ctx.arg(0));
    let (flags, mode) = (file.flags(), file.mode());
    if flags & FMODE_EXEC != 0 {
        return 0;
    }
    let mut wanted = Verbs::NONE;
    if mode & FMODE_READ != 0 {
        wanted = wanted.and(Verb::Read);
    }
    if mode & FMODE_WRITE != 0 || flags & O_TRUNC != 0 {
        wanted = wanted.and(Verb::Write);
    }
    if file.is_layer_of(task) {
        return enforce::layer(tag, file.dentry(), wanted);
    }
    enforce::path(tag, file.dentry(), wanted)
}

/// `int file_truncate(struct file *file)`, since 6.2
#[lsm(hook = "file_truncate")]
pub fn file_truncate(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(1);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    enforce::path(tag, File::from_argument(ctx.arg(0)).dentry(), Verbs::of(Verb::Write))
}

/// `int path_truncate(const struct path *path)`
#[lsm(hook = "path_truncate")]
pub fn path_truncate(ctx: LsmContext) -> i32 {
    on_path(&ctx, 1, Verb::Write)
}

/// `int path_chmod(const struct path *path, umode_t mode)`
#[lsm(hook = "path_chmod")]
pub fn path_chmod(ctx: LsmContext) -> i32 {
    on_path(&ctx, 2, Verb::Attributes)
}

/// `int path_chown(const struct path *path, kuid_t uid, kgid_t gid)`
#[lsm(hook = "path_chown")]
pub fn path_chown(ctx: LsmContext) -> i32 {
    on_path(&ctx, 3, Verb::Attributes)
}

/// `int path_mknod(const struct path *dir, struct dentry *dentry, umode_t mode, unsigned int dev)`:
/// also `open` with `O_CREAT` and binding a unix socket to a path.
#[lsm(hook = "path_mknod")]
pub fn path_mknod(ctx: LsmContext) -> i32 {
    let refused = on_name(&ctx, 4, Verb::Create);
    let mode: u32 = ctx.arg(2);
    if refused != 0 || !matches!(mode & S_IFMT, S_IFBLK | S_IFCHR) {
        return refused;
    }
    match enforce::tagged(0) {
        Some(tag) => enforce::device(tag, Dentry::from_argument(ctx.arg(1))),
        None => 0,
    }
}

/// `int path_mkdir(const struct path *dir, struct dentry *dentry, umode_t mode)`
#[lsm(hook = "path_mkdir")]
pub fn path_mkdir(ctx: LsmContext) -> i32 {
    on_name(&ctx, 3, Verb::Create)
}

/// `int path_symlink(const struct path *dir, struct dentry *dentry, const char *old_name)`
#[lsm(hook = "path_symlink")]
pub fn path_symlink(ctx: LsmContext) -> i32 {
    on_name(&ctx, 3, Verb::Create)
}

/// `int path_unlink(const struct path *dir, struct dentry *dentry)`
#[lsm(hook = "path_unlink")]
pub fn path_unlink(ctx: LsmContext) -> i32 {
    on_name(&ctx, 2, Verb::Delete)
}

/// `int path_rmdir(const struct path *dir, struct dentry *dentry)`
#[lsm(hook = "path_rmdir")]
pub fn path_rmdir(ctx: LsmContext) -> i32 {
    on_name(&ctx, 2, Verb::Delete)
}

/// `int path_link(struct dentry *old_dentry, const struct path *new_dir, struct dentry *new_dentry)`
#[lsm(hook = "path_link")]
pub fn path_link(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(3);
    if prior != 0 {
        return prior;
    }
    let (file, name) = (Dentry::from_argument(ctx.arg(0)), Dentry::from_argument(ctx.arg(2)));
    if let Some(tag) = enforce::tagged(prior) {
        let mut refused = enforce::path(tag, file, Verbs::of(Verb::Write));
        if refused == 0 {
            refused = enforce::path(tag, name, Verbs::of(Verb::Create));
        }
        if refused == 0 {
            refused = enforce::moved(tag, file, name, false, false);
        }
        if refused != 0 {
            return refused;
        }
    }
    // Whoever does it: from now on what one name says of the file may hold for the other.
    emit::linked(file, file);
    emit::linked(file, name);
    0
}

/// `int path_rename(const struct path *old_dir, struct dentry *old_dentry,
/// const struct path *new_dir, struct dentry *new_dentry, unsigned int flags)`, flags since 5.19
#[lsm(hook = "path_rename")]
pub fn path_rename(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(5);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let flags: u32 = ctx.arg(4);
    let both = Verbs::of(Verb::Delete).and(Verb::Create);
    // Exchanged names are each a source and a target.
    let exchange = flags & RENAME_EXCHANGE != 0;
    let from = if exchange { both } else { Verbs::of(Verb::Delete) };
    let (old, new) = (Dentry::from_argument(ctx.arg(1)), Dentry::from_argument(ctx.arg(3)));
    let refused = enforce::path(tag, old, forget(from));
    if refused != 0 {
        return refused;
    }
    let to = if exchange { both } else { Verbs::of(Verb::Create) };
    let refused = enforce::path(tag, new, forget(to));
    if refused != 0 {
        return refused;
    }
    // What moves with a directory is renamed as well.
    let directory = old.inode().is_directory() || exchange && new.inode().is_directory();
    enforce::moved(tag, old, new, directory, exchange)
}

/// The same verbs, of which the verifier knows nothing: one check for all sets.
#[inline(always)]
fn forget(verbs: Verbs) -> Verbs {
    Verbs(verifier::forget(u32::from(verbs.0)) as u8)
}

/// Decides a hook whose first argument is a `struct path`; `prior` is the
/// position of the earlier LSMs' answer.
#[inline(always)]
fn on_path(ctx: &LsmContext, prior: usize, verb: Verb) -> i32 {
    let prior: i32 = ctx.arg(prior);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    enforce::path(tag, Path::from_argument(ctx.arg(0)).dentry(), Verbs::of(verb))
}

/// Decides a hook whose second argument is the name, a `struct dentry`.
#[inline(always)]
fn on_name(ctx: &LsmContext, prior: usize, verb: Verb) -> i32 {
    let prior: i32 = ctx.arg(prior);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    enforce::path(tag, Dentry::from_argument(ctx.arg(1)), Verbs::of(verb))
}

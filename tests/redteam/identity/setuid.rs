//! Programs that have more rights than who starts them. Root has them already, so the agent
//! becomes an ordinary user first.

use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use nix::libc::{AT_EMPTY_PATH, O_PATH};

use super::{deed, of_child};
use crate::attempt::Attempt;
use crate::field::{Field, User};
use crate::sys::{self, Try, call};

/// `daemon`, a user and a group that nobody here is.
const OTHER: u32 = 1;
const VFS_CAP_REVISION_2: u32 = 0x0200_0000;
const VFS_CAP_FLAGS_EFFECTIVE: u32 = 1;
const CAP_NET_RAW: u32 = 13;

const fn at(
    id: &'static str,
    prepare: fn(&Field) -> Result<()>,
    attack: fn(&Field) -> Try,
) -> Attempt {
    deed(id, attack).prepare(prepare)
}

pub const ATTEMPTS: &[Attempt] = &[
    at(
        "identity-setuid-root",
        |field| bits(field, 0, 0o4755),
        started,
    ),
    at(
        "identity-setuid-other",
        |field| bits(field, OTHER, 0o4755),
        started,
    ),
    at(
        "identity-setgid-other",
        |field| bits(field, OTHER, 0o2755),
        started,
    ),
    at("identity-file-capability", capable, started),
    at(
        "identity-setuid-by-descriptor",
        |field| bits(field, OTHER, 0o4755),
        |field| {
            as_ordinary(field, |field| {
                let program = sys::open(&program(field), O_PATH)?;
                // To the child's end of the program's call, which does not return.
                let arguments = sys::words(&[c"true".as_ptr() as u64, 0]);
                let variables = sys::words(&[0]);
                let (arguments, variables) = (&arguments[..], &variables[..]);
                call!(
                    SYS_execveat,
                    &program,
                    c"",
                    arguments,
                    variables,
                    AT_EMPTY_PATH
                )?;
                sys::done()
            })
        },
    ),
];

fn program(field: &Field) -> PathBuf {
    field.at("program")
}

fn bits(field: &Field, owner: u32, mode: u32) -> Result<()> {
    let program = program(field);
    field.put_program(&program, "/bin/true")?;
    lchown(&program, Some(owner), Some(owner))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode))
        .context("cannot set the bits of a program")
}

fn capable(field: &Field) -> Result<()> {
    field.put_program(&program(field), "/bin/true")?;
    let magic = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE;
    let value = sys::halves(&[magic, 1 << CAP_NET_RAW, 0, 0, 0]);
    let name = c"security.capability";
    call!(
        SYS_setxattr,
        &program(field),
        name,
        &value[..],
        value.len(),
        0
    )?;
    Ok(())
}

fn started(field: &Field) -> Try {
    as_ordinary(field, |field| {
        let arguments = sys::words(&[c"true".as_ptr() as u64, 0]);
        let variables = sys::words(&[0]);
        call!(SYS_execve, &program(field), &arguments[..], &variables[..])?;
        sys::done()
    })
}

/// In a child that is no root any more.
fn as_ordinary(field: &Field, start: fn(&Field) -> Try) -> Try {
    let child = sys::fork(|| {
        if field.user == User::Root {
            let uid = User::Ordinary.uid();
            call!(SYS_setgroups, 0, 0)?;
            call!(SYS_setresgid, uid, uid, uid)?;
            call!(SYS_setresuid, uid, uid, uid)?;
        }
        start(field)
    })?;
    of_child(&child)
}

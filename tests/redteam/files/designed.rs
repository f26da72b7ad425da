//! What gives away no content and changes nothing: allowed, and written down.

use nix::libc::{self, AT_FDCWD, O_PATH, R_OK};

use crate::attempt::{Attempt, read};
use crate::sys::{self, Try, call};
use crate::victim::PROOF;

pub const ATTEMPTS: &[Attempt] = &[
    read("see-stat", |field| {
        let mut room = [0; 256];
        call!(SYS_stat, &field.file(), &mut room[..])?;
        seen()
    }),
    read("see-statx", |field| {
        let mut room = [0; 256];
        call!(SYS_statx, AT_FDCWD, &field.file(), 0, 0xfff, &mut room[..])?;
        seen()
    }),
    read("see-access", |field| {
        call!(SYS_faccessat2, AT_FDCWD, &field.file(), R_OK, 0)?;
        seen()
    }),
    read("see-path-descriptor", |field| {
        let fd = sys::open(&field.file(), O_PATH)?;
        let mut room = [0; 256];
        call!(SYS_fstat, &fd, &mut room[..])?;
        seen()
    }),
    read("see-symlink", |field| {
        let mut room = [0; 256];
        call!(SYS_readlink, &field.at("link"), &mut room[..], 256)?;
        seen()
    })
    .prepare(|field| Ok(std::os::unix::fs::symlink("f", field.at("link"))?)),
    read("see-xattr", |field| {
        let mut room = vec![0; 256];
        let got = call!(
            SYS_getxattr,
            &field.file(),
            c"user.redteam",
            &mut room[..],
            256
        )?;
        room.truncate(got as usize);
        Ok(room)
    })
    .prepare(|field| {
        let value = field.token.as_bytes();
        call!(
            SYS_setxattr,
            &field.file(),
            c"user.redteam",
            value,
            value.len(),
            0
        )?;
        Ok(())
    }),
    read("see-inotify", |field| {
        let watcher = sys::owned(call!(SYS_inotify_init1, 0)?);
        call!(SYS_inotify_add_watch, &watcher, &field.dir, libc::IN_MODIFY)?;
        seen()
    }),
    read("see-statfs", |field| {
        let mut room = [0; 256];
        call!(SYS_statfs, &field.file(), &mut room[..])?;
        seen()
    }),
];

fn seen() -> Try {
    Ok(PROOF.to_vec())
}

//! The host as a whole: its clock, its log, its name, its ports.

use std::fs;

use nix::libc::{self, CLOCK_REALTIME};

use super::{deed, got_to, proof};
use crate::attempt::Attempt;
use crate::field::Field;
use crate::sys::{self, call};

const ADJ_STATUS: u32 = 0x10;
const SYSLOG_READ_ALL: i32 = 3;
const SYSLOG_CONSOLE_LEVEL: i32 = 8;
const FAN_CLASS_CONTENT: u32 = 4;
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
const TIME: &str = "it needs CAP_SYS_TIME";
const ADMIN: &str = "it needs CAP_SYS_ADMIN";

pub const ATTEMPTS: &[Attempt] = &[
    // To the time that it is.
    deed("identity-clock-settime", |_| {
        let mut now = [0; 16];
        call!(SYS_clock_gettime, CLOCK_REALTIME, &mut now[..])?;
        call!(SYS_clock_settime, CLOCK_REALTIME, &now[..])?;
        proof()
    })
    .root_only(TIME),
    deed("identity-settimeofday", |_| {
        let mut now = [0; 16];
        call!(SYS_gettimeofday, &mut now[..], 0)?;
        call!(SYS_settimeofday, &now[..], 0)?;
        proof()
    })
    .root_only(TIME),
    deed("identity-adjtimex", |_| {
        let mut state = [0; 208];
        call!(SYS_adjtimex, &mut state[..])?;
        state[..4].copy_from_slice(&ADJ_STATUS.to_ne_bytes());
        call!(SYS_adjtimex, &mut state[..])?;
        proof()
    })
    .root_only(TIME),
    deed("identity-kernel-log", |_| {
        let mut room = [0; 4096];
        call!(SYS_syslog, SYSLOG_READ_ALL, &mut room[..], 4096)?;
        proof()
    })
    .root_only("the host shows it to root alone"),
    deed("identity-kernel-log-console", |_| {
        call!(SYS_syslog, SYSLOG_CONSOLE_LEVEL, 0, 5)?;
        proof()
    })
    .root_only("it needs CAP_SYSLOG"),
    deed("identity-kernel-log-device", |_| {
        sys::open("/dev/kmsg".as_ref(), libc::O_RDONLY | libc::O_NONBLOCK)?;
        proof()
    })
    .root_only("the host shows it to root alone"),
    deed("identity-hostname", |field| {
        let name = format!("redteam-{}", field.side.name());
        call!(SYS_sethostname, name.as_bytes(), name.len())?;
        sys::done()
    })
    .look(look_at_name)
    .root_only(ADMIN),
    deed("identity-ports", |_| {
        call!(SYS_iopl, 3)?;
        proof()
    })
    .lacks(&[(libc::ENOSYS, "the kernel does not give ports away")])
    .root_only("it needs CAP_SYS_RAWIO"),
    deed("identity-swap", |field| {
        got_to(call!(SYS_swapoff, &field.file()), libc::EINVAL)
    })
    .root_only(ADMIN),
    deed("identity-watch-all-opens", |_| {
        let fd = call!(SYS_fanotify_init, FAN_CLASS_CONTENT, libc::O_RDONLY)?;
        sys::owned(fd);
        proof()
    })
    .lacks(&[(libc::ENOSYS, "the kernel has no fanotify")])
    .root_only(ADMIN),
    deed("identity-accounting", |field| {
        call!(SYS_acct, &field.file())?;
        call!(SYS_acct, 0)?;
        proof()
    })
    .lacks(&[(libc::ENOSYS, "the kernel has no process accounting")])
    .root_only("it needs CAP_SYS_PACCT"),
];

fn look_at_name(_: &Field) -> anyhow::Result<String> {
    Ok(fs::read_to_string(HOSTNAME)?)
}

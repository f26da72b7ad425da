//! What would change the kernel: BPF, modules, another kernel, a restart.

use std::path::Path;

use nix::libc::{self, O_RDONLY};

use super::{deed, got_to, proof};
use crate::attempt::Attempt;
use crate::field::Field;
use crate::stage;
use crate::sys::{self, Try, c_path, call};

const BPF_PROG_LOAD: i32 = 5;
const BPF_OBJ_PIN: i32 = 6;
const BPF_OBJ_GET: i32 = 7;
const BPF_PROG_GET_NEXT_ID: i32 = 11;
const BPF_MAP_GET_NEXT_ID: i32 = 12;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_MAP_GET_FD_BY_ID: i32 = 14;
const BPF_LINK_GET_FD_BY_ID: i32 = 30;
const BPF_LINK_GET_NEXT_ID: i32 = 31;
const BPF_MAP_CREATE: i32 = 0;
/// Room for every command's attributes.
const ATTRIBUTES: usize = 144;
const ROOTS: &str = "it needs CAP_BPF";
const MODULES: &str = "it needs CAP_SYS_MODULE";
const BOOT: &str = "it needs CAP_SYS_BOOT";
const KEXEC_FILE_UNLOAD: u32 = 1;

pub const ATTEMPTS: &[Attempt] = &[
    deed("identity-bpf-map-by-number", |_| {
        by_number(BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID)
    })
    .root_only(ROOTS),
    deed("identity-bpf-program-by-number", |_| {
        by_number(BPF_PROG_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID)
    })
    .root_only(ROOTS),
    deed("identity-bpf-link-by-number", |_| {
        by_number(BPF_LINK_GET_NEXT_ID, BPF_LINK_GET_FD_BY_ID)
    })
    .root_only(ROOTS),
    deed("identity-bpf-pin-of-map", |field| {
        pinned(field, "maps/RUNS")
    })
    .root_only(ROOTS),
    deed("identity-bpf-pin-of-link", |field| {
        pinned(field, "links/task_alloc")
    })
    .root_only(ROOTS),
    deed("identity-bpf-new-map", |_| {
        sys::owned(new_map()?);
        proof()
    })
    .root_only(ROOTS),
    deed("identity-bpf-new-pin", |field| {
        let map = sys::owned(new_map()?);
        let name = format!("/sys/fs/bpf/redteam-{}", field.side.name());
        let path = c_path(Path::new(&name));
        let mut attributes = sys::words(&[path.as_ptr() as u64]);
        attributes.extend(sys::halves(&[std::os::fd::AsRawFd::as_raw_fd(&map) as u32]));
        bpf(BPF_OBJ_PIN, attributes)?;
        std::fs::remove_file(name)?;
        proof()
    })
    .root_only(ROOTS),
    deed("identity-bpf-new-program", |_| {
        // r0 = 0; exit, as a filter of sockets.
        let code = sys::words(&[0xb7, 0x95]);
        let license = c"GPL";
        let mut attributes = sys::halves(&[1, 2]);
        attributes.extend(sys::words(&[code.as_ptr() as u64, license.as_ptr() as u64]));
        sys::owned(bpf(BPF_PROG_LOAD, attributes)?);
        proof()
    })
    .root_only(ROOTS),
    deed("identity-perf-event", |_| {
        // Software event 0, of this process.
        let mut attributes = sys::halves(&[1, 128]);
        attributes.resize(128, 0);
        sys::owned(call!(SYS_perf_event_open, &attributes[..], 0, -1, -1, 0)?);
        proof()
    })
    .root_only("the kernel lets only root measure"),
    deed("identity-module-from-memory", |_| {
        let garbage = [0; 256];
        got_to(
            call!(SYS_init_module, &garbage[..], 256, c""),
            libc::ENOEXEC,
        )
    })
    .root_only(MODULES),
    deed("identity-module-from-file", |field| {
        let file = sys::open(&field.file(), O_RDONLY)?;
        got_to(call!(SYS_finit_module, &file, c"", 0), libc::ENOEXEC)
    })
    .root_only(MODULES),
    deed("identity-module-unload", |_| {
        got_to(
            call!(SYS_delete_module, c"redteam_none", libc::O_NONBLOCK),
            libc::ENOENT,
        )
    })
    .root_only(MODULES),
    deed("identity-other-kernel", |_| {
        call!(SYS_kexec_load, 0, 0, 0, 0)?;
        proof()
    })
    .lacks(&[(libc::ENOSYS, "the kernel starts no other one")])
    .root_only(BOOT),
    deed("identity-other-kernel-from-file", |_| {
        call!(SYS_kexec_file_load, -1, -1, 0, c"", KEXEC_FILE_UNLOAD)?;
        proof()
    })
    .lacks(&[(libc::ENOSYS, "the kernel starts no other one")])
    .root_only(BOOT),
    deed("identity-restart", |_| {
        // Says what a key does, and restarts nothing.
        call!(
            SYS_reboot,
            libc::LINUX_REBOOT_MAGIC1,
            libc::LINUX_REBOOT_MAGIC2,
            libc::LINUX_REBOOT_CMD_CAD_OFF
        )?;
        proof()
    })
    .root_only(BOOT),
];

fn bpf(command: i32, mut attributes: Vec<u8>) -> Try<i64> {
    attributes.resize(ATTRIBUTES, 0);
    call!(SYS_bpf, command, &mut attributes[..], ATTRIBUTES)
}

/// Opens the first object of a kind.
fn by_number(next: i32, open: i32) -> Try {
    let mut attributes = [0; ATTRIBUTES];
    call!(SYS_bpf, next, &mut attributes[..], ATTRIBUTES)?;
    // The number that was found is behind the one that it follows.
    let found = attributes[4..8].to_vec();
    sys::owned(bpf(open, found)?);
    proof()
}

/// Opens one of AgentGuard's own objects.
fn pinned(field: &Field, name: &str) -> Try {
    let path = c_path(&stage::pins(&field.root).join(name));
    sys::owned(bpf(BPF_OBJ_GET, sys::words(&[path.as_ptr() as u64]))?);
    proof()
}

/// An array of one word.
fn new_map() -> Try<i64> {
    bpf(BPF_MAP_CREATE, sys::halves(&[2, 4, 4, 1]))
}

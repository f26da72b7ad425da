//! Descriptors: what a task does with files that it did not open itself, or opened
//! before it had a tag, and what can be done with an open file beside reading and
//! writing. The file's name is asked for again, so a descriptor gives no right.

use agentguard_common::identity::privilege;
use agentguard_common::verb::{Verb, Verbs};
use agentguard_common::verdict::Reason;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

use super::signal;
use crate::enforce;
use crate::kernel::{Argument, File, Mapping, SENDPAGE};

const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
const MAY_WRITE: u32 = 2;
const MAY_READ: u32 = 4;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
/// The bits of `mmap` flags that say private or shared, and the private one.
const MAP_TYPE: u64 = 0xf;
const MAP_PRIVATE: u64 = 2;

/// `int file_permission(struct file *file, int mask)`: before each read and write,
/// also of `splice`, `sendfile`, `copy_file_range`, cloned ranges, `fallocate`,
/// `getdents` and io_uring.
#[lsm(hook = "file_permission")]
pub fn file_permission(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(2);
    let Some((tag, task)) = enforce::tagged_task(prior) else {
        return prior;
    };
    let file = File::from_argument(ctx.arg(0));
    let mask: u32 = ctx.arg(1);
    let mut wanted = Verbs::NONE;
    if mask & MAY_READ != 0 {
        wanted = wanted.and(Verb::Read);
    }
    if mask & MAY_WRITE != 0 {
        wanted = wanted.and(Verb::Write);
    }
    if wanted.is_empty() || file.is_layer_of(task) {
        return 0;
    }
    if SENDPAGE.load() != 0
        && mask & MAY_WRITE != 0
        && let Some(socket) = file.socket()
    {
        return match socket.sock() {
            Some(sock) => super::net::through_descriptor(tag, sock),
            None => 0,
        };
    }
    enforce::descriptor(tag, file.dentry(), wanted)
}

/// `int file_receive(struct file *file)`: a descriptor that arrives over a unix
/// socket, or is taken out of another process.
#[lsm(hook = "file_receive")]
pub fn file_receive(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(1);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let file = File::from_argument(ctx.arg(0));
    if let Some(socket) = file.socket() {
        return match socket.sock() {
            Some(sock) => super::unix::received(tag, sock),
            None => 0,
        };
    }
    let wanted = opened_for(file);
    if wanted.is_empty() {
        return 0;
    }
    enforce::descriptor(tag, file.dentry(), wanted)
}

/// `int mmap_file(struct file *file, unsigned long reqprot, unsigned long prot,
/// unsigned long flags)`
#[lsm(hook = "mmap_file")]
pub fn mmap_file(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(4);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let file = File::from_argument(ctx.arg(0));
    if !file.is_some() || file.is_layer() {
        return 0;
    }
    if file.is_ring_of_another() {
        return enforce::refused(tag, file.dentry(), Reason::Forbidden);
    }
    let (prot, flags): (u64, u64) = (ctx.arg(2), ctx.arg(3));
    // Every mapping can be read.
    let mut wanted = Verbs::of(Verb::Read);
    if prot & PROT_WRITE != 0 && flags & MAP_TYPE != MAP_PRIVATE {
        wanted = wanted.and(Verb::Write);
    }
    let refused = enforce::descriptor(tag, file.dentry(), wanted);
    if refused != 0 || prot & PROT_EXEC == 0 {
        return refused;
    }
    enforce::mapped_program(tag, file.dentry())
}

/// `int file_mprotect(struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)`
#[lsm(hook = "file_mprotect")]
pub fn file_mprotect(ctx: LsmContext) -> i32 {
    let prior: i32 = ctx.arg(3);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let mapping = Mapping::from_argument(ctx.arg(0));
    let prot: u64 = ctx.arg(2);
    let file = mapping.file();
    // A mapping of a stacked file shows the file of its layer; that it may be written
    // at all was decided by the name when the file was opened.
    if !file.is_some() || file.is_internal() {
        return 0;
    }
    if prot & PROT_WRITE != 0 && mapping.is_shared() {
        let refused = enforce::descriptor(tag, file.dentry(), Verbs::of(Verb::Write));
        if refused != 0 {
            return refused;
        }
    }
    if prot & PROT_EXEC == 0 {
        return 0;
    }
    enforce::mapped_program(tag, file.dentry())
}

/// `int file_ioctl(struct file *file, unsigned int cmd, unsigned long arg)`
#[lsm(hook = "file_ioctl")]
pub fn file_ioctl(ctx: LsmContext) -> i32 {
    control(&ctx)
}

/// `int file_ioctl_compat(struct file *file, unsigned int cmd, unsigned long arg)`:
/// the 32-bit system call, since 6.8 and in some older stable kernels.
#[lsm(hook = "file_ioctl_compat")]
pub fn file_ioctl_compat(ctx: LsmContext) -> i32 {
    control(&ctx)
}

/// What a command does that a file system has for its files and directories. What is not
/// known here may reach other files than the one it is given (snapshots, trees sent, blocks
/// exchanged, the whole file system shut down), so it is refused.
#[inline(always)]
fn control(ctx: &LsmContext) -> i32 {
    let prior: i32 = ctx.arg(3);
    let Some(tag) = enforce::tagged(prior) else {
        return prior;
    };
    let file = File::from_argument(ctx.arg(0));
    let command: u32 = ctx.arg(1);
    if signal::is_asked_for(command, file) {
        let needed = privilege::SIGNAL_OUTSIDE;
        return enforce::host::privileged(tag, file.dentry(), needed, Verb::Write, false);
    }
    if is_typing(command) {
        let needed = privilege::HANDOFF;
        return enforce::host::privileged(tag, file.dentry(), needed, Verb::Write, false);
    }
    if !file.dentry().inode().is_file_or_directory() || is_harmless(command) || file.is_layer() {
        return 0;
    }
    if is_about_the_file(command) {
        return enforce::path(tag, file.dentry(), Verbs::of(Verb::Attributes));
    }
    enforce::refused(tag, file.dentry(), Reason::Forbidden)
}

/// Whether it puts words into the mouth of who types at a terminal: the shell that started
/// the agent would read them.
#[inline(always)]
fn is_typing(command: u32) -> bool {
    const TIOCSTI: u32 = 0x5412;
    const TIOCLINUX: u32 = 0x541c;
    matches!(command, TIOCSTI | TIOCLINUX)
}

/// Questions, settings of the descriptor itself, copies between files, for which the kernel
/// asks `file_permission`, and what only devices know.
#[inline(always)]
fn is_harmless(command: u32) -> bool {
    // By kind: of hard disks, block devices, loop devices, CD drives, terminals.
    let of_devices = matches!(command >> 8 & 0xff, 0x03 | 0x12 | 0x4c | 0x53 | 0x54);
    of_devices
        || matches!(
            command,
            1                   // FIBMAP
                | 2             // FIGETBSZ
                | 0xc020_660b   // FS_IOC_FIEMAP
                | 0x8008_6601   // FS_IOC_GETFLAGS
                | 0x8004_6601   // FS_IOC32_GETFLAGS
                | 0x801c_581f   // FS_IOC_FSGETXATTR
                | 0x8008_7601   // FS_IOC_GETVERSION
                | 0x8004_7601   // FS_IOC32_GETVERSION
                | 0x8100_9431   // FS_IOC_GETFSLABEL
                | 0x8011_1500   // FS_IOC_GETFSUUID
                | 0x8010_6615   // FS_IOC_GET_ENCRYPTION_PWSALT
                | 0x400c_6615   // FS_IOC_GET_ENCRYPTION_POLICY
                | 0xc009_6616   // FS_IOC_GET_ENCRYPTION_POLICY_EX
                | 0xc004_6686   // FS_IOC_MEASURE_VERITY
                | 0x4004_9409   // FICLONE
                | 0x4020_940d   // FICLONERANGE
                | 0xc018_9436   // FIDEDUPERANGE
                | 0x8008_9419   // BTRFS_IOC_SUBVOL_GETFLAGS
                | 0x8400_941f   // BTRFS_IOC_FS_INFO
                | 0x8004_f50c // F2FS_IOC_GET_FEATURES
        )
}

/// Commands that change the file they are given and nothing else.
#[inline(always)]
fn is_about_the_file(command: u32) -> bool {
    matches!(
        command,
        0x4008_6602             // FS_IOC_SETFLAGS
            | 0x4004_6602       // FS_IOC32_SETFLAGS
            | 0x401c_5820       // FS_IOC_FSSETXATTR
            | 0x4008_7602       // FS_IOC_SETVERSION
            | 0x4004_7602       // FS_IOC32_SETVERSION
            | 0x4008_6604       // EXT4_IOC_SETVERSION
            | 0x4004_6604       // EXT4_IOC32_SETVERSION
            | 0x4030_5828..=0x4030_582b // FS_IOC_RESVSP, UNRESVSP, RESVSP64, UNRESVSP64
            | 0x4030_5839       // FS_IOC_ZERO_RANGE
            | 0x4080_6685       // FS_IOC_ENABLE_VERITY
            | 0x800c_6613       // FS_IOC_SET_ENCRYPTION_POLICY
            | 0x5000_9402       // BTRFS_IOC_DEFRAG
            | 0x4030_9410       // BTRFS_IOC_DEFRAG_RANGE
            | 0xf501 | 0xf502 | 0xf505 | 0xf519 // F2FS_IOC_*_ATOMIC_*
    )
}

/// The verbs that a file was opened for.
#[inline(always)]
fn opened_for(file: File) -> Verbs {
    let mode = file.mode();
    let mut wanted = Verbs::NONE;
    if mode & FMODE_READ != 0 {
        wanted = wanted.and(Verb::Read);
    }
    if mode & FMODE_WRITE != 0 {
        wanted = wanted.and(Verb::Write);
    }
    wanted
}

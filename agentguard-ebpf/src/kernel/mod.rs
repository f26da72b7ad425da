//! The running kernel's structures: where their fields are, and typed loads.
//!
//! Rust has no CO-RE relocations, so the daemon finds each offset in the running
//! kernel's BTF and sets it here before loading. The section is frozen, so the
//! verifier knows the constants, checks every load against the structure's type,
//! and refuses the program if one is wrong.

use aya_ebpf::Global;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

mod file;
mod socket;
mod task;

pub use self::file::S_IFCHR;

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        $($(#[$doc])* #[unsafe(no_mangle)] pub static $name: Global<u64> = Global::new(0);)+
    };
}

offsets! {
    /// `file.f_path.dentry`
    FILE_DENTRY,
    /// `file.f_path.mnt`
    FILE_MNT,
    /// `file.f_flags`
    FILE_FLAGS,
    /// `file.f_mode`
    FILE_MODE,
    /// `path.dentry`
    PATH_DENTRY,
    /// `path.mnt`
    PATH_MNT,
    /// `mount.mnt`, which a `vfsmount` pointer points to
    MOUNT_MNT,
    /// `mount.mnt_ns`
    MOUNT_NS,
    /// `vfsmount.mnt_root`
    MNT_ROOT,
    /// `dentry.d_parent`
    DENTRY_PARENT,
    /// `dentry.d_name.hash_len`; the length is its upper half
    DENTRY_NAME_LEN,
    /// `dentry.d_name.name`
    DENTRY_NAME,
    /// `dentry.d_inode`
    DENTRY_INODE,
    /// `dentry.d_sb`
    DENTRY_SB,
    /// `super_block.s_dev`
    SB_DEV,
    /// `super_block.s_flags`
    SB_FLAGS,
    /// `super_block.s_magic`
    SB_MAGIC,
    /// `super_block.s_root`
    SB_ROOT,
    /// `inode.i_mode`
    INODE_MODE,
    /// `inode.i_flags`
    INODE_FLAGS,
    /// `inode.i_rdev`
    INODE_RDEV,
    /// `inode.i_ino`
    INODE_INO,
    /// `inode.i_generation`
    INODE_GENERATION,
    /// `inode.i_nlink`
    INODE_NLINK,
    /// `file.private_data`
    FILE_PRIVATE,
    /// `io_ring_ctx.sq_data`
    RING_SQ_DATA,
    /// `io_sq_data.task_tgid`
    SQ_DATA_TGID,
    /// `pt_regs.orig_ax`, `.si` and `.cx`
    REGS_NUMBER,
    /// See above.
    REGS_SECOND,
    /// See above.
    REGS_SECOND_COMPAT,
    /// `user_namespace.level`
    USERNS_LEVEL,
    /// `fs_context.fs_type`
    FS_CONTEXT_TYPE,
    /// `file_system_type.name`
    FS_TYPE_NAME,
    /// `linux_binprm.file`
    BPRM_FILE,
    /// `task_struct.tgid`
    TASK_TGID,
    /// `task_struct.pid`
    TASK_PID,
    /// `task_struct.real_parent`
    TASK_REAL_PARENT,
    /// `task_struct.flags`
    TASK_FLAGS,
    /// `task_struct.cred`
    TASK_CRED,
    /// `task_struct.real_cred`
    TASK_REAL_CRED,
    /// `task_struct.nsproxy`
    TASK_NSPROXY,
    /// `nsproxy.mnt_ns`
    NSPROXY_MNT_NS,
    /// `mnt_namespace.ns.inum`
    MNTNS_INUM,
    /// `mount.mnt_group_id`
    MOUNT_GROUP,
    /// `mount.mnt_parent`
    MOUNT_PARENT,
    /// `task_struct.mm`
    TASK_MM,
    /// `mm_struct.exe_file`
    MM_EXE_FILE,
    /// `vm_area_struct.vm_file`
    VMA_FILE,
    /// `vm_area_struct.vm_flags`
    VMA_FLAGS,
    /// `iattr.ia_valid`
    IATTR_VALID,
    /// `task_struct.exit_code`
    TASK_EXIT_CODE,
    /// `socket.sk`
    SOCKET_SK,
    /// `sock.sk_protocol`
    SK_PROTOCOL,
    /// `sock.__sk_common.skc_family`
    SK_FAMILY,
    /// `msghdr.msg_name`
    MSG_NAME,
}

/// 1 where tags are kept by task address as well: on kernels where a task storage lookup
/// can miss under preemption, and for cgroup programs, which before 7.0 have none.
#[unsafe(no_mangle)]
pub static STORAGE_CAN_MISS: Global<u8> = Global::new(0);

/// Number of the host's mount namespace.
#[unsafe(no_mangle)]
pub static HOST_MNT_NS: Global<u32> = Global::new(0);

/// 1 where LSM programs are attached, so that `task_free` counts tasks out.
#[unsafe(no_mangle)]
pub static LSM_ATTACHED: Global<u8> = Global::new(0);

/// What a hook can be given.
pub trait Argument {
    /// A hook's argument.
    fn from_argument(pointer: *const core::ffi::c_void) -> Self;
}

macro_rules! object {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq)]
            #[repr(transparent)]
            pub struct $name(pub *const u8);

            impl Argument for $name {
                #[inline(always)]
                fn from_argument(pointer: *const core::ffi::c_void) -> Self {
                    Self(pointer.cast())
                }
            }

            impl $name {
                #[inline(always)]
                fn load<T: Copy>(self, offset: &Global<u64>) -> T {
                    // SAFETY: a BTF-typed load. The verifier checks that the field is
                    // there; a bad address reads as zero, it does not fault.
                    unsafe { self.0.add(offset.load() as usize).cast::<T>().read_volatile() }
                }
            }
        )+
    };
}

object! {
    /// `struct file`
    File,
    /// `struct path`
    Path,
    /// `struct dentry`
    Dentry,
    /// `struct super_block`
    SuperBlock,
    /// `struct inode`
    Inode,
    /// `struct linux_binprm`
    Binprm,
    /// `struct task_struct`
    Task,
    /// `struct socket`
    Socket,
    /// `struct sock`
    Sock,
    /// `struct msghdr`
    Message,
    /// `struct vm_area_struct`
    Mapping,
    /// `struct iattr`
    Attributes,
    /// `struct vfsmount`
    Mount,
    /// `struct mm_struct`, and others that are only passed through
    Memory,
    /// `struct user_namespace`
    UserNamespace,
    /// `struct fs_context`
    FsContext,
    /// `struct pt_regs`
    Registers,
}

/// Reads a number at a kernel address.
#[inline(always)]
pub fn probe<T: Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: as many bytes as the value has go into it; the helper does not fault.
    let failed = unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            address as *const core::ffi::c_void,
        )
    };
    if failed == 0 { Some(value) } else { None }
}

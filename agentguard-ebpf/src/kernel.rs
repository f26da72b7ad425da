//! The running kernel's structures: where their fields are, and typed loads.
//!
//! Rust has no CO-RE relocations, so the daemon finds each offset in the running
//! kernel's BTF and sets it here before loading. The section is frozen, so the
//! verifier knows the constants, checks every load against the structure's type,
//! and refuses the program if one is wrong.

use aya_ebpf::Global;
use aya_ebpf::bindings::task_struct;

use crate::verifier;

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        $($(#[$doc])* #[unsafe(no_mangle)] pub static $name: Global<u64> = Global::new(0);)+
    };
}

offsets! {
    /// `file.f_path.dentry`
    FILE_DENTRY,
    /// `file.f_flags`
    FILE_FLAGS,
    /// `file.f_mode`
    FILE_MODE,
    /// `path.dentry`
    PATH_DENTRY,
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
    /// `super_block.s_root`
    SB_ROOT,
    /// `inode.i_mode`
    INODE_MODE,
    /// `inode.i_rdev`
    INODE_RDEV,
    /// `inode.i_ino`
    INODE_INO,
    /// `linux_binprm.file`
    BPRM_FILE,
    /// `task_struct.tgid`
    TASK_TGID,
    /// `task_struct.pid`
    TASK_PID,
    /// `task_struct.real_parent`
    TASK_REAL_PARENT,
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

/// 1 where LSM programs are attached, so that `task_free` counts tasks out.
#[unsafe(no_mangle)]
pub static LSM_ATTACHED: Global<u8> = Global::new(0);

macro_rules! object {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq)]
            #[repr(transparent)]
            pub struct $name(pub *const u8);

            impl $name {
                /// A hook's argument.
                #[inline(always)]
                pub fn from_argument(pointer: *const core::ffi::c_void) -> Self {
                    Self(pointer.cast())
                }

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
}

impl File {
    /// Its name.
    #[inline(always)]
    pub fn dentry(self) -> Dentry {
        Dentry(self.load(&FILE_DENTRY))
    }

    /// Flags given to `open`.
    #[inline(always)]
    pub fn flags(self) -> u32 {
        self.load(&FILE_FLAGS)
    }

    /// `FMODE_*`.
    #[inline(always)]
    pub fn mode(self) -> u32 {
        self.load(&FILE_MODE)
    }
}

impl Path {
    /// Its name.
    #[inline(always)]
    pub fn dentry(self) -> Dentry {
        Dentry(self.load(&PATH_DENTRY))
    }
}

impl Dentry {
    /// The directory it is in; itself at a root.
    #[inline(always)]
    pub fn parent(self) -> Self {
        Self(self.load(&DENTRY_PARENT))
    }

    /// Length of its name, in bytes.
    #[inline(always)]
    pub fn name_len(self) -> u32 {
        // SAFETY: as in `load`; `hash_len` is hash, then length, as 32-bit halves.
        unsafe { self.0.add(DENTRY_NAME_LEN.load() as usize + 4).cast::<u32>().read_volatile() }
    }

    /// Kernel address of its name.
    #[inline(always)]
    pub fn name(self) -> u64 {
        verifier::number(self.load(&DENTRY_NAME))
    }

    /// What it names; null if nothing yet.
    #[inline(always)]
    pub fn inode(self) -> Inode {
        Inode(self.load(&DENTRY_INODE))
    }

    /// Its file system.
    #[inline(always)]
    pub fn super_block(self) -> SuperBlock {
        SuperBlock(self.load(&DENTRY_SB))
    }
}

impl SuperBlock {
    /// Kernel-internal device number.
    #[inline(always)]
    pub fn device(self) -> u32 {
        self.load(&SB_DEV)
    }

    /// `SB_*` flags.
    #[inline(always)]
    pub fn flags(self) -> u64 {
        self.load(&SB_FLAGS)
    }

    /// Root of the file system.
    #[inline(always)]
    pub fn root(self) -> Dentry {
        Dentry(self.load(&SB_ROOT))
    }
}

impl Inode {
    /// Type and permission bits.
    #[inline(always)]
    pub fn mode(self) -> u16 {
        self.load(&INODE_MODE)
    }

    /// Device number, of a device file.
    #[inline(always)]
    pub fn rdev(self) -> u32 {
        self.load(&INODE_RDEV)
    }

    /// Inode number.
    #[inline(always)]
    pub fn number(self) -> u64 {
        self.load(&INODE_INO)
    }
}

impl Binprm {
    /// The file about to be executed, or its interpreter.
    #[inline(always)]
    pub fn file(self) -> File {
        File(self.load(&BPRM_FILE))
    }
}

impl Task {
    /// The running task.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: helper without arguments.
        Self(unsafe { aya_ebpf::helpers::generated::bpf_get_current_task_btf() } as *const u8)
    }

    /// As the helpers want it.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut task_struct {
        self.0.cast_mut().cast()
    }

    /// Process id.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.load(&TASK_TGID)
    }

    /// Thread id.
    #[inline(always)]
    pub fn pid(self) -> u32 {
        self.load(&TASK_PID)
    }

    /// Its real parent.
    #[inline(always)]
    pub fn real_parent(self) -> Self {
        Self(self.load(&TASK_REAL_PARENT))
    }

    /// Exit code word, once it exits.
    #[inline(always)]
    pub fn exit_code(self) -> i32 {
        self.load(&TASK_EXIT_CODE)
    }
}

impl Socket {
    /// Its protocol state; `None` before it has one.
    #[inline(always)]
    pub fn sock(self) -> Option<Sock> {
        let sock: *const u8 = self.load(&SOCKET_SK);
        if sock.is_null() { None } else { Some(Sock(sock)) }
    }
}

impl Sock {
    /// IP protocol number.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        self.load(&SK_PROTOCOL)
    }

    /// Address family.
    #[inline(always)]
    pub fn family(self) -> u16 {
        self.load(&SK_FAMILY)
    }
}

impl Message {
    /// Kernel address of the destination's address; zero if none was given.
    #[inline(always)]
    pub fn name(self) -> u64 {
        verifier::number(self.load(&MSG_NAME))
    }
}

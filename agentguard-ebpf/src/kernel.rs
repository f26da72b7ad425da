//! The running kernel's structures: where their fields are, and typed loads.
//!
//! Rust has no CO-RE relocations, so the daemon finds each offset in the running
//! kernel's BTF and sets it here before loading. The section is frozen, so the
//! verifier knows the constants, checks every load against the structure's type,
//! and refuses the program if one is wrong.

use aya_ebpf::Global;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::verifier;

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

const S_IFMT: u16 = 0o170_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFREG: u16 = 0o100_000;
const S_IFBLK: u16 = 0o060_000;
/// Character device.
pub const S_IFCHR: u16 = 0o020_000;

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
    /// `struct vm_area_struct`
    Mapping,
    /// `struct iattr`
    Attributes,
    /// `struct vfsmount`
    Mount,
    /// `struct mm_struct`, and others that are only passed through
    Memory,
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

/// `MNT_NS_INTERNAL`, `ERR_PTR(-EINVAL)`: the mount belongs to the kernel.
const MNT_NS_INTERNAL: u64 = -22_i64 as u64;

impl File {
    /// Whether this is a file of a layer that the kernel opened on behalf of a
    /// stacked file system (overlayfs), whose own file was decided by its name.
    #[inline(always)]
    pub fn is_layer(self) -> bool {
        Task::current().is_lent() && self.is_internal()
    }

    /// Whether it was opened through a mount that no process can reach.
    #[inline(always)]
    pub fn is_internal(self) -> bool {
        Mount(self.load(&FILE_MNT)).namespace() == Some(MNT_NS_INTERNAL)
    }

    /// Whether it is a file at all: kernel threads run no program.
    #[inline(always)]
    pub fn is_some(self) -> bool {
        !self.0.is_null()
    }
}

impl Path {
    /// The mount that it goes through.
    #[inline(always)]
    pub fn mount(self) -> Mount {
        Mount(self.load(&PATH_MNT))
    }

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
    /// Number of the file system's type.
    #[inline(always)]
    pub fn magic(self) -> u64 {
        self.load(&SB_MAGIC)
    }

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
    /// Whether it is a directory.
    #[inline(always)]
    pub fn is_directory(self) -> bool {
        self.kind() == S_IFDIR
    }

    /// Whether it is a directory or a regular file.
    #[inline(always)]
    pub fn is_file_or_directory(self) -> bool {
        matches!(self.kind(), S_IFDIR | S_IFREG)
    }

    /// Whether what is behind it is no file's content: a device, or swapped memory.
    #[inline(always)]
    pub fn is_device(self) -> bool {
        const S_SWAPFILE: u32 = 1 << 8;
        if self.0.is_null() {
            return false;
        }
        matches!(self.kind(), S_IFBLK | S_IFCHR) || self.flags() & S_SWAPFILE != 0
    }

    /// Whether it is a directory whose names are compared without regard to case (ext4
    /// and f2fs `casefold`).
    #[inline(always)]
    pub fn folds_case(self) -> bool {
        const S_CASEFOLD: u32 = 1 << 15;
        !self.0.is_null() && self.flags() & S_CASEFOLD != 0
    }

    /// Type bits of its mode; 0 where there is no inode yet.
    #[inline(always)]
    pub fn kind(self) -> u16 {
        if self.0.is_null() { 0 } else { self.mode() & S_IFMT }
    }

    /// Type and permission bits.
    #[inline(always)]
    pub fn mode(self) -> u16 {
        self.load(&INODE_MODE)
    }

    /// `S_*` flags of the kernel.
    #[inline(always)]
    pub fn flags(self) -> u32 {
        self.load(&INODE_FLAGS)
    }

    /// Device number, of a device file.
    #[inline(always)]
    pub fn rdev(self) -> u32 {
        self.load(&INODE_RDEV)
    }

    /// Tells inodes apart that had the same number one after the other.
    #[inline(always)]
    pub fn generation(self) -> u32 {
        self.load(&INODE_GENERATION)
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

    /// Whether the kernel does something for the task with somebody else's
    /// credentials: a stacked file system on its layers. A tagged task cannot bring
    /// that about: `uring_override_creds` refuses it the one call that could, and
    /// core dumps and io_uring's threads, which also do it, are recognised.
    #[inline(always)]
    pub fn is_lent(self) -> bool {
        const PF_IO_WORKER: u32 = 0x10;
        const PF_DUMPCORE: u32 = 0x200;
        let own: *const u8 = self.load(&TASK_REAL_CRED);
        let current: *const u8 = self.load(&TASK_CRED);
        let flags: u32 = self.load(&TASK_FLAGS);
        own != current && flags & (PF_IO_WORKER | PF_DUMPCORE) == 0
    }

    /// Whether it is in another mount namespace than the host.
    #[inline(always)]
    pub fn has_mounts_of_its_own(self) -> bool {
        let number: u32 = self.mount_namespace().load(&MNTNS_INUM);
        HOST_MNT_NS.load() != 0 && number != HOST_MNT_NS.load()
    }

    /// Whether a mount is part of its mount namespace, not a detached tree.
    #[inline(always)]
    pub fn has_mounted(self, mount: Mount) -> bool {
        mount.namespace() == Some(verifier::number(self.mount_namespace().0 as u64))
    }

    #[inline(always)]
    fn mount_namespace(self) -> Memory {
        let proxy: *const u8 = self.load(&TASK_NSPROXY);
        Memory(Memory(proxy).load(&NSPROXY_MNT_NS))
    }

    /// The program it runs; none for kernel threads.
    #[inline(always)]
    pub fn program(self) -> File {
        let memory: *const u8 = self.load(&TASK_MM);
        File(Memory(memory).load(&MM_EXE_FILE))
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

impl Mapping {
    /// What is mapped; none for anonymous memory.
    #[inline(always)]
    pub fn file(self) -> File {
        File(self.load(&VMA_FILE))
    }

    /// Whether stores reach the file.
    #[inline(always)]
    pub fn is_shared(self) -> bool {
        const VM_SHARED: u64 = 8;
        let flags: u64 = self.load(&VMA_FLAGS);
        flags & VM_SHARED != 0
    }
}

impl Attributes {
    /// Which are changed, `ATTR_*`.
    #[inline(always)]
    pub fn valid(self) -> u32 {
        self.load(&IATTR_VALID)
    }
}

impl Mount {
    /// Whether what is mounted in it is mounted nowhere else as well: it shares with no
    /// other mount. One that cannot be read is taken to share.
    #[inline(always)]
    pub fn is_private(self) -> bool {
        probe::<u32>(self.address().wrapping_add(MOUNT_GROUP.load())) == Some(0)
    }

    /// The same for the mount that it is mounted in: what is unmounted there is unmounted
    /// wherever that is shared.
    #[inline(always)]
    pub fn is_in_private(self) -> bool {
        let parent = probe::<u64>(self.address().wrapping_add(MOUNT_PARENT.load()));
        parent.is_some_and(|parent| {
            probe::<u32>(parent.wrapping_add(MOUNT_GROUP.load())) == Some(0)
        })
    }

    /// Address of its mount namespace.
    #[inline(always)]
    pub fn namespace(self) -> Option<u64> {
        probe(self.address().wrapping_add(MOUNT_NS.load()))
    }

    /// Address of the `struct mount` that it is part of.
    #[inline(always)]
    fn address(self) -> u64 {
        verifier::number(self.0 as u64).wrapping_sub(MOUNT_MNT.load())
    }

    /// The directory that it shows.
    #[inline(always)]
    pub fn root(self) -> Dentry {
        Dentry(self.load(&MNT_ROOT))
    }
}

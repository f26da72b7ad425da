//! Files, their names, inodes, mappings and mounts.

use super::*;
use crate::verifier;

const S_IFMT: u16 = 0o170_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFREG: u16 = 0o100_000;
const S_IFBLK: u16 = 0o060_000;
/// Character device.
pub const S_IFCHR: u16 = 0o020_000;

/// `MNT_NS_INTERNAL`, `ERR_PTR(-EINVAL)`: the mount belongs to the kernel.
const MNT_NS_INTERNAL: u64 = -22_i64 as u64;

impl File {
    /// Its name.
    #[inline(always)]
    pub fn dentry(self) -> Dentry {
        Dentry(self.load::<FILE_DENTRY, _>())
    }

    /// Flags given to `open`.
    #[inline(always)]
    pub fn flags(self) -> u32 {
        self.load::<FILE_FLAGS, _>()
    }

    /// `FMODE_*`.
    #[inline(always)]
    pub fn mode(self) -> u32 {
        self.load::<FILE_MODE, _>()
    }

    /// Whether this is a file of a layer that the kernel opened on behalf of a
    /// stacked file system (overlayfs), whose own file was decided by its name.
    #[inline(always)]
    pub fn is_layer(self) -> bool {
        self.is_layer_of(Task::current())
    }

    /// The same, of a task that is the running one.
    #[inline(always)]
    pub fn is_layer_of(self, task: Task) -> bool {
        task.is_lent() && self.is_internal()
    }

    /// Whether it was opened through a mount that no process can reach.
    #[inline(always)]
    pub fn is_internal(self) -> bool {
        Mount(self.load::<FILE_MNT, _>()).namespace() == Some(MNT_NS_INTERNAL)
    }

    /// Whether it is an io_uring whose kernel thread is another process's: what is put
    /// into it is done in that process's name. Closed where that cannot be told.
    #[inline(always)]
    pub fn is_ring_of_another(self) -> bool {
        const NAME_LEN: u32 = 10;
        const NAME_START: u64 = u64::from_le_bytes(*b"[io_urin");
        let name = self.dentry();
        if name.name_len() != NAME_LEN || probe::<u64>(name.name()) != Some(NAME_START) {
            return false;
        }
        let ring = verifier::number(self.load::<FILE_PRIVATE, _>());
        match probe::<u64>(ring.wrapping_add(offset::<RING_SQ_DATA>())) {
            // No such thread: its work is done by those who ask for it.
            Some(0) => false,
            Some(thread) => {
                let maker = probe::<u32>(thread.wrapping_add(offset::<SQ_DATA_TGID>()));
                maker != Some(Task::current().tgid())
            }
            None => true,
        }
    }

    /// Whether it is a file at all: kernel threads run no program.
    #[inline(always)]
    pub fn is_some(self) -> bool {
        !self.is_none()
    }
}

impl Path {
    /// The mount that it goes through.
    #[inline(always)]
    pub fn mount(self) -> Mount {
        Mount(self.load::<PATH_MNT, _>())
    }

    /// Its name.
    #[inline(always)]
    pub fn dentry(self) -> Dentry {
        Dentry(self.load::<PATH_DENTRY, _>())
    }
}

impl Dentry {
    /// The directory it is in; itself at a root.
    #[inline(always)]
    pub fn parent(self) -> Self {
        Self(self.load::<DENTRY_PARENT, _>())
    }

    /// Length of its name, in bytes.
    #[inline(always)]
    pub fn name_len(self) -> u32 {
        self.load::<DENTRY_NAME_LEN, _>()
    }

    /// Its name's hash, which the kernel salts with the directory, and length.
    #[inline(always)]
    pub fn name_hash(self) -> u64 {
        // Not in one load: 6.1 takes the word for the first of its halves.
        let hash: u32 = self.load::<DENTRY_NAME_HASH, _>();
        u64::from(hash) << 32 | u64::from(self.name_len())
    }

    /// Kernel address of its name.
    #[inline(always)]
    pub fn name(self) -> u64 {
        verifier::number(self.load::<DENTRY_NAME, _>())
    }

    /// What it names; null if nothing yet.
    #[inline(always)]
    pub fn inode(self) -> Inode {
        Inode(self.load::<DENTRY_INODE, _>())
    }

    /// Inode number of what it names; 0 if nothing yet.
    #[inline(always)]
    pub fn inode_number(self) -> u64 {
        let inode = self.inode();
        if inode.is_none() { 0 } else { inode.number() }
    }

    /// Its file system.
    #[inline(always)]
    pub fn super_block(self) -> SuperBlock {
        SuperBlock(self.load::<DENTRY_SB, _>())
    }
}

impl SuperBlock {
    /// Number of the file system's type.
    #[inline(always)]
    pub fn magic(self) -> u64 {
        self.load::<SB_MAGIC, _>()
    }

    /// Kernel-internal device number.
    #[inline(always)]
    pub fn device(self) -> u32 {
        self.load::<SB_DEV, _>()
    }

    /// `SB_*` flags.
    #[inline(always)]
    pub fn flags(self) -> u64 {
        self.load::<SB_FLAGS, _>()
    }

    /// Root of the file system.
    #[inline(always)]
    pub fn root(self) -> Dentry {
        Dentry(self.load::<SB_ROOT, _>())
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
        if self.is_none() {
            return false;
        }
        matches!(self.kind(), S_IFBLK | S_IFCHR) || self.flags() & S_SWAPFILE != 0
    }

    /// Whether it is a directory whose names are compared without regard to case (ext4
    /// and f2fs `casefold`).
    #[inline(always)]
    pub fn folds_case(self) -> bool {
        const S_CASEFOLD: u32 = 1 << 15;
        !self.is_none() && self.flags() & S_CASEFOLD != 0
    }

    /// Type bits of its mode; 0 where there is no inode yet.
    #[inline(always)]
    pub fn kind(self) -> u16 {
        if self.is_none() { 0 } else { self.mode() & S_IFMT }
    }

    /// Type and permission bits.
    #[inline(always)]
    pub fn mode(self) -> u16 {
        self.load::<INODE_MODE, _>()
    }

    /// `S_*` flags of the kernel.
    #[inline(always)]
    pub fn flags(self) -> u32 {
        self.load::<INODE_FLAGS, _>()
    }

    /// Device number, of a device file.
    #[inline(always)]
    pub fn rdev(self) -> u32 {
        self.load::<INODE_RDEV, _>()
    }

    /// Tells inodes apart that had the same number one after the other.
    #[inline(always)]
    pub fn generation(self) -> u32 {
        self.load::<INODE_GENERATION, _>()
    }

    /// Whether it is a regular file that has other names.
    #[inline(always)]
    pub fn has_other_names(self) -> bool {
        !self.is_none() && self.names() > 1 && self.kind() == S_IFREG
    }

    /// How many names it has.
    #[inline(always)]
    fn names(self) -> u32 {
        self.load::<INODE_NLINK, _>()
    }

    /// Inode number.
    #[inline(always)]
    pub fn number(self) -> u64 {
        self.load::<INODE_INO, _>()
    }
}

impl Mapping {
    /// What is mapped; none for anonymous memory.
    #[inline(always)]
    pub fn file(self) -> File {
        File(self.load::<VMA_FILE, _>())
    }

    /// Whether stores reach the file.
    #[inline(always)]
    pub fn is_shared(self) -> bool {
        const VM_SHARED: u64 = 8;
        let flags: u64 = self.load::<VMA_FLAGS, _>();
        flags & VM_SHARED != 0
    }
}

impl Attributes {
    /// Which are changed, `ATTR_*`.
    #[inline(always)]
    pub fn valid(self) -> u32 {
        self.load::<IATTR_VALID, _>()
    }
}

impl FsContext {
    /// Kernel address of the name of the file system's type.
    #[inline(always)]
    pub fn type_name(self) -> u64 {
        let of: *const u8 = self.load::<FS_CONTEXT_TYPE, _>();
        verifier::number(Memory(of).load::<FS_TYPE_NAME, _>())
    }
}

impl Mount {
    /// Whether what is mounted in it is mounted nowhere else as well: it shares with no
    /// other mount. One that cannot be read is taken to share.
    #[inline(always)]
    pub fn is_private(self) -> bool {
        probe::<u32>(self.address().wrapping_add(offset::<MOUNT_GROUP>())) == Some(0)
    }

    /// The same for the mount that it is mounted in: what is unmounted there is unmounted
    /// wherever that is shared.
    #[inline(always)]
    pub fn is_in_private(self) -> bool {
        let parent = probe::<u64>(self.address().wrapping_add(offset::<MOUNT_PARENT>()));
        parent.is_some_and(|parent| {
            probe::<u32>(parent.wrapping_add(offset::<MOUNT_GROUP>())) == Some(0)
        })
    }

    /// Address of its mount namespace.
    #[inline(always)]
    pub fn namespace(self) -> Option<u64> {
        probe(self.address().wrapping_add(offset::<MOUNT_NS>()))
    }

    /// Address of the `struct mount` that it is part of.
    #[inline(always)]
    fn address(self) -> u64 {
        verifier::number(self.0 as u64).wrapping_sub(offset::<MOUNT_MNT>())
    }

    /// The directory that it shows.
    #[inline(always)]
    pub fn root(self) -> Dentry {
        Dentry(self.load::<MNT_ROOT, _>())
    }
}

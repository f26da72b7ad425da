//! Fields of the kernel's structures that the programs read, and how the daemon tells them
//! where these are: Rust has no CO-RE relocations (rust-lang/rust#158412), so a program's
//! instruction names a field by its number, above what a real offset can be, and the daemon
//! writes the running kernel's offset there before it loads the program. The verifier then
//! checks each load against the structure's type: a wrong offset is refused.

/// In the offset of a load: [`LOAD`] and the field's number. No program has real offsets of
/// that size: the largest thing it reads is a record of 8 KiB.
pub const LOAD: i16 = 0x7e00;

/// In the constant of a move to a register: the same, for offsets that are computed with.
pub const VALUE: i32 = 0x7e5a_0000;

/// A field: its structure, and its member there, with those of the structures in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The structure.
    pub structure: &'static str,
    /// `member.of.member`.
    pub member: &'static str,
}

macro_rules! fields {
    ($($name:ident = $structure:literal, $member:literal;)+) => {
        #[expect(non_camel_case_types, reason = "only counts them")]
        enum Number { $($name),+ }
        $(
            #[doc = concat!("`", $structure, ".", $member, "`")]
            pub const $name: u16 = Number::$name as u16;
        )+

        /// Every field, by its number.
        pub const FIELDS: &[Field] = &[$(Field {
            structure: $structure,
            member: $member,
        }),+];
    };
}

fields! {
    FILE_DENTRY = "file", "f_path.dentry";
    FILE_MNT = "file", "f_path.mnt";
    MOUNT_MNT = "mount", "mnt";
    MOUNT_NS = "mount", "mnt_ns";
    MNT_ROOT = "vfsmount", "mnt_root";
    SB_MAGIC = "super_block", "s_magic";
    INODE_FLAGS = "inode", "i_flags";
    TASK_STORAGE = "task_struct", "bpf_storage";
    TASK_FLAGS = "task_struct", "flags";
    TASK_CRED = "task_struct", "cred";
    TASK_REAL_CRED = "task_struct", "real_cred";
    TASK_NSPROXY = "task_struct", "nsproxy";
    NSPROXY_MNT_NS = "nsproxy", "mnt_ns";
    MNTNS_INUM = "mnt_namespace", "ns.inum";
    MOUNT_GROUP = "mount", "mnt_group_id";
    MOUNT_PARENT = "mount", "mnt_parent";
    PATH_MNT = "path", "mnt";
    TASK_MM = "task_struct", "mm";
    MM_EXE_FILE = "mm_struct", "exe_file";
    VMA_FILE = "vm_area_struct", "vm_file";
    VMA_FLAGS = "vm_area_struct", "vm_flags";
    IATTR_VALID = "iattr", "ia_valid";
    FILE_FLAGS = "file", "f_flags";
    FILE_MODE = "file", "f_mode";
    PATH_DENTRY = "path", "dentry";
    DENTRY_PARENT = "dentry", "d_parent";
    DENTRY_NAME_HASH = "dentry", "d_name.hash";
    DENTRY_NAME_LEN = "dentry", "d_name.len";
    DENTRY_NAME = "dentry", "d_name.name";
    DENTRY_INODE = "dentry", "d_inode";
    DENTRY_SB = "dentry", "d_sb";
    SB_DEV = "super_block", "s_dev";
    SB_FLAGS = "super_block", "s_flags";
    SB_ROOT = "super_block", "s_root";
    INODE_MODE = "inode", "i_mode";
    INODE_RDEV = "inode", "i_rdev";
    INODE_INO = "inode", "i_ino";
    INODE_GENERATION = "inode", "i_generation";
    INODE_NLINK = "inode", "i_nlink";
    FILE_PRIVATE = "file", "private_data";
    RING_SQ_DATA = "io_ring_ctx", "sq_data";
    SQ_DATA_TGID = "io_sq_data", "task_tgid";
    REGS_NUMBER = "pt_regs", "orig_ax";
    REGS_SECOND = "pt_regs", "si";
    REGS_SECOND_COMPAT = "pt_regs", "cx";
    USERNS_LEVEL = "user_namespace", "level";
    FS_CONTEXT_TYPE = "fs_context", "fs_type";
    FS_TYPE_NAME = "file_system_type", "name";
    BPRM_FILE = "linux_binprm", "file";
    TASK_TGID = "task_struct", "tgid";
    TASK_PID = "task_struct", "pid";
    TASK_REAL_PARENT = "task_struct", "real_parent";
    TASK_EXIT_CODE = "task_struct", "exit_code";
    SOCKET_SK = "socket", "sk";
    SK_PROTOCOL = "sock", "sk_protocol";
    SK_FAMILY = "sock", "__sk_common.skc_family";
    SK_NET = "sock", "__sk_common.skc_net.net";
    NET_OWNER = "net", "user_ns";
    SK_TYPE = "sock", "sk_type";
    SK_DADDR = "sock", "__sk_common.skc_daddr";
    SK_DPORT = "sock", "__sk_common.skc_dport";
    SK_RCV_SADDR = "sock", "__sk_common.skc_rcv_saddr";
    SK_NUM = "sock", "__sk_common.skc_num";
    SK_V6_DADDR = "sock", "__sk_common.skc_v6_daddr";
    SK_V6_RCV_SADDR = "sock", "__sk_common.skc_v6_rcv_saddr";
    UNIX_ADDR = "unix_sock", "addr";
    UNIX_DENTRY = "unix_sock", "path.dentry";
    UNIX_PEER = "unix_sock", "peer";
    UNIX_ADDRESS_LEN = "unix_address", "len";
    UNIX_ADDRESS_NAME = "unix_address", "name";
    SKB_DATA = "sk_buff", "data";
    SKB_LEN = "sk_buff", "len";
    SKB_HEAD = "sk_buff", "head";
    SKB_NETWORK = "sk_buff", "network_header";
    SKB_TRANSPORT = "sk_buff", "transport_header";
    MSG_NAME = "msghdr", "msg_name";
    TASK_FS = "task_struct", "fs";
    FS_PWD = "fs_struct", "pwd.dentry";
    SK_FLAGS = "sock", "__sk_common.skc_flags";
    TASK_LEADER = "task_struct", "group_leader";
    TASK_THREAD_PID = "task_struct", "thread_pid";
    PID_LEVEL = "pid", "level";
    PID_NUMBERS = "pid", "numbers";
    PROC_INODE = "proc_inode", "vfs_inode";
    PROC_PID = "proc_inode", "pid";
    BPRM_CRED = "linux_binprm", "cred";
    CRED_EUID = "cred", "euid.val";
    CRED_EGID = "cred", "egid.val";
    CRED_PERMITTED = "cred", "cap_permitted";
    CRED_USERNS = "cred", "user_ns";
    TCP_BYTES_SENT = "tcp_sock", "bytes_sent";
    TCP_BYTES_AGAIN = "tcp_sock", "bytes_retrans";
    TCP_BYTES_RECEIVED = "tcp_sock", "bytes_received";
    TASK_CGROUPS = "task_struct", "cgroups";
    CSS_SET_CGROUP = "css_set", "dfl_cgrp";
    CGROUP_LEVEL = "cgroup", "level";
    CGROUP_PARENT = "cgroup", "self.parent";
    CGROUP_NODE = "cgroup", "kn";
    NODE_NAME = "kernfs_node", "name";
}

const _: () = assert!(FIELDS.len() < 0x100);

//! File systems whose files are switches of the kernel.

use super::*;

const PROC: u64 = 0x9fa0;
const BPFFS: u64 = 0xcafe_4a11;

impl SuperBlock {
    /// Whether what is written there changes the kernel, or what it does to others. By the
    /// file system and not by the path: an agent may mount one of its own.
    #[inline(always)]
    pub fn is_of_settings(self) -> bool {
        matches!(
            self.magic(),
            PROC
                | BPFFS
                | 0x6265_6572   // sysfs
                | 0x0027_e0eb   // cgroup
                | 0x6367_7270   // cgroup2
                | 0x6462_6720   // debugfs
                | 0x7472_6163   // tracefs
                | 0x7363_6673   // securityfs
                | 0x6265_6570   // configfs
                | 0x6165_676c   // pstore
                | 0xde5e_81e4   // efivarfs
                | 0x4249_4e4d   // binfmt_misc
                | 0xf97c_ff8c   // selinuxfs
                | 0x4341_5d53   // smackfs
                | 0x5a3c_69f0   // apparmorfs
                | 0x0765_5821   // resctrl
                | 0x6573_5543   // fusectl
                | 0x6e66_7364   // nfsd
                | 0xabba_1974 // xenfs
        )
    }
}

impl Dentry {
    /// Whether it is such a switch. What `/proc` has of processes is none: the kernel itself
    /// says who may write there.
    #[inline(always)]
    pub fn is_setting(self) -> bool {
        let of = self.super_block();
        of.is_of_settings() && !(of.magic() == PROC && self.is_of_process())
    }

    /// Whether it is an object of BPF, which acts when it is read, and not a directory.
    #[inline(always)]
    pub fn is_pin(self) -> bool {
        self.super_block().magic() == BPFFS && !self.inode().is_directory()
    }

    /// Whether an object of `/proc` is one of a process's (`proc_inode.pid`).
    #[inline(always)]
    fn is_of_process(self) -> bool {
        let inode = self.inode();
        if inode.is_none() {
            return false;
        }
        let object = verifier::number(inode.0 as u64).wrapping_sub(offset::<PROC_INODE>());
        matches!(probe::<u64>(object.wrapping_add(offset::<PROC_PID>())), Some(pid) if pid != 0)
    }
}

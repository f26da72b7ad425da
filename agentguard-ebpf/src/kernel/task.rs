//! Tasks.

use aya_ebpf::helpers::generated::bpf_task_pt_regs;

use super::*;
use crate::verifier;

impl Binprm {
    /// The file about to be executed, or its interpreter.
    #[inline(always)]
    pub fn file(self) -> File {
        File(self.load::<BPRM_FILE, _>())
    }

    /// The credentials that the program will have.
    #[inline(always)]
    pub fn cred(self) -> Cred {
        Cred(self.load::<BPRM_CRED, _>())
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

    /// Whether some BPF program has ever kept something in its storage. It is set before a
    /// tag is, and until the task is freed.
    #[inline(always)]
    pub fn has_storage(self) -> bool {
        let storage: *const u8 = self.load::<TASK_STORAGE, _>();
        verifier::number(storage as u64) != 0
    }

    /// Process id.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.load::<TASK_TGID, _>()
    }

    /// Thread id.
    #[inline(always)]
    pub fn pid(self) -> u32 {
        self.load::<TASK_PID, _>()
    }

    /// The number by which its process knows itself: that of its own PID namespace.
    #[inline(always)]
    pub fn own_number(self) -> Option<u32> {
        /// Bytes of a `struct upid`, whose first field is the number.
        const UPID: u64 = 16;
        let leader: *const u8 = self.load::<TASK_LEADER, _>();
        let pid = Memory(Memory(leader).load::<TASK_THREAD_PID, _>());
        let level: u32 = pid.load::<PID_LEVEL, _>();
        let numbers = verifier::number(pid.0 as u64).wrapping_add(offset::<PID_NUMBERS>());
        probe(numbers.wrapping_add(u64::from(level).wrapping_mul(UPID)))
    }

    /// Its credentials for what it does now.
    #[inline(always)]
    pub fn cred(self) -> Cred {
        Cred(self.load::<TASK_CRED, _>())
    }

    /// Its real parent.
    #[inline(always)]
    pub fn real_parent(self) -> Self {
        Self(self.load::<TASK_REAL_PARENT, _>())
    }

    /// Whether the kernel does something for the task with somebody else's
    /// credentials: a stacked file system on its layers. A tagged task cannot bring
    /// that about: `uring_override_creds` refuses it the one call that could, and
    /// core dumps and io_uring's threads, which also do it, are recognised.
    #[inline(always)]
    pub fn is_lent(self) -> bool {
        const PF_IO_WORKER: u32 = 0x10;
        const PF_DUMPCORE: u32 = 0x200;
        let own: *const u8 = self.load::<TASK_REAL_CRED, _>();
        let current: *const u8 = self.load::<TASK_CRED, _>();
        let flags: u32 = self.load::<TASK_FLAGS, _>();
        own != current && flags & (PF_IO_WORKER | PF_DUMPCORE) == 0
    }

    /// Whether it ends.
    #[inline(always)]
    pub fn is_exiting(self) -> bool {
        const PF_EXITING: u32 = 4;
        let flags: u32 = self.load::<TASK_FLAGS, _>();
        flags & PF_EXITING != 0
    }

    /// Whether it is in another mount namespace than the host.
    #[inline(always)]
    pub fn has_mounts_of_its_own(self) -> bool {
        let number: u32 = self.mount_namespace().load::<MNTNS_INUM, _>();
        HOST_MNT_NS.load() != 0 && number != HOST_MNT_NS.load()
    }

    /// Whether a mount is part of its mount namespace, not a detached tree.
    #[inline(always)]
    pub fn has_mounted(self, mount: Mount) -> bool {
        mount.namespace() == Some(verifier::number(self.mount_namespace().0 as u64))
    }

    #[inline(always)]
    fn mount_namespace(self) -> Memory {
        let proxy: *const u8 = self.load::<TASK_NSPROXY, _>();
        Memory(Memory(proxy).load::<NSPROXY_MNT_NS, _>())
    }

    /// The program it runs; none for kernel threads.
    #[inline(always)]
    pub fn program(self) -> File {
        let memory: *const u8 = self.load::<TASK_MM, _>();
        File(Memory(memory).load::<MM_EXE_FILE, _>())
    }

    /// The system call that it is in.
    #[inline(always)]
    pub fn system_call(self) -> Registers {
        // SAFETY: helper on a task pointer that the verifier checks.
        Registers(unsafe { bpf_task_pt_regs(self.as_ptr()) } as *const u8)
    }

    /// Exit code word, once it exits.
    #[inline(always)]
    pub fn exit_code(self) -> i32 {
        self.load::<TASK_EXIT_CODE, _>()
    }
}

impl Registers {
    /// Number of the system call, without the bit that marks x32.
    #[inline(always)]
    pub fn number(self) -> u32 {
        const X32: u32 = 1 << 30;
        let number: u64 = self.load::<REGS_NUMBER, _>();
        number as u32 & !X32
    }

    /// Whether its second argument is this number, by the convention of the 64-bit or of
    /// the 32-bit system call: what the other register holds is an address.
    #[inline(always)]
    pub fn second_is(self, wanted: u32) -> bool {
        let (native, compat): (u64, u64) =
            (self.load::<REGS_SECOND, _>(), self.load::<REGS_SECOND_COMPAT, _>());
        native as u32 == wanted || compat as u32 == wanted
    }
}

impl UserNamespace {
    /// Whether it is the host's, not one that somebody made.
    #[inline(always)]
    pub fn is_initial(self) -> bool {
        let level: u32 = self.load::<USERNS_LEVEL, _>();
        level == 0
    }
}

//! The running kernel's structures: where their fields are, and typed loads.
//!
//! Rust has no CO-RE relocations, so the daemon finds each offset in the running
//! kernel's BTF and writes it into the instruction (`agentguard_common::field`). The
//! verifier checks every load against the structure's type, and refuses the program if
//! one is wrong.

use agentguard_common::field::{self, *};
use aya_ebpf::Global;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::verifier;

mod cgroup;
mod cred;
mod file;
mod settings;
mod socket;
mod task;

pub use self::cgroup::Cgroup;
pub use self::file::S_IFCHR;
pub use self::socket::{AbstractName, abstract_name};

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

/// 1 where `sendfile` and `splice` to a socket do not pass `socket_sendmsg` (before 6.5).
#[unsafe(no_mangle)]
pub static SENDPAGE: Global<u8> = Global::new(0);

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
                /// Whether it is null. Asked twice: of some fields newer verifiers believe
                /// that they never are (6.12: `d_inode`, which a name that is being made does
                /// not have), leave a check of the pointer out, and load without a guard, so
                /// the number is checked as well; of others they demand a check of the pointer.
                #[inline(always)]
                #[allow(dead_code, reason = "not asked of every type")]
                pub fn is_none(self) -> bool {
                    self.0.is_null() || verifier::number(self.0 as u64) == 0
                }

                #[inline(always)]
                fn load<const FIELD: u16, T: Copy>(self) -> T {
                    load::<FIELD, T>(self.0)
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
    /// `struct unix_sock`
    UnixSock,
    /// `struct sk_buff`
    Packet,
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
    /// `struct cred`
    Cred,
    /// `struct pt_regs`
    Registers,
}

/// Reads a field of a structure, by its number in [`field`].
#[inline(always)]
pub fn load<const FIELD: u16, T: Copy>(structure: *const u8) -> T {
    macro_rules! load {
        ($form:literal) => {{
            let value: u64;
            // SAFETY: a BTF-typed load, which the daemon completes. The verifier checks that
            // the field is there; a bad address reads as zero, it does not fault.
            unsafe {
                core::arch::asm!(
                    $form,
                    out(reg) value,
                    in(reg) structure,
                    const field::LOAD + FIELD as i16,
                    options(readonly, nostack)
                );
            }
            value
        }};
    }
    let value = match size_of::<T>() {
        1 => load!("{0} = *(u8 *)({1} + {2})"),
        2 => load!("{0} = *(u16 *)({1} + {2})"),
        4 => load!("{0} = *(u32 *)({1} + {2})"),
        _ => load!("{0} = *(u64 *)({1} + {2})"),
    };
    // SAFETY: `T` is a number or a pointer of at most eight bytes: the lower ones of the value.
    unsafe { core::mem::transmute_copy(&value) }
}

/// Where a field is, for structures whose type the verifier does not know.
#[inline(always)]
fn offset<const FIELD: u16>() -> u64 {
    let value: u64;
    // SAFETY: sets only its operand.
    unsafe {
        core::arch::asm!(
            "{0} = {1}",
            out(reg) value,
            const field::VALUE + FIELD as i32,
            options(pure, nomem, nostack)
        );
    }
    value
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

/// Reads a number at a kernel address; an odd one where it cannot be read. Without a branch:
/// to the verifier it is one number, so that what follows is checked once.
#[inline(always)]
pub fn probe_or_odd(address: u64) -> u32 {
    let mut value = 0;
    // SAFETY: as above. It returns 0 or less.
    let failed = unsafe {
        bpf_probe_read_kernel((&raw mut value).cast(), 4, address as *const core::ffi::c_void)
    };
    // SAFETY: read back, for the compiler must not think that it knows it.
    unsafe { (&raw const value).read_volatile() | (failed as u64 >> 63) as u32 }
}

//! Help for the verifier, which follows every value through every branch.

use aya_ebpf::helpers::generated::bpf_loop;

/// Calls `body` up to `times` times, until it returns 1 (`bpf_loop`, Linux 5.17).
/// The verifier checks the body once, where it would walk through every turn of
/// a loop: most of the time it takes to load a program goes into that. Since 6.7 it
/// checks the body until the state stops changing: a number that every turn changes
/// has to go through [`forget`].
#[inline(always)]
pub fn repeat<T>(times: u32, body: unsafe extern "C" fn(u64, *mut T) -> u64, state: &mut T) -> bool {
    let body = body as *mut core::ffi::c_void;
    // SAFETY: the body gets `state` and nothing else, for the time of the call.
    unsafe { bpf_loop(times, body, core::ptr::from_mut(state).cast(), 0) >= 0 }
}

/// Returns its argument, of which the verifier then knows nothing: the result of
/// a global function is any value. Where a loop leaves with 64 different counts,
/// what follows is checked once instead of 64 times.
#[inline(always)]
pub fn forget(value: u32) -> u32 {
    agentguard_forget(value)
}

/// See [`forget`]. The volatile read keeps the compiler from seeing through it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_forget(value: u32) -> u32 {
    // SAFETY: reads a live local.
    unsafe { core::ptr::read_volatile(&raw const value) }
}

/// The same for 64 bits.
#[inline(always)]
pub fn forget_wide(value: u64) -> u64 {
    agentguard_forget_wide(value)
}

/// See [`forget_wide`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_forget_wide(value: u64) -> u64 {
    // SAFETY: reads a live local.
    unsafe { core::ptr::read_volatile(&raw const value) }
}

/// Masks a number that `MASK` does not change. Written in assembly: the compiler,
/// which knows that, would leave the mask out, and older verifiers lose the bound
/// when the value is copied to another register.
#[inline(always)]
pub fn bounded<const MASK: u64>(number: u64) -> u64 {
    let mut number = number;
    // SAFETY: changes only its operand.
    unsafe {
        core::arch::asm!("{0} &= {1}", inout(reg) number, const MASK, options(pure, nomem, nostack));
    }
    number
}

/// A number that the compiler cannot compute with: it would turn a choice between two
/// results into arithmetic, whose range newer verifiers do not accept from an LSM program.
#[inline(always)]
pub fn constant<const NUMBER: i64>() -> i32 {
    let number: u64;
    // SAFETY: sets only its operand.
    unsafe {
        core::arch::asm!("{0} = {1}", out(reg) number, const NUMBER, options(pure, nomem, nostack));
    }
    number as i32
}

/// A kernel address as a plain number. Newer verifiers (7.x) know the type of
/// `char *` fields and let no such pointer into a function of scalars; a negated
/// pointer is a number to every version, and twice negated it is the address.
#[inline(always)]
pub fn number(mut address: u64) -> u64 {
    // SAFETY: changes only its operand.
    unsafe {
        core::arch::asm!(
            "{0} = -{0}",
            "{0} = -{0}",
            inout(reg) address,
            options(pure, nomem, nostack)
        );
    }
    address
}

/// Four zeros in four stores: the compiler would call a function that stores them byte by byte.
#[inline(always)]
pub fn zeroed() -> [u64; 4] {
    let mut room = core::mem::MaybeUninit::<[u64; 4]>::uninit();
    // SAFETY: writes exactly the array, which is then initialised.
    unsafe {
        core::arch::asm!(
            "*(u64 *)({0} + 0) = {1}",
            "*(u64 *)({0} + 8) = {1}",
            "*(u64 *)({0} + 16) = {1}",
            "*(u64 *)({0} + 24) = {1}",
            in(reg) room.as_mut_ptr(), in(reg) 0u64, options(nostack)
        );
        room.assume_init()
    }
}

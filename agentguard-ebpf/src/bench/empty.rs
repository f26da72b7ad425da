//! Programs that do nothing, on the attach points that `cargo xtask bench` measures:
//! what any BPF LSM costs before it decides anything. Not part of the product.
#![no_std]
#![no_main]

use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

macro_rules! empty {
    ($($hook:ident),+ $(,)?) => {
        $(
            #[lsm]
            fn $hook(_: LsmContext) -> i32 {
                0
            }
        )+
    };
}

empty!(
    bprm_check_security,
    file_open,
    socket_connect,
    socket_sendmsg,
    task_alloc,
    task_free,
);

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

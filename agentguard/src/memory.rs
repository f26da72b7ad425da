//! Memory that only a start or a policy load needs, given back afterwards.

/// Gives the allocator's free memory back to the kernel. Reading the kernel's
/// types and compiling a policy take several times what the daemon needs later,
/// and the C library would keep it.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

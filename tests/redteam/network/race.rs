//! An address in memory that two processes share: one turns it between two destinations
//! all the time, the other gives it to the kernel.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc::{self, MAP_ANONYMOUS, MAP_SHARED, PROT_READ, PROT_WRITE};

use crate::field::Field;
use crate::sys::{self, Child, Map, Try, call};

/// A socket address of IPv4 that another process turns.
#[derive(Debug)]
pub struct Address {
    memory: Map,
    turner: Child,
}

impl Address {
    /// Between where everybody may go and the field's listener.
    pub fn turning(field: &Field) -> Try<Self> {
        let (to, friend) = (field.noted_bytes("to"), field.noted_bytes("friend"));
        let memory = Map::new(
            4096,
            PROT_READ | PROT_WRITE,
            MAP_SHARED | MAP_ANONYMOUS,
            -1,
            0,
        )?;
        memory.store(&friend);
        // Family, port and address are the first eight bytes: they change at once.
        let (to, friend) = (first(&to), first(&friend));
        // SAFETY: a page is aligned and long enough; both processes use it atomically.
        let word = unsafe { AtomicU64::from_ptr(memory.address.cast()) };
        let turner = sys::fork(|| {
            loop {
                for destination in [to, friend] {
                    word.store(destination, Ordering::SeqCst);
                    // Where there is one processor, each has its turn.
                    call!(SYS_sched_yield)?;
                }
            }
        })?;
        Ok(Self { memory, turner })
    }

    /// Where it is, to be used at once.
    pub fn pointer(&self) -> Try<u64> {
        call!(SYS_sched_yield)?;
        Ok(self.memory.address as u64)
    }

    /// It turns no more.
    pub fn stop(self) -> Try {
        call!(SYS_kill, self.turner.pid, libc::SIGKILL)?;
        self.turner.wait()?;
        sys::done()
    }
}

fn first(address: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(address) {
        *to = *from;
    }
    u64::from_ne_bytes(bytes)
}

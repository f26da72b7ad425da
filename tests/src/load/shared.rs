//! What all processes of a load write to: one page, shared.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::libc;
use serde_json::{Value, json};

use super::tries::Try;

/// What is shared. Zeroes are its beginning.
#[derive(Debug)]
#[repr(C)]
pub struct Shared {
    stop: AtomicU32,
    pause: AtomicU32,
    parked: AtomicU32,
    right: [AtomicU64; Try::COUNT],
    wrong: [AtomicU64; Try::COUNT],
    /// The error of the first wrong outcome of each kind; -1: it succeeded.
    error: [AtomicI32; Try::COUNT],
}

impl Shared {
    /// Maps a page that children share.
    pub fn map() -> Result<&'static Self> {
        // SAFETY: a new mapping at no given place; checked before use.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Self>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        ensure!(
            page != libc::MAP_FAILED,
            "mmap: {}",
            io::Error::last_os_error()
        );
        // SAFETY: the page is zeroed, aligned, large enough, and never unmapped; atomics may
        // be shared.
        Ok(unsafe { &*page.cast::<Self>() })
    }

    /// Whether to go on; stands still meanwhile if it is told to.
    pub fn goes_on(&self) -> bool {
        if self.pause.load(Ordering::SeqCst) != 0 {
            self.parked.fetch_add(1, Ordering::SeqCst);
            while self.pause.load(Ordering::SeqCst) != 0 && self.stop.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.parked.fetch_sub(1, Ordering::SeqCst);
        }
        self.stop.load(Ordering::SeqCst) == 0
    }

    /// Has everyone stand still; returns when so many do.
    pub fn pause(&self, workers: u32) {
        self.pause.store(1, Ordering::SeqCst);
        while self.parked.load(Ordering::SeqCst) < workers {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has everyone go on.
    pub fn go(&self) {
        self.pause.store(0, Ordering::SeqCst);
    }

    /// Has everyone end.
    pub fn stop(&self) {
        self.stop.store(1, Ordering::SeqCst);
    }

    /// Counts an outcome: the error, or that it succeeded.
    pub fn count(&self, tried: Try, outcome: Result<(), i32>) {
        let at = tried as usize;
        if tried.is_right(outcome) {
            self.right[at].fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.wrong[at].fetch_add(1, Ordering::Relaxed);
        let error = outcome.err().unwrap_or(-1);
        let _ = self.error[at].compare_exchange(0, error, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// All counts.
    pub fn tally(&self) -> Value {
        let one = |tried: &Try| {
            let at = *tried as usize;
            let count = json!({
                "right": self.right[at].load(Ordering::Relaxed),
                "wrong": self.wrong[at].load(Ordering::Relaxed),
                "error": self.error[at].load(Ordering::Relaxed),
            });
            (tried.name().to_owned(), count)
        };
        Value::Object(Try::ALL.iter().map(one).collect())
    }
}

//! Kernel arrays mapped into the daemon's memory (`BPF_F_MMAPABLE`): filling a
//! table is a copy, switching a policy is one atomic store.

use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A mapped array of `T`.
pub struct Table<T> {
    base: NonNull<u8>,
    bytes: usize,
    stride: usize,
    len: u32,
    element: PhantomData<T>,
}

// SAFETY: the mapping is shared memory owned by this value; access goes through
// volatile or atomic operations only.
unsafe impl<T: Send> Send for Table<T> {}

impl<T: aya::Pod> Table<T> {
    /// Maps the array behind `fd`, which has `len` elements.
    ///
    /// # Errors
    /// The kernel's answer to `mmap`.
    pub fn map(fd: impl AsFd, len: u32) -> io::Result<Self> {
        let stride = size_of::<T>().next_multiple_of(8);
        let bytes = (stride * len as usize).next_multiple_of(4096);
        let Some(length) = NonZeroUsize::new(bytes) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice.
        let base = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self {
            base: base.cast(),
            bytes,
            stride,
            len,
            element: PhantomData,
        })
    }

    fn at(&self, index: u32) -> Option<*mut T> {
        if index >= self.len {
            return None;
        }
        // SAFETY: inside the mapping, by the check.
        Some(unsafe { self.base.as_ptr().add(index as usize * self.stride) }.cast())
    }

    /// A copy of an element. Fields that the kernel counts in may be of different moments.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<T> {
        // SAFETY: inside the mapping and aligned; any bits are a valid Pod.
        self.at(index)
            .map(|element| unsafe { element.read_volatile() })
    }

    /// Sets an element that no program reads yet.
    pub fn set(&self, index: u32, value: T) -> bool {
        let Some(element) = self.at(index) else {
            return false;
        };
        // SAFETY: inside the mapping and aligned.
        unsafe { element.write_volatile(value) };
        true
    }

    /// The 64 bits at `offset` of an element, for atomic access.
    #[must_use]
    pub fn atomic_u64(&self, index: u32, offset: usize) -> Option<&AtomicU64> {
        let element = self.at(index)?.cast::<u8>();
        if !offset.is_multiple_of(8) || offset + 8 > size_of::<T>() {
            return None;
        }
        // SAFETY: inside the mapping, aligned; the kernel side uses atomics or single stores.
        Some(unsafe { AtomicU64::from_ptr(element.add(offset).cast()) })
    }

    /// The 32 bits at `offset` of an element, for atomic access.
    #[must_use]
    pub fn atomic_u32(&self, index: u32, offset: usize) -> Option<&AtomicU32> {
        let element = self.at(index)?.cast::<u8>();
        if !offset.is_multiple_of(4) || offset + 4 > size_of::<T>() {
            return None;
        }
        // SAFETY: inside the mapping, aligned; the kernel side uses atomics or single stores.
        Some(unsafe { AtomicU32::from_ptr(element.add(offset).cast()) })
    }
}

impl Table<u32> {
    /// Puts a value in force with one store that every program sees whole.
    pub fn publish(&self, index: u32, value: u32) -> bool {
        match self.atomic_u32(index, 0) {
            Some(slot) => {
                slot.store(value, Ordering::SeqCst);
                true
            }
            None => false,
        }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made, unmapped once.
        let _ = unsafe { munmap(self.base.cast(), self.bytes) };
    }
}

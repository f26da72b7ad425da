//! The few `bpf(2)` commands that aya does not wrap: task storage by pidfd, batched
//! updates, and iterators over a map. Source: include/uapi/linux/bpf.h.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const MAP_CREATE: i64 = 0;
const MAP_LOOKUP_ELEM: i64 = 1;
const MAP_UPDATE_ELEM: i64 = 2;
const MAP_DELETE_ELEM: i64 = 3;
const MAP_GET_NEXT_KEY: i64 = 4;
const OBJ_PIN: i64 = 6;
const OBJ_GET: i64 = 7;
const MAP_LOOKUP_AND_DELETE_BATCH: i64 = 25;
const MAP_UPDATE_BATCH: i64 = 26;
const LINK_CREATE: i64 = 28;
const LINK_GET_FD_BY_ID: i64 = 30;

/// `union bpf_attr` for commands on one element.
#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value_or_next: u64,
    flags: u64,
}

/// `union bpf_attr` for commands on many elements.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

fn bpf<T>(command: i64, attributes: &mut T) -> io::Result<i64> {
    let size = size_of::<T>();
    // SAFETY: `attributes` is a live, correctly laid out attribute block of `size`
    // bytes; the pointers inside it are to buffers that the callers below keep alive.
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn raw(map: BorrowedFd<'_>) -> u32 {
    map.as_raw_fd().unsigned_abs()
}

/// Looks up one element; `None` if there is none.
///
/// # Errors
/// The kernel's answer.
pub fn lookup<K: aya::Pod, V: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = std::mem::MaybeUninit::<V>::zeroed();
    let mut attributes = Element {
        map_fd: raw(map),
        key: std::ptr::from_ref(key) as u64,
        value_or_next: value.as_mut_ptr() as u64,
        ..Element::default()
    };
    match bpf(MAP_LOOKUP_ELEM, &mut attributes) {
        // SAFETY: the kernel filled it in; it was zeroed, and any bits are a valid Pod.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes one element; it is no error if there is none.
///
/// # Errors
/// The kernel's answer.
pub fn delete<K: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attributes = Element {
        map_fd: raw(map),
        key: std::ptr::from_ref(key) as u64,
        ..Element::default()
    };
    match bpf(MAP_DELETE_ELEM, &mut attributes) {
        Err(error) if error.raw_os_error() != Some(nix::libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// Every key of a map. Entries added meanwhile may or may not be among them.
///
/// # Errors
/// The kernel's answer.
pub fn keys<K: aya::Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<K>> {
    let mut keys: Vec<K> = Vec::new();
    loop {
        let mut next = std::mem::MaybeUninit::<K>::zeroed();
        let mut attributes = Element {
            map_fd: raw(map),
            key: keys.last().map_or(0, |key| std::ptr::from_ref(key) as u64),
            value_or_next: next.as_mut_ptr() as u64,
            ..Element::default()
        };
        match bpf(MAP_GET_NEXT_KEY, &mut attributes) {
            // SAFETY: as in `lookup`.
            Ok(_) => keys.push(unsafe { next.assume_init() }),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => return Ok(keys),
            Err(error) => return Err(error),
        }
    }
}

/// Sets many elements in one call; `keys` and `values` are of equal length.
///
/// # Errors
/// The kernel's answer; some elements may have been set.
pub fn update_batch<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    let count = keys.len().min(values.len());
    if count == 0 {
        return Ok(());
    }
    let mut attributes = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(count).map_err(io::Error::other)?,
        map_fd: raw(map),
        ..Batch::default()
    };
    bpf(MAP_UPDATE_BATCH, &mut attributes).map(drop)
}

/// Takes every element out of a hash map. Elements added meanwhile may or may not be
/// among them.
///
/// # Errors
/// The kernel's answer; what was taken before is lost to the caller.
pub fn take_all<K: aya::Pod, V: aya::Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    // More than any bucket holds, which is the least that the kernel asks for.
    const AT_ONCE: usize = 512;
    let mut taken = Vec::new();
    let mut bucket = 0_u32;
    let mut keys: Vec<K> = Vec::with_capacity(AT_ONCE);
    let mut values: Vec<V> = Vec::with_capacity(AT_ONCE);
    loop {
        let begun = bucket;
        let mut attributes = Batch {
            in_batch: if begun == 0 {
                0
            } else {
                std::ptr::from_ref(&begun) as u64
            },
            out_batch: std::ptr::from_mut(&mut bucket) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: AT_ONCE as u32,
            map_fd: raw(map),
            ..Batch::default()
        };
        let answer = bpf(MAP_LOOKUP_AND_DELETE_BATCH, &mut attributes);
        let is_last = match answer {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        let count = (attributes.count as usize).min(AT_ONCE);
        // SAFETY: the kernel filled so many in, there is room for them, and any bits are a
        // valid Pod.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        taken.extend(keys.drain(..).zip(values.drain(..)));
        if is_last {
            return Ok(taken);
        }
    }
}

/// `union bpf_attr` for pins.
#[repr(C)]
#[derive(Default)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens what is pinned at a path.
///
/// # Errors
/// The kernel's answer.
pub fn open_pin(at: &CStr) -> io::Result<OwnedFd> {
    let fd = bpf(
        OBJ_GET,
        &mut Pin {
            path: at.as_ptr() as u64,
            ..Pin::default()
        },
    )?;
    own(fd)
}

/// Pins a map at another path.
///
/// # Errors
/// The kernel's answer.
pub fn pin(fd: BorrowedFd<'_>, at: &CStr) -> io::Result<()> {
    bpf(
        OBJ_PIN,
        &mut Pin {
            path: at.as_ptr() as u64,
            fd: raw(fd),
            flags: 0,
        },
    )
    .map(drop)
}

fn own(fd: i64) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a descriptor that the kernel just gave to this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes an array without a name.
///
/// # Errors
/// The kernel's answer.
pub fn make_array(value_size: u32, len: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Map {
        kind: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
    }
    let fd = bpf(
        MAP_CREATE,
        &mut Map {
            kind: 2,
            key_size: 4,
            value_size,
            max_entries: len,
            flags: 0,
        },
    )?;
    own(fd)
}

/// Reads an element of an array of any layout; `into` is as long as its values.
///
/// # Errors
/// The kernel's answer.
pub fn read_element(map: BorrowedFd<'_>, index: u32, into: &mut [u8]) -> io::Result<()> {
    element(MAP_LOOKUP_ELEM, map, index, into.as_mut_ptr() as u64)
}

/// Writes an element of an array of any layout; `value` is as long as its values.
///
/// # Errors
/// The kernel's answer.
pub fn write_element(map: BorrowedFd<'_>, index: u32, value: &[u8]) -> io::Result<()> {
    element(MAP_UPDATE_ELEM, map, index, value.as_ptr() as u64)
}

fn element(command: i64, map: BorrowedFd<'_>, index: u32, value: u64) -> io::Result<()> {
    let mut attributes = Element {
        map_fd: raw(map),
        key: std::ptr::from_ref(&index) as u64,
        value_or_next: value,
        ..Element::default()
    };
    bpf(command, &mut attributes).map(drop)
}

/// Whether there is a link with this number.
///
/// # Errors
/// The kernel's answer.
pub fn link_exists(id: u32) -> io::Result<bool> {
    let mut attributes = Element {
        map_fd: id,
        ..Element::default()
    };
    match bpf(LINK_GET_FD_BY_ID, &mut attributes) {
        Ok(fd) => own(fd).map(|_| true),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes an iterator over the elements of a map, and pins it: each time that the file is
/// read, the program runs for every element.
///
/// # Errors
/// The kernel's answer.
pub fn pin_map_iterator(program: BorrowedFd<'_>, map: BorrowedFd<'_>, at: &CStr) -> io::Result<()> {
    /// `BPF_TRACE_ITER`
    const TRACE_ITER: u32 = 28;
    #[repr(C)]
    struct Link {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        info: u64,
        info_len: u32,
        pad: u32,
    }
    // `union bpf_iter_link_info`
    let info = raw(map);
    let link = bpf(
        LINK_CREATE,
        &mut Link {
            program: raw(program),
            target: 0,
            attach_type: TRACE_ITER,
            flags: 0,
            info: std::ptr::from_ref(&info) as u64,
            info_len: size_of::<u32>() as u32,
            pad: 0,
        },
    )?;
    pin(own(link)?.as_fd(), at)
}

/// Waits until every program that was running when this was called has ended:
/// `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace period, and hooks run inside one.
///
/// # Errors
/// The kernel's answer (`EINVAL` on kernels booted with `nohz_full`).
pub fn wait_for_running_programs() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: i64 = 1;
    // SAFETY: membarrier takes no pointers.
    let result =
        unsafe { nix::libc::syscall(nix::libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Nanoseconds of `CLOCK_BOOTTIME`, the kernel programs' clock.
#[must_use]
pub fn boot_time() -> u64 {
    let mut time = nix::libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a live timespec.
    unsafe { nix::libc::clock_gettime(nix::libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

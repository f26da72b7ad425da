//! The attempts on files, in the order of the catalogue.

mod aliases;
mod attributes;
mod btrfs;
pub mod compat;
mod designed;
mod devices;
mod exec;
mod ext4;
mod handle;
mod ioctl;
mod links;
mod mmap;
mod mounting;
mod names;
mod naming;
mod open;
mod overlay;
mod passed;
mod proc;
mod protected;
mod splice;
mod tmpfile;
mod truncate;
mod uring;
mod uring_data;
mod xattrs;

use crate::attempt::Attempt;

/// Every attempt.
pub fn all() -> Vec<Attempt> {
    [
        open::ATTEMPTS,
        truncate::ATTEMPTS,
        passed::ATTEMPTS,
        mmap::ATTEMPTS,
        splice::ATTEMPTS,
        uring::ATTEMPTS,
        uring_data::ATTEMPTS,
        tmpfile::ATTEMPTS,
        handle::ATTEMPTS,
        names::ATTEMPTS,
        links::ATTEMPTS,
        attributes::ATTEMPTS,
        xattrs::ATTEMPTS,
        ioctl::ATTEMPTS,
        mounting::ATTEMPTS,
        proc::ATTEMPTS,
        devices::ATTEMPTS,
        naming::ATTEMPTS,
        aliases::ATTEMPTS,
        overlay::ATTEMPTS,
        btrfs::ATTEMPTS,
        ext4::ATTEMPTS,
        exec::ATTEMPTS,
        protected::ATTEMPTS,
        compat::ATTEMPTS,
        designed::ATTEMPTS,
    ]
    .concat()
}

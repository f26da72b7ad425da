//! The file tree of this host.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::stat::makedev;
use object::Endianness;
use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader as _};
use object::read::{FileKind, ReadCache, ReadRef};

use super::tree::{Entries, Entry, Kind, ListError, Tree};
use crate::mounts::{MountTable, Names};

/// The file tree as a process sees it.
#[derive(Debug)]
pub struct HostTree {
    root: OwnedFd,
    mounts: MountTable,
    namespace: u64,
}

impl HostTree {
    /// The tree of the calling process.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn here() -> io::Result<Self> {
        Self::under(Path::new("/proc/self"))
    }

    /// The tree that process 1 sees, which is what manifests are about: for a
    /// daemon that has a mount namespace of its own.
    ///
    /// # Errors
    /// `/proc` cannot be read, or its root not be entered (`CAP_SYS_PTRACE`).
    pub fn of_host() -> io::Result<Self> {
        Self::under(Path::new("/proc/1"))
    }

    fn under(process: &Path) -> io::Result<Self> {
        Ok(Self {
            root: File::open(process.join("root"))?.into(),
            mounts: MountTable::read(&process.join("mountinfo"))?,
            namespace: process.join("ns/mnt").metadata()?.ino(),
        })
    }

    /// Opens a path without following any link. Name by name: `openat2`, which does it
    /// in one call, is refused to services with `RestrictSUIDSGID=`.
    fn open(&self, path: &Names, flags: OFlag) -> io::Result<OwnedFd> {
        let always = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let Some((last, above)) = path.split_last() else {
            return Ok(openat(&self.root, ".", flags | always, Mode::empty())?);
        };
        let way = OFlag::O_PATH | OFlag::O_DIRECTORY | always;
        let mut directory = self.root.try_clone()?;
        for name in above {
            directory = openat(&directory, &**name, way, Mode::empty())?;
        }
        Ok(openat(&directory, &**last, flags | always, Mode::empty())?)
    }

    fn file(&self, path: &Names) -> io::Result<File> {
        // A FIFO must not keep the opener waiting.
        self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)
            .map(File::from)
    }
}

impl Tree for HostTree {
    fn mounts(&self) -> &MountTable {
        &self.mounts
    }

    fn namespace(&self) -> u64 {
        self.namespace
    }

    fn entry(&self, path: &Names) -> io::Result<Option<Entry>> {
        let Some((name, above)) = path.split_last() else {
            return look(self.root.as_raw_fd(), c"").map(Some);
        };
        let directory = match self.open(&above.to_vec(), OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(directory) => directory,
            Err(error) => return absent(error),
        };
        match look(directory.as_raw_fd(), &CString::new(&**name)?) {
            Ok(entry) => Ok(Some(entry)),
            Err(error) => absent(error),
        }
    }

    fn list(&self, path: &Names, limit: usize) -> Result<Entries, ListError> {
        let directory = self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let listing = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(listing).map_err(ListError::Failed)? {
            if names.len() == limit {
                return Err(ListError::TooMany);
            }
            names.push(entry?.file_name().into_vec());
        }
        names.sort_unstable();
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let text = CString::new(name.clone()).map_err(io::Error::from)?;
            // One that does not answer must not hide the others.
            let found = look(directory.as_raw_fd(), &text).map_or_else(absent, some);
            if let Some(entry) = found.unwrap_or(Some(UNREACHABLE)) {
                entries.push((name.into_boxed_slice(), entry));
            }
        }
        Ok(entries)
    }

    fn link_target(&self, path: &Names) -> io::Result<Vec<u8>> {
        let link = self.open(path, OFlag::O_PATH)?;
        Ok(readlinkat(&link, "")?.into_vec())
    }

    fn interpreter(&self, path: &Names) -> io::Result<Option<Vec<u8>>> {
        let data = ReadCache::new(self.file(path)?);
        let found = match FileKind::parse(&data) {
            Ok(FileKind::Elf32) => interpreter_of::<FileHeader32<Endianness>, _>(&data),
            Ok(FileKind::Elf64) => interpreter_of::<FileHeader64<Endianness>, _>(&data),
            _ => return Ok(None),
        };
        found.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

fn interpreter_of<'d, H, R>(data: R) -> object::read::Result<Option<Vec<u8>>>
where
    H: FileHeader<Endian = Endianness>,
    R: ReadRef<'d>,
{
    let header = H::parse(data)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, data)? {
        if let Some(interpreter) = segment.interpreter(endian, data)? {
            return Ok(Some(interpreter.to_vec()));
        }
    }
    Ok(None)
}

/// Stands for what does not answer.
const UNREACHABLE: Entry = Entry {
    kind: Kind::Unreachable,
    device: 0,
    inode: 0,
    links: 0,
    owner: 0,
    mount: 0,
};

fn some(entry: Entry) -> io::Result<Option<Entry>> {
    Ok(Some(entry))
}

/// What is not there, or below something that is no directory, is no error.
fn absent(error: io::Error) -> io::Result<Option<Entry>> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(None),
        _ => Err(error),
    }
}

/// What is at a name in a directory, or the directory itself for an empty name.
fn look(directory: RawFd, name: &CStr) -> io::Result<Entry> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` is a C string and `found` has room for the structure, all
    // of whose fields are plain numbers.
    let (result, found) = unsafe {
        let result = libc::statx(
            directory,
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH,
            libc::STATX_BASIC_STATS | libc::STATX_MNT_ID,
            found.as_mut_ptr(),
        );
        (result, found.assume_init())
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let mount = u32::try_from(found.stx_mnt_id).unwrap_or(u32::MAX);
    Ok(Entry {
        kind: kind_of(&found),
        device: makedev(found.stx_dev_major.into(), found.stx_dev_minor.into()),
        inode: found.stx_ino,
        links: found.stx_nlink.into(),
        owner: found.stx_uid,
        mount,
    })
}

fn kind_of(found: &libc::statx) -> Kind {
    match u32::from(found.stx_mode) & libc::S_IFMT {
        libc::S_IFDIR => Kind::Directory,
        libc::S_IFLNK => Kind::Link,
        libc::S_IFREG => Kind::File,
        libc::S_IFBLK => Kind::Block,
        libc::S_IFCHR => Kind::Character {
            major: found.stx_rdev_major,
            minor: found.stx_rdev_minor,
        },
        _ => Kind::Other,
    }
}

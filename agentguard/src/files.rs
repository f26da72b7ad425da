//! Files of the state directory: written whole or not at all, private to root;
//! and the locks that keep two daemons apart.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// A file or directory could not be used. The message names it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// `cannot WHAT PATH: SOURCE`.
    #[must_use]
    pub fn new(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            what,
            path: path.to_owned(),
            source,
        }
    }

    /// The kernel's answer.
    #[must_use]
    pub const fn source_error(&self) -> &io::Error {
        &self.source
    }
}

/// Whether a file's content must be on the disk before the call returns, or
/// whether it is enough that it survives the daemon (but not a power cut).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives a power cut.
    Disk,
    /// Survives the daemon.
    Process,
}

/// Replaces a file as a whole: readers see the old content or the new.
///
/// # Errors
/// The first step that failed; the old content is then still there.
pub fn replace(path: &Path, content: &[u8], durability: Durability) -> Result<(), FileError> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        if durability == Durability::Disk {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        if durability == Durability::Disk
            && let Some(parent) = path.parent()
        {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|source| {
        // The error that matters is the first; a leftover is overwritten next time.
        let _ = fs::remove_file(&temporary);
        FileError::new("write", path, source)
    })
}

/// Makes a directory and its parents with these permissions, unless it is there.
///
/// # Errors
/// It cannot be made, or something else has its name.
pub fn ensure_directory(path: &Path, mode: u32) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| FileError::new("make the directory", path, source))
}

/// A held lock on a file or directory. It ends with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Someone holds it.
    #[error(
        "{} is in use by another AgentGuard daemon{}; stop that one first, or give this one directories of its own (--state, --runtime, --pins)",
        path.display(),
        if holder.is_empty() { String::new() } else { format!(" (process {holder})") }
    )]
    Held {
        /// What is locked.
        path: PathBuf,
        /// Process id of the holder, if it left one.
        holder: String,
    },
    /// The lock cannot be taken at all.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Lock {
    /// Locks a file, making it if needed, and leaves this process's id in it.
    ///
    /// # Errors
    /// [`LockError::Held`] if another process has it.
    pub fn file(path: &Path) -> Result<Self, LockError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|source| FileError::new("open", path, source))?;
        let mut lock = Self::take(file, path)?;
        let id = format!("{}\n", std::process::id());
        // The id only makes a later message better; the lock itself is held.
        let _ = lock.file.set_len(0);
        let _ = lock.file.write_all(id.as_bytes());
        Ok(lock)
    }

    /// Locks a directory, which works on a BPF file system too.
    ///
    /// # Errors
    /// [`LockError::Held`] if another process has it.
    pub fn directory(path: &Path) -> Result<Self, LockError> {
        let file = File::open(path).map_err(|source| FileError::new("open", path, source))?;
        Self::take(file, path)
    }

    fn take(file: File, path: &Path) -> Result<Self, LockError> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { file }),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                let _ = (&file).rewind();
                let _ = (&file).take(16).read_to_string(&mut holder);
                Err(LockError::Held {
                    path: path.to_owned(),
                    holder: holder.trim().to_owned(),
                })
            }
            Err((_, errno)) => Err(FileError::new("lock", path, errno.into()).into()),
        }
    }

    /// Whether this lock is on what `path` names now: something may have been
    /// mounted there since.
    #[must_use]
    pub fn is_on(&self, path: &Path) -> bool {
        let held = nix::sys::stat::fstat(self.file.as_fd());
        let named = fs::metadata(path);
        match (held, named) {
            (Ok(held), Ok(named)) => held.st_dev == named.dev() && held.st_ino == named.ino(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_is_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        replace(&path, b"one", Durability::Disk).unwrap();
        replace(&path, b"two", Durability::Process).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn replace_names_the_file() {
        let error = replace(Path::new("/nonexistent/x"), b"", Durability::Process).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot write /nonexistent/x: "),
            "{error}"
        );
    }

    #[test]
    fn a_lock_is_held_once_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::file(&path).unwrap();
        let error = Lock::file(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("(process {})", std::process::id())),
            "{error}"
        );
        drop(held);
        Lock::file(&path).unwrap();
    }

    #[test]
    fn a_directory_lock_knows_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let held = Lock::directory(dir.path()).unwrap();
        assert!(held.is_on(dir.path()));
        assert!(matches!(
            Lock::directory(dir.path()),
            Err(LockError::Held { .. })
        ));
        assert!(!held.is_on(Path::new("/proc")));
    }
}

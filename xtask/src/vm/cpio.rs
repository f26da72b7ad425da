//! cpio archives of the kind the kernel unpacks as its first file system ("newc").

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

const DIR: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive being written.
#[derive(Debug, Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    /// Adds a directory.
    pub fn dir(&mut self, path: &str) {
        self.entry(path, DIR, b"");
    }

    /// Adds an executable file.
    pub fn program(&mut self, path: &str, data: &[u8]) {
        self.entry(path, PROGRAM, data);
    }

    /// Adds a plain file.
    pub fn file(&mut self, path: &str, data: &[u8]) {
        self.entry(path, FILE, data);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.entry(path, LINK, to.as_bytes());
    }

    /// Ends the archive and writes it.
    pub fn write(mut self, file: &Path) -> Result<()> {
        self.entry("TRAILER!!!", 0, b"");
        fs::write(file, self.bytes).with_context(|| format!("cannot write {}", file.display()))
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.inode += 1;
        let name = path.trim_start_matches('/');
        // Fields: inode, mode, uid, gid, links, mtime, size, device (4), name length, checksum.
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:032x}{:08x}{:08x}",
            self.inode,
            0,
            0,
            1,
            0,
            data.len(),
            0,
            name.len() + 1,
            0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_documented_layout() {
        let mut cpio = Cpio::default();
        cpio.program("/init", b"#!sh");
        assert_eq!(&cpio.bytes[..6], b"070701");
        assert_eq!(&cpio.bytes[6 + 8..6 + 16], b"000081ed", "mode");
        assert_eq!(&cpio.bytes[6 + 48..6 + 56], b"00000004", "size");
        assert_eq!(&cpio.bytes[6 + 88..6 + 96], b"00000005", "name length");
        assert_eq!(
            &cpio.bytes[110..116],
            b"init\0\0",
            "name, padded to 4 bytes"
        );
        assert_eq!(&cpio.bytes[116..], b"#!sh");
    }
}

//! Whether somebody other than root could change what is loaded.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Severity};

/// Mode bits that let the group or everybody write.
const OTHERS_WRITE: u32 = 0o022;
/// In a directory with this bit, only the owner of a file may rename or remove it.
const STICKY: u32 = 0o1000;

/// Looks at owners and modes. Each directory is reported once.
pub(super) struct Trust {
    severity: Severity,
    /// Besides root, who runs this: their own files are no surprise to them.
    /// For the daemon it is root as well.
    user: u32,
    seen: BTreeSet<PathBuf>,
}

impl Trust {
    pub(super) fn new(is_strict: bool) -> Self {
        Self {
            severity: if is_strict {
                Severity::Error
            } else {
                Severity::Warning
            },
            user: nix::unistd::geteuid().as_raw(),
            seen: BTreeSet::new(),
        }
    }

    /// Looks at a directory that files are loaded from, and at those above it.
    pub(super) fn directory(&mut self, dir: &Path) -> Vec<Diagnostic> {
        match dir.canonicalize() {
            Ok(dir) => self.chain(&dir),
            Err(_) => Vec::new(), // it was read a moment ago; reading its files will tell
        }
    }

    /// Looks at a file, and, where it is reached through a link, at the
    /// directories of the file that the link leads to.
    pub(super) fn file(&mut self, path: &Path, metadata: &Metadata) -> Vec<Diagnostic> {
        let mut found: Vec<_> = self.judge(path, metadata, "file").into_iter().collect();
        if path.is_symlink()
            && let Ok(target) = path.canonicalize()
            && let Some(parent) = target.parent()
        {
            found.extend(self.chain(parent));
        }
        found
    }

    fn chain(&mut self, dir: &Path) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for dir in dir.ancestors() {
            if self.seen.insert(dir.to_path_buf())
                && let Ok(metadata) = dir.metadata()
            {
                found.extend(self.judge(dir, &metadata, "directory"));
            }
        }
        found
    }

    fn judge(&self, path: &Path, metadata: &Metadata, what: &str) -> Option<Diagnostic> {
        let mode = metadata.mode();
        let is_shared_safely = metadata.is_dir() && mode & STICKY != 0 && metadata.uid() == 0;
        let (message, help) = if metadata.uid() != 0 && metadata.uid() != self.user {
            (
                format!(
                    "user {} owns this {what} and so can change the policy",
                    metadata.uid()
                ),
                format!("chown root: {}", path.display()),
            )
        } else if mode & OTHERS_WRITE != 0 && !is_shared_safely {
            (
                format!(
                    "others than its owner can write to this {what} (mode {:04o}) and so change the policy",
                    mode & 0o7777
                ),
                format!("chmod go-w {}", path.display()),
            )
        } else {
            return None;
        };
        Some(Diagnostic::about_file(self.severity, path, message, help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    #[test]
    fn a_file_of_somebody_else_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.yaml");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut trust = Trust::new(true);
        assert!(trust.file(&path, &path.metadata().unwrap()).is_empty());
        if trust.user == 0 {
            chown(&path, Some(12_345), None).unwrap();
        } else {
            // Nobody but root can give a file away: be somebody else instead.
            trust.user += 1;
        }
        let found = trust.file(&path, &path.metadata().unwrap());
        assert_eq!(found.len(), 1);
        assert!(found[0].is_error() && found[0].message.contains("owns this file"));
    }

    #[test]
    fn each_directory_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let mut trust = Trust::new(false);
        assert_eq!(trust.directory(dir.path()).len(), 1);
        assert_eq!(trust.directory(dir.path()).len(), 0);
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(Trust::new(false).directory(dir.path()).len(), 0);
    }
}

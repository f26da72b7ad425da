//! The directories of one suite: removed when it is dropped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Directories of one suite.
#[derive(Debug)]
pub struct Places {
    root: PathBuf,
    home: PathBuf,
}

impl Places {
    /// Makes them, below the temporary directory that is on a disk.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn make() -> Result<Self> {
        let name = format!("agentguard-test-{}", std::process::id());
        let places = Self {
            root: Path::new("/var/tmp").join(&name),
            home: Path::new("/home").join(&name),
        };
        for directory in ["agents", "state", "runtime", "ok", "no", "secret", "bin"] {
            let directory = places.root.join(directory);
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        for directory in ["", "ok", "no"] {
            // For the users that tests become.
            fs::set_permissions(places.root.join(directory), mode(0o777))?;
        }
        fs::set_permissions(&places.root, mode(0o755))?;
        Ok(places)
    }

    /// A path below the suite's directory, as text.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        self.root.join(path).to_string_lossy().into_owned()
    }

    /// The suite's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A home directory, whose credentials the built-in protections are about.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A new directory with everything in it gone.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn fresh(&self, path: &str) -> Result<PathBuf> {
        let directory = self.root.join(path);
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, mode(0o777))?;
        Ok(directory)
    }

    /// A file with a few bytes in it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&self, path: &str) -> Result<String> {
        let file = self.root.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, "content\n").with_context(|| format!("cannot write {path}"))?;
        fs::set_permissions(&file, mode(0o666))?;
        Ok(self.at(path))
    }
}

fn mode(bits: u32) -> fs::Permissions {
    fs::Permissions::from_mode(bits)
}

impl Drop for Places {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
        let _ = fs::remove_dir_all(&self.home);
    }
}

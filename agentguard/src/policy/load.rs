//! From files and directories to the set of all agents.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::across::Across;
use super::check::{Checked, Identity, check};
use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::manifest::Manifest;
use super::source::SourceFile;
use super::trust::Trust;
use super::yaml::{MAX_FILE_BYTES, parse, too_large};

/// Files in one directory that are read.
pub const MAX_FILES: usize = 4_096;

/// How to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Refuse files that somebody else could change, instead of warning.
    pub strict_permissions: bool,
}

/// All agents, ready to be compiled.
#[derive(Debug)]
pub struct PolicySet {
    /// The manifests, in the order of the files and within them.
    pub manifests: Vec<Manifest>,
    /// Their texts, in the same order: each alone, without its neighbours in the file.
    pub texts: Vec<Box<str>>,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Loads the manifests of a directory: its `*.yaml` and `*.yml` files, sorted,
/// without hidden ones; subdirectories are not entered.
///
/// # Errors
/// All findings over all files, when one of them is an error.
pub fn load_dir(dir: &Path, options: LoadOptions) -> Result<PolicySet, Diagnostics> {
    let mut loader = Loader::new(options);
    loader.directory(dir);
    loader.finish()
}

/// Loads the named files and directories together.
///
/// # Errors
/// All findings over all files, when one of them is an error.
pub fn load_paths(paths: &[PathBuf], options: LoadOptions) -> Result<PolicySet, Diagnostics> {
    let mut loader = Loader::new(options);
    for path in paths {
        if path.is_dir() {
            loader.directory(path);
        } else {
            loader.file(path);
        }
    }
    loader.finish()
}

struct Loader {
    trust: Trust,
    sources: BTreeMap<Arc<Path>, SourceFile>,
    manifests: Vec<Manifest>,
    identities: Vec<Identity>,
    diagnostics: Vec<Diagnostic>,
}

impl Loader {
    fn new(options: LoadOptions) -> Self {
        Self {
            trust: Trust::new(options.strict_permissions),
            sources: BTreeMap::new(),
            manifests: Vec::new(),
            identities: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    fn directory(&mut self, dir: &Path) {
        match candidates(dir) {
            Ok(files) if files.len() > MAX_FILES => {
                self.diagnostics.push(Diagnostic::about_file(
                    Severity::Error,
                    dir,
                    format!(
                        "the directory holds {} manifest files; at most {MAX_FILES} are read",
                        files.len()
                    ),
                    "put several agents into one file, separated by `---`",
                ));
            }
            Ok(files) => {
                self.diagnostics.extend(self.trust.directory(dir));
                for file in files {
                    self.file(&file);
                }
            }
            Err(error) => self.diagnostics.push(unreadable(dir, "directory", &error)),
        }
    }

    fn file(&mut self, path: &Path) {
        let bytes = match read_bounded(path) {
            Ok((bytes, metadata)) => {
                self.diagnostics.extend(self.trust.file(path, &metadata));
                bytes
            }
            Err(diagnostic) => return self.diagnostics.push(*diagnostic),
        };
        let parsed = match parse(path, &bytes) {
            Ok(parsed) => parsed,
            Err(diagnostic) => return self.diagnostics.push(*diagnostic),
        };
        let Checked {
            manifests,
            identities,
            diagnostics,
        } = check(&parsed);
        self.manifests.extend(manifests);
        self.identities.extend(identities);
        self.diagnostics.extend(diagnostics);
        let source = parsed.source;
        self.sources.insert(Arc::clone(&source.path), source);
    }

    fn finish(self) -> Result<PolicySet, Diagnostics> {
        let across = Across {
            sources: &self.sources,
            manifests: &self.manifests,
            identities: &self.identities,
        };
        let mut diagnostics = self.diagnostics;
        diagnostics.extend(across.findings());
        // Findings of one file stay together, those about the file itself first.
        diagnostics.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        if diagnostics.iter().any(Diagnostic::is_error) {
            return Err(Diagnostics(diagnostics));
        }
        let text = |manifest: &Manifest| {
            let source = self.sources.get(&manifest.source.file);
            source
                .map(|source| source.document_at(&manifest.source))
                .unwrap_or_default()
                .into()
        };
        Ok(PolicySet {
            texts: self.manifests.iter().map(text).collect(),
            manifests: self.manifests,
            warnings: diagnostics,
        })
    }
}

/// The manifest files of a directory, sorted.
fn candidates(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        let extension = Path::new(&name).extension();
        // What editors leave behind (x.yaml~, #x.yaml#, .x.yaml.swp) does not pass.
        if !is_hidden && extension.is_some_and(|it| it == "yaml" || it == "yml") {
            files.push(dir.join(name));
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a regular file, and not more of it than a manifest may have.
fn read_bounded(path: &Path) -> Result<(Vec<u8>, std::fs::Metadata), Box<Diagnostic>> {
    let failed = |error: io::Error| Box::new(unreadable(path, "file", &error));
    let file = File::options()
        .read(true)
        // Opening a FIFO must not wait for a writer; on regular files it changes nothing.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Box::new(Diagnostic::about_file(
            Severity::Error,
            path,
            "this is not a regular file",
            "a manifest is a file, or a symbolic link to one",
        )));
    }
    if metadata.len() > MAX_FILE_BYTES as u64 {
        return Err(Box::new(too_large(path, metadata.len())));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that the file has grown meanwhile.
    let mut bounded = file.take(MAX_FILE_BYTES as u64 + 1);
    bounded.read_to_end(&mut bytes).map_err(failed)?;
    Ok((bytes, metadata))
}

fn unreadable(path: &Path, what: &str, error: &io::Error) -> Diagnostic {
    let (message, help) = match error.kind() {
        io::ErrorKind::NotFound => (
            format!("the {what} does not exist"),
            format!("make the {what}, or name another"),
        ),
        io::ErrorKind::NotADirectory => (
            "this is not a directory".to_owned(),
            "name a directory that holds *.yaml files".to_owned(),
        ),
        io::ErrorKind::PermissionDenied => (
            format!("the {what} may not be read by this user"),
            "run this as root, or as a user who may read it".to_owned(),
        ),
        _ => (
            format!("the {what} cannot be read: {error}"),
            format!("see whether `stat {}` works", path.display()),
        ),
    };
    Diagnostic::about_file(Severity::Error, path, message, help)
}

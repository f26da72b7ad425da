//! A directory to try things in, and the two runs of every case: confined and free.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use agentguard::landlock::{Concessions, HostTree, Rules, rules, supported};
use nix::mount::{MsFlags, mount};

use crate::probe::{Job, Report, manifest, run};

/// Whether this kernel is said to have Landlock; then its absence is a failure.
pub fn is_landlock_expected() -> bool {
    let list = Path::new("/sys/kernel/security/lsm");
    if !list.exists() && nix::unistd::geteuid().is_root() {
        let point = "/sys/kernel/security";
        let nothing = None::<&str>;
        let flags = MsFlags::empty();
        if let Err(error) = mount(nothing, point, Some("securityfs"), flags, nothing) {
            eprintln!("{point} cannot be mounted: {error}");
        }
    }
    match std::fs::read_to_string(list) {
        Ok(list) => list.split(',').any(|name| name.trim() == "landlock"),
        Err(_) => supported().is_ok(),
    }
}

/// A directory with files, removed at the end.
pub struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    /// Files, and directories where the name ends with a slash.
    pub fn new(files: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let lab = Self { directory };
        lab.open_to_all(lab.directory.path());
        for file in files {
            let path = lab.path(file);
            let parent = if file.ends_with('/') {
                &path
            } else {
                path.parent().unwrap()
            };
            std::fs::create_dir_all(parent).unwrap();
            if !file.ends_with('/') {
                std::fs::write(&path, "content").unwrap();
                lab.open_to_all(&path);
            }
            let mut parent = Some(parent);
            while let Some(directory) = parent.filter(|it| *it != lab.directory.path()) {
                lab.open_to_all(directory);
                parent = directory.parent();
            }
        }
        lab
    }

    /// Nothing but Landlock is to refuse.
    fn open_to_all(&self, path: &Path) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The text with `@` for the directory.
    pub fn fill(&self, text: &str) -> String {
        text.replace('@', self.directory.path().to_str().unwrap())
    }

    pub fn rules(&self, permissions: &str) -> Rules {
        let tree = HostTree::here().unwrap();
        let manifest = manifest("enforce", &self.fill(permissions));
        rules(&manifest, &[], Concessions::default(), &tree)
    }

    pub fn tries(&self, tries: &[(&str, &str)]) -> Vec<Vec<String>> {
        let words = |line: &str| self.fill(line).split(' ').map(str::to_owned).collect();
        tries.iter().map(|(line, _)| words(line)).collect()
    }

    /// Runs tries under rules; each must end as said.
    #[track_caller]
    pub fn expect(&self, job: Job, tries: &[(&str, &str)]) -> Report {
        let report = run(&Job {
            tries: self.tries(tries),
            ..job
        });
        assert_eq!(report.error, None);
        let found: Vec<(&str, &str)> = tries
            .iter()
            .zip(&report.results)
            .map(|((line, _), result)| (*line, result.as_str()))
            .collect();
        assert_eq!(found, tries, "{:#?}", report.confined);
        report
    }
}

/// Runs tries under a manifest's rules, each of which must end as said, in a
/// fresh lab; and without rules in another, where all must succeed.
#[track_caller]
pub fn confined(files: &[&str], permissions: &str, tries: &[(&str, &str)]) -> Report {
    let free: Vec<(&str, &str)> = tries.iter().map(|(line, _)| (*line, "ok")).collect();
    Lab::new(files).expect(Job::default(), &free);
    let lab = Lab::new(files);
    let rules = vec![lab.rules(permissions)];
    let job = Job {
        rules,
        ..Job::default()
    };
    lab.expect(job, tries)
}

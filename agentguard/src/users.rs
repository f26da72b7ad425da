//! User and group names, from `/etc/passwd` and `/etc/group` alone.
//!
//! The system's name service is not asked: a statically linked binary cannot
//! load its modules, and a daemon that decides about rights should not wait for
//! a directory server. Accounts that live elsewhere (LDAP, systemd's dynamic
//! users) are written as numbers in manifests and in the configuration.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Reads the two files anew for every question: they are small, the questions
/// are rare, and an account made a moment ago is known.
#[derive(Clone, Debug)]
pub struct Accounts {
    passwd: PathBuf,
    group: PathBuf,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            passwd: PathBuf::from("/etc/passwd"),
            group: PathBuf::from("/etc/group"),
        }
    }
}

impl Accounts {
    /// Accounts in other files of the same form.
    #[must_use]
    pub const fn in_files(passwd: PathBuf, group: PathBuf) -> Self {
        Self { passwd, group }
    }

    /// The id of a user given by name or number.
    #[must_use]
    pub fn uid(&self, user: &str) -> Option<u32> {
        user.parse().ok().or_else(|| id_of(&self.passwd, user))
    }

    /// The id of a group given by name or number.
    #[must_use]
    pub fn gid(&self, group: &str) -> Option<u32> {
        group.parse().ok().or_else(|| id_of(&self.group, group))
    }

    /// The home directories that belong to their users, each once: those of services that
    /// share one with the system (`/bin`, `/var/mail`) do not.
    #[must_use]
    pub fn homes(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string(&self.passwd).unwrap_or_default();
        let mut homes: Vec<PathBuf> = text
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(':').skip(2);
                let uid: u32 = fields.next()?.parse().ok()?;
                let home = PathBuf::from(fields.nth(2)?);
                let found = fs::metadata(&home).ok()?;
                let is_own = found.is_dir() && found.uid() == uid;
                (is_own && home.is_absolute() && home != std::path::Path::new("/")).then_some(home)
            })
            .collect();
        homes.sort_unstable();
        homes.dedup();
        homes
    }

    /// The first name with this user id.
    #[must_use]
    pub fn user_name(&self, uid: u32) -> Option<String> {
        let text = fs::read_to_string(&self.passwd).ok()?;
        entries(&text)
            .find(|(_, id)| *id == uid)
            .map(|(name, _)| name.to_owned())
    }

    /// The name with this user id, or the number where there is none.
    #[must_use]
    pub fn user_label(&self, uid: u32) -> String {
        self.user_name(uid).unwrap_or_else(|| uid.to_string())
    }
}

/// Both files have the name in the first field and the id in the third.
fn entries(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id = fields.nth(1)?.parse().ok()?;
        Some((name, id))
    })
}

fn id_of(file: &PathBuf, name: &str) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    entries(&text)
        .find(|(entry, _)| *entry == name)
        .map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(dir: &tempfile::TempDir) -> Accounts {
        let passwd = dir.path().join("passwd");
        let group = dir.path().join("group");
        let users = "root:x:0:0:root:/root:/bin/sh\n# note\n\nbroken\nsvc:x:101:101::/:/bin/false\nalias:x:101:101::/:/bin/false\n";
        fs::write(&passwd, users).unwrap();
        fs::write(&group, "root:x:0:\nagentguard:x:998:alice,bob\n").unwrap();
        Accounts::in_files(passwd, group)
    }

    #[test]
    fn names_and_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir);
        assert_eq!(accounts.uid("svc"), Some(101));
        assert_eq!(accounts.uid("4711"), Some(4711));
        assert_eq!(accounts.uid("nobody-here"), None);
        assert_eq!(accounts.gid("agentguard"), Some(998));
        assert_eq!(accounts.user_name(101).as_deref(), Some("svc"));
        assert_eq!(accounts.user_label(4711), "4711");
    }

    #[test]
    fn missing_files_know_nobody() {
        let accounts = Accounts::in_files("/nonexistent/a".into(), "/nonexistent/b".into());
        assert_eq!(accounts.uid("root"), None);
        assert_eq!(accounts.uid("0"), Some(0));
    }
}

//! A file tree in memory, with mounts, and Landlock's decision on it.

use std::collections::BTreeMap;
use std::io;

use crate::landlock::{Access, Entries, Entry, Kind, ListError, Rules, Tree};
use crate::mounts::{MountTable, Names, names};

/// File systems of files, by device number, and the mounts that show them.
pub struct MemoryTree {
    mounts: MountTable,
    files: BTreeMap<(u32, Names), File>,
}

struct File {
    kind: Kind,
    inode: u64,
    links: u64,
    owner: u32,
    content: Vec<u8>,
}

/// Where a path is: its file system, names in it, and the mount that shows it.
pub struct Spot {
    pub device: u32,
    pub inside: Names,
    pub mount: u32,
}

impl MemoryTree {
    /// A tree from mountinfo lines and files: `MINOR /path[TYPE]` with `/` for a
    /// directory, nothing for a file, `->TARGET` for a link of root's and `=>`
    /// for one of somebody else's, `#INTERPRETER` for a program, `+` for a file
    /// with two names, `!` for what does not answer, and `cMAJOR:MINOR` after a space for a device.
    pub fn new(mountinfo: &str, files: &[&str]) -> Self {
        let mut tree = Self {
            mounts: MountTable::parse(mountinfo.as_bytes()).unwrap(),
            files: BTreeMap::new(),
        };
        for (index, file) in files.iter().enumerate() {
            let (minor, path) = file.split_once(' ').unwrap();
            tree.add(8 << 20 | minor.parse::<u32>().unwrap(), path, index);
        }
        tree
    }

    fn add(&mut self, device: u32, path: &str, index: usize) {
        let (mut kind, mut content, mut links, mut owner) = (Kind::File, "", 1, 0);
        let mut path = path;
        if let Some((name, target)) = path.split_once("->") {
            (path, content, kind) = (name, target, Kind::Link);
        } else if let Some((name, target)) = path.split_once("=>") {
            (path, content, kind, owner) = (name, target, Kind::Link, 1000);
        } else if let Some((name, interpreter)) = path.split_once('#') {
            (path, content) = (name, interpreter);
        } else if let Some((name, number)) = path.split_once(" c") {
            let (major, minor) = number.split_once(':').unwrap();
            path = name;
            kind = Kind::Character {
                major: major.parse().unwrap(),
                minor: minor.parse().unwrap(),
            };
        } else if let Some(name) = path.strip_suffix('+') {
            (path, links) = (name, 2);
        } else if let Some(name) = path.strip_suffix('!') {
            (path, kind) = (name, Kind::Unreachable);
        } else if path.ends_with('/') {
            kind = Kind::Directory;
        }
        let inside = names(path.as_bytes());
        for length in 0..=inside.len() {
            let is_last = length == inside.len();
            let number = self.files.len() as u64 + 1;
            self.files
                .entry((device, inside[..length].to_vec()))
                .or_insert_with(|| File {
                    kind: if is_last { kind } else { Kind::Directory },
                    inode: number + 1000 * index as u64,
                    links,
                    owner,
                    content: content.as_bytes().to_vec(),
                });
        }
    }

    /// Where a path is.
    pub fn locate(&self, path: &[Box<[u8]>]) -> Spot {
        let mount = self
            .mounts
            .mounts()
            .iter()
            .filter(|mount| path.starts_with(&mount.point))
            .max_by_key(|mount| (mount.point.len(), mount.id))
            .unwrap();
        let mut inside = mount.root.clone();
        inside.extend_from_slice(&path[mount.point.len()..]);
        Spot {
            device: mount.device,
            inside,
            mount: mount.id,
        }
    }

    /// Every path at which there is something, through every mount.
    pub fn paths(&self) -> Vec<Names> {
        let mut found = vec![Names::new()];
        let mut index = 0;
        while let Some(path) = found.get(index).cloned() {
            if matches!(self.entry(&path), Ok(Some(entry)) if entry.kind == Kind::Directory) {
                for (name, _) in self.list(&path, usize::MAX).unwrap() {
                    let mut path = path.clone();
                    path.push(name);
                    found.push(path);
                }
            }
            index += 1;
        }
        found
    }

    /// Landlock's decision: all rights that are given at a path by rules on it
    /// and on directories above it, and those that are not handled.
    pub fn granted(&self, rules: &Rules, path: &Names) -> Access {
        let mut access = !rules.handled;
        for length in 0..=path.len() {
            let Ok(Some(entry)) = self.entry(&path[..length].to_vec()) else {
                break;
            };
            for node in &rules.nodes {
                if (node.device, node.inode) == (entry.device, entry.inode) {
                    access |= node.access;
                }
            }
        }
        access
    }
}

impl Tree for MemoryTree {
    fn mounts(&self) -> &MountTable {
        &self.mounts
    }

    fn namespace(&self) -> u64 {
        1
    }

    fn entry(&self, path: &Names) -> io::Result<Option<Entry>> {
        let spot = self.locate(path);
        let file = self.files.get(&(spot.device, spot.inside));
        Ok(file.map(|file| Entry {
            kind: file.kind,
            device: spot.device.into(),
            inode: file.inode,
            links: file.links,
            owner: file.owner,
            mount: spot.mount,
        }))
    }

    fn list(&self, path: &Names, limit: usize) -> Result<Entries, ListError> {
        let spot = self.locate(path);
        let mut entries = Entries::new();
        for (device, inside) in self.files.keys() {
            let is_in = *device == spot.device
                && inside.len() == spot.inside.len() + 1
                && inside.starts_with(&spot.inside);
            if is_in {
                let mut path = path.clone();
                let name = inside.last().unwrap().clone();
                path.push(name.clone());
                entries.push((name, self.entry(&path)?.unwrap()));
            }
        }
        if entries.len() > limit {
            return Err(ListError::TooMany);
        }
        if path.last().is_some_and(|name| **name == *b"unreadable") {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied).into());
        }
        Ok(entries)
    }

    fn link_target(&self, path: &Names) -> io::Result<Vec<u8>> {
        let spot = self.locate(path);
        Ok(self.files[&(spot.device, spot.inside)].content.clone())
    }

    fn interpreter(&self, path: &Names) -> io::Result<Option<Vec<u8>>> {
        let spot = self.locate(path);
        let content = &self.files[&(spot.device, spot.inside)].content;
        Ok((!content.is_empty()).then(|| content.clone()))
    }
}

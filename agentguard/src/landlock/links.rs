//! Symbolic links in the literal part of patterns.
//!
//! The kernel judges what a link leads to, so a rule that names a link means its
//! target. Denying rules follow every link. Allowing rules follow only those
//! that root owns: whoever can place a link would otherwise choose what the next
//! run may do.

use super::tree::{Entry, Kind, Tree};
use crate::mounts::{Names, names};
use crate::policy::manifest::Component;

/// Links followed on one path; Linux follows as many.
const MAX_LINKS: usize = 40;

/// Resolves links.
pub(super) struct Links<'a> {
    tree: &'a dyn Tree,
}

impl<'a> Links<'a> {
    pub fn new(tree: &'a dyn Tree) -> Self {
        Self { tree }
    }

    /// The pattern with its literal part resolved; `None` where no link is met.
    ///
    /// # Errors
    /// With `trusted`, the first link that root does not own.
    pub fn resolve(
        &self,
        pattern: &[Component],
        trusted: bool,
    ) -> Result<Option<Vec<Component>>, Names> {
        let literal: Names = pattern
            .iter()
            .map_while(|part| match part {
                Component::Exact(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let rest = &pattern[literal.len()..];
        let resolved = self.path(&literal, trusted)?;
        Ok(resolved.map(|path| {
            let exact = path.into_iter().map(Component::Exact);
            exact.chain(rest.iter().cloned()).collect()
        }))
    }

    /// The path with all links resolved; `None` where none is met.
    ///
    /// # Errors
    /// With `trusted`, the first link that root does not own.
    pub fn path(&self, path: &Names, trusted: bool) -> Result<Option<Names>, Names> {
        let mut done = Names::new();
        let mut left: Vec<Box<[u8]>> = path.iter().rev().cloned().collect();
        let mut met = 0;
        while let Some(name) = left.pop() {
            match &*name {
                b"." => continue,
                b".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(name),
            }
            let Some(link) = self.link(&done) else {
                continue;
            };
            if trusted && link.owner != 0 {
                return Err(done);
            }
            met += 1;
            let Ok(target) = self.tree.link_target(&done) else {
                return Ok(None);
            };
            if met > MAX_LINKS {
                return Ok(None);
            }
            if target.starts_with(b"/") {
                done.clear();
            } else {
                done.pop();
            }
            left.extend(names(&target).into_iter().rev());
        }
        Ok((met > 0).then_some(done))
    }

    /// What a path as text leads to, with its resolved names.
    pub fn lookup(&self, path: &[u8]) -> Option<(Names, Entry)> {
        let path = names(path);
        let resolved = self.path(&path, false).ok()?.unwrap_or(path);
        let entry = self.tree.entry(&resolved).ok()??;
        Some((resolved, entry))
    }

    fn link(&self, path: &Names) -> Option<Entry> {
        let entry = self.tree.entry(path).ok()??;
        (entry.kind == Kind::Link).then_some(entry)
    }
}

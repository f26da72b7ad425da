//! Taking over from a version whose maps have another layout.
//!
//! Maps that are the same in both are shared, so tags and sockets stay where they are. Of one
//! that is not, a new one takes the place, filled from the old one. For a moment the programs
//! of both versions are attached; each change is counted by one of them, in its own map. When
//! the old programs are gone, what their map says more than the copy is added to the new one:
//! nothing is counted twice and nothing is lost.
//!
//! A daemon that ends meanwhile is no matter: beside the map `NAME` stand `NAME_old` and
//! `NAME_copied` until all of that is done, and the next one goes on from there.
//!
//! An element may only grow at its end, and a map may only have more elements. What else
//! changes needs another name, or an unloaded kernel.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentguard_common::identity::{RunRecord, run_state};
use agentguard_common::names::map;

use super::banks::grace;
use super::load::failed;
use super::pins::{links_dir, maps_dir};
use super::programs::{PROGRAMS, Program, Role};
use super::{KernelError, Options, sys};

/// How long the kernel takes at most to detach programs whose links went: it does that in the
/// background, within milliseconds.
const DETACHED_WITHIN: Duration = Duration::from_secs(30);

/// How long old maps do not change once nobody writes to them: programs of the host's every
/// process were detached before.
const STILL: Duration = Duration::from_millis(250);

/// A map as `/proc/PID/fdinfo` describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

impl Layout {
    fn of(map: impl AsFd) -> io::Result<Self> {
        let text = info(map)?;
        let number = |name| {
            let found = field(&text, name).and_then(|value| {
                let hex = value.strip_prefix("0x");
                hex.map_or_else(
                    || value.parse().ok(),
                    |hex| u32::from_str_radix(hex, 16).ok(),
                )
            });
            found.ok_or_else(|| io::Error::other(format!("fdinfo has no {name}")))
        };
        Ok(Self {
            kind: number("map_type:")?,
            key_size: number("key_size:")?,
            value_size: number("value_size:")?,
            max_entries: number("max_entries:")?,
            flags: number("map_flags:")?,
        })
    }

    /// Whether elements of the other kind can be put into this one.
    const fn has_room_for(&self, old: &Self) -> bool {
        self.value_size >= old.value_size && self.max_entries >= old.max_entries
    }
}

fn info(fd: impl AsFd) -> io::Result<String> {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// An array that can be taken over.
struct Array {
    name: &'static str,
    /// Where in an element the kernel adds.
    sums: &'static [usize],
    /// Where in an element its owner's number is: with another one it is another element.
    owner: Option<usize>,
    /// Completes an element that was grown.
    complete: fn(&mut [u8]),
}

const RUNS: Array = Array {
    name: map::RUNS,
    sums: &[
        offset_of!(RunRecord, tasks),
        offset_of!(RunRecord, events),
        offset_of!(RunRecord, lost),
        offset_of!(RunRecord, denials),
        offset_of!(RunRecord, folded),
    ],
    owner: Some(offset_of!(RunRecord, serial)),
    complete: complete_run,
};

const COUNTERS: Array = Array {
    name: map::COUNTERS,
    sums: &[0],
    owner: None,
    complete: |_| {},
};

/// Only of use while the daemon waits for an answer.
const ENROL: Array = Array {
    name: map::ENROL,
    sums: &[],
    owner: None,
    complete: |_| {},
};

const ARRAYS: [Array; 3] = [RUNS, COUNTERS, ENROL];

/// Before runs could begin without the daemon, a slot was taken when its state said so.
fn complete_run(run: &mut [u8]) {
    let state = offset_of!(RunRecord, state);
    let taken = offset_of!(RunRecord, taken);
    let is_live = run.get(state..state + 4) != Some(&run_state::FREE.to_ne_bytes());
    if let Some(taken) = run.get_mut(taken..taken + 8) {
        taken.copy_from_slice(&u64::from(is_live).to_ne_bytes());
    }
}

/// Maps that are being taken over.
pub(super) struct Takeover {
    arrays: Vec<Array>,
    maps: PathBuf,
    /// Links of the programs that an earlier daemon attached.
    old_links: Vec<u32>,
}

impl Takeover {
    /// Looks which pinned maps have another layout than those of this version, which `ours`
    /// opens by name, and moves them aside.
    ///
    /// # Errors
    /// One that cannot be taken over.
    pub fn prepare(
        options: &Options,
        names: &[&str],
        ours: &dyn Fn(&str) -> Result<OwnedFd, KernelError>,
    ) -> Result<Self, KernelError> {
        let maps = maps_dir(options);
        let mut takeover = Self {
            arrays: Vec::new(),
            old_links: link_ids(&links_dir(options)),
            maps,
        };
        for name in names {
            let at = takeover.maps.join(name);
            if takeover.beside(name, OLD).exists() {
                // An earlier daemon began.
                takeover.arrays.push(known(name)?);
                takeover.set_aside(name, None)?;
            } else if at.exists() {
                let old = open(&at)?;
                let layout = |fd: &OwnedFd| {
                    Layout::of(fd).map_err(|error| failed(&format!("looking at {name}"), &error))
                };
                let (was, is) = (layout(&old)?, layout(&ours(name)?)?);
                if was == is {
                    continue;
                }
                if !is.has_room_for(&was) {
                    return Err(foreign(name));
                }
                takeover.arrays.push(known(name)?);
                takeover.set_aside(name, Some((&old, was)))?;
            }
        }
        Ok(takeover)
    }

    /// The path of a map while it is taken over.
    fn beside(&self, name: &str, what: &str) -> PathBuf {
        self.maps.join(format!("{name}{what}"))
    }

    /// Copies an old map and moves it out of the way; each step can be the last.
    fn set_aside(&self, name: &str, old: Option<(&OwnedFd, Layout)>) -> Result<(), KernelError> {
        let what = format!("setting the old {name} aside");
        let broken = |error: &dyn std::error::Error| failed(&what, error);
        if let Some((old, layout)) = old {
            let copied = self.beside(name, COPIED);
            remove(&copied)?;
            let copy = sys::make_array(layout.value_size, layout.max_entries)
                .map_err(|error| broken(&error))?;
            let mut value = vec![0; layout.value_size as usize];
            for index in 0..layout.max_entries {
                sys::read_element(old.as_fd(), index, &mut value)
                    .and_then(|()| sys::write_element(copy.as_fd(), index, &value))
                    .map_err(|error| broken(&error))?;
            }
            sys::pin(copy.as_fd(), &path(&copied)?).map_err(|error| broken(&error))?;
            sys::pin(old.as_fd(), &path(&self.beside(name, OLD))?)
                .map_err(|error| broken(&error))?;
        }
        // Still there, if the earlier daemon ended just here.
        let at = self.maps.join(name);
        let is_old =
            |at: &Path| Ok::<_, KernelError>(id(&open(at)?) == id(&open(&self.beside(name, OLD))?));
        if at.exists() && is_old(&at)? {
            remove(&at)?;
        }
        Ok(())
    }

    /// Fills the new maps, before any program of this version is attached.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn fill(
        &self,
        ours: &dyn Fn(&str) -> Result<OwnedFd, KernelError>,
    ) -> Result<(), KernelError> {
        for array in &self.arrays {
            let (copied, filled) = (
                self.beside(array.name, COPIED),
                self.beside(array.name, FILLED),
            );
            if filled.exists() {
                continue;
            }
            let (from, into) = (open(&copied)?, ours(array.name)?);
            for_each(array, &from, &into, |index, old, new| {
                let len = old.len();
                if let Some(front) = new.get_mut(..len) {
                    front.copy_from_slice(old);
                }
                (array.complete)(new);
                sys::write_element(into.as_fd(), index, new)
            })?;
            fs::rename(&copied, &filled)
                .map_err(|error| failed(&format!("filling {}", array.name), &error))?;
            tracing::info!(
                "{} has another layout in this version: taken over",
                array.name
            );
        }
        Ok(())
    }

    /// Adds what was counted in the old maps meanwhile, once the old programs are gone.
    ///
    /// # Errors
    /// The kernel's answer, or the old programs do not go.
    pub fn finish(
        self,
        ours: &dyn Fn(&str) -> Result<OwnedFd, KernelError>,
    ) -> Result<(), KernelError> {
        if self.arrays.is_empty() {
            return Ok(());
        }
        self.wait_for_old_programs()?;
        for array in &self.arrays {
            let filled = open(&self.beside(array.name, FILLED))?;
            let old = open(&self.beside(array.name, OLD))?;
            let into = ours(array.name)?;
            let mut last = vec![0; value_size(&old)?];
            for_each(array, &filled, &into, |index, copied, new| {
                sys::read_element(old.as_fd(), index, &mut last)?;
                if last == copied {
                    return Ok(());
                }
                merge(array, copied, &last, new);
                sys::write_element(into.as_fd(), index, new)?;
                // So that it is not added once more, should this daemon end now.
                sys::write_element(filled.as_fd(), index, &last)
            })?;
        }
        for array in &self.arrays {
            remove(&self.beside(array.name, OLD))?;
            remove(&self.beside(array.name, FILLED))?;
        }
        Ok(())
    }

    /// Waits until the old programs are detached, which the kernel does in the background.
    fn wait_for_old_programs(&self) -> Result<(), KernelError> {
        let until = Instant::now() + DETACHED_WITHIN;
        let what = "taking over from another version";
        let mut before = None;
        loop {
            let exist = self.old_links.iter().map(|id| sys::link_exists(*id));
            match exist.collect::<io::Result<Vec<bool>>>() {
                Ok(exist) if exist.contains(&true) => {}
                Ok(_) => break,
                // Only CAP_SYS_ADMIN may ask. What they no longer write to they have left: had
                // they nothing to write, nothing is missing.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    let now = self.contents()?;
                    if before.as_ref() == Some(&now) {
                        break;
                    }
                    before = Some(now);
                    std::thread::sleep(STILL);
                }
                Err(error) => return Err(failed(what, &error)),
            }
            if Instant::now() > until {
                return Err(KernelError::Failed {
                    what: what.to_owned(),
                    cause: "its programs are still attached".to_owned(),
                    next: "end whatever holds them (`bpftool link`), or end the runs and remove \
                           everything with `agentguard daemon --unload`"
                        .to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        grace();
        Ok(())
    }

    /// What is in the old maps.
    fn contents(&self) -> Result<Vec<u8>, KernelError> {
        let mut all = Vec::new();
        for array in &self.arrays {
            let old = open(&self.beside(array.name, OLD))?;
            for_each(array, &old, &old, |_, element, _| {
                all.extend_from_slice(element);
                Ok(())
            })?;
        }
        Ok(all)
    }
}

const OLD: &str = "_old";
const COPIED: &str = "_copied";
const FILLED: &str = "_filled";

/// Adds to an element what the old map says more than its copy.
fn merge(array: &Array, copied: &[u8], last: &[u8], new: &mut [u8]) {
    let number = |bytes: &[u8], at: usize| -> u64 {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_ne_bytes)
    };
    if let Some(owner) = array.owner
        && number(copied, owner) != number(last, owner)
    {
        // Begun by the old daemon after the copy.
        if let Some(front) = new.get_mut(..last.len()) {
            front.copy_from_slice(last);
        }
        (array.complete)(new);
        return;
    }
    for at in array.sums {
        let more = number(last, *at).wrapping_sub(number(copied, *at));
        let sum = number(new, *at).wrapping_add(more);
        if let Some(word) = new.get_mut(*at..at + 8) {
            word.copy_from_slice(&sum.to_ne_bytes());
        }
    }
}

/// Calls with each element of an old map and the one in its place.
fn for_each(
    array: &Array,
    old: &OwnedFd,
    new: &OwnedFd,
    mut each: impl FnMut(u32, &[u8], &mut [u8]) -> io::Result<()>,
) -> Result<(), KernelError> {
    let what = format!("taking {} over", array.name);
    let broken = |error: io::Error| failed(&what, &error);
    let layout = Layout::of(old).map_err(broken)?;
    let mut from = vec![0; layout.value_size as usize];
    let mut into = vec![0; value_size(new)?];
    for index in 0..layout.max_entries {
        sys::read_element(old.as_fd(), index, &mut from).map_err(broken)?;
        sys::read_element(new.as_fd(), index, &mut into).map_err(broken)?;
        each(index, &from, &mut into).map_err(broken)?;
    }
    Ok(())
}

fn value_size(map: &OwnedFd) -> Result<usize, KernelError> {
    let layout = Layout::of(map).map_err(|error| failed("looking at a map", &error))?;
    Ok(layout.value_size as usize)
}

fn known(name: &str) -> Result<Array, KernelError> {
    let found = ARRAYS.into_iter().find(|array| array.name == name);
    found.ok_or_else(|| foreign(name))
}

fn foreign(name: &str) -> KernelError {
    KernelError::Failed {
        what: format!("taking over map {name} of another version of AgentGuard"),
        cause: "its layout is one that this version cannot continue".to_owned(),
        next: "end the runs, and remove it with `agentguard daemon --unload`".to_owned(),
    }
}

/// Numbers of the pinned links, but for those that follow the policy: they are replaced when
/// one is put in force.
fn link_ids(links: &Path) -> Vec<u32> {
    let entries = fs::read_dir(links).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let follows = |program: &&Program| matches!(program.role, Role::Names(_));
        if PROGRAMS
            .iter()
            .filter(follows)
            .any(|program| *program.name == *name)
        {
            return None;
        }
        let link = open(&entry.path()).ok()?;
        field(&info(&link).ok()?, "link_id:")?.parse().ok()
    };
    entries.filter_map(number).collect()
}

fn id(map: &OwnedFd) -> Option<u32> {
    field(&info(map).ok()?, "map_id:")?.parse().ok()
}

fn open(at: &Path) -> Result<OwnedFd, KernelError> {
    sys::open_pin(&path(at)?).map_err(|error| failed(&format!("opening {}", at.display()), &error))
}

fn remove(at: &Path) -> Result<(), KernelError> {
    match fs::remove_file(at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(&format!("removing {}", at.display()), &error))
        }
        _ => Ok(()),
    }
}

fn path(at: &Path) -> Result<CString, KernelError> {
    CString::new(at.as_os_str().as_bytes())
        .map_err(|error| failed(&format!("naming {}", at.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(serial: u64, tasks: i64, denials: u64) -> Vec<u8> {
        let mut bytes = vec![0; 96];
        bytes[..8].copy_from_slice(&serial.to_ne_bytes());
        let mut put = |at: usize, word: u64| bytes[at..at + 8].copy_from_slice(&word.to_ne_bytes());
        put(offset_of!(RunRecord, tasks), tasks.cast_unsigned());
        put(offset_of!(RunRecord, denials), denials);
        put(offset_of!(RunRecord, state), 1);
        bytes
    }

    fn grown(old: &[u8]) -> Vec<u8> {
        let mut new = old.to_vec();
        new.resize(size_of::<RunRecord>(), 0);
        complete_run(&mut new);
        new
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn both_versions_counts_are_added() {
        let (copied, last) = (run(7, 3, 10), run(7, 1, 15));
        let mut new = grown(&run(7, 5, 12));
        merge(&RUNS, &copied, &last, &mut new);
        // 3 at first; the old programs saw two end, the new ones two begin.
        assert_eq!(word(&new, offset_of!(RunRecord, tasks)), 3);
        assert_eq!(word(&new, offset_of!(RunRecord, denials)), 17);
    }

    #[test]
    fn a_run_that_the_old_daemon_began_meanwhile_is_taken_as_it_is() {
        let mut new = grown(&run(0, 0, 0));
        merge(&RUNS, &run(0, 0, 0), &run(9, 2, 1), &mut new);
        assert_eq!(word(&new, 0), 9);
        assert_eq!(word(&new, offset_of!(RunRecord, taken)), 1);
        let mut free = grown(&run(9, 2, 1));
        let mut ended = run(0, 0, 0);
        ended[offset_of!(RunRecord, state)] = 0;
        merge(&RUNS, &run(9, 2, 1), &ended, &mut free);
        assert_eq!(word(&free, offset_of!(RunRecord, taken)), 0);
    }

    #[test]
    fn layouts_only_grow() {
        let layout = |value_size, max_entries| Layout {
            kind: 2,
            key_size: 4,
            value_size,
            max_entries,
            flags: 0,
        };
        assert!(layout(128, 10).has_room_for(&layout(96, 10)));
        assert!(!layout(64, 10).has_room_for(&layout(96, 10)));
        assert!(!layout(96, 5).has_room_for(&layout(96, 10)));
    }
}

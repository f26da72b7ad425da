//! What the walk reports on its way.

use super::super::access::{CREATE, Class, DELETE, WRITE};
use super::super::gap::{Cause, DEFAULTS};
use super::super::places::Place;
use super::{Directory, Outcome, Walk, covering, origins};
use crate::mounts::Names;

impl Walk<'_> {
    /// Making and moving need `write` as well, which a manifest may not allow
    /// at the same place.
    pub(super) fn note_coupled_verbs(&mut self, directory: &Directory, outcomes: &[Outcome<'_>]) {
        let write = self.rules(WRITE).below(&directory.place.states[WRITE]);
        let is_given_above =
            !self.is_asked(directory, WRITE) && write.covered && write.blockers.is_empty();
        if is_given_above || matches!(outcomes[WRITE], Outcome::Free) {
            return;
        }
        let is_closed =
            self.is_asked(directory, WRITE) && matches!(outcomes[WRITE], Outcome::Closed);
        for (verb, cause) in [(CREATE, Cause::NeedsWrite), (DELETE, Cause::StaysInPlace)] {
            let is_lost = match outcomes[verb] {
                Outcome::Free => true,
                Outcome::Mixed(_) => verb == CREATE && is_closed,
                Outcome::Closed => false,
            };
            if is_lost {
                let rules = self.rules(verb);
                let below = rules.below(&directory.place.states[verb]);
                for origin in origins(&below) {
                    self.gaps
                        .add_at(cause.clone(), origin, rules.verb, &directory.path);
                }
            }
        }
    }

    pub(super) fn note_unlisted(&mut self, directory: &Directory, class: &Class) {
        for verb in class.verbs {
            let rules = self.rules(*verb);
            let below = rules.below(&directory.place.states[*verb]);
            for origin in covering(&below) {
                self.gaps
                    .add_at(Cause::NewDirectories, origin, rules.verb, &directory.path);
            }
        }
    }

    pub(super) fn note_unreachable(&mut self, pending: &[usize], path: &Names) {
        for class in pending {
            for verb in self.classes[*class].verbs {
                self.gaps
                    .add_at(Cause::Unreachable, DEFAULTS, self.rules(*verb).verb, path);
            }
        }
    }

    /// A denied file that has other names could be allowed under one of them.
    pub(super) fn note_hard_links(&mut self, parent: &Directory, place: &Place, path: &Names) {
        for verb in 0..self.places.rules.len() {
            if self.is_asked(parent, verb) {
                let rules = self.rules(verb);
                for origin in rules.denying(&place.states[verb]) {
                    self.gaps.add_at(Cause::HardLinks, origin, rules.verb, path);
                }
            }
        }
    }
}

//! Credentials.

use super::*;

impl Cred {
    /// Whether a program that gets these in place of `before` can do more than who started it:
    /// a setuid or setgid program, or one with capabilities in its file.
    ///
    /// The superuser has the rights of every user and group already. What a user namespace
    /// of its own maker gives its root is nothing that the host has to grant.
    #[inline(always)]
    pub fn is_more_than(self, before: Self) -> bool {
        let (old, new) = (before.user(), self.user());
        if old != 0 && (new != old || self.group() != before.group()) {
            return true;
        }
        let of = UserNamespace(self.load::<CRED_USERNS, _>());
        if new == 0 || !of.is_initial() {
            return false;
        }
        // One that cannot be read counts as more.
        match (self.permitted(), before.permitted()) {
            (Some(new), Some(old)) => new & !old != 0,
            _ => true,
        }
    }

    /// Effective user, in the host's numbers.
    #[inline(always)]
    fn user(self) -> u32 {
        self.load::<CRED_EUID, _>()
    }

    /// Effective group, in the host's numbers.
    #[inline(always)]
    fn group(self) -> u32 {
        self.load::<CRED_EGID, _>()
    }

    /// Capabilities that may be used. Two words before 6.3, one since: the same bytes.
    #[inline(always)]
    fn permitted(self) -> Option<u64> {
        probe(verifier::number(self.0 as u64).wrapping_add(offset::<CRED_PERMITTED>()))
    }
}

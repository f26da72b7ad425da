//! The attempts on the identity itself: on AgentGuard, on other processes, on the host, and
//! to get rid of the tag. Most are made by an agent whose rules allow everything, so that what
//! stops it is not a rule; the control is made by the one that has every privilege as well.

mod handoff;
mod host;
mod kernel;
mod namespaces;
mod own;
mod persistence;
mod processes;
mod settings;
mod setuid;
mod shedding;
mod signals;

use nix::libc;

use crate::attempt::{Attempt, Maker, write};
use crate::field::Field;
use crate::sys::{self, Fail, Try};
use crate::victim::PROOF;

/// Every attempt.
pub fn all() -> Vec<Attempt> {
    [
        signals::ATTEMPTS,
        processes::ATTEMPTS,
        kernel::ATTEMPTS,
        host::ATTEMPTS,
        settings::ATTEMPTS,
        namespaces::ATTEMPTS,
        setuid::ATTEMPTS,
        own::ATTEMPTS,
        persistence::ATTEMPTS,
        handoff::ATTEMPTS,
        shedding::ATTEMPTS,
    ]
    .concat()
}

/// An attempt by the agent with rules that allow everything and without a privilege.
const fn deed(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack).by(Maker::Wide).lifted()
}

/// It has happened, and shows in no directory.
fn proof() -> Try {
    Ok(PROOF.to_vec())
}

/// Of calls that are harmless because they fail: they got past all questions of rights when
/// this is the error.
fn got_to(result: Try<i64>, errno: i32) -> Try {
    match result {
        Ok(_) => proof(),
        Err(fail) if fail.errno == errno => proof(),
        Err(fail) => Err(fail),
    }
}

/// The process of the denied side and of the control alike.
fn target(field: &Field) -> u64 {
    field.noted("pid")
}

/// What a child did, by how it ended (see [`sys::fork`]).
fn of_child(child: &sys::Child) -> Try {
    match child.wait()? {
        0 => proof(),
        status if libc::WIFEXITED(status) => Err(Fail::new("a child", libc::WEXITSTATUS(status))),
        status => Err(Fail::new(format!("a child (wait status {status:#x})"), 0)),
    }
}

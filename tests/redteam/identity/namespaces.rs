//! Making and entering namespaces without the privilege. The control has it and nothing else
//! that matters: the agent with rules for each tree.

use nix::libc::{
    self, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER,
    CLONE_NEWUTS, O_RDONLY,
};

use super::{deed, of_child, proof};
use crate::attempt::{Attempt, Maker};
use crate::field::Field;
use crate::stage;
use crate::sys::{self, Child, Fail, Try, call};

const CLONE_NEWTIME: i32 = 0x80;
const ADMIN: &str = "without a user namespace it needs CAP_SYS_ADMIN";

const fn at(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    deed(id, attack).control_by(Maker::Agent)
}

pub const ATTEMPTS: &[Attempt] = &[
    at("identity-namespace-user", |_| made(CLONE_NEWUSER)),
    at("identity-namespace-user-and-mounts", |_| {
        made(CLONE_NEWUSER | CLONE_NEWNS)
    }),
    at("identity-namespace-user-and-network", |_| {
        made(CLONE_NEWUSER | CLONE_NEWNET)
    }),
    at("identity-namespace-user-by-clone", |_| born(CLONE_NEWUSER)),
    at("identity-namespace-user-by-clone3", |_| {
        born3(CLONE_NEWUSER)
    }),
    at("identity-namespace-mounts", |_| made(CLONE_NEWNS)).root_only(ADMIN),
    at("identity-namespace-network", |_| made(CLONE_NEWNET)).root_only(ADMIN),
    at("identity-namespace-processes", |_| made(CLONE_NEWPID)).root_only(ADMIN),
    at("identity-namespace-names", |_| made(CLONE_NEWUTS)).root_only(ADMIN),
    at("identity-namespace-messages", |_| made(CLONE_NEWIPC)).root_only(ADMIN),
    at("identity-namespace-cgroups", |_| made(CLONE_NEWCGROUP)).root_only(ADMIN),
    at("identity-namespace-time", |_| made(CLONE_NEWTIME)).root_only(ADMIN),
    at("identity-namespace-processes-by-clone", |_| {
        born(CLONE_NEWPID)
    })
    .root_only(ADMIN),
    at("identity-namespace-mounts-by-clone3", |_| {
        born3(CLONE_NEWNS)
    })
    .root_only(ADMIN),
    at("identity-namespace-entered", |_| {
        let other = stage::receive()?;
        call!(SYS_setns, &other, CLONE_NEWUTS)?;
        proof()
    })
    .receives(|_| Ok(sys::open("/proc/self/ns/uts".as_ref(), O_RDONLY)?))
    .root_only(ADMIN),
    at("identity-namespace-entered-inherited", |field| {
        call!(SYS_setns, field.inherited, 0)?;
        proof()
    })
    .inherits(|_| Ok(sys::open("/proc/self/ns/ipc".as_ref(), O_RDONLY)?))
    .root_only(ADMIN),
];

fn made(flags: i32) -> Try {
    call!(SYS_unshare, flags)?;
    proof()
}

fn born(flags: i32) -> Try {
    after(call!(SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0)?)
}

fn born3(flags: i32) -> Try {
    let mut arguments = sys::words(&[u64::from(flags.cast_unsigned()), 0, 0, 0]);
    arguments.extend(sys::words(&[libc::SIGCHLD as u64, 0, 0, 0]));
    after(call!(SYS_clone3, &arguments[..], arguments.len())?)
}

/// The child ends at once; the parent says that it was born.
fn after(pid: i64) -> Try {
    if pid == 0 {
        // SAFETY: ends this process; nothing of the parent's that would have to be flushed.
        unsafe { libc::_exit(0) }
    }
    let pid = i32::try_from(pid).map_err(|_| Fail::new("clone", libc::EINVAL))?;
    of_child(&Child { pid })
}

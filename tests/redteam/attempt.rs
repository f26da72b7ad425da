//! What an attempt is made of.

use std::os::fd::OwnedFd;

use anyhow::Result;

use crate::field::Field;
use crate::snapshot;
use crate::sys::Try;

/// Which rule forbids the denied object; the allowed twin is in the same place for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// `no/**`: readable, and no change allowed.
    Write,
    /// `secret/**`: not readable, and no change allowed.
    Read,
    /// `bin/no/**`: not executable.
    Exec,
}

/// Who makes an attempt, or its control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The agent with rules for each tree.
    Agent,
    /// The agent whose rules allow everything, and that has no privilege.
    Wide,
    /// The agent that has every privilege.
    Lifted,
    /// A process without a tag: no agent may do it at all.
    Untagged,
}

/// Done by the driver, as untagged root.
pub type Prepare = fn(&Field) -> Result<()>;
/// Opens what the tagged process gets from elsewhere.
pub type Open = fn(&Field) -> Result<OwnedFd>;
/// What can be seen of the object; different afterwards: there was an effect.
pub type Look = fn(&Field) -> Result<String>;

/// One attempt, on the denied object and on its allowed twin alike.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Its name in the catalogue.
    pub id: &'static str,
    /// Where the denied object is.
    pub tree: Tree,
    /// More preparation than a directory with the file `f`; before the daemon starts.
    pub prepare: Prepare,
    /// Preparation after the policy is in force.
    pub late: Option<Prepare>,
    /// A descriptor that the process has from before its tag.
    pub inherits: Option<Open>,
    /// A descriptor sent to the tagged process over a unix socket.
    pub receives: Option<Open>,
    /// What the tagged process does.
    pub attack: fn(&Field) -> Try,
    /// Where the effect is seen.
    pub look: Look,
    /// Why an ordinary user cannot do it at all, tag or not.
    pub root_only: Option<&'static str>,
    /// Errors of the untagged control that mean that this kernel or host cannot do it.
    pub lacks: &'static [(i32, &'static str)],
    /// Another error than `EPERM` by which this technique tells of a refusal.
    pub refusal: Option<i32>,
    /// Who makes it.
    pub maker: Maker,
    /// Who makes the control.
    pub control: Maker,
}

fn nothing(_: &Field) -> Result<()> {
    Ok(())
}

const fn attempt(id: &'static str, tree: Tree, attack: fn(&Field) -> Try) -> Attempt {
    Attempt {
        id,
        tree,
        prepare: nothing,
        late: None,
        inherits: None,
        receives: None,
        attack,
        look: snapshot::of_field,
        root_only: None,
        lacks: &[],
        refusal: None,
        maker: Maker::Agent,
        control: Maker::Agent,
    }
}

/// An attempt to change what must not be changed.
pub const fn write(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    attempt(id, Tree::Write, attack)
}

/// An attempt to read what must not be read.
pub const fn read(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    attempt(id, Tree::Read, attack)
}

/// An attempt to execute what must not be executed.
pub const fn exec(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    attempt(id, Tree::Exec, attack)
}

impl Attempt {
    /// With more preparation, before the daemon starts.
    pub const fn prepare(mut self, prepare: Prepare) -> Self {
        self.prepare = prepare;
        self
    }

    /// With preparation after the policy is in force.
    pub const fn late(mut self, late: Prepare) -> Self {
        self.late = Some(late);
        self
    }

    /// With a descriptor from before the tag.
    pub const fn inherits(mut self, open: Open) -> Self {
        self.inherits = Some(open);
        self
    }

    /// With a descriptor sent over a unix socket.
    pub const fn receives(mut self, open: Open) -> Self {
        self.receives = Some(open);
        self
    }

    /// With another place where the effect is seen.
    pub const fn look(mut self, look: Look) -> Self {
        self.look = look;
        self
    }

    /// Not for ordinary users.
    pub const fn root_only(mut self, why: &'static str) -> Self {
        self.root_only = Some(why);
        self
    }

    /// Not on every kernel or host.
    pub const fn lacks(mut self, lacks: &'static [(i32, &'static str)]) -> Self {
        self.lacks = lacks;
        self
    }

    /// Where something between the kernel and the technique gives a refusal another error.
    pub const fn refused_as(mut self, errno: i32) -> Self {
        self.refusal = Some(errno);
        self
    }

    /// Made by another agent than the one with rules for each tree.
    pub const fn by(mut self, maker: Maker) -> Self {
        self.maker = maker;
        self
    }

    /// With its control by somebody else than who makes the attempt.
    pub const fn control_by(mut self, maker: Maker) -> Self {
        self.control = maker;
        self
    }

    /// With its control as the agent that has every privilege.
    pub const fn lifted(mut self) -> Self {
        self.control = Maker::Lifted;
        self
    }

    /// Of what is refused to every agent, with its control without a tag.
    pub const fn never(mut self) -> Self {
        self.control = Maker::Untagged;
        self
    }
}

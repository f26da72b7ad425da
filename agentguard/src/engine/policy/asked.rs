//! Who asks for a load, and how.

use crate::agents::life::Occasion;
use crate::clock::Timestamp;

/// What asks for a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The daemon starts.
    Start,
    /// SIGHUP.
    Signal,
    /// The API.
    Api,
    /// The host's mounts changed.
    Mounts,
    /// An agent was retired.
    Retire,
    /// An agent was reinstated.
    Reinstate,
}

impl Trigger {
    /// The value of `trigger` in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Signal => "signal",
            Self::Api => "api",
            Self::Mounts => "mounts",
            Self::Retire => "retire",
            Self::Reinstate => "reinstate",
        }
    }
}

/// Who asks for a load, and how.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How.
    pub trigger: Trigger,
    /// Who, for people.
    pub by: String,
}

impl From<Trigger> for Asked {
    fn from(trigger: Trigger) -> Self {
        let by = match trigger {
            Trigger::Start => "start of the daemon",
            Trigger::Signal => "SIGHUP",
            Trigger::Mounts => "change of the host's mounts",
            Trigger::Api | Trigger::Retire | Trigger::Reinstate => "unknown",
        };
        Self {
            trigger,
            by: by.to_owned(),
        }
    }
}

impl Asked {
    /// That, at this moment.
    pub(super) fn occasion(&self) -> Occasion {
        Occasion {
            time: Timestamp::now(),
            trigger: self.trigger.name(),
            by: self.by.clone(),
        }
    }
}

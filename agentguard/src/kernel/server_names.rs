//! What policies say of names, in the kernel: it is asked about the server that a connection
//! names, of the generation in force.

use std::os::fd::{AsFd as _, OwnedFd};

use agentguard_common::limits;
use agentguard_common::names::map;
use agentguard_common::server_name::{NameKey, NameRanges};

use super::banks::grace;
use super::load::failed;
use super::{Fill, KernelError, sys};
use crate::policy::compile::Compiled;

/// The table.
pub struct ServerNames {
    fd: OwnedFd,
    used: u64,
}

impl ServerNames {
    /// What an earlier daemon left stays.
    pub const fn new(fd: OwnedFd) -> Self {
        Self { fd, used: 0 }
    }

    /// Writes what a generation says, beside the one in force.
    ///
    /// # Errors
    /// The kernel's answer: the generation must not be put in force.
    pub fn write(&mut self, policy: &Compiled) -> Result<(), KernelError> {
        let (keys, values): (Vec<NameKey>, Vec<NameRanges>) = policy
            .agents
            .iter()
            .flat_map(|agent| {
                let about = agent.names.table();
                about.filter_map(|(below, name, ranges)| {
                    let key = NameKey::new(policy.generation, agent.index, below, name)?;
                    Some((key, ranges_of(policy.generation, &ranges)))
                })
            })
            .unzip();
        self.used = keys.len() as u64;
        sys::update_batch(self.fd.as_fd(), &keys, &values)
            .map_err(|error| failed("writing what the policy says of names", &error))
    }

    /// Forgets every generation but this one, which is in force.
    ///
    /// # Errors
    /// The kernel's answer: the table keeps what nobody asks for.
    pub fn keep_only(&self, generation: u32) -> Result<(), KernelError> {
        let broken = |error| failed("removing what an earlier policy said of names", &error);
        let mut all = sys::keys::<NameKey>(self.fd.as_fd()).map_err(broken)?;
        all.retain(|key| key.generation != generation);
        if all.is_empty() {
            return Ok(());
        }
        // Programs that began under the generation before may still ask for it, and nobody
        // may be refused for that.
        grace();
        for key in &all {
            sys::delete(self.fd.as_fd(), key).map_err(broken)?;
        }
        Ok(())
    }

    /// Fill level of the generation in force.
    pub fn fill(&self) -> Fill {
        Fill {
            map: map::SERVER_NAMES,
            used: self.used,
            limit: u64::from(limits::SERVER_NAMES / limits::BANKS),
        }
    }
}

fn ranges_of(generation: u32, ranges: &[agentguard_common::resolver::PortRange]) -> NameRanges {
    let mut all = NameRanges {
        generation,
        ..NameRanges::default()
    };
    for (slot, range) in all.ranges.iter_mut().zip(ranges) {
        *slot = *range;
        all.count += 1;
    }
    all
}

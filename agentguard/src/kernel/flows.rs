//! Flows that the kernel put together: maps `FLOWS` and `DATAGRAMS`, and the iterator that adds
//! the connections that go on.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use agentguard_common::flow::{Flow, FlowKey, NamedFlow};

use super::{Look, sys};

/// See the module.
pub(super) struct Flows {
    connections: OwnedFd,
    datagrams: OwnedFd,
    /// Pin of the iterator.
    iterator: PathBuf,
}

impl Flows {
    pub(super) const fn new(connections: OwnedFd, datagrams: OwnedFd, iterator: PathBuf) -> Self {
        Self {
            connections,
            datagrams,
            iterator,
        }
    }

    /// Takes what there is out of the kernel. What cannot be taken stays there.
    pub(super) fn take(&self, look: Look) -> Vec<(FlowKey, NamedFlow)> {
        let mut taken = Vec::new();
        if let Err(error) = self.look_through() {
            tracing::error!(
                "connections that go on cannot be looked through, they are told when they end: \
                 reading {}: {error}",
                self.iterator.display()
            );
        }
        match sys::take_all(self.connections.as_fd()) {
            Ok(flows) => taken = flows,
            Err(error) => tracing::error!("connections cannot be read: {error}"),
        }
        if look == Look::Everything {
            match sys::take_all::<FlowKey, Flow>(self.datagrams.as_fd()) {
                Ok(flows) => taken.extend(flows.into_iter().map(|(key, flow)| {
                    let named = NamedFlow {
                        flow,
                        name_len: 0,
                        name: [0; 256],
                    };
                    (key, named)
                })),
                Err(error) => tracing::error!("datagrams cannot be read: {error}"),
            }
        }
        taken
    }

    /// Has the kernel add the connections that go on and are due.
    fn look_through(&self) -> io::Result<()> {
        let mut text = Vec::new();
        File::open(&self.iterator)?.read_to_end(&mut text).map(drop)
    }
}

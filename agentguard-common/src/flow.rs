//! Flows: with whom an agent's sockets exchanged how much. Flows of the same process, to the
//! same place, under the same server's name, which end in the same way, are one record until
//! the daemon collects it.

use crate::event::NetTail;

/// Key of a flow's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct FlowKey {
    /// The run.
    pub run_serial: u64,
    /// A mix of process, place, server name, side and state.
    pub what: u64,
}

/// What is known of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Flow {
    /// `CLOCK_BOOTTIME` of the first packet of the first of them, nanoseconds. Of datagrams: since
    /// they were collected last.
    pub first_ns: u64,
    /// The same of the last: of a connection's end, or of when it was looked at.
    pub last_ns: u64,
    /// Bytes of payload that were sent since the record before.
    pub sent: u64,
    /// Bytes of payload that arrived since the record before.
    pub received: u64,
    /// How many flows.
    pub count: u64,
    /// Index of the agent.
    pub agent: u32,
    /// Policy generation in force.
    pub generation: u32,
    /// Process that made or connected the socket, in the initial PID namespace; 0: not known.
    pub pid: u32,
    /// One of [`FlowState`].
    pub state: u8,
    /// One of [`FlowSide`].
    pub side: u8,
    /// Zero.
    pub reserved: u16,
    /// With whom.
    pub with: NetTail,
}

/// What is known of connections of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NamedFlow {
    /// All but the name.
    pub flow: Flow,
    /// Bytes of the name; 0: none was read.
    pub name_len: u64,
    /// The server that the connection says it is for, in lower case.
    pub name: [u8; 256],
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// It goes on.
    Open = 0,
    /// It has ended.
    Closed = 1,
    /// No connection came about.
    Failed = 2,
}

impl FlowState {
    /// The state with this number, if there is one.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Open),
            1 => Some(Self::Closed),
            2 => Some(Self::Failed),
            _ => None,
        }
    }

    /// The value of `state` in events and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Failed => "failed",
        }
    }
}

/// Which side began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowSide {
    /// Neither: datagrams.
    None = 0,
    /// The agent connected.
    Outbound = 1,
    /// The agent was connected to.
    Inbound = 2,
}

impl FlowSide {
    /// The side with this number, if there is one.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Outbound),
            2 => Some(Self::Inbound),
            _ => None,
        }
    }

    /// The value of `direction` in events; `None` where there is none.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Outbound => Some("outbound"),
            Self::Inbound => Some("inbound"),
        }
    }
}

/// Nanoseconds after which a connection that goes on is told again.
pub const TOLD_EVERY: u64 = 60_000_000_000;

const _: () = assert!(size_of::<FlowKey>() == 16);
const _: () = assert!(size_of::<Flow>() == 80);
const _: () = assert!(size_of::<NamedFlow>() == 344);

//! Flows: what the kernel put together, as events.

use agentguard_common::flow::{FlowKey, FlowSide, FlowState, NamedFlow};
use agentguard_common::identity::Tag;

use super::{Correlator, names};
use crate::clock::Clock;
use crate::decode;
use crate::event::{Detail, Event, Flow, Kind};

impl Correlator {
    /// Turns what the kernel knows of flows into an event.
    pub fn flow(&self, key: FlowKey, named: &NamedFlow, clock: Clock) -> Event {
        let flow = &named.flow;
        let serial = key.run_serial;
        let tag = Tag {
            agent: flow.agent,
            run: 0,
            run_serial: serial,
        };
        let (identity, agent_version) = self.identity(tag, Some(flow.generation));
        let mut place = decode::place(&flow.with);
        let len = usize::try_from(named.name_len).unwrap_or(usize::MAX);
        place.server = named
            .name
            .get(..len)
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec);
        let name = place
            .address
            .and_then(|address| self.addresses.name(serial, address));
        let object = names::address(&place, name);
        let nanos = flow.last_ns.saturating_sub(flow.first_ns);
        Event {
            time: clock.at(flow.last_ns),
            seq: 0,
            kind: Kind::Flow,
            identity: Some(identity),
            agent_version,
            run_seq: None,
            process: None,
            detail: Detail::Flow(Flow {
                pid: (flow.pid != 0).then_some(flow.pid),
                exe: match flow.pid {
                    0 => None,
                    pid => self.processes.program_once(serial, pid),
                },
                object,
                direction: FlowSide::from_u8(flow.side).and_then(FlowSide::name),
                state: FlowState::from_u8(flow.state)
                    .unwrap_or(FlowState::Open)
                    .name(),
                started: clock.at(flow.first_ns),
                duration_seconds: std::time::Duration::from_nanos(nanos).as_secs_f64(),
                sent_bytes: flow.sent,
                received_bytes: flow.received,
                count: flow.count,
            }),
        }
    }
}

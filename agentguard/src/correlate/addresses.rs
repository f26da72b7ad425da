//! Which name a run was last given an address for.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Addresses of one run whose names are known. One more: the one that was given first is
/// forgotten, and its events have a null `name`.
const ADDRESSES: usize = 1_024;

#[derive(Default)]
pub(super) struct Addresses {
    runs: HashMap<u64, Run>,
}

#[derive(Default)]
struct Run {
    names: HashMap<IpAddr, (u64, Arc<str>)>,
    /// The addresses by when they were given, counted.
    order: BTreeMap<u64, IpAddr>,
    next: u64,
}

impl Addresses {
    pub fn given(&mut self, serial: u64, name: &Arc<str>, addresses: &[IpAddr]) {
        let run = self.runs.entry(serial).or_default();
        for address in addresses {
            let known = run
                .names
                .insert(address.to_canonical(), (run.next, Arc::clone(name)));
            if let Some((at, _)) = known {
                run.order.remove(&at);
            }
            run.order.insert(run.next, address.to_canonical());
            run.next += 1;
            if run.order.len() > ADDRESSES
                && let Some((_, oldest)) = run.order.pop_first()
            {
                run.names.remove(&oldest);
            }
        }
    }

    pub fn name(&self, serial: u64, address: IpAddr) -> Option<&str> {
        let run = self.runs.get(&serial)?;
        run.names.get(&address).map(|(_, name)| name.as_ref())
    }

    pub fn run_ended(&mut self, serial: u64) {
        self.runs.remove(&serial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_last_name_in_its_own_run() {
        let mut addresses = Addresses::default();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        addresses.given(7, &"a.net".into(), &[ip]);
        addresses.given(7, &"b.net".into(), &["::ffff:192.0.2.1".parse().unwrap()]);
        assert_eq!(addresses.name(7, ip), Some("b.net"));
        assert_eq!(addresses.name(8, ip), None);
        addresses.run_ended(7);
        assert_eq!(addresses.name(7, ip), None);
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut addresses = Addresses::default();
        let ip = |number: u32| IpAddr::V4((0x0a00_0000 + number).into());
        let all: Vec<IpAddr> = (0..ADDRESSES as u32).map(ip).collect();
        addresses.given(7, &"a.net".into(), &all);
        // Given again, the first is the newest.
        addresses.given(7, &"b.net".into(), &[ip(0), ip(5_000)]);
        assert_eq!(addresses.name(7, ip(0)), Some("b.net"));
        assert_eq!(addresses.name(7, ip(1)), None);
        assert_eq!(addresses.name(7, ip(2)), Some("a.net"));
        assert_eq!(addresses.runs[&7].names.len(), ADDRESSES);
    }
}

//! The table of grants: which addresses runs were given, for which names, and until when.
//! It says what is to be written to the kernel, and remembers what was.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agentguard_common::limits;
use agentguard_common::net::Address;
use agentguard_common::resolver::{Grant, GrantKey, GrantRanges, PortRange, RANGES};

use crate::policy::compile::NameRules;

/// Addresses that one run can hold. More: the one of its own whose time ended first is
/// forgotten; without such a one the answer fails, so that no run takes the room of others.
const RUN_GRANTS: usize = limits::GRANTS as usize / 4;

/// Names that are remembered for one address of a run. More: the one that was answered
/// first is forgotten, and what its rules alone allow there.
const NAMES: usize = 16;

/// See the module.
#[derive(Default)]
pub(super) struct Grants {
    runs: HashMap<u64, HashMap<GrantKey, Entry>>,
    count: usize,
}

/// An address of a run.
#[derive(Clone, Default)]
pub(super) struct Entry {
    /// The names that it was given for, the newest last.
    names: Vec<Arc<str>>,
    /// What the generation in force says for names that an earlier daemon knew.
    inherited: Vec<PortRange>,
    /// As it is in the kernel.
    grant: Grant,
}

/// What an answer changes.
pub(super) struct Plan {
    serial: u64,
    entries: Vec<(GrantKey, Entry)>,
    /// To be removed first.
    pub evicted: Vec<GrantKey>,
    /// Whether not all ports found room.
    pub left_out: bool,
}

/// No room for another address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for another address: limit of {0} reached, and none has ended")]
pub(super) struct Full(usize);

/// An answer to a run.
pub(super) struct Given<'a> {
    pub serial: u64,
    pub name: &'a str,
    pub addresses: &'a [(IpAddr, Duration)],
    pub rules: &'a NameRules,
    /// The generation in force.
    pub generation: u32,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub now: u64,
}

impl Plan {
    /// What is to be written to the kernel.
    pub fn grants(&self) -> Vec<(GrantKey, Grant)> {
        let entries = self.entries.iter();
        entries.map(|(key, entry)| (*key, entry.grant)).collect()
    }
}

impl Grants {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// A grant that an earlier daemon left for a live run.
    pub fn inherit(&mut self, key: GrantKey, grant: Grant, in_force: u32) {
        let bank = grant.banks.iter().find(|bank| bank.generation == in_force);
        let inherited = bank
            .filter(|_| in_force != 0)
            .map_or_else(Vec::new, |bank| {
                let count = (bank.count as usize).min(RANGES);
                bank.ranges.iter().take(count).copied().collect()
            });
        let entry = Entry {
            names: Vec::new(),
            inherited,
            grant,
        };
        self.insert(key, entry);
    }

    /// What an answer changes; nothing is changed yet.
    pub fn plan(&self, given: &Given<'_>) -> Result<Plan, Full> {
        let name: Arc<str> = given.name.into();
        let mut plan = Plan {
            serial: given.serial,
            entries: Vec::new(),
            evicted: Vec::new(),
            left_out: false,
        };
        let run = self.runs.get(&given.serial);
        let mut fresh = 0;
        for (address, lifetime) in given.addresses {
            let key = GrantKey::new(given.serial, &address_of(*address));
            let known = run.and_then(|run| run.get(&key));
            let mut entry = known.cloned().unwrap_or_default();
            remember(&mut entry.names, &name);
            let (ranges, left_out) = entry.ranges(given.rules);
            // Without rules about the name, addresses are decided as if they had none.
            if known.is_none() && ranges.is_empty() {
                continue;
            }
            fresh += usize::from(known.is_none());
            plan.left_out |= left_out;
            let at = usize::from(entry.grant.banks[1].generation == given.generation);
            set_bank(&mut entry.grant, at, bank(given.generation, &ranges));
            let lifetime = u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX);
            let until = given.now.saturating_add(lifetime);
            entry.grant.until_ns = entry.grant.until_ns.max(until);
            plan.entries.push((key, entry));
        }
        plan.evicted = self.evicted(given, &plan, fresh)?;
        Ok(plan)
    }

    /// What has to go for so many new ones.
    fn evicted(&self, given: &Given<'_>, plan: &Plan, fresh: usize) -> Result<Vec<GrantKey>, Full> {
        let all = limits::GRANTS as usize;
        let own = self.runs.get(&given.serial);
        let of_run = (own.map_or(0, HashMap::len) + fresh).saturating_sub(RUN_GRANTS);
        let of_all = (self.count + fresh).saturating_sub(all);
        if of_run == 0 && of_all == 0 {
            return Ok(Vec::new());
        }
        let kept: HashSet<GrantKey> = plan.entries.iter().map(|(key, _)| *key).collect();
        let ended = |(key, entry): (&GrantKey, &Entry)| {
            let until = entry.until(given.generation);
            (until <= given.now && !kept.contains(key)).then_some((until, *key))
        };
        let oldest = |mut list: Vec<(u64, GrantKey)>, count: usize, limit: usize| {
            list.sort_unstable_by_key(|(until, _)| *until);
            if list.len() < count {
                return Err(Full(limit));
            }
            list.truncate(count);
            Ok(list.into_iter().map(|(_, key)| key))
        };
        let own = own.into_iter().flatten().filter_map(ended).collect();
        let mut gone: HashSet<GrantKey> = oldest(own, of_run, RUN_GRANTS)?.collect();
        let more = of_all.saturating_sub(gone.len());
        let others = self.runs.values().flatten().filter_map(ended);
        let others = others.filter(|(_, key)| !gone.contains(key)).collect();
        let others: Vec<GrantKey> = oldest(others, more, all)?.collect();
        gone.extend(others);
        Ok(gone.into_iter().collect())
    }

    /// The kernel has what was planned.
    pub fn keep(&mut self, plan: Plan) {
        self.forget(&plan.evicted);
        for (key, entry) in plan.entries {
            debug_assert_eq!(key.run_serial, plan.serial);
            self.insert(key, entry);
        }
    }

    /// Of planned entries, those that the table does not hold.
    pub fn unknown(&self, plan: &Plan) -> Vec<GrantKey> {
        let run = self.runs.get(&plan.serial);
        let keys = plan.entries.iter().map(|(key, _)| *key);
        keys.filter(|key| run.is_none_or(|run| !run.contains_key(key)))
            .collect()
    }

    /// Writes what another generation says into the bank that does not hold the one in
    /// force. `rules_of` gives a run's rules of the new generation, `translated` the same
    /// for what an earlier daemon knew.
    pub fn renew(
        &mut self,
        in_force: u32,
        generation: u32,
        rules_of: &dyn Fn(u64) -> Option<Arc<NameRules>>,
        translated: &dyn Fn(u64, &[PortRange]) -> Vec<PortRange>,
    ) -> Vec<(GrantKey, Grant)> {
        let mut changed = Vec::with_capacity(self.count);
        for (serial, run) in &mut self.runs {
            let rules = rules_of(*serial).unwrap_or_default();
            for (key, entry) in run {
                let mut renewed = entry.clone();
                renewed.inherited = translated(*serial, &entry.inherited);
                let (ranges, _) = renewed.ranges(&rules);
                let at = usize::from(entry.grant.banks[0].generation == in_force);
                set_bank(&mut entry.grant, at, bank(generation, &ranges));
                changed.push((*key, entry.grant));
            }
        }
        changed
    }

    /// That generation is in force now.
    pub fn renewed(&mut self, translated: &dyn Fn(u64, &[PortRange]) -> Vec<PortRange>) {
        for (serial, run) in &mut self.runs {
            for entry in run.values_mut().filter(|entry| !entry.inherited.is_empty()) {
                entry.inherited = translated(*serial, &entry.inherited);
            }
        }
    }

    /// The keys of a run.
    pub fn of_run(&self, serial: u64) -> Vec<GrantKey> {
        let run = self.runs.get(&serial);
        run.into_iter().flat_map(HashMap::keys).copied().collect()
    }

    /// Forgets some.
    pub fn forget(&mut self, keys: &[GrantKey]) {
        for key in keys {
            let Some(run) = self.runs.get_mut(&key.run_serial) else {
                continue;
            };
            if run.remove(key).is_some() {
                self.count -= 1;
            }
            if run.is_empty() {
                self.runs.remove(&key.run_serial);
            }
        }
    }

    fn insert(&mut self, key: GrantKey, entry: Entry) {
        let run = self.runs.entry(key.run_serial).or_default();
        if run.insert(key, entry).is_none() {
            self.count += 1;
        }
    }
}

impl Entry {
    fn ranges(&self, rules: &NameRules) -> (Vec<PortRange>, bool) {
        rules.union(self.names.iter().map(AsRef::as_ref), &self.inherited)
    }

    /// When it ends; at once if the generation says nothing of it.
    fn until(&self, generation: u32) -> u64 {
        let bank = self.grant.banks.iter();
        let mut bank = bank.filter(|bank| bank.generation == generation);
        match bank.next() {
            Some(bank) if bank.count > 0 => self.grant.until_ns,
            _ => 0,
        }
    }
}

fn remember(names: &mut Vec<Arc<str>>, name: &Arc<str>) {
    names.retain(|known| known != name);
    names.push(Arc::clone(name));
    if names.len() > NAMES {
        names.remove(0);
    }
}

/// No two banks are of one generation: a program takes the first that it finds.
fn set_bank(grant: &mut Grant, at: usize, bank: GrantRanges) {
    let [first, second] = &mut grant.banks;
    let (this, other) = if at == 0 {
        (first, second)
    } else {
        (second, first)
    };
    *this = bank;
    if other.generation == bank.generation {
        *other = GrantRanges::default();
    }
}

fn bank(generation: u32, ranges: &[PortRange]) -> GrantRanges {
    let mut bank = GrantRanges {
        generation,
        ..GrantRanges::default()
    };
    for (slot, range) in bank.ranges.iter_mut().zip(ranges) {
        *slot = *range;
        bank.count += 1;
    }
    bank
}

/// An address as the kernel keeps it.
pub(crate) fn address_of(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::v4(v4.to_bits()),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.segments().map(u32::from);
            Address::v6([a << 16 | b, c << 16 | d, e << 16 | f, g << 16 | h])
        }
    }
}

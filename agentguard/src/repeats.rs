//! Repeats of a decision: the kernel tells the first and counts the rest. Here the counts
//! become events again, like the first but for the time and the number.

use std::collections::HashMap;

use agentguard_common::event::{Fold, FoldKey};

use crate::clock::{Clock, Timestamp};
use crate::correlate::Correlator;
use crate::decode;
use crate::event::{Detail, Event};
use crate::kernel::RawRecord;

/// First decisions whose repeats may still come: the kernel's counts are collected every
/// second, and a count belongs to a record that was made since the collection before.
#[derive(Default)]
pub struct Repeats {
    fresh: HashMap<FoldKey, Event>,
    old: HashMap<FoldKey, Event>,
    /// Counts whose first record was not seen yet.
    early: Vec<(FoldKey, Fold)>,
}

impl Repeats {
    /// Remembers a decision that is told.
    pub fn told(&mut self, key: FoldKey, event: &Event) {
        if key.what != 0 {
            self.fresh.insert(key, event.clone());
        }
    }

    /// Events for the counts that were collected.
    pub fn events(
        &mut self,
        counts: Vec<(FoldKey, Fold)>,
        correlator: &mut Correlator,
        clock: Clock,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let now = Timestamp::now();
        for (key, fold) in std::mem::take(&mut self.early) {
            let event = self.find(key, &fold, now);
            // Its record got lost, or an earlier daemon had it: what is known without it.
            events.extend(event.or_else(|| nameless(key, &fold, correlator, clock)));
        }
        for (key, fold) in counts.into_iter().filter(|(_, fold)| fold.count > 0) {
            match self.find(key, &fold, now) {
                Some(event) => events.push(event),
                None => self.early.push((key, fold)),
            }
        }
        self.old = std::mem::take(&mut self.fresh);
        events
    }

    fn find(&self, key: FoldKey, fold: &Fold, now: Timestamp) -> Option<Event> {
        let first = self.fresh.get(&key).or_else(|| self.old.get(&key))?;
        let mut event = first.clone();
        event.time = now;
        counted(&mut event, fold.count);
        Some(event)
    }
}

fn nameless(key: FoldKey, fold: &Fold, correlator: &mut Correlator, clock: Clock) -> Option<Event> {
    let raw = RawRecord {
        header: decode::header_of(key, fold),
        tail: decode::no_tail(fold),
    };
    let record = decode::decode(&raw).ok()?;
    let mut event = correlator.event(&record, clock)?;
    event.time = Timestamp::now();
    counted(&mut event, fold.count);
    Some(event)
}

fn counted(event: &mut Event, count: u64) {
    // It stands for no record of its own.
    event.run_seq = None;
    if let Detail::Decision(decision) = &mut event.detail {
        decision.count = count;
    }
}

#[cfg(test)]
mod tests {
    use agentguard_common::verb::Verb;
    use agentguard_common::verdict::Verdict;

    use super::*;
    use crate::testing::{TAG, path_record};

    fn key() -> FoldKey {
        FoldKey {
            run_serial: TAG.run_serial,
            what: 5,
        }
    }

    fn fold(count: u64) -> Fold {
        Fold {
            count,
            first_ns: 1_000_000_000,
            kind: agentguard_common::event::Kind::Path as u8,
            verdict: Verdict::Deny as u8,
            mode: 1,
            ..Fold::default()
        }
    }

    fn told(repeats: &mut Repeats, correlator: &mut Correlator) -> Event {
        let mut raw = path_record(Verb::Write, Verdict::Deny, "/x");
        raw.header.fold = key().what;
        let record = decode::decode(&raw).unwrap();
        let event = correlator.event(&record, Clock::now()).unwrap();
        repeats.told(key(), &event);
        event
    }

    fn count_of(event: &Event) -> u64 {
        match &event.detail {
            Detail::Decision(decision) => decision.count,
            _ => panic!("not a decision"),
        }
    }

    #[test]
    fn a_count_becomes_the_first_event_again() {
        let (mut repeats, mut correlator) = (Repeats::default(), Correlator::default());
        let first = told(&mut repeats, &mut correlator);
        let clock = Clock::now();
        let events = repeats.events(vec![(key(), fold(7))], &mut correlator, clock);
        assert_eq!(events.len(), 1);
        assert_eq!(count_of(&events[0]), 7);
        assert_eq!(events[0].run_seq, None);
        assert!(events[0].time > first.time);
        assert_eq!(events[0].process, first.process);
    }

    #[test]
    fn what_was_not_repeated_is_not_told_again() {
        let (mut repeats, mut correlator) = (Repeats::default(), Correlator::default());
        told(&mut repeats, &mut correlator);
        let events = repeats.events(vec![(key(), fold(0))], &mut correlator, Clock::now());
        assert!(events.is_empty());
    }

    #[test]
    fn a_count_before_its_record_waits_for_it_once() {
        let (mut repeats, mut correlator) = (Repeats::default(), Correlator::default());
        let clock = Clock::now();
        assert!(
            repeats
                .events(vec![(key(), fold(3))], &mut correlator, clock)
                .is_empty()
        );
        told(&mut repeats, &mut correlator);
        let events = repeats.events(Vec::new(), &mut correlator, clock);
        assert_eq!(events.iter().map(count_of).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_count_whose_record_is_lost_is_told_without_a_name() {
        let (mut repeats, mut correlator) = (Repeats::default(), Correlator::default());
        let clock = Clock::now();
        repeats.events(vec![(key(), fold(3))], &mut correlator, clock);
        let events = repeats.events(Vec::new(), &mut correlator, clock);
        assert_eq!(events.iter().map(count_of).collect::<Vec<_>>(), [3]);
    }
}

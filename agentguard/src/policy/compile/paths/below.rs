//! Which directories have rules below them that are stricter than their own: moving
//! or covering such a directory would shed those rules.

use std::collections::BTreeMap;

use agentguard_common::path::{PathRow, state_flag};
use agentguard_common::verb::Verb;

use super::super::tables::Builder;

/// Strictness by file verb, 1 to 3.
type Strictness = [u8; Verb::FILE_COUNT];

/// Marks the states of one automaton; `edges` are all its transitions.
pub(super) fn mark(builder: &mut Builder, edges: &[(u32, u32)], defaults: u16) {
    let mut below: BTreeMap<u32, Strictness> = BTreeMap::new();
    let own: BTreeMap<u32, Strictness> = edges
        .iter()
        .flat_map(|(from, to)| [*from, *to])
        .map(|state| (state, strictness(&builder.row_of(state), defaults)))
        .collect();
    // Values only grow, and by two at most: few rounds, whatever the loops.
    let mut changed = true;
    while changed {
        changed = false;
        // States are numbered from the root on: backwards, most is done in one round.
        for (from, to) in edges.iter().rev() {
            let of_target = own[to];
            let further = below.get(to).copied().unwrap_or_default();
            let entry = below.entry(*from).or_default();
            for verb in 0..Verb::FILE_COUNT {
                let most = of_target[verb].max(further[verb]);
                if entry[verb] < most {
                    entry[verb] = most;
                    changed = true;
                }
            }
        }
    }
    for (state, below) in below {
        if below
            .iter()
            .zip(&own[&state])
            .any(|(below, own)| below > own)
        {
            builder.add_flag(state, state_flag::RULED_BELOW);
        }
    }
}

fn strictness(row: &PathRow, defaults: u16) -> Strictness {
    let mut all = [0; Verb::FILE_COUNT];
    for verb in Verb::ALL.into_iter().take(Verb::FILE_COUNT) {
        let default = (defaults >> (2 * verb as u16)) as u8 & 3;
        let bits = row.bits(verb);
        all[verb as usize] = if bits == 0 { default } else { bits };
    }
    all
}

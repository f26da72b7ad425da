//! Patterns inside one name: all that are in play at a state become one byte
//! automaton, whose end states say which of them match.

use std::collections::HashMap;

use agentguard_common::path::GlobState;

use super::super::manifest::{GlobPattern, GlobToken};
use super::tables::{Builder, Full};

/// A state of the nondeterministic automaton of one pattern.
#[derive(Clone, Debug, Default)]
struct Step {
    /// Byte ranges and the state behind them.
    edges: Vec<(u8, u8, usize)>,
    /// Any byte leads back here (`*`).
    loops: bool,
    /// Reached without a byte.
    skip: Option<usize>,
}

/// Well-formed UTF-8 sequences (Unicode 15, table 3-7): what `?` matches.
const SEQUENCES: [&[(u8, u8)]; 9] = [
    &[(0x00, 0x7f)],
    &[(0xc2, 0xdf), (0x80, 0xbf)],
    &[(0xe0, 0xe0), (0xa0, 0xbf), (0x80, 0xbf)],
    &[(0xe1, 0xec), (0x80, 0xbf), (0x80, 0xbf)],
    &[(0xed, 0xed), (0x80, 0x9f), (0x80, 0xbf)],
    &[(0xee, 0xef), (0x80, 0xbf), (0x80, 0xbf)],
    &[(0xf0, 0xf0), (0x90, 0xbf), (0x80, 0xbf), (0x80, 0xbf)],
    &[(0xf1, 0xf3), (0x80, 0xbf), (0x80, 0xbf), (0x80, 0xbf)],
    &[(0xf4, 0xf4), (0x80, 0x8f), (0x80, 0xbf), (0x80, 0xbf)],
];

/// Steps of one pattern; the last is its end.
fn steps(pattern: &GlobPattern) -> Vec<Step> {
    let mut steps = vec![Step::default()];
    for token in pattern.tokens() {
        let from = steps.len() - 1;
        match token {
            GlobToken::Literal(bytes) => {
                for byte in bytes {
                    let last = steps.len() - 1;
                    steps[last].edges.push((*byte, *byte, last + 1));
                    steps.push(Step::default());
                }
            }
            GlobToken::AnyRun => {
                steps[from].skip = Some(from + 1);
                steps.push(Step {
                    loops: true,
                    ..Step::default()
                });
            }
            GlobToken::AnyChar => {
                let mut entries = Vec::new();
                let inner: usize = SEQUENCES.iter().map(|sequence| sequence.len() - 1).sum();
                let end = from + 1 + inner;
                for sequence in SEQUENCES {
                    let mut at = from;
                    for (position, (low, high)) in sequence.iter().enumerate() {
                        let to = if position + 1 == sequence.len() {
                            end
                        } else {
                            steps.push(Step::default());
                            steps.len() - 1
                        };
                        if at == from {
                            entries.push((*low, *high, to));
                        } else {
                            steps[at].edges.push((*low, *high, to));
                        }
                        at = to;
                    }
                }
                steps[from].edges.extend(entries);
                steps.push(Step::default());
            }
        }
    }
    steps
}

/// What one byte automaton tells: its start state, and for each class (from 1
/// on) which of the patterns match.
#[derive(Clone, Debug)]
pub struct Classes {
    /// Start state.
    pub start: u32,
    /// Members of class i + 1: indexes into the patterns given.
    pub members: Vec<Vec<usize>>,
}

/// The byte automaton of some patterns. It is the same for all agents: most patterns are those
/// of the protected set, which every agent has.
pub fn build(builder: &mut Builder, patterns: &[&GlobPattern]) -> Result<Classes, Full> {
    let key: Vec<GlobPattern> = patterns.iter().copied().cloned().collect();
    if let Some(known) = builder.known_globs(&key) {
        return Ok(known.clone());
    }
    let classes = append(builder, patterns)?;
    builder.keep_globs(key, classes.clone());
    Ok(classes)
}

/// Builds one, appending its states.
fn append(builder: &mut Builder, patterns: &[&GlobPattern]) -> Result<Classes, Full> {
    let automata: Vec<Vec<Step>> = patterns.iter().map(|pattern| steps(pattern)).collect();
    let mut classes = Classes {
        start: 0,
        members: Vec::new(),
    };
    let mut known: HashMap<Vec<(usize, usize)>, u32> = HashMap::new();
    let start = closure(
        &automata,
        (0..patterns.len()).map(|pattern| (pattern, 0)).collect(),
    );
    classes.start = builder.add_glob_state()?;
    known.insert(start.clone(), classes.start);
    let mut work = vec![start];
    while let Some(set) = work.pop() {
        let state = known[&set];
        let mut row = GlobState {
            class: class_of(&automata, &set, &mut classes),
            reserved: 0,
            next: [0; 256],
        };
        for byte in 0..=255u8 {
            let next = closure(&automata, step(&automata, &set, byte));
            if next.is_empty() {
                continue;
            }
            let target = match known.get(&next) {
                Some(target) => *target,
                None => {
                    let target = builder.add_glob_state()?;
                    known.insert(next.clone(), target);
                    work.push(next);
                    target
                }
            };
            row.next[usize::from(byte)] = u16::try_from(target).unwrap_or(0);
        }
        builder.set_glob_state(state, row);
    }
    Ok(classes)
}

fn class_of(automata: &[Vec<Step>], set: &[(usize, usize)], classes: &mut Classes) -> u32 {
    let members: Vec<usize> = set
        .iter()
        .filter(|(pattern, at)| at + 1 == automata[*pattern].len())
        .map(|(pattern, _)| *pattern)
        .collect();
    if members.is_empty() {
        return 0;
    }
    let position = classes.members.iter().position(|known| *known == members);
    let index = position.unwrap_or_else(|| {
        classes.members.push(members);
        classes.members.len() - 1
    });
    u32::try_from(index + 1).unwrap_or(0)
}

fn step(automata: &[Vec<Step>], set: &[(usize, usize)], byte: u8) -> Vec<(usize, usize)> {
    let mut next = Vec::new();
    for (pattern, at) in set {
        let step = &automata[*pattern][*at];
        if step.loops {
            next.push((*pattern, *at));
        }
        for (low, high, to) in &step.edges {
            if (*low..=*high).contains(&byte) {
                next.push((*pattern, *to));
            }
        }
    }
    next
}

/// Adds what is reached without a byte; sorted, each once.
fn closure(automata: &[Vec<Step>], mut set: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    let mut index = 0;
    while let Some((pattern, at)) = set.get(index).copied() {
        if let Some(skip) = automata[pattern][at].skip {
            set.push((pattern, skip));
        }
        index += 1;
    }
    set.sort_unstable();
    set.dedup();
    set
}

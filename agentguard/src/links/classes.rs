//! What a name says of its file, for all agents at once, as one number: most names say the
//! same.

use std::collections::HashMap;
use std::sync::Arc;

use agentguard_common::decision;
use agentguard_common::path::{PathRow, Position, Unreadable};

use super::Scope;

/// One row an agent, in the scope's order, defaults written out.
type Rows = Arc<[PathRow]>;

/// All that was met.
pub struct Classes {
    numbers: HashMap<Rows, u32>,
    rows: Vec<Rows>,
    positions: HashMap<Box<[Position]>, u32>,
}

/// What names that no rule is about say.
pub const DEFAULTS: u32 = 0;

impl Classes {
    /// Knows the defaults.
    pub fn new(scope: &Scope) -> Result<Self, Unreadable> {
        let mut classes = Self {
            numbers: HashMap::new(),
            rows: Vec::new(),
            positions: HashMap::new(),
        };
        let nowhere = vec![Position::default(); scope.agents.len()];
        classes.at(scope, &nowhere)?;
        Ok(classes)
    }

    /// What a name at these positions says, one an agent.
    pub fn at(&mut self, scope: &Scope, positions: &[Position]) -> Result<u32, Unreadable> {
        if let Some(known) = self.positions.get(positions) {
            return Ok(*known);
        }
        let rows = scope
            .agents
            .iter()
            .zip(positions)
            .map(|(record, at)| {
                let rows = scope.tables.rows_at(*at)?;
                Ok(decision::resolved(record, rows))
            })
            .collect::<Result<Rows, Unreadable>>()?;
        let class = self.number(rows);
        self.positions.insert(positions.into(), class);
        Ok(class)
    }

    /// What two names say together: for each agent the strictest of both, or the freest.
    pub fn merge(&mut self, one: u32, other: u32, strictest: bool) -> u32 {
        if one == other {
            return one;
        }
        let pairs = self.get(one).iter().zip(self.get(other));
        let rows = pairs.map(|(one, other)| {
            let strict = decision::strictest(one, other);
            if strictest {
                strict
            } else {
                freest(one, other)
            }
        });
        let rows = rows.collect();
        self.number(rows)
    }

    /// The rows of a class.
    pub fn get(&self, class: u32) -> &[PathRow] {
        self.rows.get(class as usize).map_or(&[], |rows| rows)
    }

    fn number(&mut self, rows: Rows) -> u32 {
        if let Some(known) = self.numbers.get(&rows) {
            return *known;
        }
        let number = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.rows.push(Arc::clone(&rows));
        self.numbers.insert(rows, number);
        number
    }
}

/// The freest of what two names say, verb by verb. Rules do not matter.
fn freest(one: &PathRow, other: &PathRow) -> PathRow {
    let mut row = PathRow::default();
    for shift in (0..u16::BITS).step_by(2) {
        let bits = |row: &PathRow| row.verdicts >> shift & 3;
        row.verdicts |= bits(one).min(bits(other)) << shift;
    }
    row
}

/// Whether something is stricter in one row than in another.
pub fn is_stricter(row: &PathRow, than: &PathRow) -> bool {
    (0..u16::BITS)
        .step_by(2)
        .any(|shift| row.verdicts >> shift & 3 > than.verdicts >> shift & 3)
}

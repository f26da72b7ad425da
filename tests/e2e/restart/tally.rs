//! What a load counted.

use std::collections::BTreeMap;

use agentguard_tests::load::Try;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// What a load counted: right and wrong outcomes by kind, and the first wrong one's error.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<&'static str, (u64, u64, i64)>);

impl Tally {
    pub fn of(value: &Value) -> Result<Self> {
        let mut tally = Self::default();
        for kind in Try::ALL.map(Try::name) {
            let of = &value[kind];
            let number = |what: &str| of[what].as_i64().with_context(|| value.to_string());
            let (right, wrong) = (number("right")?, number("wrong")?);
            let counts = (right.try_into()?, wrong.try_into()?, number("error")?);
            tally.0.insert(kind, counts);
        }
        Ok(tally)
    }

    pub fn add(&mut self, other: &Self) {
        for (kind, (right, wrong, error)) in &other.0 {
            let sum = self.0.entry(kind).or_default();
            sum.0 += right;
            sum.1 += wrong;
            if sum.2 == 0 {
                sum.2 = *error;
            }
        }
    }

    pub fn right(&self, kind: Try) -> u64 {
        self.0.get(kind.name()).map_or(0, |counts| counts.0)
    }

    pub fn refused_by_address(&self) -> u64 {
        self.right(Try::SendDenied) + self.right(Try::ConnectDenied)
    }

    pub fn refused(&self) -> u64 {
        self.refused_by_address() + self.right(Try::OpenDenied)
    }

    pub fn nothing_wrong(&self) -> Result<()> {
        for (kind, (right, wrong, error)) in &self.0 {
            ensure!(
                *wrong == 0,
                "{kind}: {wrong} of {} came out wrong; the first with error {error} (-1: it succeeded)",
                right + wrong
            );
            ensure!(*right > 0, "{kind} was never tried");
        }
        Ok(())
    }
}

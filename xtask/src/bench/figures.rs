//! The measured figures, by name.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// What one of the two measurements printed.
pub struct Figures(Value);

impl Figures {
    /// Takes what was printed.
    pub fn new(value: Value) -> Self {
        Self(value)
    }

    /// The figure at a path such as `/states/none/open/median`.
    pub fn at(&self, path: &str) -> Result<f64> {
        self.value(path)?
            .as_f64()
            .with_context(|| format!("{path} is not a figure"))
    }

    /// The text at a path.
    pub fn text(&self, path: &str) -> Result<&str> {
        self.value(path)?
            .as_str()
            .with_context(|| format!("{path} is not a text"))
    }

    /// Instructions of one call in a state.
    pub fn cost(&self, state: &str, call: &str) -> Result<f64> {
        self.at(&format!("/states/{state}/{call}/median"))
    }

    /// What a state adds to a call.
    pub fn added(&self, state: &str, call: &str) -> Result<f64> {
        Ok(self.cost(state, call)? - self.cost("none", call)?)
    }

    /// Instructions of work on a tree in a state: `untar`, `grep`, `rm`, or `all` of them.
    pub fn work(&self, state: &str, work: &str) -> Result<f64> {
        if work == "all" {
            let parts = ["untar", "grep", "rm"].map(|part| self.work(state, part));
            return parts.into_iter().sum();
        }
        self.at(&format!("/states/{state}/tree/{work}"))
    }

    fn value(&self, path: &str) -> Result<&Value> {
        self.0
            .pointer(path)
            .with_context(|| format!("the measurements say nothing of {path}"))
    }
}

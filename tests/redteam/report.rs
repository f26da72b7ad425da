//! The results, for people and for programs.

use serde_json::{Value, json};

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The denied object is as it was.
    Blocked,
    /// There was an effect.
    Through,
    /// There was an effect, as the catalogue says.
    AllowedAsDesigned,
    /// This kernel or user cannot do it, as seen without a tag.
    NotApplicable,
}

impl Outcome {
    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Through => "through",
            Self::AllowedAsDesigned => "allowed-as-designed",
            Self::NotApplicable => "not-applicable",
        }
    }
}

/// What came of the same technique on the allowed twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// It succeeded, as it must.
    Passed,
    /// It did not: the attempt proves nothing, and the run fails.
    Failed,
    /// It cannot succeed here, and so there is no attempt.
    None,
}

impl Control {
    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::None => "none",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug)]
pub struct Line {
    /// The attempt.
    pub id: String,
    /// In words.
    pub technique: String,
    /// Who tried.
    pub user: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// What came of the control.
    pub control: Control,
    /// What was seen.
    pub note: String,
}

impl Line {
    /// Whether the run fails by it.
    pub fn is_bad(&self) -> bool {
        self.outcome == Outcome::Through || self.control == Control::Failed
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "technique": self.technique,
            "user": self.user,
            "result": self.outcome.name(),
            "control": self.control.name(),
            "note": self.note,
        })
    }
}

/// All lines as one object.
pub fn object(kernel: &str, lines: &[Line]) -> Value {
    let attempts: Vec<Value> = lines.iter().map(Line::json).collect();
    json!({ "kernel": kernel, "attempts": attempts })
}

/// All lines as a table, with the totals.
pub fn table(kernel: &str, lines: &[Line]) -> String {
    let mut text = format!("Linux {kernel}\n");
    for line in lines {
        text.push_str(&format!(
            "{:<34} {:<8} {:<19} {:<7} {}\n",
            line.id,
            line.user,
            line.outcome.name(),
            line.control.name(),
            line.note
        ));
    }
    let count = |outcome: Outcome| lines.iter().filter(|line| line.outcome == outcome).count();
    text.push_str(&format!(
        "{} attempts: {} blocked, {} through, {} allowed as designed, {} not applicable, \
         {} with a failed control\n",
        lines.len(),
        count(Outcome::Blocked),
        count(Outcome::Through),
        count(Outcome::AllowedAsDesigned),
        count(Outcome::NotApplicable),
        lines
            .iter()
            .filter(|line| line.control == Control::Failed)
            .count(),
    ));
    text
}

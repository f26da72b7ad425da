//! The machine-readable catalogue of the attempts.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// What must happen to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The denied object stays as it is, or unread.
    Blocked,
    /// It is no change and gives away nothing that a rule protects.
    AllowedAsDesigned,
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Names the attempt.
    pub id: String,
    /// In words.
    pub technique: String,
    /// What must happen.
    expected: Expected,
    /// Nothing but LSM programs holds it: where those are refused, it gets through.
    pub needs_lsm: bool,
    /// The kernel up to which it is allowed, for what older ones do not show.
    allowed_before: Option<Version>,
}

/// Major and minor number of a kernel.
type Version = (u32, u32);

impl Entry {
    /// What must happen on this release of the kernel.
    pub fn expected(&self, release: &str) -> Expected {
        match (self.allowed_before, version(release)) {
            (Some(before), Some(running)) if running < before => Expected::AllowedAsDesigned,
            _ => self.expected,
        }
    }
}

fn version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Every entry, in the file's order.
pub fn read() -> Result<Vec<Entry>> {
    let entries: Vec<Value> =
        serde_json::from_str(include_str!("catalogue.json")).context("catalogue.json")?;
    entries.iter().map(entry).collect()
}

fn entry(value: &Value) -> Result<Entry> {
    let text = |name: &str| {
        value[name]
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .with_context(|| format!("catalogue.json: an entry without {name}: {value}"))
    };
    for name in ["syscall", "kernels", "reference"] {
        text(name)?;
    }
    let expected = match text("expected")?.as_str() {
        "blocked" => Expected::Blocked,
        "allowed-as-designed" => Expected::AllowedAsDesigned,
        other => anyhow::bail!("catalogue.json: expected {other}"),
    };
    let allowed_before = value["allowed_before"]
        .as_str()
        .map(|text| version(text).with_context(|| format!("catalogue.json: before {text}")))
        .transpose()?;
    let needs_lsm = match &value["held_by"] {
        Value::Null => false,
        Value::String(line) if line == "lsm" => true,
        other => anyhow::bail!("catalogue.json: held by {other}"),
    };
    Ok(Entry {
        id: text("id")?,
        technique: text("technique")?,
        expected,
        needs_lsm,
        allowed_before,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_and_code_have_the_same_attempts() {
        let listed: Vec<String> = read().unwrap().into_iter().map(|entry| entry.id).collect();
        let written: Vec<&str> = crate::attempts().iter().map(|attempt| attempt.id).collect();
        assert_eq!(listed, written);
    }

    #[test]
    fn every_id_is_there_once() {
        let mut ids: Vec<String> = read().unwrap().into_iter().map(|entry| entry.id).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn what_older_kernels_do_not_show_is_allowed_there() {
        let entry = Entry {
            id: String::new(),
            technique: String::new(),
            expected: Expected::Blocked,
            needs_lsm: false,
            allowed_before: version("6.8"),
        };
        let on = |release| entry.expected(release);
        assert_eq!(on("6.1.0-56-amd64"), Expected::AllowedAsDesigned);
        assert_eq!(on("6.12.117+deb12-amd64"), Expected::Blocked);
        assert_eq!(on("7.3.4"), Expected::Blocked);
    }

    #[test]
    fn what_is_allowed_says_where_that_is_written() {
        let entries: Vec<Value> = serde_json::from_str(include_str!("catalogue.json")).unwrap();
        for entry in entries {
            if entry["expected"] == "allowed-as-designed" || entry["allowed_before"].is_string() {
                let why = entry["why"].as_str().unwrap_or_default();
                assert!(why.len() > 20, "{}: why is that by design?", entry["id"]);
            }
        }
    }
}

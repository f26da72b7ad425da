//! Figures that a committed file holds: none may grow by more than a tenth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// Figures by name.
pub type Figures = BTreeMap<String, f64>;

/// How many times a committed figure may become.
const GROWTH: f64 = 1.1;

/// A committed file and what its figures are.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The file, from the repository's top directory.
    pub file: &'static str,
    /// What is in it: figures by name, for each kernel series.
    pub text: &'static str,
    /// The command that writes it anew.
    pub renew: &'static str,
    /// What may come on top of the tenth: how far two measurements of the same differ.
    pub noise: fn(&str) -> f64,
}

impl Held {
    /// The figures of this kernel series.
    fn committed(&self, series: &str) -> Result<Figures> {
        let all: BTreeMap<String, Figures> = serde_json::from_str(self.text)
            .with_context(|| format!("cannot read {}", self.file))?;
        all.get(series).cloned().with_context(|| {
            format!(
                "{} says nothing of Linux {series}: run `{}`",
                self.file, self.renew
            )
        })
    }

    /// Compares; the error names every figure that is too large, new or gone.
    ///
    /// # Errors
    /// One is.
    pub fn compare(&self, series: &str, found: &Figures) -> Result<()> {
        let complaints = self.complaints(&self.committed(series)?, found);
        if complaints.is_empty() {
            return Ok(());
        }
        bail!(
            "on Linux {series}, against {}:\n  {}\nif that is meant, renew the file with `{}` and \
             commit it",
            self.file,
            complaints.join("\n  "),
            self.renew
        )
    }

    fn complaints(&self, committed: &Figures, found: &Figures) -> Vec<String> {
        let names: BTreeSet<&String> = committed.keys().chain(found.keys()).collect();
        let complaint = |name: &String| match (committed.get(name), found.get(name)) {
            (Some(_), None) => Some(format!("{name} is in the file and was not found")),
            (None, Some(figure)) => Some(format!("{name} ({figure:.0}) is not in the file")),
            (Some(before), Some(now)) if !self.holds(name, *before, *now) => Some(format!(
                "{name} was {before:.0} and is {now:.0} (+{:.0} %; 10 % is the limit)",
                (now / before - 1.0) * 100.0
            )),
            _ => None,
        };
        names.into_iter().filter_map(complaint).collect()
    }

    /// Whether this is at most a tenth more. What is no number is not.
    fn holds(&self, name: &str, before: f64, now: f64) -> bool {
        now <= before * GROWTH + (self.noise)(name)
    }

    /// Both figures of each name, one line each; empty without a committed file.
    #[must_use]
    pub fn table(&self, series: &str, found: &Figures) -> String {
        let committed = self.committed(series).unwrap_or_default();
        let mut text = String::new();
        for (name, now) in found {
            // Writing to a string does not fail.
            let _ = match committed.get(name) {
                Some(before) => writeln!(text, "{name:<28} {before:>9.0} {now:>9.0}"),
                None => writeln!(text, "{name:<28} {:>9} {now:>9.0}", "-"),
            };
        }
        text
    }
}

/// Figures as the committed files have them: whole numbers.
#[must_use]
pub fn to_json(figures: &Figures) -> Value {
    let whole = |(name, figure): (&String, &f64)| (name.clone(), json!(figure.round() as i64));
    Value::Object(figures.iter().map(whole).collect())
}

/// The running kernel's series, such as 6.12.
///
/// # Errors
/// The kernel's release is no version.
pub fn series() -> Result<String> {
    let kernel = nix::sys::utsname::uname()?;
    let release = kernel.release().to_string_lossy();
    let mut parts = release.split(['.', '-']);
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => Ok(format!("{major}.{minor}")),
        _ => bail!("the kernel's release {release} is no version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Held = Held {
        file: "held.json",
        text: r#"{ "6.1": { "kept": 100, "gone": 1, "noisy": 100 } }"#,
        renew: "renew it",
        noise: |name| if name == "noisy" { 5.0 } else { 0.0 },
    };

    fn compared(series: &str, figures: &[(&str, f64)]) -> Result<()> {
        let found = figures
            .iter()
            .map(|&(name, figure)| (name.to_owned(), figure));
        HELD.compare(series, &found.collect())
    }

    #[test]
    fn a_tenth_more_holds_and_noise_comes_on_top() {
        let limits = [("kept", 110.0), ("gone", 0.0), ("noisy", 115.0)];
        compared("6.1", &limits).unwrap();
    }

    #[test]
    fn what_grew_is_new_or_gone_is_named_with_the_command_that_renews() {
        let found = [("kept", 110.1), ("noisy", f64::NAN), ("new", 3.0)];
        let error = compared("6.1", &found).unwrap_err().to_string();
        for part in [
            "Linux 6.1",
            "kept was 100 and is 110",
            "noisy was",
            "gone is in the file and was not found",
            "new (3) is not in the file",
            "renew it",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_kernel_that_the_file_does_not_know_is_an_error() {
        let error = compared("7.3", &[]).unwrap_err().to_string();
        assert!(error.contains("nothing of Linux 7.3"), "{error}");
    }
}

//! The targets, and what is reached of them.

use anyhow::Result;

use super::figures::Figures;

/// One target.
pub struct Target {
    /// What it is about.
    pub what: &'static str,
    /// What was wanted.
    pub wanted: String,
    /// What was measured.
    pub found: String,
    /// Whether that is what was wanted.
    pub is_met: bool,
}

/// Compares the figures with the targets; without a machine, those of this host only.
pub fn judge(machine: Option<&Figures>, native: &Figures) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    if let Some(machine) = machine {
        targets.extend(untagged(machine)?);
        targets.extend(tagged(machine)?);
    }
    targets.extend(on_host(native)?);
    Ok(targets)
}

fn untagged(machine: &Figures) -> Result<[Target; 3]> {
    let (idle, empty) = (
        machine.added("idle", "open")?,
        machine.added("empty", "open")?,
    );
    Ok([
        at_most(
            "untagged open, an agent lives",
            machine.added("live", "open")?,
            300.0,
            "",
        ),
        at_most(
            "untagged open, no agent lives, against empty programs",
            idle / empty,
            1.1,
            "times",
        ),
        at_most(
            "untagged exec, an agent lives",
            percent(machine, "live", "exec")?,
            1.0,
            "%",
        ),
    ])
}

fn tagged(machine: &Figures) -> Result<[Target; 8]> {
    let added = |state: &str, call: &str| machine.added(state, call);
    let to_apparmor = |state: &str, call: &str| -> Result<f64> {
        Ok(added(state, call)? / added("apparmor", call)?)
    };
    let many_to_few = |call: &str| -> Result<f64> {
        Ok(added("tagged_many", call)? / added("tagged_few", call)?)
    };
    Ok([
        below(
            "tagged open, against AppArmor",
            to_apparmor("tagged_few", "open")?,
            0.5,
            "times",
        ),
        below(
            "the same, with rules that begin anywhere",
            to_apparmor("tagged_anywhere", "open")?,
            0.5,
            "times",
        ),
        at_most(
            "tagged open, 10,000 rules against 10",
            many_to_few("open")?,
            1.1,
            "times",
        ),
        below(
            "tagged UDP connect, against AppArmor",
            to_apparmor("tagged_few", "connect_udp")?,
            1.0,
            "times",
        ),
        below(
            "tagged TCP connect, against AppArmor",
            to_apparmor("tagged_few", "connect_tcp")?,
            1.0,
            "times",
        ),
        at_most(
            "tagged UDP connect, 10,000 rules against 10",
            many_to_few("connect_udp")?,
            1.1,
            "times",
        ),
        below(
            "tagged bulk traffic, established",
            percent(machine, "tagged_many", "bulk")?,
            1.0,
            "%",
        ),
        at_most(
            "tagged exec",
            percent(machine, "tagged_many", "exec")?,
            1.0,
            "%",
        ),
    ])
}

fn on_host(native: &Figures) -> Result<[Target; 3]> {
    // A megabyte is a million bytes, as in the targets.
    let megabytes = |path: &str| -> Result<f64> { Ok(native.at(path)? * 1024.0 / 1e6) };
    Ok([
        at_most(
            "10,000 rules in force after `policy reload`",
            native.at("/reload_ms/many/median")?,
            100.0,
            "ms",
        ),
        below(
            "the daemon's resident memory, 10,000 rules",
            megabytes("/memory_kib/many/resident")?,
            30.0,
            "MB",
        ),
        below(
            "the kernel's maps",
            megabytes("/memory_kib/many/maps")?,
            32.0,
            "MB",
        ),
    ])
}

/// What a state adds, in percent of the call.
fn percent(machine: &Figures, state: &str, call: &str) -> Result<f64> {
    Ok(machine.added(state, call)? / machine.cost("none", call)? * 100.0)
}

fn at_most(what: &'static str, found: f64, limit: f64, unit: &str) -> Target {
    compared(what, found, limit, unit, "at most", found <= limit)
}

fn below(what: &'static str, found: f64, limit: f64, unit: &str) -> Target {
    compared(what, found, limit, unit, "below", found < limit)
}

fn compared(
    what: &'static str,
    found: f64,
    limit: f64,
    unit: &str,
    relation: &str,
    is_met: bool,
) -> Target {
    let digits = if unit.is_empty() { 0 } else { 2 };
    Target {
        what,
        wanted: format!("{relation} {limit} {unit}").trim_end().to_owned(),
        found: format!("{found:.digits$} {unit}").trim_end().to_owned(),
        is_met,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_up_to_its_limit() {
        assert!(at_most("", 1.1, 1.1, "times").is_met);
        assert!(!below("", 0.5, 0.5, "times").is_met);
        // A cost that is no number proves nothing.
        assert!(!at_most("", f64::NAN, 1.1, "times").is_met);
        let target = at_most("", 312.4, 300.0, "");
        assert_eq!(
            (target.wanted.as_str(), target.found.as_str()),
            ("at most 300", "312")
        );
    }
}

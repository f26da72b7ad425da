//! The targets, and what is reached of them.

use anyhow::Result;

use super::figures::Figures;
use super::sending;

/// One target.
pub struct Target {
    /// What it is about.
    pub what: String,
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
        untagged(machine, &mut targets)?;
        tagged(machine, &mut targets)?;
    }
    on_host(native, &mut targets)?;
    Ok(targets)
}

fn untagged(machine: &Figures, targets: &mut Vec<Target>) -> Result<()> {
    let live = machine.added("live", "open")?;
    let to_empty = machine.added("idle", "open")? / machine.added("empty", "open")?;
    let exec = percent(machine, "live", "exec")?;
    targets.extend([
        target("untagged open, an agent lives", live, AtMost(300.0), ""),
        target(
            "untagged open, no agent lives, against empty programs",
            to_empty,
            AtMost(1.1),
            "times",
        ),
        target("untagged exec, an agent lives", exec, AtMost(1.0), "%"),
    ]);
    Ok(())
}

fn tagged(machine: &Figures, targets: &mut Vec<Target>) -> Result<()> {
    for (what, state, call, limit) in [
        ("open", "tagged_few", "open", 0.5),
        ("open, 3 names deep", "tagged_few", "open_3", 0.5),
        ("open, 10 names deep", "tagged_few", "open_10", 0.5),
        ("open, 40 names deep", "tagged_few", "open_40", 0.5),
        ("open, rules anywhere", "tagged_anywhere", "open", 0.5),
        ("UDP connect", "tagged_few", "connect_udp", 1.0),
        ("TCP connect", "tagged_few", "connect_tcp", 1.0),
    ] {
        let times = machine.added(state, call)? / machine.added("apparmor_few", call)?;
        let what = format!("tagged {what}, against AppArmor");
        targets.push(target(&what, times, Below(limit), "times"));
    }
    for (what, call) in [
        ("open", "open"),
        ("open, 40 names deep", "open_40"),
        ("UDP connect", "connect_udp"),
    ] {
        let times = machine.added("tagged_many", call)? / machine.added("tagged_few", call)?;
        let what = format!("tagged {what}, 10,000 rules against 10");
        targets.push(target(&what, times, AtMost(1.1), "times"));
    }
    let (bulk, exec) = ("tagged bulk traffic, established", "tagged exec");
    let added = |call: &str| percent(machine, "tagged_many", call);
    targets.push(target(bulk, added("bulk")?, Below(1.0), "%"));
    targets.push(target(exec, added("exec")?, AtMost(1.0), "%"));
    Ok(())
}

fn on_host(native: &Figures, targets: &mut Vec<Target>) -> Result<()> {
    let reload = native.at("/reload_ms/many/median")?;
    let what = "10,000 rules in force after `policy reload`";
    targets.push(target(what, reload, AtMost(100.0), "ms"));
    for (what, size, limit) in [
        (
            "the daemon's resident memory, 10,000 rules",
            "resident",
            30.0,
        ),
        ("the kernel's maps", "maps", 32.0),
    ] {
        // A megabyte is a million bytes, as in the targets.
        let megabytes = native.at(&format!("/memory_kib/many/{size}"))? * 1024.0 / 1e6;
        targets.push(target(what, megabytes, Below(limit), "MB"));
    }
    let what = "bulk throughput lost, tagged, the dearest state";
    targets.push(target(what, sending::lost(native)?, Below(1.0), "%"));
    Ok(())
}

/// What a state adds, in percent of the call.
fn percent(machine: &Figures, state: &str, call: &str) -> Result<f64> {
    Ok(machine.added(state, call)? / machine.cost("none", call)? * 100.0)
}

/// What is wanted of a figure.
#[derive(Clone, Copy)]
enum Limit {
    AtMost(f64),
    Below(f64),
}

use Limit::{AtMost, Below};

fn target(what: &str, found: f64, limit: Limit, unit: &str) -> Target {
    // What is no number is not met.
    let (relation, number, is_met) = match limit {
        AtMost(number) => ("at most", number, found <= number),
        Below(number) => ("below", number, found < number),
    };
    let digits = if unit.is_empty() { 0 } else { 2 };
    Target {
        what: what.to_owned(),
        wanted: format!("{relation} {number} {unit}").trim_end().to_owned(),
        found: format!("{found:.digits$} {unit}").trim_end().to_owned(),
        is_met,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_up_to_its_limit() {
        assert!(target("", 1.1, AtMost(1.1), "times").is_met);
        assert!(!target("", 0.5, Below(0.5), "times").is_met);
        // A cost that is no number proves nothing.
        assert!(!target("", f64::NAN, AtMost(1.1), "times").is_met);
        let target = target("", 312.4, AtMost(300.0), "");
        assert_eq!(
            (target.wanted.as_str(), target.found.as_str()),
            ("at most 300", "312")
        );
    }
}

//! The figures as tables for people.

use std::fmt::Write as _;

use anyhow::Result;

use super::figures::Figures;
use super::targets::Target;

/// States of a test machine, in the order of their measurement.
const STATES: [(&str, &str); 14] = [
    ("none", "no AgentGuard"),
    ("empty", "empty LSM programs"),
    ("idle", "untagged, no agent lives"),
    ("live", "untagged, an agent lives"),
    ("tagged_few", "tagged, 10 rules"),
    ("tagged_anywhere", "tagged, 10 rules, 2 of them **/"),
    ("tagged_many", "tagged, 10,000 rules"),
    ("none_again", "no AgentGuard, measured again"),
    ("apparmor_few", "AppArmor, the same 7 paths"),
    ("apparmor_thousand", "AppArmor, 800 paths"),
    ("landlock_few", "Landlock, the same 7 paths"),
    ("landlock_many", "Landlock, the same 8,000 paths"),
    ("audit_few", "audit, watches of the 7 paths"),
    ("audit_thousand", "audit, watches of 800 paths"),
];
/// Of these, so many have all calls; in the others only files are opened.
const COMPLETE: usize = 10;
/// States in which a tree is worked on.
const WORKING: [&str; 5] = [
    "none",
    "live",
    "tagged_few",
    "none_again",
    "apparmor_thousand",
];
/// States in which sending is measured.
const NETWORK_STATES: [(&str, &str); 14] = [
    ("none", "no AgentGuard"),
    ("live_addresses", "untagged, an agent lives"),
    ("live_names", "untagged, one with names lives"),
    ("addresses_few", "tagged, 10 addresses"),
    ("addresses_many", "tagged, 10,000 addresses"),
    ("names_few", "tagged, 10 rules, with names"),
    ("names_many", "tagged, 10,000 rules, with names"),
    ("none_again", "no AgentGuard, measured again"),
    ("systemd_few", "IPAddressDeny, 10 allowed"),
    ("systemd_many", "IPAddressDeny, 10,000 allowed"),
    ("nftables_few", "nftables, 10, outside the cgroup"),
    ("nftables_in_few", "nftables, 10, in the cgroup"),
    ("nftables_many", "nftables, 10,000, outside"),
    ("nftables_in_many", "nftables, 10,000, in the cgroup"),
];
/// What is called in each.
const NETWORK_CALLS: [(&str, &str); 5] = [
    ("connect_udp", "connect UDP"),
    ("send_udp", "send UDP"),
    ("connect_tcp", "connect TCP"),
    ("bulk", "send+receive 16 KiB"),
    ("turn", "1 byte there and back"),
];
/// The depths.
const DEPTHS: [(&str, &str); 4] = [
    ("open_3", "3 names"),
    ("open", "6 names"),
    ("open_10", "10 names"),
    ("open_40", "40 names"),
];
/// The work.
const WORK: [(&str, &str); 3] = [("untar", "tar -x"), ("grep", "grep -r"), ("rm", "rm -r")];
/// What is called in each.
const CALLS: [(&str, &str); 6] = [
    ("open", "open+close"),
    ("pread", "pread"),
    ("connect_udp", "connect UDP"),
    ("connect_tcp", "connect TCP"),
    ("bulk", "send+receive 16 KiB"),
    ("exec", "fork+exec+wait"),
];
/// Who runs the decision programs.
const SUBJECTS: [(&str, &str); 4] = [
    ("untagged", "untagged"),
    ("tagged_few", "tagged, 10 rules"),
    ("tagged_anywhere", "tagged, 10 rules, 2 of them **/"),
    ("tagged_many", "tagged, 10,000 rules"),
];
/// The decision programs.
const PROGRAMS: [(&str, &str); 4] = [
    ("floor", "nothing"),
    ("tag", "find the tag"),
    ("decide_path", "decide a path"),
    ("decide_connect", "decide a connect"),
];

/// What each state adds to each call.
pub fn machine(figures: &Figures) -> Result<String> {
    Ok(format!(
        "Instructions of one call on Linux {}, and what each state adds (six names deep; \
         QEMU counts; medians)\n\n{}",
        figures.text("/kernel")?,
        added(figures, &STATES[..COMPLETE], &CALLS)?
    ))
}

/// What each state adds to calls that send.
pub fn network(figures: &Figures) -> Result<String> {
    Ok(format!(
        "Instructions of calls that send, on Linux {}, and what each state adds (QEMU counts; \
         medians)\n\n{}",
        figures.text("/kernel")?,
        added(figures, &NETWORK_STATES, &NETWORK_CALLS)?
    ))
}

/// What each state adds to opening a file, by its depth.
pub fn opens(figures: &Figures) -> Result<String> {
    Ok(format!(
        "Instructions of open+close by the file's depth, and what each state adds\n\n{}",
        added(figures, &STATES, &DEPTHS)?
    ))
}

fn added(figures: &Figures, states: &[(&str, &str)], calls: &[(&str, &str)]) -> Result<String> {
    let mut rows = vec![header(calls)];
    for (state, label) in states {
        let mut row = vec![(*label).to_owned()];
        for (call, _) in calls {
            let base = figures.cost("none", call)?;
            row.push(if *state == "none" {
                thousands(base)
            } else {
                let added = figures.added(state, call)?;
                let sign = if added.round() < 0.0 { "-" } else { "+" };
                let percent = added / base * 100.0;
                format!("{sign}{} {percent:6.1} %", thousands(added.abs()))
            });
        }
        rows.push(row);
    }
    Ok(grid(&rows))
}

/// What the work on a tree takes in each state, in millions of instructions and as a ratio.
pub fn tree(figures: &Figures) -> Result<String> {
    let mut columns = WORK.to_vec();
    columns.push(("all", "all three"));
    let mut rows = vec![header(&columns)];
    for (state, label) in STATES.iter().filter(|state| WORKING.contains(&state.0)) {
        let mut row = vec![(*label).to_owned()];
        for (work, _) in &columns {
            let (base, cost) = (figures.work("none", work)?, figures.work(state, work)?);
            let millions = thousands(cost / 1e6);
            row.push(format!("{millions} M {:.3}", cost / base));
        }
        rows.push(row);
    }
    Ok(format!(
        "Work on a tree of 20,000 files: instructions, and the ratio to no AgentGuard\n\n{}",
        grid(&rows)
    ))
}

/// The decision function, reloads and memory.
pub fn native(figures: &Figures) -> Result<String> {
    Ok(format!(
        "On this host, Linux {}: the decision function (BPF_PROG_TEST_RUN, warm caches, six names \
         deep)\n\n{}\n{}",
        figures.text("/kernel")?,
        decisions(figures)?,
        reload_and_memory(figures)?
    ))
}

fn decisions(figures: &Figures) -> Result<String> {
    if let Ok(why) = figures.text("/decide_ns/refused") {
        return Ok(format!("not measured, for this kernel says: {why}\n"));
    }
    let mut rows = vec![header(&PROGRAMS)];
    for (subject, label) in SUBJECTS {
        let mut row = vec![label.to_owned()];
        for (program, _) in PROGRAMS {
            let time = figures.at(&format!("/decide_ns/{subject}/{program}/median"))?;
            row.push(format!("{time:.0} ns"));
        }
        rows.push(row);
    }
    Ok(grid(&rows))
}

fn reload_and_memory(figures: &Figures) -> Result<String> {
    let kib = 1024.0 / 1e6;
    let mut rows = vec![header(&[("few", "10 rules"), ("many", "10,000 rules")])];
    for (label, path, unit, scale) in [
        ("policy reload, median", "/reload_ms/*/median", "ms", 1.0),
        ("policy reload, least", "/reload_ms/*/min", "ms", 1.0),
        ("daemon, resident", "/memory_kib/*/resident", "MB", kib),
        (
            "of that, not files or maps",
            "/memory_kib/*/anonymous",
            "MB",
            kib,
        ),
        ("daemon, at its peak", "/memory_kib/*/peak", "MB", kib),
        ("kernel maps", "/memory_kib/*/maps", "MB", kib),
    ] {
        let mut row = vec![label.to_owned()];
        for size in ["few", "many"] {
            let figure = figures.at(&path.replace('*', size))? * scale;
            row.push(format!("{figure:.1} {unit}"));
        }
        rows.push(row);
    }
    Ok(grid(&rows))
}

/// The targets and whether they are met.
pub fn targets(targets: &[Target]) -> String {
    let mut rows = vec![
        ["Target", "wanted", "measured", ""]
            .map(str::to_owned)
            .into(),
    ];
    rows.extend(targets.iter().map(|target| {
        let verdict = if target.is_met { "met" } else { "NOT MET" };
        vec![
            target.what.clone(),
            target.wanted.clone(),
            target.found.clone(),
            verdict.to_owned(),
        ]
    }));
    grid(&rows)
}

pub(super) fn header(columns: &[(&str, &str)]) -> Vec<String> {
    let labels = columns.iter().map(|(_, label)| (*label).to_owned());
    [String::new()].into_iter().chain(labels).collect()
}

/// Columns of equal width: the first to the left, the others to the right.
pub(super) fn grid(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column);
            // Writing to a string cannot fail.
            let _ = if column == 0 {
                write!(line, "{cell:width$}")
            } else {
                write!(line, "   {cell:>width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A whole number with separators.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(thousands(7.4), "7");
        assert_eq!(thousands(412.0), "412");
        assert_eq!(thousands(1_234_567.8), "1,234,568");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "1"], ["long", "200"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(grid(&rows), "a        1\nlong   200\n");
    }
}

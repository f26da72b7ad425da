//! What sending costs on this host in real time, as a table and as targets.

use anyhow::Result;

use super::figures::Figures;
use super::table::{grid, header};

/// What is timed, and the unit of the bare host's figure with the nanoseconds in it.
const CALLS: [(&str, &str, &str, f64); 4] = [
    ("bulk", "bulk, 1 GiB", "ms", 1e6),
    ("turn", "1 byte there and back", "µs", 1e3),
    ("connect_tcp", "connect TCP", "µs", 1e3),
    ("send_udp", "send UDP", "µs", 1e3),
];
/// The states.
const STATES: [(&str, &str); 7] = [
    ("live_addresses", "untagged, an agent lives"),
    ("live_names", "untagged, one with names lives"),
    ("addresses_few", "tagged, 10 addresses"),
    ("addresses_many", "tagged, 10,000 addresses"),
    ("names_few", "tagged, 10 rules, with names"),
    ("names_many", "tagged, 10,000 rules, with names"),
    ("none_again", "no AgentGuard, measured again"),
];

/// What each state adds to each call: the median over the rounds, the least and the most.
pub fn table(figures: &Figures) -> Result<String> {
    let columns = CALLS.map(|(call, label, ..)| (call, label));
    let mut rows = vec![header(&columns)];
    let mut bare = vec!["no AgentGuard".to_owned()];
    for (call, _, unit, scale) in CALLS {
        let time = figures.at(&format!("/sending/none/{call}/median"))? / scale;
        bare.push(format!("{time:.1} {unit}"));
    }
    rows.push(bare);
    for (state, label) in STATES {
        let mut row = vec![label.to_owned()];
        for (call, _) in columns {
            let percent = |what| added(figures, state, call, what);
            let (median, min, max) = (percent("median")?, percent("min")?, percent("max")?);
            row.push(format!("{median:+.1} % ({min:+.0} to {max:+.0})"));
        }
        rows.push(row);
    }
    Ok(format!(
        "Sending over the loopback interface in real time, and what each state adds (median of {} \
         rounds, the least and the most)\n\n{}",
        figures.at("/sending/rounds")?,
        grid(&rows)
    ))
}

/// The largest share of the bulk throughput that a tagged process loses, in percent.
pub fn lost(figures: &Figures) -> Result<f64> {
    let mut most = f64::NEG_INFINITY;
    for (state, _) in STATES
        .iter()
        .filter(|(_, label)| label.starts_with("tagged"))
    {
        let ratio = 1.0 + added(figures, state, "bulk", "median")? / 100.0;
        most = most.max((1.0 - 1.0 / ratio) * 100.0);
    }
    Ok(most)
}

/// What a state adds, in percent.
fn added(figures: &Figures, state: &str, call: &str, what: &str) -> Result<f64> {
    let ratio = figures.at(&format!("/sending/ratios/{state}/{call}/{what}"))?;
    Ok((ratio - 1.0) * 100.0)
}

//! The figures that CI holds: each is compared with a committed file, or only printed.

use agentguard_tests::binary;
use agentguard_tests::daemon::Daemon;
use agentguard_tests::held::{self, Figures, Held};
use agentguard_tests::places::Places;
use agentguard_tests::verifier::{self, COUNTS};
use anyhow::Result;
use serde_json::json;

/// What the verifier took for each program: see `report`.
///
/// # Errors
/// The daemon does not start, or a program takes too much.
pub fn verifier(compare: bool) -> Result<()> {
    let places = Places::make()?;
    let mut daemon = Daemon::configure(binary::agentguard()?, &places, &[])?;
    daemon.start()?;
    let counts = verifier::counts(&daemon.pins)?;
    daemon.unload()?;
    report(&COUNTS, &counts, compare)
}

/// Prints the figures as one JSON object, and for people beside the committed ones.
///
/// # Errors
/// They are to be compared, and one is too large.
pub fn report(held: &Held, found: &Figures, compare: bool) -> Result<()> {
    let series = held::series()?;
    println!("{}", json!({ &series: held::to_json(found) }));
    eprint!(
        "Linux {series}: committed, and now\n{}",
        held.table(&series, found)
    );
    if compare {
        held.compare(&series, found)?;
    }
    Ok(())
}

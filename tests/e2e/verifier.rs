//! The programs do not come nearer to the verifier's limit unnoticed.

use agentguard_tests::held;
use agentguard_tests::runner::{Needs, Test};
use agentguard_tests::suite::Suite;
use agentguard_tests::verifier::{self, COUNTS};
use anyhow::Result;

pub const TESTS: &[Test] = &[Test {
    name: "verifier::no_program_takes_a_tenth_more",
    needs: Needs::TestMachine,
    run: no_growth,
}];

fn no_growth(suite: &mut Suite) -> Result<()> {
    COUNTS.compare(&held::series()?, &verifier::counts(&suite.daemon.pins)?)
}

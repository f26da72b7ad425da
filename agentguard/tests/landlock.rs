//! Landlock for real: processes that confine themselves and try.
//!
//! Confinement cannot be undone, so every case runs in a process of its own,
//! which is this binary again (`probe`). What is refused has an allowed twin,
//! and is tried without confinement as well: it must succeed there.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails; only functions marked #[test] are exempt by themselves"
)]

#[path = "landlock/cases.rs"]
mod cases;
#[path = "landlock/lab.rs"]
mod lab;
#[path = "landlock/probe.rs"]
mod probe;

use libtest_mimic::{Arguments, Completion, Trial};

fn main() {
    // Before any thread is started: Landlock confines one.
    if let Ok(mark) = std::env::var(probe::MARK) {
        probe::main(&mark);
        return;
    }
    let arguments = Arguments::from_args();
    let trials = cases::ALL
        .iter()
        .map(|case| {
            Trial::ignorable_test(case.name, move || {
                if !lab::is_landlock_expected() {
                    return Ok(Completion::ignored_with(
                        "`landlock` is not in /sys/kernel/security/lsm",
                    ));
                }
                if case.needs_root && !nix::unistd::geteuid().is_root() {
                    return Ok(Completion::ignored_with("needs root"));
                }
                (case.run)();
                Ok(Completion::Completed)
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

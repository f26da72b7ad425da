//! Runs tests in order over one suite, and prints what Rust's own harness prints.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::binary;
use crate::suite::Suite;

/// What a test needs of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Identity and network rules, which every host enforces.
    Network,
    /// Rules about files and programs, decided in LSM programs.
    Lsm,
    /// One of the kernels that committed figures are about.
    TestMachine,
}

impl Needs {
    /// Why this host does not offer it.
    fn missing(self, suite: &Suite) -> Option<&str> {
        match self {
            Self::Lsm => suite.without_lsm.as_deref(),
            Self::TestMachine if !binary::expects_lsm() => {
                Some("the committed figures are of the test machines' kernels")
            }
            Self::Network | Self::TestMachine => None,
        }
    }
}

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// `family::name`.
    pub name: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// What it does.
    pub run: fn(&mut Suite) -> Result<()>,
}

/// What the command line asks for.
#[derive(Debug, Default)]
struct Wanted {
    filters: Vec<String>,
    exact: bool,
    list: bool,
}

impl Wanted {
    fn read(arguments: &[String]) -> Self {
        let mut wanted = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--exact" => wanted.exact = true,
                "--list" => wanted.list = true,
                // Others of Rust's harness change nothing here: the tests share a
                // daemon, so they run one after the other and are shown as they go.
                flag if flag.starts_with('-') => {}
                filter => wanted.filters.push(filter.to_owned()),
            }
        }
        wanted
    }

    fn picks(&self, test: &Test) -> bool {
        let hit = |filter: &String| {
            if self.exact {
                test.name == filter
            } else {
                test.name.contains(filter.as_str())
            }
        };
        self.filters.is_empty() || self.filters.iter().any(hit)
    }
}

/// Runs the tests that the arguments pick.
#[must_use]
pub fn main(tests: &[Test], probe: &str, arguments: &[String]) -> ExitCode {
    let wanted = Wanted::read(arguments);
    let picked: Vec<&Test> = tests.iter().filter(|test| wanted.picks(test)).collect();
    if wanted.list {
        for test in picked {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("running {} tests", picked.len());
    if picked.is_empty() {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored");
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    let mut suite = match Suite::start(probe) {
        Ok(suite) => suite,
        Err(error) => {
            println!("the suite cannot start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    println!(
        "# the daemon answers after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let code = run(&picked, &mut suite);
    println!("# {:.1} s in all", begun.elapsed().as_secs_f64());
    code
}

fn run(tests: &[&Test], suite: &mut Suite) -> ExitCode {
    let mut failures = Vec::new();
    let (mut passed, mut ignored) = (0, 0);
    for test in tests {
        if let Some(why) = test.needs.missing(suite) {
            let why = why.lines().next().unwrap_or_default();
            println!("test {} ... ignored, {why}", test.name);
            ignored += 1;
            continue;
        }
        let begun = Instant::now();
        // A mistake in one test must not keep the suite from unloading.
        let result = catch_unwind(AssertUnwindSafe(|| (test.run)(suite)))
            .unwrap_or_else(|_| Err(anyhow!("the test itself panicked")));
        let took = begun.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                println!("test {} ... ok", test.name);
                passed += 1;
            }
            Err(error) => {
                println!("test {} ... FAILED", test.name);
                failures.push((test.name, error));
            }
        }
        println!("# {took:.1} s");
    }
    if !failures.is_empty() {
        println!("\nfailures:");
        for (name, error) in &failures {
            println!("\n---- {name} ----\n{error:?}");
        }
        println!("\nthe end of the daemon's log:\n{}", suite.daemon.log_end());
    }
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    let failed = failures.len();
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored");
    ExitCode::from(u8::from(failed > 0))
}

//! AgentGuard's development tasks, run as `cargo xtask <command>`.

mod apt;
mod bench;
mod demo;
mod ebpf;
mod guest;
mod held;
mod host;
mod package;
mod redteam;
mod sh;
mod test;
mod tools;
mod vm;
mod workloads;

use std::process::ExitCode;

use clap::Parser;

/// AgentGuard's development tasks.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    max_term_width = 100
)]
enum Task {
    /// Build the kernel programs and write the committed object (or compare with it)
    BuildEbpf(ebpf::Args),
    /// Measure what AgentGuard costs, beside its targets
    Bench(bench::Args),
    /// Build the Debian package and check it with lintian
    Package(package::Args),
    /// Try every known way around the file rules, on the test kernels
    Redteam(redteam::Args),
    /// Run every test: unit, property, native and on the test kernels
    Test(test::Args),
    /// Compare what the verifier takes for each program with tests/verifier.json, or renew that
    Verifier(held::Args),
    /// Boot test kernels under QEMU and run a command, or the privileged suite, inside
    Vm(vm::cli::Args),
    /// Run ordinary programs (git, cargo, PostgreSQL, stress-ng, ...) as agents, on a whole Debian
    Workloads(workloads::Args),
    /// Show the main job on real input: an agent at work, what it may and what is blocked
    Demo(demo::Args),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::BuildEbpf(args) => ebpf::main(&args),
        Task::Bench(args) => bench::main(&args),
        Task::Package(args) => package::main(&args),
        Task::Redteam(args) => redteam::main(&args),
        Task::Test(args) => test::main(&args),
        Task::Verifier(args) => held::main(&args),
        Task::Vm(args) => vm::main(&args),
        Task::Workloads(args) => workloads::main(&args),
        Task::Demo(args) => demo::main(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

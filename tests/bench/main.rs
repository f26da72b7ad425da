//! What `cargo xtask bench` runs: system calls timed in a test machine whose clock
//! counts instructions, and the decision function natively.

mod decide;
mod empty;
mod machine;
mod measure;
mod native;
mod policy;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agentguard-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["machine", empty] => machine::main(Path::new(empty)),
        ["native", decide] => native::main(Path::new(decide)),
        [measure::FLAG, file, udp, tcp, own] => measure::main(file, udp, tcp, own),
        [decide::FLAG, ref programs @ ..] => decide::main(programs),
        ["wait"] => measure::wait(),
        _ => bail!("started by `cargo xtask bench`, with arguments of its own"),
    }
}

//! What `cargo xtask bench` runs: system calls timed in a test machine whose clock
//! counts instructions; the decision function and sending natively.

mod decide;
mod deep;
mod empty;
mod held;
mod machine;
mod measure;
mod native;
mod network;
mod others;
mod policy;
mod sending;
mod stream;
mod tree;

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
        ["machine", empty, archive] => machine::main(Path::new(empty), archive),
        ["check", how @ ("compare" | "print")] => machine::check(how == "compare"),
        ["network"] => network::main(),
        [network::REFUSED] => network::refused(),
        ["native", decide] => native::main(Path::new(decide)),
        [measure::FLAG, calls, file, udp, tcp, own] => measure::main(calls, file, [udp, tcp, own]),
        [sending::FLAG, sink, echo, door, pit, elsewhere] => {
            sending::main([sink, echo, door, pit, elsewhere])
        }
        [tree::FLAG, archive, directory] => tree::main(archive, directory),
        [others::FLAG, file, ref command @ ..] => others::confined(file, command),
        [decide::FLAG, ref programs @ ..] => decide::main(programs),
        ["verifier", how @ ("compare" | "print")] => held::verifier(how == "compare"),
        ["wait"] => measure::wait(),
        _ => bail!("started by `cargo xtask bench`, with arguments of its own"),
    }
}

//! The decision function, repeated by the kernel for the task that asks: run as an
//! agent it shows what a decision costs, run without a tag what finding none costs.

use std::os::fd::RawFd;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

/// The argument that asks for this.
pub const FLAG: &str = "decide";

/// Runs in one call, and calls.
const REPEAT: u32 = 100_000;
const CALLS: usize = 21;
/// The command of `bpf(2)`.
const PROG_TEST_RUN: i64 = 10;

/// The beginning of `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// Runs the programs given as `NAME=FD` in turn; prints one JSON object.
///
/// # Errors
/// A program cannot be run.
pub fn main(programs: &[&str]) -> Result<()> {
    let mut series: Vec<(&str, RawFd, Vec<u32>, u32)> = Vec::new();
    for program in programs {
        let (name, fd) = program.split_once('=').context("NAME=FD is expected")?;
        series.push((name, fd.parse()?, Vec::new(), 0));
    }
    for call in 0..=CALLS {
        for (name, fd, times, answer) in &mut series {
            let (time, value) = run(*fd).with_context(|| format!("cannot run {name}"))?;
            *answer = value;
            // The first call warms caches up.
            if call > 0 {
                times.push(time);
            }
        }
    }
    let mut results = Map::new();
    for (name, _, mut times, answer) in series {
        times.sort_unstable();
        let result = json!({ "min": times[0], "median": times[CALLS / 2], "answer": answer });
        results.insert(name.to_owned(), result);
    }
    println!("{}", Value::Object(results));
    Ok(())
}

/// Nanoseconds a run, and what the last one returned.
fn run(program: RawFd) -> Result<(u32, u32)> {
    // The least that the kernel takes for a packet.
    let packet = [0u8; 64];
    let mut attributes = TestRun {
        prog_fd: program.cast_unsigned(),
        data_size_in: 64,
        data_in: packet.as_ptr() as u64,
        repeat: REPEAT,
        ..TestRun::default()
    };
    // SAFETY: a live attribute block of the size given, which points to live memory.
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_bpf,
            PROG_TEST_RUN,
            &raw mut attributes,
            size_of::<TestRun>(),
        )
    };
    if result < 0 {
        bail!(std::io::Error::last_os_error());
    }
    Ok((attributes.duration, attributes.retval))
}

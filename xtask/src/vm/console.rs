//! What the kernel said on the machine's console.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::sh;

/// Words with which a kernel reports that something is broken.
const FAULTS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops",
    "general protection",
    "Kernel panic",
    "detected stall",
    "UBSAN:",
    "refcount_t:",
];
/// Messages with such words that tell of the processor's or the configuration's limits.
const HARMLESS: &[&str] = &[
    "Unprivileged eBPF is enabled",
    "Spectre v2 mitigation leaves CPU vulnerable",
    "WARNING: can't access",
];

/// Lines of a console log in which the kernel reports a fault, each with what follows it.
pub fn warnings(console: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(console).with_context(|| format!("cannot read {}", console.display()))?;
    Ok(faults(&String::from_utf8_lossy(&bytes)))
}

/// What a console log tells of a machine's sudden end: the faults in it, else its last lines.
pub fn last_words(console: &Path) -> String {
    let log = fs::read(console).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let faults = faults(&log);
    if faults.is_empty() {
        return sh::tail(&log, 25);
    }
    faults[..faults.len().min(40)].join("\n")
}

fn faults(log: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut following = 0;
    for line in log.lines() {
        let is_fault = is_kernel_line(line)
            && FAULTS.iter().any(|fault| line.contains(fault))
            && !HARMLESS.iter().any(|known| line.contains(known));
        if is_fault {
            following = 20;
        }
        if is_fault || following > 0 {
            found.push(line.to_owned());
            following -= 1;
        }
    }
    found
}

/// Kernel lines start with a time in brackets; what programs write to the console does not.
fn is_kernel_line(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found_with_their_trace() {
        let log = "[    1.0] ok\n[    2.0] WARNING: CPU: 0 PID: 1 at kernel/x.c:1\n[    2.1] Call Trace:\n";
        assert_eq!(faults(log).len(), 2);
        assert!(faults("[ 3.0] BUG: kernel NULL pointer dereference\n").len() == 1);
    }

    #[test]
    fn other_lines_are_no_faults() {
        assert!(faults("WARNING: from a program\n").is_empty());
        let known = "[ 0.1] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on\n";
        assert!(faults(known).is_empty());
    }
}

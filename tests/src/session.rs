//! The processes of a session, as `/proc` has them: whose they are is the test's own
//! knowledge, and nothing that AgentGuard says.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

/// Process ids of a session with their numbers of threads; those that ended and wait to be
/// read are not among them.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn processes(session: u64) -> Result<BTreeMap<u64, u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ends meanwhile is not there.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // The command stands in brackets and may hold anything.
        let Some((_, fields)) = stat.rsplit_once(") ") else {
            continue;
        };
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        if fields[0] != "Z" && number(3) == Some(session) {
            found.insert(pid, number(17).context("no number of threads")?);
        }
    }
    Ok(found)
}

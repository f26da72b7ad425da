//! `agentguard daemon`.

use std::path::PathBuf;

use super::output::Output;
use super::{DaemonArgs, Ending, Outcome};
use crate::config::{self, Config, DEFAULT_FILE, Overrides};
use crate::{daemon, log};

pub(super) fn run(args: DaemonArgs) -> Outcome {
    let named = args.config.is_some();
    let file = args.config.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let config = config::load(&file, named)
        .map_err(|problems| Ending::failed(problems.to_string()))?
        .overridden(Overrides {
            agents_dir: args.agents,
            state_dir: args.state,
            runtime_dir: args.runtime,
            pins_dir: args.pins,
        });
    if args.unload {
        return unload(&config);
    }
    log::start(config.log.level, config.log.format)
        .map_err(|error| Ending::failed(error.to_string()))?;
    daemon::run(config).map_err(|error| Ending::failed(error.to_string()))
}

fn unload(config: &Config) -> Outcome {
    let removed = daemon::unload(config).map_err(|error| Ending::failed(error.to_string()))?;
    let mut out = Output::new();
    if removed.is_empty() {
        out.line("there was nothing of AgentGuard in the kernel")?;
    }
    for object in removed {
        out.line(&format!("removed {object}"))?;
    }
    let ledger = config.ledger_dir();
    out.line(&format!("the ledger stays in {}", ledger.display()))?;
    Ok(out.flush()?)
}

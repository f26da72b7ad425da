//! `agentguard completions` and `agentguard man`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Ending, Outcome};

pub(super) fn completions(shell: Shell) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "agentguard", &mut text);
    Ok(io::stdout().lock().write_all(&text)?)
}

pub(super) fn man(directory: Option<&Path>) -> Outcome {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return Ok(io::stdout().lock().write_all(&page)?);
    };
    let written = fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.map_err(|error| {
        Ending::failed(format!(
            "cannot write manual pages to {}: {error}",
            directory.display()
        ))
    })
}

use clap::CommandFactory;

use super::*;

#[test]
fn the_grammar_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_command_follows_with_or_without_dashes() {
    for line in [
        "agentguard run --agent a -- sh -c --x",
        "agentguard run --agent a sh -c --x",
    ] {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Run(args) = cli.command else {
            panic!("not run");
        };
        assert_eq!(args.command, ["sh", "-c", "--x"]);
    }
}

#[test]
fn usage_errors_have_their_exit_code() {
    for line in [
        "agentguard",
        "agentguard run --agent a",
        "agentguard run --agent a --lease 2x -- sh",
        "agentguard events --verdict maybe",
        "agentguard events --follow --last 5",
        "agentguard runs show nonsense",
    ] {
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), Exit::Usage as i32, "{line}");
    }
}

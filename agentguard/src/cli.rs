//! The command line: its grammar here, one file a command below.

mod adopt;
mod agents;
mod check;
pub(crate) mod client;
mod daemon;
mod doctor;
mod events;
mod output;
mod pages;
mod ps;
mod run;
mod runs;
mod status;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use uuid::Uuid;

use crate::config::DEFAULT_FILE;
use crate::policy::duration;

/// Exit codes, on which scripts may rely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line or the request is wrong.
    Usage = 2,
    /// Refused by policy or authority.
    Refused = 3,
    /// The daemon cannot be reached.
    Unreachable = 4,
    /// A check found problems.
    Problems = 5,
    /// `run`: the command cannot be executed, as shells say it.
    NotExecutable = 126,
    /// `run`: there is no such command, as shells say it.
    NotFound = 127,
}

/// Why a command ended without success.
#[derive(Debug)]
pub struct Ending {
    exit: Exit,
    /// For standard error; empty if everything is said already.
    message: String,
}

impl Ending {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Everything is on standard output already.
    const fn silent(exit: Exit) -> Self {
        Self {
            exit,
            message: String::new(),
        }
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Whoever read the output has seen enough.
            return Self::silent(Exit::Done);
        }
        Self::failed(error.to_string())
    }
}

type Outcome = Result<(), Ending>;

/// Identity for AI agents, held and enforced by the kernel.
#[derive(Debug, Parser)]
#[command(
    name = "agentguard",
    bin_name = "agentguard",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 refused by policy or authority, 4 daemon unreachable, 5 check found problems."
)]
pub struct Cli {
    /// The daemon's socket
    #[arg(
        long,
        global = true,
        env = "AGENTGUARD_SOCKET",
        value_name = "PATH",
        default_value = "/run/agentguard/agentguard.sock"
    )]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon, or remove AgentGuard from the kernel
    #[command(after_help = "\
Examples:
  agentguard daemon
  agentguard daemon --state /tmp/s --runtime /tmp/r --pins /sys/fs/bpf/test
  agentguard daemon --unload")]
    Daemon(DaemonArgs),
    /// Run a command as an agent
    #[command(after_help = "\
The command replaces this process: no supervisor stays in between, and its exit
code is the command's own. 127: no such command, 126: it cannot be executed.

Examples:
  agentguard run --agent invoice-summarizer -- python3 summarize.py
  agentguard run --agent coder --task ENG-42 --on-behalf-of alice --lease 1h -- claude")]
    Run(RunArgs),
    /// Make a process that runs already, and all its descendants, an agent's
    #[command(after_help = "\
What it had open is listed: descriptors are decided at each use from now on, what is
mapped, shared and writable is not. For operators. `agentguard run` leaves no such gap.

Example:
  agentguard adopt 4711 --agent coder --task ENG-42")]
    Adopt(AdoptArgs),
    /// List the processes that run as agents
    Ps(JsonArgs),
    /// Look at runs
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Look at agents, retire and reinstate them
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// Show what agents did and what was denied
    #[command(after_help = "\
Examples:
  agentguard events --follow --verdict deny
  agentguard events --agent coder --last 20
  agentguard events --follow --json | jq .object.path")]
    Events(EventsArgs),
    /// Check and load manifests
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show how the daemon does
    Status(JsonArgs),
    /// Show what protects this host, and what does not
    #[command(after_help = "\
Works without a daemon too: then it says what this host could offer.
Exit code 5: some protection is not there in full.")]
    Doctor(JsonArgs),
    /// Print completions for a shell
    #[command(after_help = "\
Example:
  agentguard completions bash > /usr/share/bash-completion/completions/agentguard")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write all of them to a directory
    Man {
        /// Directory for the pages of all commands
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct DaemonArgs {
    /// The configuration file; the default one may be absent
    #[arg(long, value_name = "FILE", help = format!("The configuration file [default: {DEFAULT_FILE}, which may be absent]"))]
    config: Option<PathBuf>,
    /// Directory of manifests
    #[arg(long, value_name = "DIR")]
    agents: Option<PathBuf>,
    /// Directory of the ledger and of what is known about runs
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Directory of the socket
    #[arg(long, value_name = "DIR")]
    runtime: Option<PathBuf>,
    /// Directory of pinned programs and maps, on a BPF file system
    #[arg(long, value_name = "DIR")]
    pins: Option<PathBuf>,
    /// Remove programs and maps from the kernel and exit; the ledger stays
    #[arg(long)]
    unload: bool,
}

/// Which run is to begin.
#[derive(Debug, Args)]
struct WantedArgs {
    /// The agent
    #[arg(long, value_name = "NAME")]
    agent: String,
    /// Its environment, where the name exists in several
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: Option<String>,
    /// The work item that the run is for
    #[arg(long, value_name = "REF")]
    task: Option<String>,
    /// The person for whom the run acts
    #[arg(long, value_name = "WHO")]
    on_behalf_of: Option<String>,
    /// Longest life of the run, up to what the manifest allows
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    lease: Option<Duration>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    wanted: WantedArgs,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct AdoptArgs {
    /// The process
    #[arg(value_name = "PID")]
    pid: u32,
    #[command(flatten)]
    wanted: WantedArgs,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct JsonArgs {
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum RunsCommand {
    /// List live runs and the newest ended ones
    List {
        /// Only runs of this agent
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        /// How many ended runs to list
        #[arg(long, value_name = "NUMBER", default_value_t = 20)]
        ended: usize,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one run
    Show {
        /// Run id
        run: Uuid,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum AgentsCommand {
    /// List the agents, in force and not
    ///
    /// States: active (has a live run), idle (has none), dormant (had none for long, see
    /// `dormant_after` in agentguard.yaml), absent (its manifest is gone: confirm with
    /// `agents retire`, or put the file back), retired.
    List(JsonArgs),
    /// Show one agent and the versions of its manifest
    Show {
        /// The agent
        #[arg(value_name = "NAME")]
        agent: String,
        /// Its environment, where the name exists in several
        #[arg(long, value_name = "ENVIRONMENT")]
        environment: Option<String>,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// End an agent: no new runs, live ones are revoked and their processes killed
    #[command(after_help = "\
A manifest that is still there does not bring it back; `agents reinstate` does.

Example:
  agentguard agents retire invoice-ocr --reason 'replaced by invoice-summarizer, OPS-7'")]
    Retire(DecideArgs),
    /// Take a retirement back
    #[command(after_help = "\
The agent may begin runs again as soon as its manifest is in force. Runs that were
revoked stay so.

Example:
  agentguard agents reinstate invoice-ocr --reason 'still needed for archives, OPS-9'")]
    Reinstate(DecideArgs),
}

#[derive(Debug, Args)]
struct DecideArgs {
    /// The agent
    #[arg(value_name = "NAME")]
    agent: String,
    /// Its environment, where the name exists in several
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct EventsArgs {
    /// Show events as they happen
    #[arg(long, short)]
    follow: bool,
    /// Only events of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only events of this run
    #[arg(long, value_name = "RUN")]
    run: Option<Uuid>,
    /// Only decisions with this verdict
    #[arg(long, value_enum)]
    verdict: Option<VerdictArg>,
    /// How many past events to show [default: 100]
    #[arg(long, value_name = "NUMBER", conflicts_with = "follow")]
    last: Option<usize>,
    /// Write JSON, one event a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VerdictArg {
    Allow,
    Ask,
    Deny,
}

impl VerdictArg {
    const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Check manifests without loading them; needs neither daemon nor root
    #[command(after_help = "\
All problems of all files are reported at once. Exit code 5: there are problems.

Examples:
  agentguard policy check
  agentguard policy check ./manifests coder.yaml")]
    Check {
        /// Files and directories
        #[arg(value_name = "PATH", default_value = "/etc/agentguard/agents.d")]
        paths: Vec<PathBuf>,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Have the daemon read its manifests again
    ///
    /// Takes effect at once, for running agents too. If there are problems, they
    /// are shown, nothing changes, and the exit code is 1.
    Reload(JsonArgs),
}

/// Does what the command line asks for.
#[must_use]
pub fn dispatch(cli: Cli) -> ExitCode {
    let socket = cli.socket;
    let outcome = match cli.command {
        Command::Daemon(args) => daemon::run(args),
        Command::Run(args) => run::run(&socket, args),
        Command::Adopt(args) => adopt::adopt(&socket, args),
        Command::Ps(args) => ps::run(&socket, args.json),
        Command::Runs(RunsCommand::List { agent, ended, json }) => {
            runs::list(&socket, agent.as_deref(), ended, json)
        }
        Command::Runs(RunsCommand::Show { run, json }) => runs::show(&socket, run, json),
        Command::Agents(command) => agents::run(&socket, command),
        Command::Events(args) => events::run(&socket, &args),
        Command::Policy(PolicyCommand::Check { paths, json }) => check::run(&paths, json),
        Command::Policy(PolicyCommand::Reload(args)) => check::reload(&socket, args.json),
        Command::Status(args) => status::run(&socket, args.json),
        Command::Doctor(args) => doctor::run(&socket, args.json),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { directory } => pages::man(directory.as_deref()),
    };
    match outcome {
        Ok(()) => ExitCode::from(Exit::Done as u8),
        Err(ending) => {
            if !ending.message.is_empty() {
                output::complain(&ending.message);
            }
            ExitCode::from(ending.exit as u8)
        }
    }
}

#[cfg(test)]
mod tests;

//! The program `testbed`: a whole cluster on this machine. `make cluster` calls it.

mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use testbed::bring_up::{self, Parts};
use testbed::error::Result;
use testbed::inside::Node;
use testbed::settings::Settings;
use testbed::state::State;
use testbed::supervisor;

/// A whole cluster on this machine, in namespaces of its own.
#[derive(Debug, Parser)]
#[command(name = "testbed")]
struct Cli {
    /// The folder that all of the cluster's files are in.
    #[arg(long, value_name = "DIR", env = "TESTBED_STATE")]
    state: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring a cluster up, with podwire installed.
    Up {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        parts: PartsArguments,
    },
    /// Take it down; nothing of it stays but its logs. It may have crashed before.
    Down,
    /// Tell what runs.
    Status,
    /// Show the end of what the cluster's programs said.
    Logs {
        /// Of this program alone, such as `kubelet`.
        program: Option<String>,
        /// Of this node alone, by its number.
        #[arg(long)]
        node: Option<u8>,
        /// As many lines of each.
        #[arg(long, default_value_t = 20)]
        lines: usize,
    },
    /// Run kubectl as the cluster's administrator.
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a program on a node, by its number; number 0 is outside of the cluster.
    On {
        node: u8,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// What the first process of a cluster does.
    #[command(hide = true)]
    Supervise,
    /// What the first process of a node does.
    #[command(hide = true)]
    Node { number: u8 },
}

#[derive(Debug, Args)]
struct PartsArguments {
    /// Folder of the programs that others made.
    #[arg(long, value_name = "DIR", env = "PEERS_BIN_DIR")]
    peers: PathBuf,
    /// Folder of the images, as archives.
    #[arg(long, value_name = "DIR", env = "TESTBED_IMAGES")]
    images: PathBuf,
    /// podwire's configurations.
    #[arg(long, value_name = "DIR", default_value = "conf")]
    conf: PathBuf,
}

fn main() -> ExitCode {
    let Cli { state, command } = Cli::parse();
    match run(&state, command) {
        Ok(code) => code,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &std::path::Path, command: Command) -> Result<ExitCode> {
    let state = State::at(folder)?;
    match command {
        Command::Up { settings, parts } => {
            let PartsArguments { peers, images, conf } = parts;
            let parts = Parts { peers, images, conf };
            bring_up::up(&state, supervisor::OURSELVES.as_ref(), settings, &parts)?;
        }
        Command::Down => bring_up::down(&state)?,
        Command::Status => report::status(&state)?,
        Command::Logs { program, node, lines } => report::logs(&state, program, node, lines)?,
        Command::Kubectl { arguments } => {
            return attend(&state, 1, [vec!["kubectl".to_owned()], arguments].concat());
        }
        Command::On { node, arguments } => return attend(&state, node, arguments),
        Command::Supervise => supervisor::supervise(&state)?,
        Command::Node { number } => supervisor::run_node(&state, number)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a program where it is asked for, and ends as it does.
fn attend(state: &State, number: u8, arguments: Vec<String>) -> Result<ExitCode> {
    let (_, supervisor) = state.running()?;
    let node = match number {
        0 => Node::world(supervisor),
        number => Node::find(supervisor, number)?,
    };
    let code = node.attend(&arguments)?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

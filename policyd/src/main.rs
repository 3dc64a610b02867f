//! The program `policyd`: see `docs/policyd.md`.

mod alone;
mod ask;
mod cleaning;
mod cli;
mod compared;
mod masquerading;
mod networking;
mod run;
mod trial;
mod uninstalling;

use std::process::ExitCode;

use cluster::exit_code;
use mimalloc::MiMalloc;

use cli::{Cli, Command};

/// That of musl asks the kernel for every larger block, and takes one lock for all threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let Cli { command, run } = Cli::read();
    let result = match command {
        None => run::run(run),
        Some(Command::Cleanup(cleanup)) => cleaning::run(&run, cleanup),
        Some(Command::EnableForwarding { families }) => networking::enable_forwarding(&families),
        Some(Command::Uninstall(uninstall)) => uninstalling::run(&run, &uninstall),
        Some(Command::Preflight) => return trial::run(&run),
        Some(Command::Explain(explain)) => return exit_code(explain.run(&run)),
        Some(Command::Lint(lint)) => return exit_code(lint.run()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", policyd::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

//! The program `proxyd`.

mod ask;
mod cli;
mod options;
mod run;

use std::process::ExitCode;

use clap::Parser;
use cluster::exit_code;
use mimalloc::MiMalloc;

use cli::{Cli, Command};

/// That of musl asks the kernel for every larger block, and takes one lock for all threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let Cli { command, run } = Cli::parse();
    let result = match command {
        None => run::run(run),
        Some(Command::Cleanup) => run::cleanup(),
        Some(Command::Takeover) => run::takeover(),
        Some(Command::Explain(explain)) => return exit_code(explain.run(run)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", cluster::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

//! The program `vm`: the tests on other kernels, in virtual machines. `make test-vm` calls it.

mod archive;
mod built;
mod choice;
mod error;
mod guest;
mod kernel;
mod machine;
mod modules;
mod plan;
mod report;
mod results;
mod run;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;
use crate::run::Arguments;

/// The tests on other kernels, in virtual machines.
#[derive(Debug, Parser)]
#[command(name = "vm")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run them.
    Run(Arguments),
    /// What the first process of a virtual machine does.
    #[command(hide = true)]
    Guest,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Guest => guest(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn guest() -> Result<bool> {
    match guest::run()? {}
}

//! The program `proxyd`.

mod alone;
mod ask;
mod cleaning;
mod cli;
mod options;
mod reload;
mod run;
mod taking_over;

use std::process::ExitCode;

use clap::Parser;
use cluster::exit_code;
use mimalloc::MiMalloc;

use cli::{Cli, Command};

/// That of musl asks the kernel for every larger block, and takes one lock for all threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Memory that is free goes back to the kernel at once. What lists of all objects need for a moment would be kept else, and is as
/// much again as what stays.
#[expect(unsafe_code, reason = "an option of the allocator, set before there are threads")]
fn return_free_memory() {
    unsafe extern "C" {
        fn mi_option_set(option: std::ffi::c_int, value: std::ffi::c_long);
    }
    /// `mi_option_purge_delay`: for how many milliseconds it is kept.
    const PURGE_DELAY: std::ffi::c_int = 15;
    // SAFETY: mimalloc's own function, linked with it, sets a number.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
}

fn main() -> ExitCode {
    return_free_memory();
    let Cli { command, run } = Cli::parse();
    let result = match command {
        None => run::run(run),
        Some(Command::Cleanup(options)) => cleaning::run(&run, options),
        Some(Command::Takeover) => taking_over::once(),
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

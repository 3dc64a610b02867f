//! The podwire program.

use std::process::ExitCode;

/// See [`allocator`]: half of a plugin's time would go into musl's.
#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator::new();

fn main() -> ExitCode {
    podwire::run(&std::env::args_os().next().unwrap_or_default(), &ALLOCATOR)
}

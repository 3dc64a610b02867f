//! What the benchmarks share: medians, tables, and what the machine is.
#![expect(clippy::disallowed_methods, reason = "programs are asked for their versions")]

mod machine;
mod stats;
mod table;

pub use machine::{load, machine, output};
pub use stats::{Series, median};
pub use table::{number, ratio, table};

//! What the benchmarks share: folders of their own, medians, tables, and what the machine is.
#![expect(clippy::disallowed_methods, reason = "programs are asked for their versions")]

mod isolation;
mod machine;
mod stats;
mod table;

pub use isolation::isolate;
pub use machine::{load, machine, output};
pub use stats::{Series, median};
pub use table::{number, ratio, table};

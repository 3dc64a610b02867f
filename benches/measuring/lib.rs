//! What the benchmarks share: folders of their own, connections, medians, memory, targets, tables, and what the machine is.
#![expect(clippy::disallowed_methods, reason = "programs are asked for their versions")]

mod connections;
mod dormant;
mod isolation;
mod machine;
mod memory;
mod stats;
mod table;
mod target;

pub use connections::{Connections, connect};
pub use dormant::dormant;
pub use isolation::isolate;
pub use machine::{load, machine, output};
pub use memory::Memory;
pub use stats::{Series, median, spread};
pub use table::{number, ratio, table};
pub use target::{Bound, Target};

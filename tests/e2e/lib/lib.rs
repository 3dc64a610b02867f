//! A cluster under test: pods in it, traffic between them, and what the machine around it looks like.

mod bed;
pub mod machine;
mod nodes;
pub mod objects;
pub mod steady;
pub mod traffic;

pub use bed::{Bed, Pod, await_that, conf, peer, state};

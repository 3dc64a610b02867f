//! NetworkPolicy: who may talk to whom, decided from Kubernetes objects.
//!
//! [`model`] is the world as policy needs it, with all defaulting and validation done;
//! [`evaluate()`] says of one packet whether it is allowed, and why. Everything here is pure: no
//! I/O, no clock.

pub mod evaluate;
pub mod model;
pub mod source;
#[cfg(test)]
mod tests;

pub use evaluate::{Packet, Transport, Verdict, evaluate};
pub use model::World;

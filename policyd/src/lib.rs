//! NetworkPolicy: who may talk to whom, decided from Kubernetes objects.
//!
//! [`model`] is the world as policy needs it, with all defaulting and validation done;
//! [`evaluate()`] says of one packet whether it is allowed, and why: the oracle. [`index`] keeps
//! track of what the objects mean for this node, change by change, and makes the [`plan`] of what it
//! enforces. All of these are pure: no I/O, no clock.

pub mod agent;
pub mod attachment;
pub mod attachments;
pub mod chained;
pub mod closed;
pub mod counters;
pub mod dataplane;

pub mod evaluate;
pub mod explain;
pub mod frames;
pub mod health;
pub mod index;
pub mod ingress;
pub mod iptables;
pub mod lint;
pub mod live;
pub mod masquerade;
pub mod metrics;
pub mod model;
pub mod nftables;
pub mod node_network;
mod own_chain;
pub mod plan;
pub mod preflight;
pub mod recorder;
pub mod source;
#[cfg(test)]
mod tests;
mod words;

pub use cluster::chain;
pub use evaluate::{Packet, Transport, Verdict, evaluate};
pub use model::World;

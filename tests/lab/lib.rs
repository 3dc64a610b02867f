//! The laboratory: nodes and pods as network namespaces of this process, calls of CNI plugins in
//! them, and dumps of the world that can be compared.
//!
//! Nothing here can leak: a namespace lives as long as a descriptor of the test process, and what a
//! plugin writes below `/run` and `/var/lib` lands in a directory that goes with its [`Node`].
//! A missing privilege or tool panics; nothing is ever skipped.

mod call;
mod churn;
pub mod cluster;
mod daemon;
mod diff;
pub mod frames;
mod no_ipv6;
mod node;
mod peak;
pub mod probe;
mod process;
pub mod sockets;
mod space;
mod suite;
mod switch;
pub mod wire;
pub mod world;

pub use call::{Call, CniError, Reply, Started, addresses};
pub use churn::Churn;
pub use daemon::Daemon;
pub use diff::{Difference, difference};
pub use no_ipv6::without_ipv6;
pub use node::{Node, Options, Pod};
pub use process::{Finished, Running, program};
pub use space::Space;
pub use suite::{
    PLUGINS, Suite, all_rules, backend, bound, by_nftables, has_iptables, iptables_rules, let_pass,
    nft_parts, nftables_rules, peer, policy_rules, policyd, proxyd, slowed, workspace,
};
pub use switch::Switch;
pub use world::World;

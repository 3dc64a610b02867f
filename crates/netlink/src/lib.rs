//! A small synchronous rtnetlink client, and what is needed of netfilter.
//!
//! A [`Socket`] belongs to the network namespace in which it was opened, whichever one its thread
//! is in later. What to do is a value ([`Request`]); [`Socket::execute`] sends any number of them
//! in one system call and asks for an acknowledgement only of the last, because a refusal is
//! always answered. Replies are checked strictly, and the kernel's own explanation (extended
//! acknowledgement) becomes part of the error.

mod address;
mod answer;
mod attributes;
pub mod conntrack;
mod datagram;
mod error;
mod hardware_address;
mod held_route;
mod host_interface;
pub mod ipset;
mod kept_route;
mod link;
mod monitor;
mod neighbour;
mod netconf;
mod netfilter;
pub mod nflog;
pub mod nftables;
mod request;
mod route;
mod routing_changes;
mod rule;
mod socket;
mod subscription;
mod traffic_control;
mod tuple;
pub mod xtables;

pub use address::{Address, AddressOptions};
pub use error::Error;
pub use hardware_address::HardwareAddress;
pub use held_route::HeldRoute;
pub use host_interface::{HostInterface, HostInterfaces};
pub use kept_route::{Hop, KeptRoute};
pub use link::{
    BridgeFiltering, BridgeSpec, Link, LinkChange, LinkChanges, PortOptions, VethSpec,
    has_bridge_netfilter,
};
pub use monitor::Monitor;
pub use neighbour::{FdbEntry, Neighbour};
pub use netlink_packet_route::link::State as OperState;
pub use request::Request;
pub use route::Route;
pub use routing_changes::RoutingChanges;
pub use rule::Rule;
pub use socket::Socket;
pub use subscription::Event;
pub use traffic_control::{Discipline, NetworkLimit, OtherEnd, TokenBucket};
pub use tuple::{Layer4, Tuple};

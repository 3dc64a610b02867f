//! What the CNI plugin podwire-policy and policyd tell each other of containers' attachments.
//!
//! The plugin connects to policyd's unix socket, writes one [`Request`] and reads one [`Answer`]:
//! each a JSON document on a line of its own. Fields that a reader does not know are ignored, so a
//! newer side may add some; [`VERSION`] changes only when old readers would misunderstand. What is
//! attached is also in files ([`Files`]), one for each container: policyd reads them when it starts,
//! and the plugin writes them while policyd is away.

mod alive;
mod client;
mod error;
mod files;
pub mod kernel;
mod message;

use std::net::IpAddr;

pub use alive::{last_alive, show_alive};
pub use client::ask;
pub use error::Error;
pub use files::Files;
pub use message::{Answer, Attachment, HostInterface, Key, Pod, Request, VERSION};

/// Where policyd listens.
pub const SOCKET: &str = "/run/podwire/policyd.sock";
/// Where the files are.
pub const FOLDER: &str = "/run/podwire/attachments";
/// A file that policyd touches every few seconds for as long as it works: its modification time is
/// when policyd was last seen.
pub const ALIVE: &str = "/run/podwire/policyd.alive";
/// Bytes of the longest line that either side reads: 5,000 valid attachments, where a node has
/// some hundred.
pub const LINE_LIMIT: u64 = 1 << 20;
/// The sets of the addresses, first IPv4, then IPv6, that the node's gate lets pass: policyd puts one
/// in when its rules are in place, and both sides take it out when its container goes.
pub const GATE_SETS: [&str; 2] = ["podwire-4-programmed", "podwire-6-programmed"];

/// The table of nf_tables, of the family inet, that the gate is in where policyd uses that and no sets.
pub const GATE_TABLE: &str = "podwire";

/// The maps of that table that have the addresses which the gate lets pass, by what comes from them and what
/// goes to them; and the chain that all else of the ranges goes to, which is there as long as there is a gate
/// for the address's family.
#[must_use]
pub const fn gate_of_table(address: &IpAddr) -> ([&'static str; 2], &'static str) {
    if address.is_ipv4() {
        (["from-4", "to-4"], "PODWIRE-GATE-4")
    } else {
        (["from-6", "to-6"], "PODWIRE-GATE-6")
    }
}

/// The table of nf_tables, of the family netdev, that keeps interfaces of the host closed: the plugin
/// closes one by which a container is attached while policyd is away, policyd opens it when its rules
/// are in place, and the plugin when its container goes.
pub const CLOSED_TABLE: &str = "podwire";

/// The set of an address's family.
#[must_use]
pub const fn gate_set(address: &IpAddr) -> &'static str {
    let [ipv4, ipv6] = GATE_SETS;
    if address.is_ipv4() { ipv4 } else { ipv6 }
}

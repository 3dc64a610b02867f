//! What is asked about.

use std::net::IpAddr;

use crate::model::Protocol;

/// The first packet of a connection, as a node that forwards it sees it: after a Service's address
/// has become an endpoint's, and before the source is masqueraded. Later packets, replies and the
/// ICMP errors that belong to it share its fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// What the packet carries.
    pub transport: Transport,
    /// The node that sends it by itself (its processes, the kubelet's probes, pods of the node's
    /// network), by its name; `None` when a pod or somebody outside of the cluster does.
    pub from_node: Option<String>,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A protocol with ports. Policy does not look at the source port.
    Port {
        /// The protocol.
        protocol: Protocol,
        /// The destination port.
        destination_port: u16,
    },
    /// ICMP, or ICMPv6 between IPv6 addresses.
    Icmp {
        /// The message's type.
        message_type: u8,
    },
    /// Another protocol.
    Other {
        /// Its number, as IANA assigns them.
        number: u8,
    },
}

impl Packet {
    /// Whether it belongs to neighbour discovery (RFC 4861: 133 to 137) or to multicast listener
    /// discovery (RFC 2710 and 3810: 130 to 132 and 143).
    #[must_use]
    pub const fn is_neighbour_discovery(&self) -> bool {
        self.destination.is_ipv6()
            && matches!(self.transport, Transport::Icmp { message_type: 130..=137 | 143 })
    }
}

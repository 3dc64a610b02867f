//! What is asked about.

use std::net::IpAddr;

use crate::model::Protocol;

/// The first packet of a connection, as a node that forwards it sees it: after a Service's address
/// has become an endpoint's, and before the source is masqueraded. Later packets, replies and the
/// ICMP errors that belong to it share its fate.
///
/// Neighbour discovery (RFC 4861) and multicast listener discovery (RFC 2710, RFC 3810) never leave
/// their link, and are no more asked about than ARP is. What has their types and has been forwarded,
/// which its hop limit shows, is ICMP like any other.
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
    Icmp,
    /// Another protocol.
    Other {
        /// Its number, as IANA assigns them.
        number: u8,
    },
}

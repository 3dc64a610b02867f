//! Between whom packets go.

mod packet;

use std::net::IpAddr;

/// Protocol number of ICMP.
pub(crate) const ICMP: u8 = 1;
/// Protocol number of ICMPv6.
pub(crate) const ICMPV6: u8 = 58;

/// Between whom, and by which protocol, packets of one direction go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Where from.
    pub source: IpAddr,
    /// Where to.
    pub destination: IpAddr,
    /// Number of the protocol above IP, such as 6 for TCP.
    pub protocol: u8,
    /// What that protocol says.
    pub layer4: Layer4,
}

/// What the protocol above IP says of where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer4 {
    /// Of TCP, UDP, SCTP and others that have ports.
    Ports {
        /// Where from.
        source: u16,
        /// Where to.
        destination: u16,
    },
    /// Of ICMP and ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier of an echo and its reply.
        id: u16,
    },
    /// Nothing, or nothing that is known.
    Unknown,
}

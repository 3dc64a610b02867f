//! What rules ask of packets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::iptables::{Packets, PortRange, Side};

/// What must be so for a rule to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It is of IPv4, or else of IPv6; in a table of both.
    Family {
        /// Whether of IPv4.
        is_ipv4: bool,
    },
    /// The address is in the network. In a table of both families a packet of the other one does not
    /// match.
    Address(Side, IpNetwork),
    /// The address is of the same family and not in the network.
    NotAddress(Side, IpNetwork),
    /// It is one that a network of the node has for all in it. Not in a table of frames.
    ToBroadcast,
    /// The destination is an address of this node. Not in a table of frames.
    ToLocal,
    /// The destination is no address of this node. Not in a table of frames.
    NotToLocal,
    /// It comes from an address of this node. Not in a table of frames.
    FromLocal,
    /// What these say of it, one after the other, is in the set.
    In(Vec<Field>, String),
    /// It is not.
    NotIn(Vec<Field>, String),
    /// It is of ARP; in a table of frames.
    Arp,
    /// The frame is of another type than this one; of one with a tag the type is the tag's.
    NotFrameType(FrameType),
    /// The bytes from this place of its network header on, or behind that, are these: 16 at most.
    HeaderBytes {
        /// Counted from the header's beginning.
        place: u32,
        /// The bytes.
        value: Vec<u8>,
    },
    /// It is a fragment, of IPv4. Needs a [`Match::Address`] of it.
    Fragment,
    /// It has a header of fragments, of IPv6.
    FragmentHeader,
    /// What it carries is of this number: ICMP (1) or ICMPv6 (58), behind all headers of IPv6.
    Protocol(u8),
    /// It is of this protocol with ports (TCP 6, UDP 17, SCTP 132), to one of these.
    DestinationPort(u8, PortRange),
    /// The same, to one of the ports in this set.
    DestinationPortIn(u8, String),
    /// It is of TCP, and begins no connection.
    TcpWithoutSyn,
    /// It is of SCTP, and begins no association.
    SctpWithoutInit,
    /// It is a message of ICMPv6 of this type.
    Icmp6Type(u8),
    /// It is of IPv6 and has this hop limit.
    HopLimit(u8),
    /// It is longer than so many bytes, from the network header on.
    LongerThan(u32),
    /// The first byte of what its network header carries is this one; no fragment but the first has it.
    FirstByte(u8),
    /// It came through this interface.
    InInterface(String),
    /// It came through this link, and no other that gets its name later.
    InLink {
        /// The link's index.
        link: u32,
        /// Its name.
        name: String,
    },
    /// It did not come through this interface.
    NotInInterface(String),
    /// It came through an interface whose name begins so.
    InInterfaces(String),
    /// It came in a frame of this kind.
    Frame(FrameKind),
    /// The hardware address that it comes from.
    HardwareSource([u8; 6]),
    /// Its connection.
    Connection(Packets),
    /// It begins a connection.
    New,
    /// Its connection goes to another address or port than it was begun with (DNAT).
    Translated,
    /// These bits of its mark are set.
    Mark(u32),
    /// These bits of its connection's mark are set.
    ConnectionMark(u32),
    /// No more than so many a minute, in bursts of as many.
    AtMostEachMinute(u32),
    /// As chance has it: so many of a million.
    ByChance {
        /// How many.
        of_million: u32,
    },
}

/// Types of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameType {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// ARP.
    Arp,
}

/// Whom a frame is for, by its hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A group.
    Multicast,
    /// All.
    Broadcast,
}

/// What a packet is asked for, to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Its address of IPv4. Packets of other kinds are not looked up.
    Ipv4(Side),
    /// The same of IPv6.
    Ipv6(Side),
    /// The first address of the network that its address is in. Packets of the other family are not looked up.
    Network {
        /// Which of its addresses.
        side: Side,
        /// Whether that is of IPv4.
        is_ipv4: bool,
        /// How many bits the network has.
        prefix: u8,
    },
    /// The number of its protocol.
    Protocol,
    /// The port that it is for, of TCP, UDP or SCTP.
    DestinationPort,
    /// The interface that it came through.
    InInterface,
    /// The interface that it leaves through.
    OutInterface,
    /// Its priority (`skb->priority`).
    Priority,
    /// A number below this one, as chance has it for each packet anew.
    Random {
        /// More than 0.
        below: u32,
    },
    /// A number below this one, which is the same for all packets from the same address. Packets of the other family are
    /// not looked up.
    SourceHash {
        /// Whether that is of IPv4.
        is_ipv4: bool,
        /// More than 0.
        below: u32,
    },
}

impl Field {
    /// The field of an address.
    #[must_use]
    pub const fn address(side: Side, is_ipv4: bool) -> Self {
        if is_ipv4 { Self::Ipv4(side) } else { Self::Ipv6(side) }
    }
}

/// The address with as many leading bits as a prefix has.
#[must_use]
pub fn mask(is_ipv4: bool, prefix: u8) -> IpAddr {
    let spare = |bits: u8| u32::from(bits.saturating_sub(prefix));
    if is_ipv4 {
        Ipv4Addr::from(u32::MAX.checked_shl(spare(32)).unwrap_or_default()).into()
    } else {
        Ipv6Addr::from(u128::MAX.checked_shl(spare(128)).unwrap_or_default()).into()
    }
}

impl fmt::Display for Match {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family { is_ipv4: true } => formatter.write_str("meta nfproto ipv4"),
            Self::Family { is_ipv4: false } => formatter.write_str("meta nfproto ipv6"),
            Self::Address(side, network) => address(formatter, *side, "", network),
            Self::NotAddress(side, network) => address(formatter, *side, "!= ", network),
            Self::ToBroadcast => formatter.write_str("fib daddr type broadcast"),
            Self::ToLocal => formatter.write_str("fib daddr type local"),
            Self::NotToLocal => formatter.write_str("fib daddr type != local"),
            Self::FromLocal => formatter.write_str("fib saddr type local"),
            Self::In(fields, set) => write!(formatter, "{} @{set}", Together(fields)),
            Self::NotIn(fields, set) => write!(formatter, "{} != @{set}", Together(fields)),
            Self::Arp => formatter.write_str("meta protocol arp"),
            Self::NotFrameType(FrameType::Ipv4) => formatter.write_str("ether type != ip"),
            Self::NotFrameType(FrameType::Ipv6) => formatter.write_str("ether type != ip6"),
            Self::NotFrameType(FrameType::Arp) => formatter.write_str("ether type != arp"),
            Self::HeaderBytes { place, value } => {
                let number = value.iter().fold(0, |number, byte| number << 8 | u128::from(*byte));
                write!(formatter, "@nh,{},{} {number:#x}", place * 8, value.len() * 8)
            }
            Self::Fragment => formatter.write_str("ip frag-off & 16383 != 0"),
            Self::FragmentHeader => formatter.write_str("exthdr frag exists"),
            Self::Protocol(number) => write!(formatter, "meta l4proto {}", Protocol(*number)),
            Self::DestinationPort(protocol, PortRange { first, last }) => {
                write!(formatter, "{} dport {first}", Protocol(*protocol))?;
                if first == last { Ok(()) } else { write!(formatter, "-{last}") }
            }
            Self::DestinationPortIn(protocol, set) => {
                write!(formatter, "{} dport @{set}", Protocol(*protocol))
            }
            Self::TcpWithoutSyn => formatter.write_str("tcp flags != syn / fin,syn,rst,ack"),
            Self::SctpWithoutInit => formatter.write_str("meta l4proto sctp @th,96,8 != 0x1"),
            Self::Icmp6Type(kind) => write!(formatter, "icmpv6 type {}", Icmp6Type(*kind)),
            Self::HopLimit(hops) => write!(formatter, "ip6 hoplimit {hops}"),
            Self::LongerThan(bytes) => write!(formatter, "meta length > {bytes}"),
            Self::FirstByte(value) => write!(formatter, "@th,0,8 {value:#x}"),
            Self::InInterface(name) => write!(formatter, "iifname \"{name}\""),
            // nft prints the index where no link has it any more.
            Self::InLink { name, .. } => write!(formatter, "iif \"{name}\""),
            Self::NotInInterface(name) => write!(formatter, "iifname != \"{name}\""),
            Self::InInterfaces(prefix) => write!(formatter, "iifname \"{prefix}*\""),
            Self::Frame(FrameKind::Multicast) => formatter.write_str("meta pkttype multicast"),
            Self::Frame(FrameKind::Broadcast) => formatter.write_str("meta pkttype broadcast"),
            Self::HardwareSource([a, b, c, d, e, f]) => {
                write!(formatter, "ether saddr {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
            }
            Self::Connection(packets) => formatter.write_str(match packets {
                Packets::Established => "ct state established,related",
                Packets::Related => "ct state related",
                Packets::Invalid => "ct state invalid",
                Packets::OfNoAnswer => {
                    "ct state related ct direction original ct status ! seen-reply"
                }
            }),
            Self::New => formatter.write_str("ct state new"),
            Self::Translated => formatter.write_str("ct status dnat"),
            Self::Mark(bits) => write!(formatter, "meta mark & {bits:#010x} == {bits:#010x}"),
            Self::ConnectionMark(bits) => {
                write!(formatter, "ct mark & {bits:#010x} == {bits:#010x}")
            }
            Self::AtMostEachMinute(count) => {
                write!(formatter, "limit rate {count}/minute burst {count} packets")
            }
            Self::ByChance { of_million } => {
                write!(formatter, "numgen random mod 1000000 < {of_million}")
            }
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(side) => write!(formatter, "ip {}", word(*side)),
            Self::Ipv6(side) => write!(formatter, "ip6 {}", word(*side)),
            Self::Network { side, is_ipv4, prefix } => {
                let address = Self::address(*side, *is_ipv4);
                write!(formatter, "{address} & {}", mask(*is_ipv4, *prefix))
            }
            Self::Protocol => formatter.write_str("meta l4proto"),
            Self::DestinationPort => formatter.write_str("th dport"),
            Self::InInterface => formatter.write_str("iifname"),
            Self::OutInterface => formatter.write_str("oifname"),
            Self::Priority => formatter.write_str("meta priority"),
            Self::Random { below } => write!(formatter, "numgen random mod {below}"),
            Self::SourceHash { is_ipv4, below } => {
                let address = Self::address(Side::Source, *is_ipv4);
                write!(formatter, "jhash {address} mod {below} seed 0x1")
            }
        }
    }
}

/// Fields that are looked up as one.
pub(super) struct Together<'a>(pub(super) &'a [Field]);

impl fmt::Display for Together<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { " . " };
            write!(formatter, "{dot}{field}")?;
        }
        Ok(())
    }
}

/// A protocol as nft calls it.
pub(super) struct Protocol(pub(super) u8);

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            1 => "icmp",
            6 => "tcp",
            17 => "udp",
            58 => "ipv6-icmp",
            132 => "sctp",
            number => return write!(formatter, "{number}"),
        })
    }
}

/// A type of ICMPv6's messages as nft calls it.
struct Icmp6Type(u8);

impl fmt::Display for Icmp6Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            130 => "mld-listener-query",
            131 => "mld-listener-report",
            132 => "mld-listener-done",
            133 => "nd-router-solicit",
            134 => "nd-router-advert",
            135 => "nd-neighbor-solicit",
            136 => "nd-neighbor-advert",
            137 => "nd-redirect",
            143 => "mld2-listener-report",
            number => return write!(formatter, "{number}"),
        })
    }
}

const fn word(side: Side) -> &'static str {
    match side {
        Side::Source => "saddr",
        Side::Destination => "daddr",
    }
}

fn address(
    formatter: &mut fmt::Formatter<'_>,
    side: Side,
    operator: &str,
    network: &IpNetwork,
) -> fmt::Result {
    let (header, full) = if network.is_ipv4() { ("ip", 32) } else { ("ip6", 128) };
    write!(formatter, "{header} {} {operator}{}", word(side), network.network())?;
    match network.prefix() {
        prefix if prefix == full => Ok(()),
        prefix => write!(formatter, "/{prefix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_as_many_bits_as_the_prefix() {
        for (is_ipv4, prefix, expected) in [
            (true, 0, "0.0.0.0"),
            (true, 20, "255.255.240.0"),
            (true, 32, "255.255.255.255"),
            (true, 33, "255.255.255.255"),
            (false, 0, "::"),
            (false, 49, "ffff:ffff:ffff:8000::"),
            (false, 128, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(mask(is_ipv4, prefix).to_string(), expected);
        }
    }
}

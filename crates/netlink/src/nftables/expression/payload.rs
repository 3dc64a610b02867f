//! What is read of a packet's headers.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use ruleset::iptables::Side;
use ruleset::nft::{Family, FrameType};

use super::meta::Meta;
use super::{Comparison, Expressions, FIRST, Register};

/// `ETH_P_IP`, `ETH_P_IPV6`, `ETH_P_ARP`.
pub(super) const fn frame_type(kind: FrameType) -> u16 {
    match kind {
        FrameType::Ipv4 => 0x0800,
        FrameType::Ipv6 => 0x86dd,
        FrameType::Arp => 0x0806,
    }
}

/// Numbers of protocols.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
pub(super) const SCTP: u8 = 132;

/// Flags of TCP.
pub(super) const SYN: u8 = 0x02;
pub(super) const FIN_RST_ACK: u8 = 0x15;
/// The kind of SCTP's first chunk.
pub(super) const INIT: u8 = 1;

/// `NFT_PAYLOAD_LL_HEADER` and those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// Some bytes of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) header: Header,
    pub(super) offset: u32,
    pub(super) size: usize,
}

const fn transport(offset: u32, size: usize) -> Payload {
    Payload { header: Header::Transport, offset, size }
}

pub(super) const DESTINATION_PORT: Payload = transport(2, 2);
pub(super) const TCP_FLAGS: Payload = transport(13, 1);
pub(super) const SCTP_CHUNK: Payload = transport(12, 1);
pub(super) const FIRST_BYTE: Payload = transport(0, 1);
pub(super) const HOP_LIMIT: Payload = Payload { header: Header::Network, offset: 7, size: 1 };
/// Of a frame with a tag it is the tag's, wherever the kernel keeps it (`nft_payload_copy_vlan`).
pub(super) const FRAME_TYPE: Payload = Payload { header: Header::Link, offset: 12, size: 2 };
pub(super) const HARDWARE_SOURCE: Payload = Payload { header: Header::Link, offset: 6, size: 6 };

/// An address of IP.
pub(super) const fn address(side: Side, is_ipv4: bool) -> Payload {
    let (offset, size) = match (is_ipv4, side) {
        (true, Side::Source) => (12, 4),
        (true, Side::Destination) => (16, 4),
        (false, Side::Source) => (8, 16),
        (false, Side::Destination) => (24, 16),
    };
    Payload { header: Header::Network, offset, size }
}

impl Expressions {
    /// Loads bytes of a header; how many.
    pub(super) fn load(&mut self, payload: Payload, register: Register) -> usize {
        const TO: u16 = 1;
        const BASE: u16 = 2;
        const OFFSET: u16 = 3;
        const LENGTH: u16 = 4;
        let Payload { header, offset, size } = payload;
        let length = u32::try_from(size).unwrap_or_default();
        self.push("payload", |it| {
            it.attribute(TO, &register.bytes())
                .attribute(BASE, &(header as u32).to_be_bytes())
                .attribute(OFFSET, &offset.to_be_bytes())
                .attribute(LENGTH, &length.to_be_bytes())
        });
        size
    }

    /// Goes on where the bytes are these.
    pub(super) fn bytes(&mut self, payload: Payload, value: &[u8]) {
        self.load(payload, FIRST);
        self.compare(Comparison::Equal, value);
    }

    /// Goes on for packets of an IP family, in a table that has both, as nft does: once in a rule.
    pub(super) fn of_family(&mut self, is_ipv4: bool) {
        if self.is_ipv4.replace(is_ipv4) == Some(is_ipv4) {
            return;
        }
        match self.family {
            Family::Ip | Family::Ip6 => {}
            Family::Inet => self.meta(Meta::Family, &[super::meta::family(is_ipv4)]),
            Family::Bridge | Family::Netdev => {
                let kind = if is_ipv4 { FrameType::Ipv4 } else { FrameType::Ipv6 };
                self.of_type(frame_type(kind));
            }
        }
    }

    /// Goes on for frames of this type.
    pub(super) fn of_type(&mut self, kind: u16) {
        self.meta(Meta::FrameType, &kind.to_be_bytes());
    }

    /// Goes on for packets of a protocol: once in a rule.
    pub(super) fn of_protocol(&mut self, number: u8) {
        if self.protocol.replace(number) != Some(number) {
            self.meta(Meta::Protocol, &[number]);
        }
    }

    /// Goes on for packets whose address is in the network, or is not. Only as many bytes are loaded as the
    /// prefix fills, as nft does it.
    pub(super) fn network(&mut self, side: Side, network: &IpNetwork, comparison: Comparison) {
        self.of_family(network.is_ipv4());
        let payload = address(side, network.is_ipv4());
        let bytes = octets(network.network());
        let prefix = usize::from(network.prefix());
        // Of an empty prefix something is loaded and masked away.
        if prefix > 0 && prefix.is_multiple_of(8) {
            let bytes = bytes.get(..prefix / 8).unwrap_or_default();
            self.load(Payload { size: bytes.len(), ..payload }, FIRST);
            return self.compare(comparison, bytes);
        }
        self.load(payload, FIRST);
        self.mask(&octets(network.mask()));
        self.compare(comparison, &bytes);
    }

    /// Goes on for what is part of a packet of IPv4: more follows it, or it does not begin at the beginning.
    pub(super) fn fragment(&mut self) {
        const OFFSET: Payload = Payload { header: Header::Network, offset: 6, size: 2 };
        const MORE_OR_OFFSET: [u8; 2] = [0x3f, 0xff];
        self.load(OFFSET, FIRST);
        self.mask(&MORE_OR_OFFSET);
        self.compare(Comparison::NotEqual, &[0, 0]);
    }

    /// Goes on for what has IPv6's header of fragments, wherever it is among its headers.
    pub(super) fn fragment_header(&mut self) {
        const TO: u16 = 1;
        const KIND: u16 = 2;
        const OFFSET: u16 = 3;
        const LENGTH: u16 = 4;
        const FLAGS: u16 = 5;
        const FRAGMENT: u8 = 44;
        /// `NFT_EXTHDR_F_PRESENT`: whether there is one, and not what is in it.
        const PRESENT: u32 = 1;
        self.push("exthdr", |it| {
            it.attribute(TO, &FIRST.bytes())
                .attribute(KIND, &[FRAGMENT])
                .attribute(OFFSET, &0_u32.to_be_bytes())
                .attribute(LENGTH, &1_u32.to_be_bytes())
                .attribute(FLAGS, &PRESENT.to_be_bytes())
        });
        self.compare(Comparison::Equal, &[1]);
    }
}

/// The bytes of an address.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    }
}

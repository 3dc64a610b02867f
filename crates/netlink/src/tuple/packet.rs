//! Reading whom a packet goes between from its headers. Whoever sends packets chooses their bytes.

use std::net::IpAddr;

use super::{ICMP, ICMPV6, Layer4, Tuple};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
/// TCP, UDP, DCCP, SCTP and UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
/// Echo, and its reply, of ICMP and ICMPv6.
const ECHOES: [(u8, u8); 4] = [(ICMP, 8), (ICMP, 0), (ICMPV6, 128), (ICMPV6, 129)];
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

impl Tuple {
    /// What the headers of an IPv4 or IPv6 packet say, of which the end may be missing; `None`
    /// when they do not even tell the addresses. What a later fragment carries is unknown.
    #[must_use]
    pub fn of_packet(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => ipv4(packet),
            6 => ipv6(packet),
            _ => None,
        }
    }
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]))
}

fn ipv4(packet: &[u8]) -> Option<Tuple> {
    let address = |at: usize| -> Option<IpAddr> {
        Some(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?.into())
    };
    let protocol = byte(packet, 9)?;
    let length = usize::from(byte(packet, 0)? & 0xf) * 4;
    let is_later_fragment = short(packet, 6)? & 0x1fff != 0;
    let layer4 = if is_later_fragment || length < IPV4_HEADER {
        Layer4::Unknown
    } else {
        layer4(protocol, packet.get(length..).unwrap_or_default(), ICMP)
    };
    Some(Tuple { source: address(12)?, destination: address(16)?, protocol, layer4 })
}

fn ipv6(packet: &[u8]) -> Option<Tuple> {
    let address = |at: usize| -> Option<IpAddr> {
        Some(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?.into())
    };
    let (source, destination) = (address(8)?, address(24)?);
    let (protocol, rest) = skip_extensions(byte(packet, 6)?, packet.get(IPV6_HEADER..)?);
    let layer4 = rest.map_or(Layer4::Unknown, |rest| layer4(protocol, rest, ICMPV6));
    Some(Tuple { source, destination, protocol, layer4 })
}

/// The protocol after the extension headers, and what follows them unless that is not there. Each
/// step goes at least 8 bytes on, so that it ends.
fn skip_extensions(mut protocol: u8, mut rest: &[u8]) -> (u8, Option<&[u8]>) {
    loop {
        let units = byte(rest, 1).map(usize::from);
        let length = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => units.map(|units| (units + 1) * 8),
            AUTHENTICATION => units.map(|units| (units + 2) * 4),
            FRAGMENT => Some(8),
            _ => return (protocol, Some(rest)),
        };
        let is_later_fragment =
            protocol == FRAGMENT && short(rest, 2).is_some_and(|offset| offset >> 3 != 0);
        let after = length.and_then(|length| rest.get(length..));
        let (Some(next), Some(after)) = (byte(rest, 0), after) else { return (protocol, None) };
        protocol = next;
        if is_later_fragment {
            return (protocol, None);
        }
        rest = after;
    }
}

/// `icmp` is the protocol number of the family's own.
fn layer4(protocol: u8, header: &[u8], icmp: u8) -> Layer4 {
    let read = || {
        if WITH_PORTS.contains(&protocol) {
            return Some(Layer4::Ports {
                source: short(header, 0)?,
                destination: short(header, 2)?,
            });
        }
        if protocol != icmp {
            return None;
        }
        let (kind, code) = (byte(header, 0)?, byte(header, 1)?);
        let id = if ECHOES.contains(&(icmp, kind)) { short(header, 4)? } else { 0 };
        Some(Layer4::Icmp { kind, code, id })
    };
    read().unwrap_or(Layer4::Unknown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header_v4(protocol: u8, options: usize, fragment_offset: u16) -> Vec<u8> {
        let mut bytes = vec![0; 20 + options * 4];
        bytes[0] = 0x45 + u8::try_from(options).unwrap();
        bytes[6..8].copy_from_slice(&fragment_offset.to_be_bytes());
        bytes[9] = protocol;
        bytes[12..20].copy_from_slice(&[10, 1, 0, 2, 10, 2, 0, 3]);
        bytes
    }

    fn header_v6(next: u8) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        bytes[0] = 0x60;
        bytes[6] = next;
        (bytes[8], bytes[23], bytes[24], bytes[39]) = (0xfd, 2, 0xfd, 3);
        bytes
    }

    const PORTS: [u8; 4] = [0x30, 0x39, 0, 80];
    const READ_PORTS: Layer4 = Layer4::Ports { source: 12345, destination: 80 };

    #[test]
    fn ports_are_read_after_options() {
        for protocol in WITH_PORTS {
            for options in [0, 1, 10] {
                let packet = [header_v4(protocol, options, 0), PORTS.to_vec()].concat();
                let tuple = Tuple::of_packet(&packet).unwrap();
                assert_eq!(tuple.source, IpAddr::from([10, 1, 0, 2]));
                assert_eq!(tuple.destination, IpAddr::from([10, 2, 0, 3]));
                assert_eq!((tuple.protocol, tuple.layer4), (protocol, READ_PORTS));
            }
        }
    }

    #[test]
    fn extension_headers_are_skipped() {
        let extensions = [
            vec![ROUTING, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            vec![AUTHENTICATION, 0, 0, 0, 0, 0, 0, 0],
            vec![FRAGMENT, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            vec![DESTINATION_OPTIONS, 99, 0, 1, 0, 0, 0, 0],
            vec![17, 0, 0, 0, 0, 0, 0, 0],
        ];
        let packet = [header_v6(HOP_BY_HOP), extensions.concat(), PORTS.to_vec()].concat();
        let tuple = Tuple::of_packet(&packet).unwrap();
        assert_eq!(tuple.source, "fd00::2".parse::<IpAddr>().unwrap());
        assert_eq!(tuple.destination, "fd00::3".parse::<IpAddr>().unwrap());
        assert_eq!((tuple.protocol, tuple.layer4), (17, READ_PORTS));
        for end in 40..packet.len() {
            assert_eq!(Tuple::of_packet(&packet[..end]).unwrap().layer4, Layer4::Unknown, "{end}");
        }
        assert_eq!(Tuple::of_packet(&packet[..39]), None);
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let packet = [header_v4(17, 0, 0x2001), PORTS.to_vec()].concat();
        assert_eq!(Tuple::of_packet(&packet).unwrap().layer4, Layer4::Unknown);
        let first = [header_v4(17, 0, 0x2000), PORTS.to_vec()].concat();
        assert_eq!(Tuple::of_packet(&first).unwrap().layer4, READ_PORTS);
        let fragment = |offset: u8| {
            let extension = vec![17, 0, 0, offset << 3 | 1, 0, 0, 0, 0];
            let packet = [header_v6(FRAGMENT), extension, PORTS.to_vec()].concat();
            Tuple::of_packet(&packet).unwrap()
        };
        assert_eq!((fragment(0).protocol, fragment(0).layer4), (17, READ_PORTS));
        assert_eq!((fragment(1).protocol, fragment(1).layer4), (17, Layer4::Unknown));
    }

    #[test]
    fn icmp_is_read_in_its_own_family() {
        let echo = |header: Vec<u8>, kind: u8| {
            Tuple::of_packet(&[header, vec![kind, 3, 0, 0, 1, 2]].concat()).unwrap().layer4
        };
        let icmp = |kind, id| Layer4::Icmp { kind, code: 3, id };
        assert_eq!(echo(header_v4(ICMP, 0, 0), 8), icmp(8, 258));
        assert_eq!(echo(header_v4(ICMP, 0, 0), 3), icmp(3, 0));
        assert_eq!(echo(header_v6(ICMPV6), 129), icmp(129, 258));
        assert_eq!(echo(header_v6(ICMPV6), 8), icmp(8, 0));
        assert_eq!(echo(header_v4(ICMPV6, 0, 0), 128), Layer4::Unknown);
        assert_eq!(echo(header_v6(ICMP), 8), Layer4::Unknown);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let tuple = Tuple::of_packet(&bytes);
            let least = match bytes.first().map(|byte| byte >> 4) {
                Some(4) => IPV4_HEADER,
                Some(6) => IPV6_HEADER,
                _ => usize::MAX,
            };
            prop_assert_eq!(tuple.is_some(), bytes.len() >= least);
        }

        /// Most bytes are not a packet: these begin as one.
        #[test]
        fn any_extensions_are_skipped(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            next in prop::sample::select(&[0_u8, 6, 17, 43, 44, 51, 58, 60, 132][..]),
        ) {
            let tuple = Tuple::of_packet(&[header_v6(next), bytes].concat());
            prop_assert_eq!(tuple.unwrap().source, "fd00::2".parse::<IpAddr>().unwrap());
        }
    }
}

//! Messages to netfilter (`include/uapi/linux/netfilter/nfnetlink.h`). They are encoded here and
//! not by netlink-packet-netfilter, which lacks ipset, and whose dependencies bring each of
//! `derive_more` and `syn` into the program once more.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};

/// Netlink's header and netfilter's (`nfgenmsg`: family, version, resource).
pub(crate) const HEADERS: usize = 16 + 4;
/// `AF_INET`.
pub(crate) const IPV4: u8 = 2;
/// `AF_INET6`.
pub(crate) const IPV6: u8 = 10;
/// `NFPROTO_INET`: both.
pub(crate) const INET: u8 = 1;
/// `NFPROTO_BRIDGE`.
pub(crate) const BRIDGE: u8 = 7;
/// `NFPROTO_NETDEV`.
pub(crate) const NETDEV: u8 = 5;
/// The payload is a list of attributes (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;
/// The payload is a number of the network's byte order (`NLA_F_NET_BYTEORDER`).
const NETWORK_ORDER: u16 = 1 << 14;

/// The resource that a message is of, or what else of 16 bits its kind has there.
pub(crate) fn resource(message: &[u8]) -> Option<u16> {
    let (_, headers) = message.get(..HEADERS)?.split_last_chunk()?;
    Some(u16::from_be_bytes(*headers))
}

/// One message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of a `kind` (subsystem, then message) to a `resource`, which few kinds have.
    pub(crate) fn new(kind: [u8; 2], flags: u16, family: u8, resource: u16) -> Self {
        let [subsystem, message] = kind;
        let [high, low] = resource.to_be_bytes();
        let mut bytes = vec![0; 4];
        bytes.extend(u16::from_be_bytes([subsystem, message]).to_ne_bytes());
        bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        // Sequence and port.
        bytes.extend([0; 8]);
        bytes.extend([family, 0, high, low]);
        Self { bytes }
    }

    pub(crate) fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        let length = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn text(self, kind: u16, text: &str) -> Self {
        self.attribute(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// A number, or address, that is marked as being of the network's byte order: ipset wants to
    /// be told.
    pub(crate) fn network_ordered(self, kind: u16, payload: &[u8]) -> Self {
        self.attribute(kind | NETWORK_ORDER, payload)
    }

    /// An attribute of attributes, which `fill` adds.
    pub(crate) fn nested(self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        let mut message = fill(self.attribute(kind | NESTED, &[]));
        let length = u16::try_from(message.bytes.len() - start).unwrap_or(u16::MAX);
        message.put(start, &length.to_ne_bytes());
        message
    }

    pub(crate) fn numbered(mut self, sequence: u32) -> Self {
        self.put(8, &sequence.to_ne_bytes());
        self
    }

    pub(crate) fn acknowledged(mut self) -> Self {
        let held = self.bytes.get(6..8).and_then(|it| it.try_into().ok()).map(u16::from_ne_bytes);
        self.put(6, &(held.unwrap_or(NLM_F_REQUEST) | NLM_F_ACK).to_ne_bytes());
        self
    }

    /// How long it is by now.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    fn put(&mut self, start: usize, value: &[u8]) {
        if let Some(room) = self.bytes.get_mut(start..start + value.len()) {
            room.copy_from_slice(value);
        }
    }

    /// Attributes that were encoded before.
    pub(crate) fn encoded(mut self, attributes: &[u8]) -> Self {
        self.bytes.extend(attributes);
        self
    }

    /// What was put into one without headers ([`Self::default`]).
    pub(crate) fn into_attributes(self) -> Vec<u8> {
        self.bytes
    }

    /// With its length filled in.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.put(0, &length.to_ne_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded() {
        let message = Message::new([10, 4], 0, IPV4, 258).text(1, "nat").text(3, "CNI-x");
        let bytes = message.numbered(7).into_bytes();
        assert_eq!(bytes.len(), HEADERS + 8 + 12);
        assert_eq!(bytes[..4], 40u32.to_ne_bytes());
        assert_eq!(bytes[4..6], (10u16 << 8 | 4).to_ne_bytes());
        assert_eq!(bytes[8..12], 7u32.to_ne_bytes());
        assert_eq!(bytes[16..20], [2, 0, 1, 2]);
    }

    #[test]
    fn attributes_nest() {
        let message = Message::new([6, 9], 0, IPV4, 0).nested(7, |data| {
            data.nested(1, |address| address.network_ordered(1, &[10, 0, 0, 1])).attribute(9, &[5])
        });
        let bytes = message.into_bytes();
        let numbers: Vec<u16> =
            bytes[HEADERS..].chunks(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
        assert_eq!(numbers[..6], [24, 0x8007, 12, 0x8001, 8, 0x4001]);
        assert_eq!(numbers[8..10], [5, 9]);
        assert_eq!(bytes.len(), HEADERS + 24);
    }
}

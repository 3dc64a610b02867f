//! Attributes of netlink messages, read in place: most of what the kernel tells is not needed.

use netlink_packet_core::NlasIterator;

/// The kinds and payloads of attributes.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    // What is cut off is no attribute.
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        (kind, attribute.into_inner().get(4..length).unwrap_or_default())
    })
}

/// The payload of the first attribute of a kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|attribute| attribute.0 == kind).map(|found| found.1)
}

/// A 32-bit number of this machine's byte order.
pub(crate) fn number(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_ne_bytes)
}

/// A 32-bit number of the network's byte order.
pub(crate) fn network_number(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

/// A text, which ends with a zero.
pub(crate) fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload.strip_suffix(&[0]).unwrap_or(payload)).into_owned()
}

//! Messages to nf_tables (`include/uapi/linux/netfilter/nf_tables.h`, `nfnetlink.h`).

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

use super::Table;

/// Netlink's header and netfilter's (`nfgenmsg`: family, version, resource).
pub(super) const HEADERS: usize = 16 + 4;

/// `NFNL_SUBSYS_NFTABLES`, which is also the resource that a batch is for.
const SUBSYSTEM: u8 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const GET_CHAIN: u16 = (SUBSYSTEM as u16) << 8 | 4;
const DELETE_CHAIN: u16 = (SUBSYSTEM as u16) << 8 | 5;
const GET_RULE: u16 = (SUBSYSTEM as u16) << 8 | 7;
const DELETE_RULE: u16 = (SUBSYSTEM as u16) << 8 | 8;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, family: u8, resource: u8) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        // Sequence and port.
        bytes.extend([0; 8]);
        bytes.extend([family, 0, 0, resource]);
        Self { bytes }
    }

    fn of(table: Table<'_>, kind: u16, flags: u16) -> Self {
        Self::new(kind, flags, if table.is_ipv4 { 2 } else { 10 }, 0)
    }

    fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        let length = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, text: &str) -> Self {
        self.attribute(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// Asks for one chain.
    pub(super) fn get_chain(table: Table<'_>, chain: &str, sequence: u32) -> Self {
        let message = Self::of(table, GET_CHAIN, 0);
        message.text(CHAIN_TABLE, table.name).text(CHAIN_NAME, chain).numbered(sequence)
    }

    /// Asks for a chain's rules.
    pub(super) fn list_rules(table: Table<'_>, chain: &str, sequence: u32) -> Self {
        let message = Self::of(table, GET_RULE, NLM_F_DUMP);
        message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain).numbered(sequence)
    }

    /// Deletes one rule.
    pub(super) fn delete_rule(table: Table<'_>, chain: &str, handle: u64) -> Self {
        Self::empty_chain(table, chain).attribute(RULE_HANDLE, &handle.to_be_bytes())
    }

    /// Deletes all rules of a chain.
    pub(super) fn empty_chain(table: Table<'_>, chain: &str) -> Self {
        let message = Self::of(table, DELETE_RULE, 0);
        message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain)
    }

    /// Deletes a chain, which must be empty.
    pub(super) fn delete_chain(table: Table<'_>, chain: &str) -> Self {
        let message = Self::of(table, DELETE_CHAIN, 0);
        message.text(CHAIN_TABLE, table.name).text(CHAIN_NAME, chain)
    }

    fn numbered(mut self, sequence: u32) -> Self {
        self.put(8, &sequence.to_ne_bytes());
        self
    }

    fn acknowledged(mut self) -> Self {
        self.put(6, &(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        self
    }

    fn put(&mut self, start: usize, value: &[u8]) {
        if let Some(room) = self.bytes.get_mut(start..start + value.len()) {
            room.copy_from_slice(value);
        }
    }

    /// With its length filled in.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.put(0, &length.to_ne_bytes());
        self.bytes
    }
}

/// A transaction of `changes`, numbered from `first` on, of which the last is acknowledged; also
/// the number of that one.
pub(super) fn batch(changes: Vec<Message>, first: u32) -> (Vec<u8>, u32) {
    let mut sequence = first;
    let mut bytes = Message::new(BATCH_BEGIN, 0, 0, SUBSYSTEM).numbered(first).into_bytes();
    let count = changes.len();
    for (index, change) in changes.into_iter().enumerate() {
        sequence = sequence.wrapping_add(1);
        let change = if index + 1 == count { change.acknowledged() } else { change };
        bytes.extend(change.numbered(sequence).into_bytes());
    }
    bytes.extend(Message::new(BATCH_END, 0, 0, SUBSYSTEM).numbered(sequence).into_bytes());
    (bytes, sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAT: Table<'_> = Table { is_ipv4: true, name: "nat" };

    #[test]
    fn attributes_are_padded() {
        let bytes = Message::get_chain(NAT, "CNI-x", 7).into_bytes();
        assert_eq!(bytes.len(), HEADERS + 8 + 12);
        assert_eq!(bytes[..4], 40u32.to_ne_bytes());
        assert_eq!(bytes[8..12], 7u32.to_ne_bytes());
        assert_eq!(bytes[16..20], [2, 0, 0, 0]);
    }

    #[test]
    fn a_batch_is_framed_and_its_last_change_acknowledged() {
        let changes =
            vec![Message::delete_rule(NAT, "P", 258), Message::delete_chain(NAT, "CNI-x")];
        let sizes: Vec<usize> = changes.iter().map(|message| message.bytes.len()).collect();
        let (bytes, last) = batch(changes, 5);
        assert_eq!(last, 7);
        assert_eq!(bytes.len(), HEADERS + sizes.iter().sum::<usize>() + HEADERS);
        assert_eq!(bytes[19], SUBSYSTEM);
        let (rule, chain) = (HEADERS, HEADERS + sizes[0]);
        assert_eq!(bytes[rule + 6], 1);
        assert_eq!(bytes[rule + sizes[0] - 2..][..2], [1, 2]);
        assert_eq!(bytes[chain + 6], 1 | 4);
    }
}

//! Messages to nf_tables (`include/uapi/linux/netfilter/nf_tables.h`).

use netlink_packet_core::NLM_F_DUMP;

use super::Table;
use crate::netfilter::message::{IPV4, IPV6, Message};

/// `NFNL_SUBSYS_NFTABLES`, which is also the resource that a batch is for.
const SUBSYSTEM: u8 = 10;
const BATCH_BEGIN: [u8; 2] = [0, 0x10];
const BATCH_END: [u8; 2] = [0, 0x11];
const GET_CHAIN: [u8; 2] = [SUBSYSTEM, 4];
const DELETE_CHAIN: [u8; 2] = [SUBSYSTEM, 5];
const GET_RULE: [u8; 2] = [SUBSYSTEM, 7];
const DELETE_RULE: [u8; 2] = [SUBSYSTEM, 8];
pub(super) const NEW_GENERATION: [u8; 2] = [SUBSYSTEM, 15];
const GET_GENERATION: [u8; 2] = [SUBSYSTEM, 16];
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;

impl Message {
    fn of(table: Table<'_>, kind: [u8; 2], flags: u16) -> Self {
        Self::new(kind, flags, if table.is_ipv4 { IPV4 } else { IPV6 }, 0)
    }

    /// Asks for the generation.
    pub(super) fn get_generation() -> Self {
        Self::new(GET_GENERATION, 0, 0, 0)
    }

    /// Asks for one chain.
    pub(super) fn get_chain(table: Table<'_>, chain: &str) -> Self {
        let message = Self::of(table, GET_CHAIN, 0);
        message.text(CHAIN_TABLE, table.name).text(CHAIN_NAME, chain)
    }

    /// Asks for a chain's rules.
    pub(super) fn list_rules(table: Table<'_>, chain: &str) -> Self {
        let message = Self::of(table, GET_RULE, NLM_F_DUMP);
        message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain)
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
}

/// A transaction of `changes`, numbered from `first` on, of which the last is acknowledged; also
/// the number of that one.
pub(super) fn batch(changes: Vec<Message>, first: u32) -> (Vec<u8>, u32) {
    let frame =
        |kind, sequence| Message::new(kind, 0, 0, SUBSYSTEM.into()).numbered(sequence).into_bytes();
    let mut sequence = first;
    let mut bytes = frame(BATCH_BEGIN, first);
    let count = changes.len();
    for (index, change) in changes.into_iter().enumerate() {
        sequence = sequence.wrapping_add(1);
        let change = if index + 1 == count { change.acknowledged() } else { change };
        bytes.extend(change.numbered(sequence).into_bytes());
    }
    bytes.extend(frame(BATCH_END, sequence));
    (bytes, sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::message::HEADERS;

    const NAT: Table<'_> = Table { is_ipv4: true, name: "nat" };

    #[test]
    fn a_batch_is_framed_and_its_last_change_acknowledged() {
        let changes = || [Message::delete_rule(NAT, "P", 258), Message::delete_chain(NAT, "CNI-x")];
        let sizes = changes().map(|message| message.into_bytes().len());
        let (bytes, last) = batch(changes().into(), 5);
        assert_eq!(last, 7);
        assert_eq!(bytes.len(), HEADERS + sizes.iter().sum::<usize>() + HEADERS);
        assert_eq!(bytes[19], SUBSYSTEM);
        let (rule, chain) = (HEADERS, HEADERS + sizes[0]);
        assert_eq!(bytes[rule + 6], 1);
        assert_eq!(bytes[rule + sizes[0] - 2..][..2], [1, 2]);
        assert_eq!(bytes[chain + 6], 1 | 4);
    }
}

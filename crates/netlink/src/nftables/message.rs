//! Messages to nf_tables (`include/uapi/linux/netfilter/nf_tables.h`).

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_NONREC};
use ruleset::nft::{Chain, Family, Policy, Rule, Table};

use super::expression::expressions;
use crate::attributes::{find, text};
use crate::netfilter::message::{BRIDGE, INET, IPV4, IPV6, Message, NETDEV};

/// `NFNL_SUBSYS_NFTABLES`, which is also the resource that a batch is for.
pub(super) const SUBSYSTEM: u8 = 10;
const BATCH_BEGIN: [u8; 2] = [0, 0x10];
const BATCH_END: [u8; 2] = [0, 0x11];
const NEW_TABLE: [u8; 2] = [SUBSYSTEM, 0];
const GET_TABLE: [u8; 2] = [SUBSYSTEM, 1];
const DELETE_TABLE: [u8; 2] = [SUBSYSTEM, 2];
const NEW_CHAIN: [u8; 2] = [SUBSYSTEM, 3];
const GET_CHAIN: [u8; 2] = [SUBSYSTEM, 4];
const DELETE_CHAIN: [u8; 2] = [SUBSYSTEM, 5];
const NEW_RULE: [u8; 2] = [SUBSYSTEM, 6];
const GET_RULE: [u8; 2] = [SUBSYSTEM, 7];
const DELETE_RULE: [u8; 2] = [SUBSYSTEM, 8];
pub(super) const NEW_GENERATION: [u8; 2] = [SUBSYSTEM, 15];
const GET_GENERATION: [u8; 2] = [SUBSYSTEM, 16];
const TABLE_NAME: u16 = 1;
const TABLE_REMARK: u16 = 6;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_KIND: u16 = 7;
const CHAIN_REMARK: u16 = 12;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;
const HOOK_INTERFACE: u16 = 3;
/// `NF_DROP`.
const DROP: u32 = 0;
const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_REMARK: u16 = 7;

impl Message {
    fn of(table: Table<'_>, kind: [u8; 2], flags: u16) -> Self {
        let family = match table.family {
            Family::Ip => IPV4,
            Family::Ip6 => IPV6,
            Family::Inet => INET,
            Family::Bridge => BRIDGE,
            Family::Netdev => NETDEV,
        };
        Self::new(kind, flags, family, 0)
    }

    /// Makes a table, unless it is there.
    pub(super) fn new_table(table: Table<'_>, comment: Option<&str>) -> Self {
        let message = Self::of(table, NEW_TABLE, NLM_F_CREATE).text(TABLE_NAME, table.name);
        message.remark(TABLE_REMARK, comment)
    }

    /// Asks for a table.
    pub(super) fn get_table(table: Table<'_>) -> Self {
        Self::of(table, GET_TABLE, 0).text(TABLE_NAME, table.name)
    }

    /// Deletes a table with all that is in it.
    pub(super) fn delete_table(table: Table<'_>) -> Self {
        Self::of(table, DELETE_TABLE, 0).text(TABLE_NAME, table.name)
    }

    /// Deletes a table, which must be empty.
    pub(super) fn delete_empty_table(table: Table<'_>) -> Self {
        Self::of(table, DELETE_TABLE, NLM_F_NONREC).text(TABLE_NAME, table.name)
    }

    /// Makes a chain, unless it is there. One that is there must be called where this one is.
    pub(super) fn new_chain(table: Table<'_>, chain: &Chain<'_>) -> Self {
        let message = Self::of(table, NEW_CHAIN, NLM_F_CREATE);
        let message = message.text(CHAIN_TABLE, table.name).text(CHAIN_NAME, chain.name);
        let message = chain.base.iter().fold(message, |message, base| {
            let message = message.nested(CHAIN_HOOK, |hook| {
                let hook = hook
                    .attribute(HOOK_NUMBER, &base.hook.number().to_be_bytes())
                    .attribute(HOOK_PRIORITY, &base.priority.to_be_bytes());
                let interface = base.hook.interface().into_iter();
                interface.fold(hook, |hook, name| hook.text(HOOK_INTERFACE, name))
            });
            let message = match base.policy {
                Policy::Accept => message,
                Policy::Drop => message.attribute(CHAIN_POLICY, &DROP.to_be_bytes()),
            };
            message.text(CHAIN_KIND, base.kind.word())
        });
        message.remark(CHAIN_REMARK, chain.comment)
    }

    /// Puts a rule at the end of a chain.
    pub(super) fn add_rule(table: Table<'_>, chain: &str, rule: &Rule) -> Self {
        let message = Self::of(table, NEW_RULE, NLM_F_CREATE | NLM_F_APPEND);
        let message = message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain);
        message
            .nested(RULE_EXPRESSIONS, |list| expressions(list, table.family, rule))
            .remark(RULE_REMARK, rule.comment.as_deref())
    }

    /// A comment as the program nft writes it: the first kind of user data of tables, chains and rules
    /// (`NFTNL_UDATA_RULE_COMMENT` and its like).
    fn remark(self, kind: u16, comment: Option<&str>) -> Self {
        comment.into_iter().fold(self, |message, comment| message.attribute(kind, &remark(comment)))
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

    /// Asks for the chains of a table's family.
    pub(super) fn list_chains(table: Table<'_>) -> Self {
        Self::of(table, GET_CHAIN, NLM_F_DUMP)
    }

    /// Asks for a chain's rules.
    pub(super) fn list_rules(table: Table<'_>, chain: &str) -> Self {
        let message = Self::of(table, GET_RULE, NLM_F_DUMP);
        message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain)
    }

    /// Asks for all rules of a table.
    pub(super) fn list_all_rules(table: Table<'_>) -> Self {
        Self::of(table, GET_RULE, NLM_F_DUMP).text(RULE_TABLE, table.name)
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

/// The name of the chain with these attributes, if it is one of the table.
pub(super) fn read_chain(chain: &[u8], table: Table<'_>) -> Option<String> {
    find(chain, CHAIN_TABLE).map(text).filter(|it| it == table.name)?;
    find(chain, CHAIN_NAME).map(text)
}

/// What a table, chain or rule with this comment carries. What has no room is cut off.
pub(super) fn remark(comment: &str) -> Vec<u8> {
    const COMMENT: u8 = 0;
    let mut end = comment.len().min(usize::from(u8::MAX) - 1);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    let text = comment.get(..end).unwrap_or_default().as_bytes();
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[COMMENT, length], text, &[0]].concat()
}

/// The comment of what carries this.
pub(super) fn comment(remark: &[u8]) -> Option<String> {
    const COMMENT: u8 = 0;
    let mut rest = remark;
    while let [kind, length, tail @ ..] = rest {
        let (value, tail) = tail.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        rest = tail;
    }
    None
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

    const NAT: Table<'_> = Table { family: Family::Ip, name: "nat" };

    #[test]
    fn comments_are_read_as_they_were_written_and_cut_where_there_is_no_room() {
        for text in ["", "a b", &"ä".repeat(127)] {
            assert_eq!(comment(&remark(text)).as_deref(), Some(text));
        }
        assert_eq!(comment(&remark(&"ä".repeat(128))), Some("ä".repeat(127)));
        // Something else before it, and what is cut off.
        assert_eq!(comment(&[&[7, 2, 1, 1][..], &remark("a")].concat()).as_deref(), Some("a"));
        assert_eq!(comment(&[0, 9, b'a']), None);
        assert_eq!(comment(&[]), None);
    }

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

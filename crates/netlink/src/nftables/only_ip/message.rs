//! The messages of [`super::OnlyIp`], and what is read of the answers.

use std::collections::BTreeSet;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};
use ruleset::nft::{self, Family, Table};

use super::super::expression::{interface_in, not_frame_type, verdict};
use super::super::message::{
    self, CHAIN_HOOK, CHAIN_KIND, CHAIN_POLICY, HOOK_NUMBER, HOOK_PRIORITY, RULE_CHAIN,
    RULE_EXPRESSIONS, RULE_REMARK, SUBSYSTEM,
};
use super::{Chain, MOST_AT_ONCE, NAME_ROOM, PASSING, PRIORITY, SET};
use crate::attributes::{attributes, find, network_number, text};
use crate::netfilter::message::{BRIDGE, HEADERS, Message};

const NEW_RULE: u8 = 6;
const NEW_SET: u8 = 9;
const GET_SET: u8 = 10;
const NEW_MEMBERS: u8 = 12;
const GET_MEMBERS: u8 = 13;
const DELETE_MEMBERS: u8 = 14;

/// The table's name, in all of them.
const TABLE: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_KIND: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_ID: u16 = 10;
const SET_REMARK: u16 = 13;
const MEMBERS_SET: u16 = 2;
const MEMBERS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const MEMBER_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;

/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// What the program nft calls `ifname`; it means nothing to the kernel.
const NAMES_OF_INTERFACES: u32 = 41;
/// Names the set within its transaction; there is no other.
const ONLY_SET: u32 = 1;

fn new(kind: u8, flags: u16, table: &str) -> Message {
    Message::new([SUBSYSTEM, kind], flags, BRIDGE, 0).text(TABLE, table)
}

pub(super) fn get_table(table: &str) -> Message {
    Message::get_table(of_bridges(table))
}

/// A table of the family.
pub(super) const fn of_bridges(name: &str) -> Table<'_> {
    Table { family: Family::Bridge, name }
}

pub(super) fn new_table(table: &str) -> Message {
    Message::new_table(of_bridges(table), None)
}

pub(super) fn delete_table(table: &str) -> Message {
    Message::delete_table(of_bridges(table))
}

/// Whether a table is not dormant (`NFT_TABLE_F_DORMANT`, its only flag that others can set).
pub(super) fn is_awake(found: &[u8]) -> bool {
    find(found, TABLE_FLAGS).and_then(network_number).is_none_or(|flags| flags == 0)
}

pub(super) fn get_chain(table: &str, chain: &str) -> Message {
    Message::get_chain(of_bridges(table), chain)
}

pub(super) fn new_chain(table: &str, chain: &Chain) -> Message {
    let base = nft::Base {
        kind: nft::Kind::Filter,
        hook: chain.hook,
        priority: PRIORITY,
        policy: nft::Policy::Accept,
    };
    let chain = nft::Chain { name: chain.name, base: Some(base), comment: None };
    Message::new_chain(of_bridges(table), &chain)
}

/// Whether a chain is one, hooked where it should be.
pub(super) fn is_like(found: &[u8], chain: &Chain) -> bool {
    let hook = find(found, CHAIN_HOOK).unwrap_or_default();
    let number = |kind| find(hook, kind).and_then(network_number);
    number(HOOK_NUMBER) == Some(chain.hook.number())
        && number(HOOK_PRIORITY) == Some(PRIORITY.cast_unsigned())
        && find(found, CHAIN_POLICY).and_then(network_number) == Some(ACCEPT)
        && find(found, CHAIN_KIND).map(text).as_deref() == Some("filter")
}

/// What most frames are comes first.
fn expressions(message: Message, chain: &Chain) -> Message {
    let other = PASSING.into_iter().fold(message, not_frame_type);
    verdict(interface_in(other, chain.interface, SET), &nft::Verdict::CountedDrop)
}

pub(super) fn new_rule(table: &str, chain: &Chain) -> Message {
    let message = new(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, table).text(RULE_CHAIN, chain.name);
    message
        .nested(RULE_EXPRESSIONS, |it| expressions(it, chain))
        .attribute(RULE_REMARK, &remark(chain))
}

/// What a rule carries: a comment, as the program nft writes it, with a hash of the rule. By this
/// it is recognised: rules are not read back.
pub(super) fn remark(chain: &Chain) -> Vec<u8> {
    let rule = expressions(Message::new([SUBSYSTEM, NEW_RULE], 0, BRIDGE, 0), chain);
    let bytes = rule.into_bytes();
    let hash = hash(bytes.get(HEADERS..).unwrap_or_default());
    message::remark(&format!("iptables would not see it; {hash:016x}"))
}

/// FNV-1a: the same on every machine and with every release.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

pub(super) fn list_rules(table: &str, chain: &str) -> Message {
    Message::list_rules(of_bridges(table), chain)
}

/// What a rule carries, if it is one of the chain: old kernels list those of all. Empty for one
/// that carries nothing.
pub(super) fn read_remark(rule: &[u8], table: &str, chain: &str) -> Option<Vec<u8>> {
    let is_of = |kind, name: &str| find(rule, kind).map(text).as_deref() == Some(name);
    (is_of(TABLE, table) && is_of(RULE_CHAIN, chain))
        .then(|| find(rule, RULE_REMARK).unwrap_or_default().to_vec())
}

pub(super) fn get_set(table: &str) -> Message {
    new(GET_SET, 0, table).text(SET_NAME, SET)
}

pub(super) fn new_set(table: &str) -> Message {
    let room = u32::try_from(NAME_ROOM).unwrap_or_default();
    new(NEW_SET, NLM_F_CREATE, table)
        .text(SET_NAME, SET)
        .attribute(SET_FLAGS, &0_u32.to_be_bytes())
        .attribute(SET_KEY_KIND, &NAMES_OF_INTERFACES.to_be_bytes())
        .attribute(SET_KEY_LENGTH, &room.to_be_bytes())
        .attribute(SET_ID, &ONLY_SET.to_be_bytes())
        .attribute(SET_REMARK, &set_remark())
}

/// Tells the program nft how to show the names: their bytes are of this machine's order.
fn set_remark() -> Vec<u8> {
    const KEY_ORDER: u8 = 0;
    const HOST_ORDER: u32 = 1;
    [&[KEY_ORDER, 4][..], &HOST_ORDER.to_ne_bytes()].concat()
}

/// Whether a set is one of names, without anything special.
pub(super) fn is_set_of_names(found: &[u8]) -> bool {
    let number = |kind| find(found, kind).and_then(network_number);
    number(SET_KEY_LENGTH) == u32::try_from(NAME_ROOM).ok()
        && number(SET_FLAGS).unwrap_or_default() == 0
}

pub(super) fn list_members(table: &str) -> Message {
    new(GET_MEMBERS, NLM_F_DUMP, table).text(MEMBERS_SET, SET)
}

/// The names in one message of a list.
pub(super) fn read_members(message: &[u8]) -> Vec<String> {
    let members = attributes(find(message, MEMBERS).unwrap_or_default());
    let name = |(_, member)| {
        let name = find(find(member, MEMBER_KEY)?, DATA_VALUE)?;
        let end = name.iter().position(|it| *it == 0).unwrap_or(name.len());
        Some(text(name.get(..end)?))
    };
    members.filter_map(name).collect()
}

/// Adds or deletes members.
pub(super) fn change_members(table: &str, names: &BTreeSet<String>, adds: bool) -> Vec<Message> {
    let (kind, flags) = if adds { (NEW_MEMBERS, NLM_F_CREATE) } else { (DELETE_MEMBERS, 0) };
    let keys: Vec<_> = names.iter().filter_map(|it| key(it)).collect();
    let messages = keys.chunks(MOST_AT_ONCE).map(|keys| {
        new(kind, flags, table).text(MEMBERS_SET, SET).nested(MEMBERS, |list| {
            keys.iter().fold(list, |list, key| {
                list.nested(LIST_ELEMENT, |member| {
                    member.nested(MEMBER_KEY, |data| data.attribute(DATA_VALUE, key))
                })
            })
        })
    });
    messages.collect()
}

/// A link's name as the kernel compares it, with zeros after it.
fn key(name: &str) -> Option<[u8; NAME_ROOM]> {
    let mut key = [0; NAME_ROOM];
    if name.is_empty() || name.len() >= NAME_ROOM || name.contains('\0') {
        return None;
    }
    key.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::super::CHAINS;
    use super::*;

    #[test]
    fn only_names_that_links_can_have_are_members() {
        let names = ["", "veth0", "a-name-of-15-by", "a-name-of-16-byt", "a\0b"];
        let names: BTreeSet<String> = names.map(str::to_owned).into();
        let [message] = change_members("t", &names, true).try_into().unwrap();
        let bytes = message.into_bytes();
        assert_eq!(read_members(&bytes[HEADERS..]), ["a-name-of-15-by", "veth0"]);
        assert_eq!(change_members("t", &BTreeSet::new(), false), []);
    }

    #[test]
    fn many_are_told_in_several_messages() {
        let names: BTreeSet<String> = (0..2500).map(|it| format!("veth{it}")).collect();
        let messages = change_members("t", &names, true);
        assert_eq!(messages.len(), 3);
        let read = messages.into_iter().flat_map(|it| read_members(&it.into_bytes()[HEADERS..]));
        assert_eq!(read.collect::<BTreeSet<_>>(), names);
    }

    #[test]
    fn each_rule_carries_something_else() {
        let all: BTreeSet<_> = CHAINS.iter().map(remark).collect();
        assert_eq!(all.len(), 2);
    }
}

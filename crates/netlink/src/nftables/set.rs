//! Sets and maps in messages.

mod examples;

use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP};
use ruleset::nft::{Encoded, Key, Set, Table};

use super::HeldSet;
use super::expression::{DATA_VALUE, read_verdict, verdict_data};
use super::message::{SUBSYSTEM, comment, remark};
use super::rule::counted_by;
use crate::attributes::{attributes, find, network_number, text};
use crate::netfilter::message::Message;

pub(super) const NEW_SET: [u8; 2] = [SUBSYSTEM, 9];
const GET_SET: [u8; 2] = [SUBSYSTEM, 10];
pub(super) const DELETE_SET: [u8; 2] = [SUBSYSTEM, 11];
pub(super) const NEW_ELEMENTS: [u8; 2] = [SUBSYSTEM, 12];
const GET_ELEMENTS: [u8; 2] = [SUBSYSTEM, 13];
pub(super) const DELETE_ELEMENTS: [u8; 2] = [SUBSYSTEM, 14];

const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_SIZE: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_SIZE: u16 = 7;
const SET_DESCRIPTION: u16 = 9;
const SET_EXPRESSION: u16 = 17;
const SET_EXPRESSIONS: u16 = 18;
const SET_ID: u16 = 10;
const SET_USER_DATA: u16 = 13;
const DESCRIPTION_SIZE: u16 = 1;
const DESCRIPTION_PARTS: u16 = 2;
const PART_SIZE: u16 = 1;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
const ELEMENT_EXPIRATION: u16 = 5;
const ELEMENT_USER_DATA: u16 = 6;
const ELEMENT_EXPRESSION: u16 = 7;
const ELEMENT_EXPRESSIONS: u16 = 11;
const ELEMENT_LAST: u16 = 10;

/// `NFT_SET_ANONYMOUS`: what a rule has in braces. It comes and goes with that rule.
const OF_A_RULE: u32 = 1;
/// `NFT_SET_INTERVAL`, `NFT_SET_MAP`, `NFT_SET_TIMEOUT`, `NFT_SET_EVAL`, `NFT_SET_CONCAT`.
const INTERVALS: u32 = 1 << 2;
const MAP: u32 = 1 << 3;
const TIMEOUTS: u32 = 1 << 4;
const OF_PACKETS: u32 = 1 << 5;
const CONCATENATION: u32 = 1 << 7;
/// `NFT_DATA_VERDICT`.
const VERDICTS: u32 = 0xffff_ff00;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;
/// A set is found by its name: that they have this in common within a transaction does no harm, and the
/// kernel wants it.
const ID: u32 = 1;
/// A list of elements is one attribute, of 64 KiB at most. The longest key, of an interface, an address, a
/// protocol and a port, takes two times 40 bytes, a verdict 300, and a comment 260.
const ROOM: usize = 60 << 10;

fn of(table: Table<'_>, kind: [u8; 2], flags: u16) -> Message {
    Message::of(table, kind, flags).text(SET_TABLE, table.name)
}

/// Makes a set, unless it is there; one that is there must be like this one.
pub(super) fn new_set(table: Table<'_>, set: &Set) -> Message {
    let size = u32::try_from(set.size()).unwrap_or_default();
    let message = of(table, NEW_SET, NLM_F_CREATE)
        .text(SET_NAME, &set.name)
        .attribute(SET_FLAGS, &flags(set).to_be_bytes())
        .attribute(SET_KEY_TYPE, &key_type(set).to_be_bytes())
        .attribute(SET_KEY_SIZE, &size.to_be_bytes())
        .attribute(SET_ID, &ID.to_be_bytes());
    let message = match data_type(set) {
        0 => message,
        kind => message.attribute(SET_DATA_TYPE, &kind.to_be_bytes()),
    };
    let message = if set.data.is_empty() {
        message
    } else {
        let size = u32::try_from(set.data_size()).unwrap_or_default();
        message.attribute(SET_DATA_SIZE, &size.to_be_bytes())
    };
    let is_described = has_parts(set) || set.room_for_packets.is_some();
    let message = if is_described { described(message, set) } else { message };
    let message = if set.is_counted {
        message.nested(SET_EXPRESSION, |it| it.text(EXPRESSION_NAME, "counter"))
    } else {
        message
    };
    message.attribute(SET_USER_DATA, &user_data(set))
}

/// Whether the kernel is told of the parts of a key: where each may be an interval. Elsewhere nft does not tell them, and
/// a set that differs in that is another to the kernel (`nft_set_is_same`): one that nft has saved and restored could not
/// be asked for again.
fn has_parts(set: &Set) -> bool {
    set.is_interval && set.key.len() > 1
}

fn described(message: Message, set: &Set) -> Message {
    message.nested(SET_DESCRIPTION, |description| {
        let description = match set.room_for_packets {
            Some(room) => description.attribute(DESCRIPTION_SIZE, &room.to_be_bytes()),
            None => description,
        };
        if !has_parts(set) {
            return description;
        }
        description.nested(DESCRIPTION_PARTS, |parts| {
            set.key.iter().fold(parts, |parts, key| {
                let size = u32::try_from(key.size()).unwrap_or_default();
                parts.nested(LIST_ELEMENT, |part| part.attribute(PART_SIZE, &size.to_be_bytes()))
            })
        })
    })
}

fn flags(set: &Set) -> u32 {
    let intervals = if set.is_interval { INTERVALS } else { 0 };
    let map = if data_type(set) > 0 { MAP } else { 0 };
    let concatenation = if has_parts(set) { CONCATENATION } else { 0 };
    let of_packets = if set.room_for_packets.is_some() { OF_PACKETS | TIMEOUTS } else { 0 };
    intervals | map | concatenation | of_packets
}

/// What a map leads to; 0 for a set.
fn data_type(set: &Set) -> u32 {
    if set.is_map { VERDICTS } else { kind(&set.data) }
}

fn key_type(set: &Set) -> u32 {
    kind(&set.key)
}

/// How the program nft calls the parts of a key, six bits each; it means nothing to the kernel.
fn kind(keys: &[Key]) -> u32 {
    let number = |key: &Key| match key {
        Key::Number => 4,
        Key::Ipv4 => 7,
        Key::Ipv6 => 8,
        Key::Protocol => 12,
        Key::Port => 13,
        Key::Priority => 23,
        Key::Interface => 41,
    };
    keys.iter().fold(0, |kind, key| kind << 6 | number(key))
}

/// What the program nft keeps with a set: how it shall show the bytes of keys and values, what they are of, and a comment.
fn user_data(set: &Set) -> Vec<u8> {
    const KEY_ORDER: u8 = 0;
    const DATA_ORDER: u8 = 1;
    const KEY_TYPE: u8 = 3;
    const DATA_TYPE: u8 = 4;
    const COMMENT: u8 = 7;
    let mut data = entry(KEY_ORDER, &order(&set.key).to_ne_bytes());
    if !set.has_named_types() {
        let values = if set.is_map { examples::VERDICT.to_vec() } else { examples::of(&set.data) };
        data.extend(entry(DATA_ORDER, &order(&set.data).to_ne_bytes()));
        data.extend(entry(KEY_TYPE, &examples::of(&set.key)));
        data.extend(entry(DATA_TYPE, &values));
    }
    if let Some(comment) = &set.comment {
        let mut comment = remark(comment);
        comment.iter_mut().take(1).for_each(|kind| *kind = COMMENT);
        data.extend(comment);
    }
    data
}

/// The order of a value's bytes.
fn order(keys: &[Key]) -> u32 {
    const HOST_ORDER: u32 = 1;
    const NETWORK_ORDER: u32 = 2;
    match keys {
        [Key::Interface | Key::Priority | Key::Number] => HOST_ORDER,
        [_] => NETWORK_ORDER,
        _ => 0,
    }
}

/// A piece of what nft keeps (`nftnl_udata_put`).
fn entry(kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).unwrap_or(u8::MAX);
    [&[kind, length], data].concat()
}

/// Asks for the sets of a table.
pub(super) fn list_sets(table: Table<'_>) -> Message {
    of(table, GET_SET, NLM_F_DUMP)
}

/// A set with these attributes, if it is one of the table, and not part of a rule.
pub(super) fn read_set(set: &[u8], table: Table<'_>) -> Option<HeldSet> {
    find(set, SET_TABLE).map(text).filter(|it| it == table.name)?;
    let number = |kind| find(set, kind).and_then(network_number).unwrap_or_default();
    if number(SET_FLAGS) & OF_A_RULE != 0 {
        return None;
    }
    Some(HeldSet {
        name: find(set, SET_NAME).map(text)?,
        flags: number(SET_FLAGS),
        key_type: number(SET_KEY_TYPE),
        key_size: number(SET_KEY_SIZE),
        data_type: number(SET_DATA_TYPE),
        is_counted: [SET_EXPRESSION, SET_EXPRESSIONS].iter().any(|it| find(set, *it).is_some()),
    })
}

impl HeldSet {
    /// Whether it is what [`Change::Set`](super::Change::Set) would make.
    #[must_use]
    pub fn is_like(&self, set: &Set) -> bool {
        // Sets that podwire made before have the flag without intervals as well: that makes no difference.
        let told = |flags: u32| if set.is_interval { flags } else { flags & !CONCATENATION };
        told(self.flags) == told(flags(set))
            && self.key_type == key_type(set)
            && usize::try_from(self.key_size) == Ok(set.size())
            && self.data_type == data_type(set)
            && self.is_counted == set.is_counted
    }
}

/// Deletes a set that no rule looks into.
pub(super) fn delete_set(table: Table<'_>, name: &str) -> Message {
    of(table, DELETE_SET, 0).text(SET_NAME, name)
}

/// Adds elements that may be there.
pub(super) fn add_elements(table: Table<'_>, set: &str, elements: &[Encoded]) -> Vec<Message> {
    change_elements(table, set, elements, NEW_ELEMENTS, NLM_F_CREATE)
}

/// Deletes elements that are there.
pub(super) fn delete_elements(table: Table<'_>, set: &str, elements: &[Encoded]) -> Vec<Message> {
    change_elements(table, set, elements, DELETE_ELEMENTS, 0)
}

/// Deletes all elements of a set.
pub(super) fn empty_set(table: Table<'_>, set: &str) -> Message {
    of(table, DELETE_ELEMENTS, 0).text(ELEMENTS_SET, set)
}

fn change_elements(
    table: Table<'_>,
    set: &str,
    elements: &[Encoded],
    kind: [u8; 2],
    flags: u16,
) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = elements.iter().peekable();
    while rest.peek().is_some() {
        let message =
            of(table, kind, flags).text(ELEMENTS_SET, set).nested(ELEMENTS, |mut list| {
                let start = list.len();
                while let Some(element) = rest.next_if(|_| list.len() - start < ROOM) {
                    list = list.nested(LIST_ELEMENT, |it| encoded(it, element));
                }
                list
            });
        messages.push(message);
    }
    messages
}

fn encoded(message: Message, element: &Encoded) -> Message {
    let value = |bytes: &'_ [u8]| bytes.to_vec();
    let message =
        message.nested(ELEMENT_KEY, |data| data.attribute(DATA_VALUE, &value(&element.key)));
    let message = element.last.iter().fold(message, |message, last| {
        message.nested(ELEMENT_LAST, |data| data.attribute(DATA_VALUE, last))
    });
    let message = if element.is_end {
        message.attribute(ELEMENT_FLAGS, &INTERVAL_END.to_be_bytes())
    } else {
        message
    };
    let message = element.verdict.iter().fold(message, |message, verdict| {
        message.nested(ELEMENT_DATA, |data| verdict_data(data, verdict))
    });
    let message = element.data.iter().fold(message, |message, values| {
        message.nested(ELEMENT_DATA, |data| data.attribute(DATA_VALUE, values))
    });
    let comment = element.comment.iter();
    comment.fold(message, |message, text| message.attribute(ELEMENT_USER_DATA, &remark(text)))
}

/// In words, what a message about a set wants.
pub(super) fn describe(kind: [u8; 2], set: &str, of_table: &str) -> Option<String> {
    Some(match kind {
        NEW_SET => format!("make set {set:?} {of_table}"),
        DELETE_SET => format!("delete set {set:?} {of_table}"),
        NEW_ELEMENTS => format!("add elements to set {set:?} {of_table}"),
        DELETE_ELEMENTS => format!("delete elements of set {set:?} {of_table}"),
        _ => return None,
    })
}

/// Asks for all elements of a set.
pub(super) fn list_elements(table: Table<'_>, set: &str) -> Message {
    let message = Message::of(table, GET_ELEMENTS, NLM_F_DUMP);
    message.text(ELEMENTS_TABLE, table.name).text(ELEMENTS_SET, set)
}

/// Asks for one element.
pub(super) fn get_element(table: Table<'_>, set: &str, element: &Encoded) -> Message {
    of(table, GET_ELEMENTS, 0)
        .text(ELEMENTS_SET, set)
        .nested(ELEMENTS, |list| list.nested(LIST_ELEMENT, |it| encoded(it, element)))
}

/// The elements in one message of a list. What a map leads to that is no verdict known here is left out of
/// the element.
pub(super) fn read_elements(message: &[u8]) -> impl Iterator<Item = Encoded> {
    attributes(find(message, ELEMENTS).unwrap_or_default()).filter_map(|(_, it)| read_element(it))
}

/// Those of them that have been found for packets, with how many.
pub(super) fn read_counted(message: &[u8]) -> impl Iterator<Item = (Encoded, u64)> {
    let elements = attributes(find(message, ELEMENTS).unwrap_or_default());
    // Most have counted nothing: no more is read of those.
    elements.filter_map(|(_, it)| {
        let packets = packets(it).filter(|it| *it > 0)?;
        read_element(it).map(|element| (element, packets))
    })
}

/// The elements in one message of a list, with how long they last: all in all, and from when the message was written on.
pub(super) fn read_lasting(message: &[u8]) -> impl Iterator<Item = (Encoded, Option<Duration>)> {
    attributes(find(message, ELEMENTS).unwrap_or_default()).filter_map(|(_, it)| {
        Some((read_element(it)?, find(it, ELEMENT_EXPIRATION).and_then(milliseconds)))
    })
}

fn milliseconds(payload: &[u8]) -> Option<Duration> {
    payload.try_into().ok().map(u64::from_be_bytes).map(Duration::from_millis)
}

fn read_element(element: &[u8]) -> Option<Encoded> {
    let value = |data: &[u8]| find(data, DATA_VALUE).map(<[u8]>::to_vec);
    let flags = find(element, ELEMENT_FLAGS).and_then(network_number).unwrap_or_default();
    Some(Encoded {
        key: find(element, ELEMENT_KEY).and_then(value)?,
        last: find(element, ELEMENT_LAST).and_then(value),
        is_end: flags & INTERVAL_END != 0,
        verdict: find(element, ELEMENT_DATA).and_then(read_verdict),
        data: find(element, ELEMENT_DATA).and_then(value),
        comment: find(element, ELEMENT_USER_DATA).and_then(comment),
    })
}

/// What an element has counted. One expression alone is told in another place than several (`nft_set_elem_expr_dump`).
fn packets(element: &[u8]) -> Option<u64> {
    let several = attributes(find(element, ELEMENT_EXPRESSIONS).unwrap_or_default());
    let single = find(element, ELEMENT_EXPRESSION).into_iter();
    single.chain(several.map(|(_, it)| it)).find_map(counted_by)
}

#[cfg(test)]
mod tests {
    use ruleset::nft::{Element, Family, Value};

    use super::*;
    use crate::netfilter::message::HEADERS;

    const TABLE: Table<'_> = Table { family: Family::Inet, name: "t" };

    #[test]
    fn many_elements_are_told_in_several_messages() {
        let set = Set::new("s", [Key::Ipv6]);
        let element = |it: u16| Element::new([Value::Address([0xfd, 0, 0, 0, 0, 0, 0, it].into())]);
        let elements: Vec<_> = (0..5000).flat_map(|it| set.encode(&element(it))).collect();
        let messages = add_elements(TABLE, "s", &elements);
        assert_eq!(messages.len(), 3);
        let read = messages
            .into_iter()
            .flat_map(|it| read_elements(&it.into_bytes()[HEADERS..]).collect::<Vec<_>>());
        assert_eq!(read.collect::<Vec<_>>(), elements);
        assert_eq!(add_elements(TABLE, "s", &[]), []);
    }
}

//! Rules as the kernel lists them, read in place: a node has thousands.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use ruleset::nft::{Family, Table};

use super::HeldRule;
use super::message::comment;
use crate::attributes::{attributes, find, network_number, text};

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_REMARK: u16 = 7;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const IMMEDIATE_DATA: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const BITWISE_MASK: u16 = 4;
const COMPARE_OPERATOR: u16 = 2;
const COMPARE_DATA: u16 = 3;
const NETWORK_HEADER: u32 = 1;
const EQUAL: u32 = 0;
/// `NFT_JUMP` and `NFT_GOTO`: with either the chain is in use.
const JUMPS: [u32; 2] = [(-3_i32).cast_unsigned(), (-4_i32).cast_unsigned()];

/// A rule that jumps, or goes, to a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// Names the rule within its chain.
    pub handle: u64,
    /// The source addresses that it is for; `None` when it is not told by them.
    pub source: Option<IpNetwork>,
}

fn find_number(bytes: &[u8], kind: u16) -> Option<u32> {
    find(bytes, kind).and_then(network_number)
}

fn is_text(bytes: &[u8], text: &str) -> bool {
    bytes.strip_suffix(&[0]) == Some(text.as_bytes())
}

/// The handle of the rule with these attributes, if it is one of the table's `chain`: old kernels list
/// those of all.
fn handle(rule: &[u8], table: Table<'_>, chain: &str) -> Option<u64> {
    find(rule, RULE_TABLE).filter(|name| is_text(name, table.name))?;
    find(rule, RULE_CHAIN).filter(|name| is_text(name, chain))?;
    find(rule, RULE_HANDLE)?.try_into().ok().map(u64::from_be_bytes)
}

/// The rule with these attributes, if it is one of the table's `chain`: old kernels list those of all.
pub(super) fn read(rule: &[u8], table: Table<'_>, chain: &str) -> Option<HeldRule> {
    find(rule, RULE_CHAIN).filter(|name| is_text(name, chain))?;
    read_any(rule, table).map(|(_, rule)| rule)
}

/// The chain of the rule with these attributes, and the rule, if it is one of the table.
pub(super) fn read_any(rule: &[u8], table: Table<'_>) -> Option<(String, HeldRule)> {
    find(rule, RULE_TABLE).filter(|name| is_text(name, table.name))?;
    let chain = find(rule, RULE_CHAIN).map(text)?;
    let handle = find(rule, RULE_HANDLE)?.try_into().ok().map(u64::from_be_bytes)?;
    let comment = find(rule, RULE_REMARK).and_then(comment);
    Some((chain, HeldRule { handle, comment, packets: packets(rule) }))
}

fn packets(rule: &[u8]) -> Option<u64> {
    let mut expressions = attributes(find(rule, RULE_EXPRESSIONS)?);
    let is_counter =
        |it: &[u8]| find(it, EXPRESSION_NAME).is_some_and(|name| is_text(name, "counter"));
    let (_, counter) = expressions.find(|(_, it)| is_counter(it))?;
    let packets = find(find(counter, EXPRESSION_DATA)?, COUNTER_PACKETS)?;
    packets.try_into().ok().map(u64::from_be_bytes)
}

/// The rule with these attributes, if it is one of the table's `chain` that jumps to `target`.
pub(super) fn read_jump(rule: &[u8], table: Table<'_>, chain: &str, target: &str) -> Option<Jump> {
    let handle = handle(rule, table, chain)?;
    let mut source = SourceMatch { is_ipv4: table.family == Family::Ip, loaded: None, found: None };
    let mut jumps = false;
    for (_, expression) in attributes(find(rule, RULE_EXPRESSIONS)?) {
        let name = find(expression, EXPRESSION_NAME)?;
        let data = find(expression, EXPRESSION_DATA).unwrap_or_default();
        jumps |= is_text(name, "immediate") && is_jump(data, target);
        source.take(name, data);
    }
    jumps.then_some(Jump { handle, source: source.found })
}

fn is_jump(immediate: &[u8], target: &str) -> bool {
    let verdict = find(immediate, IMMEDIATE_DATA).and_then(|data| find(data, DATA_VERDICT));
    verdict.is_some_and(|verdict| {
        find_number(verdict, VERDICT_CODE).is_some_and(|code| JUMPS.contains(&code))
            && find(verdict, VERDICT_CHAIN).is_some_and(|name| is_text(name, target))
    })
}

/// Recognises a comparison of the source address: its bytes are loaded, perhaps masked, and
/// compared, in expressions that follow each other. Whole bytes of a shorter prefix are loaded
/// without a mask.
struct SourceMatch {
    is_ipv4: bool,
    /// The mask of what was loaded last, if that began with the source address.
    loaded: Option<[u8; 16]>,
    found: Option<IpNetwork>,
}

impl SourceMatch {
    fn take(&mut self, name: &[u8], data: &[u8]) {
        let loaded = self.loaded.take();
        if is_text(name, "payload") {
            let start = if self.is_ipv4 { 12 } else { 8 };
            let is_source = find_number(data, PAYLOAD_BASE) == Some(NETWORK_HEADER)
                && find_number(data, PAYLOAD_OFFSET) == Some(start);
            self.loaded = is_source.then_some([0xff; 16]);
        } else if is_text(name, "bitwise") {
            let mask = find(data, BITWISE_MASK).and_then(|data| find(data, DATA_VALUE));
            self.loaded = loaded.and(mask).and_then(padded);
        } else if is_text(name, "cmp") && find_number(data, COMPARE_OPERATOR) == Some(EQUAL) {
            let value = find(data, COMPARE_DATA).and_then(|data| find(data, DATA_VALUE));
            if let (Some(mask), Some(value)) = (loaded, value) {
                self.found = self.network(value, mask);
            }
        }
    }

    fn network(&self, value: &[u8], mask: [u8; 16]) -> Option<IpNetwork> {
        let bits: usize = value.len() * 8;
        let ones = u128::from_be_bytes(mask).leading_ones() as usize;
        let address = padded(value)?;
        let address: IpAddr = if self.is_ipv4 {
            <[u8; 4]>::try_from(address.get(..4)?).ok()?.into()
        } else {
            address.into()
        };
        IpNetwork::new(address, u8::try_from(ones.min(bits)).ok()?).ok()
    }
}

/// Up to 16 bytes, with zeros after them.
fn padded(bytes: &[u8]) -> Option<[u8; 16]> {
    let mut room = [0; 16];
    room.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(room)
}

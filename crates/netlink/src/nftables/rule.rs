//! Rules as the kernel lists them, read in place: a node has thousands.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::NlasIterator;
use ruleset::iptables::Side;
use ruleset::nft::{Family, Table};

use super::meanwhile::Extent;
use super::message::comment;
use super::translation::read_destination;
use super::{Client, HeldRule, Message, none_if_missing};
use crate::Error;
use crate::attributes::{attributes, find, network_number, text};

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_REMARK: u16 = 7;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const IMMEDIATE_DATA: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const MATCH_NAME: u16 = 1;
const MATCH_REVISION: u16 = 2;
const MATCH_DATA: u16 = 3;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const BITWISE_MASK: u16 = 4;
const META_KEY: u16 = 2;
/// `NFT_META_L4PROTO`.
const L4_PROTOCOL: u32 = 16;
const COMPARE_OPERATOR: u16 = 2;
const COMPARE_DATA: u16 = 3;
const NETWORK_HEADER: u32 = 1;
const EQUAL: u32 = 0;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`.
const TRANSPORT_HEADER: u32 = 2;
/// Where a port of destination is in the headers of TCP, UDP and SCTP.
const PORT_OFFSET: u32 = 2;
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

pub(super) fn find_number(bytes: &[u8], kind: u16) -> Option<u32> {
    find(bytes, kind).and_then(network_number)
}

pub(super) fn is_text(bytes: &[u8], text: &str) -> bool {
    bytes.strip_suffix(&[0]) == Some(text.as_bytes())
}

/// The handle of the rule with these attributes, if it is one of the table's `chain`: old kernels list
/// those of all.
pub(super) fn handle(rule: &[u8], table: Table<'_>, chain: &str) -> Option<u64> {
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

/// The names of a rule's expressions, and what each is told.
pub(super) fn expressions(rule: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    attributes(find(rule, RULE_EXPRESSIONS).unwrap_or_default()).map(|(_, expression)| {
        let part = |kind| find(expression, kind).unwrap_or_default();
        (part(EXPRESSION_NAME), part(EXPRESSION_DATA))
    })
}

/// Whether the rule with these attributes is one of the table's `chain`, and like that with those which are wanted, but
/// for what it has counted.
pub(super) fn is_like(rule: &[u8], table: Table<'_>, chain: &str, wanted: &[u8]) -> bool {
    let expressions = |rule| {
        let list = find(rule, RULE_EXPRESSIONS).unwrap_or_default();
        attributes(list).map(|(_, expression)| expression).collect::<Vec<_>>()
    };
    let (held, wanted) = (expressions(rule), expressions(wanted));
    handle(rule, table, chain).is_some()
        && held.len() == wanted.len()
        && held.iter().zip(wanted).all(|(held, it)| says(held, it))
}

/// Whether the kernel tells all that is `wanted` of an expression; it tells more of some.
fn says(held: &[u8], wanted: &[u8]) -> bool {
    NlasIterator::new(wanted).all(|it| {
        it.is_ok_and(|it| {
            let (kind, is_list) = (it.kind(), it.nested_flag());
            let wanted = find(wanted, kind).unwrap_or_default();
            find(held, kind)
                .is_some_and(|held| if is_list { says(held, wanted) } else { held == wanted })
        })
    })
}

/// The ports of a rule of the iptables programs that has `-m multiport --dports`, if it is one of the table's `chain`;
/// `None` within when it names no ports, or not one by one.
pub(super) fn read_ports(rule: &[u8], table: Table<'_>, chain: &str) -> Option<Option<Vec<u16>>> {
    handle(rule, table, chain)?;
    Some(ports(rule))
}

/// The ports of `-m multiport --dports`.
fn ports(rule: &[u8]) -> Option<Vec<u16>> {
    let of_match = |data| {
        (find_number(data, MATCH_REVISION)? == 1).then_some(())?;
        multiport(find(data, MATCH_DATA)?)
    };
    matches(rule, "multiport").find_map(of_match)
}

/// What a rule of the iptables programs tells matches of this name.
fn matches<'a>(rule: &'a [u8], wanted: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let matches = expressions(rule).filter(|(name, _)| is_text(name, "match"));
    let is_one = move |data: &&[u8]| find(data, MATCH_NAME).is_some_and(|it| is_text(it, wanted));
    matches.map(|(_, data)| data).filter(is_one)
}

/// A rule of the iptables programs, by the ports that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRule {
    /// Names the rule within its chain.
    pub handle: u64,
    /// The protocol's number, if the rule is for one.
    pub protocol: Option<u8>,
    /// The ports of destination; none where they are not told one by one.
    pub ports: Vec<u16>,
    /// The chain that it jumps to, or goes to.
    pub chain: Option<String>,
    /// Where it leads by target DNAT.
    pub to: Option<IpAddr>,
    /// The rule's comment.
    pub comment: Option<String>,
}

impl Client {
    /// The rules of `chain`, as far as they tell ports as the iptables programs write them.
    ///
    /// # Errors
    /// [`Error`].
    pub fn port_rules(&mut self, table: Table<'_>, chain: &str) -> Result<Vec<PortRule>, Error> {
        let what = format!("list the rules of chain {chain:?} of table {table} in nf_tables");
        let list = || Message::list_rules(table, chain);
        let rules = self.list(Extent::Table(table), list, &what, |rules: &mut Vec<_>, rule| {
            rules.extend(read_port_rule(rule, table, chain));
        });
        none_if_missing(rules)
    }
}

/// The rule with these attributes, if it is one of the table's `chain`.
fn read_port_rule(rule: &[u8], table: Table<'_>, chain: &str) -> Option<PortRule> {
    let handle = handle(rule, table, chain)?;
    let (mut protocol, mut port, mut target) = (None, None, None);
    let (mut is_protocol, mut is_port) = (false, false);
    for (name, data) in expressions(rule) {
        if is_text(name, "cmp") && find_number(data, COMPARE_OPERATOR) == Some(EQUAL) {
            let value = find(data, COMPARE_DATA).and_then(|data| find(data, DATA_VALUE));
            if let Some([number]) = value.filter(|_| is_protocol) {
                protocol = Some(*number);
            } else if let Some([high, low]) = value.filter(|_| is_port) {
                port = Some(u16::from_be_bytes([*high, *low]));
            }
        }
        is_protocol = is_text(name, "meta") && find_number(data, META_KEY) == Some(L4_PROTOCOL);
        is_port = is_text(name, "payload")
            && find_number(data, PAYLOAD_BASE) == Some(TRANSPORT_HEADER)
            && find_number(data, PAYLOAD_OFFSET) == Some(PORT_OFFSET);
        target = target.or_else(|| is_text(name, "immediate").then(|| jump(data)).flatten());
    }
    let of_match = |data: &[u8]| {
        let bytes = find(data, MATCH_DATA)?.split(|it| *it == 0).next()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let comment = matches(rule, "comment").find_map(of_match);
    Some(PortRule {
        handle,
        protocol,
        ports: ports(rule)
            .unwrap_or_else(|| port.or_else(|| port_of_match(rule)).into_iter().collect()),
        chain: target.map(text),
        to: read_destination(rule, table, chain).flatten(),
        comment: comment.or_else(|| find(rule, RULE_REMARK).and_then(self::comment)),
    })
}

/// The port of `--dport`, of a `struct xt_tcp`, `struct xt_udp` (behind the ports of the source) or `struct xt_sctp_info`.
fn port_of_match(rule: &[u8]) -> Option<u16> {
    let places = [("tcp", 4), ("udp", 4), ("sctp", 0)];
    places.into_iter().find_map(|(name, place)| {
        let data = matches(rule, name).find_map(|data| find(data, MATCH_DATA))?;
        let [a, b, c, d] = *data.get(place..)?.first_chunk()?;
        ([a, b] == [c, d]).then(|| u16::from_ne_bytes([a, b]))
    })
}

/// The ports of an `xt_multiport_v1`: what they are (source, destination or either), how many, fifteen places for them,
/// as many bytes that tell where ranges begin, and whether all but these are meant.
fn multiport(data: &[u8]) -> Option<Vec<u16>> {
    const PLACES: usize = 15;
    const DESTINATION: u8 = 1;
    let ([of, count], rest) = data.split_first_chunk()?;
    let (ports, rest) = rest.split_at_checked(2 * PLACES)?;
    let (ranges, rest) = rest.split_at_checked(PLACES)?;
    let is_list = ranges.iter().all(|it| *it == 0) && rest.first() == Some(&0);
    (is_list && *of == DESTINATION).then_some(())?;
    let ports = ports.chunks_exact(2).take(usize::from(*count));
    ports.map(|it| it.try_into().ok().map(u16::from_ne_bytes)).collect()
}

fn packets(rule: &[u8]) -> Option<u64> {
    let (_, counter) = expressions(rule).find(|(name, _)| is_text(name, "counter"))?;
    counted(counter)
}

/// How many packets an expression has counted, if it is one that counts.
pub(super) fn counted_by(expression: &[u8]) -> Option<u64> {
    let name = find(expression, EXPRESSION_NAME)?;
    is_text(name, "counter").then(|| counted(find(expression, EXPRESSION_DATA)?))?
}

fn counted(counter: &[u8]) -> Option<u64> {
    find(counter, COUNTER_PACKETS)?.try_into().ok().map(u64::from_be_bytes)
}

/// The rule with these attributes, if it is one of the table's `chain` that jumps to `target`.
pub(super) fn read_jump(rule: &[u8], table: Table<'_>, chain: &str, target: &str) -> Option<Jump> {
    let handle = handle(rule, table, chain)?;
    let mut source = AddressMatch::new(Side::Source, table);
    let mut jumps = false;
    for (name, data) in expressions(rule) {
        jumps |= is_text(name, "immediate") && is_jump(data, target);
        source.take(name, data);
    }
    jumps.then_some(Jump { handle, source: source.found })
}

/// A rule that is for addresses, as the programs of iptables make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    /// The chain that it is in.
    pub chain: String,
    /// Names the rule within its chain.
    pub handle: u64,
    /// The source addresses that it is for.
    pub source: Option<IpNetwork>,
    /// The destinations that it is for.
    pub destination: Option<IpNetwork>,
    /// What else it asks, by the names of iptables' matches, and of nf_tables' expressions but for those of addresses
    /// and counters.
    pub asks: Vec<String>,
    /// Whether it accepts.
    pub accepts: bool,
}

/// The rule with these attributes, if it is in a chain of the table of which `is_one` is true.
pub(super) fn read_addressed(
    rule: &[u8],
    table: Table<'_>,
    is_one: impl Fn(&str) -> bool,
) -> Option<Addressed> {
    let chain = find(rule, RULE_CHAIN).map(text).filter(|chain| is_one(chain))?;
    let handle = handle(rule, table, &chain)?;
    let [mut source, mut destination] =
        [Side::Source, Side::Destination].map(|side| AddressMatch::new(side, table));
    let (mut asks, mut accepts) = (Vec::new(), false);
    for (name, data) in expressions(rule) {
        let is_of_address = source.take(name, data) | destination.take(name, data);
        if is_text(name, "immediate") && is_accept(data) {
            accepts = true;
        } else if is_text(name, "match") {
            asks.extend(find(data, MATCH_NAME).map(text));
        } else if !is_of_address && !is_text(name, "counter") {
            asks.push(text(name));
        }
    }
    let (source, destination) = (source.found, destination.found);
    Some(Addressed { chain, handle, source, destination, asks, accepts })
}

fn is_accept(immediate: &[u8]) -> bool {
    const ACCEPT: u32 = 1;
    let verdict = find(immediate, IMMEDIATE_DATA).and_then(|data| find(data, DATA_VERDICT));
    verdict.and_then(|it| find_number(it, VERDICT_CODE)) == Some(ACCEPT)
}

fn is_jump(immediate: &[u8], target: &str) -> bool {
    jump(immediate).is_some_and(|name| is_text(name, target))
}

/// The name of the chain that is jumped to, or gone to.
fn jump(immediate: &[u8]) -> Option<&[u8]> {
    let verdict = find(immediate, IMMEDIATE_DATA).and_then(|data| find(data, DATA_VERDICT))?;
    find_number(verdict, VERDICT_CODE).filter(|code| JUMPS.contains(code))?;
    find(verdict, VERDICT_CHAIN)
}

/// Whether a rule that goes may take a chain with it that is part of it (`NFT_CHAIN_BINDING`): the kernel names those
/// itself (`nf_tables_addchain`). One that is told without its expressions may.
pub(super) fn may_lead_to_own_chain(rule: &[u8]) -> bool {
    const NAMED_BY_KERNEL: &[u8] = b"__chain";
    let mut expressions = expressions(rule).peekable();
    expressions.peek().is_none()
        || expressions
            .filter(|(name, _)| is_text(name, "immediate"))
            .any(|(_, data)| jump(data).is_some_and(|it| it.starts_with(NAMED_BY_KERNEL)))
}

/// Recognises a comparison of an address: its bytes are loaded, perhaps masked, and
/// compared, in expressions that follow each other. Whole bytes of a shorter prefix are loaded
/// without a mask.
struct AddressMatch {
    is_ipv4: bool,
    /// Where in the header it begins.
    start: u32,
    /// The mask of what was loaded last, if that began with the address.
    loaded: Option<[u8; 16]>,
    found: Option<IpNetwork>,
}

impl AddressMatch {
    fn new(side: Side, table: Table<'_>) -> Self {
        let is_ipv4 = table.family == Family::Ip;
        let start = match (side, is_ipv4) {
            (Side::Source, true) => 12,
            (Side::Destination, true) => 16,
            (Side::Source, false) => 8,
            (Side::Destination, false) => 24,
        };
        Self { is_ipv4, start, loaded: None, found: None }
    }

    /// Takes an expression; whether it is one of such a comparison.
    fn take(&mut self, name: &[u8], data: &[u8]) -> bool {
        let loaded = self.loaded.take();
        if is_text(name, "payload") {
            let is_address = find_number(data, PAYLOAD_BASE) == Some(NETWORK_HEADER)
                && find_number(data, PAYLOAD_OFFSET) == Some(self.start);
            self.loaded = is_address.then_some([0xff; 16]);
            is_address
        } else if is_text(name, "bitwise") {
            let mask = find(data, BITWISE_MASK).and_then(|data| find(data, DATA_VALUE));
            self.loaded = loaded.and(mask).and_then(padded);
            self.loaded.is_some()
        } else if is_text(name, "cmp") && find_number(data, COMPARE_OPERATOR) == Some(EQUAL) {
            let value = find(data, COMPARE_DATA).and_then(|data| find(data, DATA_VALUE));
            if let (Some(mask), Some(value)) = (loaded, value) {
                self.found = self.network(value, mask);
                return true;
            }
            false
        } else {
            false
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Of destinations, with this many ports.
    fn data(ports: &[u16]) -> Vec<u8> {
        let mut data = vec![1, u8::try_from(ports.len()).unwrap()];
        data.extend(ports.iter().flat_map(|it| it.to_ne_bytes()));
        data.resize(48, 0);
        data
    }

    #[test]
    fn ports_are_read_where_they_are_a_list_of_destinations() {
        assert_eq!(multiport(&data(&[80, 8080])), Some(vec![80, 8080]));
        let all: Vec<u16> = (1..=15).collect();
        assert_eq!(multiport(&data(&all)), Some(all));
        // Of sources; a range; all others; cut off.
        for (place, value) in [(0, 0), (0, 2), (32, 1), (47, 1)] {
            let mut other = data(&[80, 8080]);
            other[place] = value;
            assert_eq!(multiport(&other), None, "{place}");
        }
        assert_eq!(multiport(&data(&[80])[..47]), None);
        assert_eq!(multiport(&[]), None);
    }
}

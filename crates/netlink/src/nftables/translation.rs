//! Rules that lead a port to another address, as the programs nft and iptables write them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ruleset::nft::{Family, Table};

use super::meanwhile::Extent;
use super::message::comment;
use super::rule::{self, find_number, is_text};
use super::{Client, Message, none_if_missing};
use crate::Error;
use crate::attributes::find;

const META_KEY: u16 = 2;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const COMPARE_OPERATOR: u16 = 2;
const COMPARE_DATA: u16 = 3;
const IMMEDIATE_REGISTER: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const TARGET_NAME: u16 = 1;
const TARGET_REVISION: u16 = 2;
const TARGET_DATA: u16 = 3;
const NAT_KIND: u16 = 1;
const NAT_ADDRESS: u16 = 3;
/// `NFT_META_L4PROTO`.
const PROTOCOL: u32 = 16;
/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Where a port of destination is in the headers of TCP, UDP and SCTP.
const PORT_OFFSET: u32 = 2;
const EQUAL: u32 = 0;
/// `NFT_NAT_DNAT`.
const DESTINATION: u32 = 1;

/// A rule that leads what is for a port to another address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translation {
    /// The protocol's number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
    /// The address that packets must be for; `None` for any.
    pub address: Option<IpAddr>,
    /// Where they are led.
    pub to: IpAddr,
    /// The rule's comment.
    pub comment: Option<String>,
}

impl Client {
    /// The rules of `chain` that lead ports to other addresses, as the program nft writes them.
    ///
    /// # Errors
    /// [`Error`].
    pub fn translations(
        &mut self,
        table: Table<'_>,
        chain: &str,
    ) -> Result<Vec<Translation>, Error> {
        let what = format!("list the rules of chain {chain:?} of table {table} in nf_tables");
        let list = || Message::list_rules(table, chain);
        let found = self.list(Extent::Table(table), list, &what, |found: &mut Vec<_>, rule| {
            found.extend(read(rule, table, chain));
        });
        none_if_missing(found)
    }

    /// Where the rules of `chain` lead that the iptables programs made with target DNAT; `None` of one that does not tell.
    ///
    /// # Errors
    /// [`Error`].
    pub fn destinations(
        &mut self,
        table: Table<'_>,
        chain: &str,
    ) -> Result<Vec<Option<IpAddr>>, Error> {
        let what = format!("list the rules of chain {chain:?} of table {table} in nf_tables");
        let list = || Message::list_rules(table, chain);
        let found = self.list(Extent::Table(table), list, &what, |found: &mut Vec<_>, rule| {
            found.extend(read_destination(rule, table, chain));
        });
        none_if_missing(found)
    }
}

/// What a register was filled with last.
#[derive(Clone, Copy)]
enum Loaded {
    Protocol,
    Port,
    Address,
    Other,
}

/// Where a rule with target DNAT leads, if it is one of the table's `chain`; `None` within when the target has another
/// layout than the programs write today.
pub(super) fn read_destination(
    rule: &[u8],
    table: Table<'_>,
    chain: &str,
) -> Option<Option<IpAddr>> {
    rule::handle(rule, table, chain)?;
    let (_, data) = rule::expressions(rule).find(|(name, data)| {
        is_text(name, "target") && find(data, TARGET_NAME).is_some_and(|it| is_text(it, "DNAT"))
    })?;
    let is_known = find_number(data, TARGET_REVISION) == Some(2);
    let range = find(data, TARGET_DATA).filter(|_| is_known);
    Some(range.and_then(|it| first_address(it, table.family == Family::Ip)))
}

/// Of a `struct nf_nat_range2`: what is given, then the first address.
fn first_address(range: &[u8], is_ipv4: bool) -> Option<IpAddr> {
    /// `NF_NAT_RANGE_MAP_IPS`.
    const ADDRESS: u32 = 1;
    let (given, rest) = range.split_first_chunk()?;
    let address: [u8; 16] = *rest.first_chunk()?;
    (u32::from_ne_bytes(*given) & ADDRESS != 0).then_some(())?;
    let [a, b, c, d, ..] = address;
    Some(if is_ipv4 { [a, b, c, d].into() } else { address.into() })
}

/// The rule with these attributes, if it is one of the table's `chain` that translates, and compares nothing in other
/// ways than by being equal.
fn read(rule: &[u8], table: Table<'_>, chain: &str) -> Option<Translation> {
    rule::handle(rule, table, chain)?;
    let mut registers: BTreeMap<u32, &[u8]> = BTreeMap::new();
    let (mut protocol, mut port, mut address, mut to) = (None, None, None, None);
    let mut loaded = Loaded::Other;
    for (name, data) in rule::expressions(rule) {
        let value = |kind| find(data, kind).and_then(|data| find(data, DATA_VALUE));
        if is_text(name, "meta") {
            let is_protocol = find_number(data, META_KEY) == Some(PROTOCOL);
            loaded = if is_protocol { Loaded::Protocol } else { Loaded::Other };
        } else if is_text(name, "payload") {
            loaded = of_packet(data, table.family == Family::Ip);
        } else if is_text(name, "cmp") {
            (find_number(data, COMPARE_OPERATOR) == Some(EQUAL)).then_some(())?;
            let value = value(COMPARE_DATA)?;
            match loaded {
                Loaded::Protocol => protocol = value.first().copied(),
                Loaded::Port => port = value.try_into().ok().map(u16::from_be_bytes),
                Loaded::Address => address = Some(self::address(value)?),
                Loaded::Other => {}
            }
        } else if is_text(name, "immediate") {
            let register = find_number(data, IMMEDIATE_REGISTER).zip(value(IMMEDIATE_DATA));
            registers.extend(register);
        } else if is_text(name, "nat") && find_number(data, NAT_KIND) == Some(DESTINATION) {
            to = address_in(&registers, find_number(data, NAT_ADDRESS));
        }
    }
    let comment = find(rule, rule::RULE_REMARK).and_then(comment);
    Some(Translation { protocol: protocol?, port: port?, address, to: to?, comment })
}

fn of_packet(payload: &[u8], is_ipv4: bool) -> Loaded {
    let destination = if is_ipv4 { 16 } else { 24 };
    match (find_number(payload, PAYLOAD_BASE), find_number(payload, PAYLOAD_OFFSET)) {
        (Some(NETWORK_HEADER), Some(offset)) if offset == destination => Loaded::Address,
        (Some(TRANSPORT_HEADER), Some(PORT_OFFSET)) => Loaded::Port,
        _ => Loaded::Other,
    }
}

fn address_in(registers: &BTreeMap<u32, &[u8]>, register: Option<u32>) -> Option<IpAddr> {
    address(registers.get(&register?)?)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let of_four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    of_four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

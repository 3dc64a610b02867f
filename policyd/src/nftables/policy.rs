//! The chain of a policy.

use std::collections::BTreeSet;

use ruleset::Label;
use ruleset::iptables::PortRange;
use ruleset::long_hash;
use ruleset::nft::{Element, Encoded, Field, Key, Match, Rule, Set, Value, Verdict};

use super::dispatch::peer;
use super::{Families, RuleChain, known_again, sets};
use crate::iptables::{Family, SET_PREFIX, policy_chain_name};
use crate::model::{Direction, Protocol};
use crate::plan::{AllowRule, ChainKey, PeerMatch, PolicyChain, PortMatch};
use crate::words;

/// The chain that accepts what the policy allows, of these families.
#[must_use]
pub fn policy_chain(families: &Families, key: &ChainKey, chain: &PolicyChain) -> RuleChain {
    let rules = policy_rules(families, key, chain).map(|(_, rule)| rule).collect();
    let comment = Some(Label::new(&key.policy.to_string()).to_string());
    RuleChain { name: policy_chain_name(key), base: None, comment, rules }
}

/// The rules of that chain, each with the entry of the policy that it is made of.
pub fn policy_rules(
    families: &Families,
    key: &ChainKey,
    chain: &PolicyChain,
) -> impl Iterator<Item = (usize, Rule)> {
    chain.rules.iter().flat_map(move |allow| {
        let label = format!("{} {} {}", key.policy, words::direction(key.direction), allow.entry);
        let label = Label::new(&label);
        let rules = rules_of(families, key.direction, allow).into_iter();
        rules.map(move |it| (allow.entry, known_again(it, Some(&label))))
    })
}

/// The sets of ports that rules of the chain look into, with what they hold.
pub fn port_sets(chain: &PolicyChain) -> impl Iterator<Item = (Set, BTreeSet<Encoded>)> {
    chain.rules.iter().filter_map(|rule| match &rule.port {
        PortMatch::Ports(_, ranges) if ranges.len() > 1 => Some(port_set(ranges)),
        _ => None,
    })
}

/// Rules with the same ports share one, of whatever protocol.
fn port_set(ranges: &BTreeSet<(u16, u16)>) -> (Set, BTreeSet<Encoded>) {
    let ranges = merged(ranges);
    let text: Vec<_> = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    let name = format!("{SET_PREFIX}d{}", long_hash(&text.join(",")));
    let is_single = ranges.iter().all(|(first, last)| first == last);
    let set = Set::new(name, [Key::Port]);
    let set = if is_single { set } else { set.of_intervals() };
    let value = |(first, last): &(u16, u16)| {
        Element::new([Value::Ports(PortRange { first: *first, last: *last })])
    };
    let elements = ranges.iter().flat_map(|it| set.encode(&value(it))).collect();
    (set, elements)
}

/// Ranges that overlap or follow each other, as one: the kernel takes none that do.
fn merged(ranges: &BTreeSet<(u16, u16)>) -> Vec<(u16, u16)> {
    let mut merged = Vec::<(u16, u16)>::new();
    for &(first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn rules_of(families: &Families, direction: Direction, rule: &AllowRule) -> Vec<Rule> {
    let allow = |matches: Vec<Match>| Rule::new(matches, Verdict::Accept).counted();
    // Who is asked of by no address is asked once for both families.
    let is_of_any_family = rule.peer == PeerMatch::Any && !matches!(rule.port, PortMatch::Named(_));
    if is_of_any_family {
        return vec![allow(port(None, &rule.port).unwrap_or_default())];
    }
    let of_family = |family: &Family| {
        // What is compared by itself comes first: most rules do not apply, and to look into a set takes
        // some times as long.
        let port = port(Some(*family), &rule.port)?;
        let peer = peer_match(*family, direction, &rule.peer)?;
        Some(allow(port.into_iter().chain(peer).collect()))
    };
    families.iter().filter_map(of_family).collect()
}

/// What the other end must be; `None` when nobody of the family is it.
fn peer_match(family: Family, direction: Direction, it: &PeerMatch) -> Option<Option<Match>> {
    let field = peer(family, direction);
    let side = match field {
        Field::Ipv4(side) | Field::Ipv6(side) => side,
        _ => return None,
    };
    match it {
        PeerMatch::Any => Some(None),
        PeerMatch::Network(network) if !family.has_network(network) => None,
        PeerMatch::Network(network) if network.prefix() == 0 => {
            Some(Some(Match::Family { is_ipv4: family.is_ipv4() }))
        }
        PeerMatch::Network(network) => Some(Some(Match::Address(side, *network))),
        PeerMatch::Set(key) => Some(Some(Match::In(vec![field], sets::set(family, key)?.name))),
    }
}

/// What the port must be, of a family where that counts; `None` when there can be none.
fn port(family: Option<Family>, it: &PortMatch) -> Option<Vec<Match>> {
    Some(match it {
        PortMatch::Any => Vec::new(),
        PortMatch::Protocol(protocol) => vec![Match::Protocol(number(*protocol))],
        PortMatch::Ports(protocol, ranges) => vec![port_match(*protocol, ranges)],
        PortMatch::Named(key) => {
            let family = family?;
            let to = peer(family, Direction::Egress);
            let fields = vec![to, Field::Protocol, Field::DestinationPort];
            vec![Match::In(fields, sets::set(family, key)?.name)]
        }
    })
}

fn port_match(protocol: Protocol, ranges: &BTreeSet<(u16, u16)>) -> Match {
    let protocol = number(protocol);
    match (ranges.len(), ranges.first()) {
        (1, Some(&(first, last))) => Match::DestinationPort(protocol, PortRange { first, last }),
        _ => Match::DestinationPortIn(protocol, port_set(ranges).0.name),
    }
}

/// The number of a protocol.
pub(super) const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

//! The chain of a policy.

use std::collections::BTreeSet;

use ruleset::iptables::{Chain, Match, PortRange, Rule, Side, Target};
use ruleset::short_hash;

use super::sets::{protocol_name, set};
use super::{ALLOW, CHAIN_PREFIX, Family};
use crate::model::{Direction, Protocol};
use crate::plan::{AllowRule, ChainKey, PeerMatch, PolicyChain, PortMatch};

/// As many ports as one rule can have (`XT_MULTI_PORTS`).
const PORTS_OF_A_RULE: usize = 15;

/// The chain that allows what the policy does.
#[must_use]
pub fn policy_chain(family: Family, key: &ChainKey, chain: &PolicyChain) -> Chain {
    let rules = rules(family, key, chain).map(|(_, rule)| rule).collect();
    Chain { name: name(key), rules }
}

/// The rules of that chain, each with the entry of the policy that it is made of.
pub(crate) fn rules(
    family: Family,
    key: &ChainKey,
    chain: &PolicyChain,
) -> impl Iterator<Item = (usize, Rule)> {
    chain.rules.iter().flat_map(move |allow| {
        rules_of(family, key, allow).into_iter().map(|rule| (allow.entry, rule))
    })
}

/// The name of a policy's chain.
#[must_use]
pub fn name(key: &ChainKey) -> String {
    let direction = word(key.direction).to_uppercase();
    let ChainKey { policy, uid, .. } = key;
    format!("{CHAIN_PREFIX}{direction}-{}", short_hash(&format!("{policy} {uid}")))
}

const fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn rules_of(family: Family, key: &ChainKey, rule: &AllowRule) -> Vec<Rule> {
    let Some(peer) = peer(family, key.direction, &rule.peer) else { return Vec::new() };
    let label = format!("{} {} {}", key.policy, word(key.direction), rule.entry);
    let ports = ports(family, &rule.port).into_iter();
    ports
        .map(|port| {
            // What nf_tables compares by itself comes first: most rules do not apply, and to look
            // into a set takes some times as long.
            let matches: Vec<_> = port.into_iter().chain(peer.clone()).collect();
            Rule::new(matches, Target::Goto(ALLOW.to_owned())).labelled(&label)
        })
        .collect()
}

/// What the other end must be; `None` when nobody of the family is it.
fn peer(family: Family, direction: Direction, peer: &PeerMatch) -> Option<Option<Match>> {
    let side = match direction {
        Direction::Ingress => Side::Source,
        Direction::Egress => Side::Destination,
    };
    match peer {
        PeerMatch::Any => Some(None),
        PeerMatch::Network(network) if !family.has_network(network) => None,
        PeerMatch::Network(network) if network.prefix() == 0 => Some(None),
        PeerMatch::Network(network) => Some(Some(Match::Address(side, *network))),
        PeerMatch::Set(key) => Some(Some(Match::InSet(side, set(family, key)?.name))),
    }
}

/// What the port must be: of each entry, one rule is made.
fn ports(family: Family, port: &PortMatch) -> Vec<Vec<Match>> {
    match port {
        PortMatch::Any => vec![Vec::new()],
        PortMatch::Protocol(protocol) => vec![vec![Match::Protocol(protocol_name(*protocol))]],
        PortMatch::Ports(protocol, ranges) => {
            let chunks = chunks(ranges).into_iter();
            chunks.map(|ports| port_match(*protocol, ports)).collect()
        }
        PortMatch::Named(key) => set(family, key)
            .map(|set| vec![Match::PortInSet(Side::Destination, set.name)])
            .into_iter()
            .collect(),
    }
}

fn port_match(protocol: Protocol, ports: Vec<PortRange>) -> Vec<Match> {
    let name = protocol_name(protocol);
    match (protocol, ports.as_slice()) {
        (Protocol::Tcp | Protocol::Udp, [port]) => vec![Match::DestinationPort(name, *port)],
        // The match of SCTP is a module of its own.
        _ => vec![Match::Protocol(name), Match::DestinationPorts(ports)],
    }
}

/// The ports, as many together as a rule can have: a range counts as two.
fn chunks(ranges: &BTreeSet<(u16, u16)>) -> Vec<Vec<PortRange>> {
    let mut chunks = Vec::<Vec<PortRange>>::new();
    let mut room = 0;
    for &(first, last) in ranges {
        let size = if first == last { 1 } else { 2 };
        if size > room {
            chunks.push(Vec::new());
            room = PORTS_OF_A_RULE;
        }
        room -= size;
        chunks.last_mut().into_iter().for_each(|chunk| chunk.push(PortRange { first, last }));
    }
    chunks
}

//! From a policy to the rules of its chains.

use std::collections::{BTreeMap, BTreeSet};

use super::{AllowRule, NamespaceScope, PeerMatch, PolicyChain, PortMatch, SetKey};
use crate::model::{Direction, Peer, Peers, Policy, Port, PortNumber, Ports, Protocol, Rule};

/// The chain of a policy's rules for one direction; `None` where it does not isolate.
#[must_use]
pub fn compile(policy: &Policy, direction: Direction) -> Option<PolicyChain> {
    let mut rules = Vec::new();
    for (entry, rule) in policy.rules(direction)?.iter().enumerate() {
        let Rule::Allow { peers, ports } = rule else { continue };
        let ports = port_matches(ports, direction);
        for peer in peer_matches(peers, &policy.name.namespace) {
            rules.extend(ports.iter().cloned().map(|port| AllowRule {
                entry,
                peer: peer.clone(),
                port,
            }));
        }
    }
    Some(PolicyChain { rules })
}

fn peer_matches(peers: &Peers, namespace: &str) -> BTreeSet<PeerMatch> {
    let Peers::AnyOf(peers) = peers else { return [PeerMatch::Any].into() };
    let mut matches = BTreeSet::new();
    let mut networks = BTreeSet::new();
    for peer in peers {
        match peer {
            Peer::Pods { namespaces, pods } => {
                let namespaces = match namespaces {
                    None => NamespaceScope::Named(namespace.to_owned()),
                    Some(selector) => NamespaceScope::Selected(selector.clone()),
                };
                let pods = pods.clone();
                matches.insert(PeerMatch::Set(SetKey::Pods { namespaces, pods }));
            }
            // An exception is one of its own block only: each block is what is left of it.
            Peer::IpBlock(block) => networks.extend(block.networks()),
        }
    }
    // A set of each family is made of them, so one of a family needs none.
    for is_ipv4 in [true, false] {
        let family = networks.iter().filter(|network| network.is_ipv4() == is_ipv4);
        let family: BTreeSet<_> = family.copied().collect();
        match (family.len(), family.first()) {
            (0, _) => {}
            (1, Some(network)) => _ = matches.insert(PeerMatch::Network(*network)),
            _ => _ = matches.insert(PeerMatch::Set(SetKey::Networks(family))),
        }
    }
    matches
}

/// One match for all numbers of a protocol, and one for each name.
fn port_matches(ports: &Ports, direction: Direction) -> Vec<PortMatch> {
    let Ports::AnyOf(ports) = ports else { return vec![PortMatch::Any] };
    let mut protocols = BTreeMap::<Protocol, Vec<&PortNumber>>::new();
    for Port { protocol, number } in ports {
        protocols.entry(*protocol).or_default().push(number);
    }
    let mut matches = Vec::new();
    for (protocol, numbers) in protocols {
        if numbers.contains(&&PortNumber::Any) {
            matches.push(PortMatch::Protocol(protocol));
            continue;
        }
        let mut ranges = BTreeSet::new();
        let mut names = BTreeSet::new();
        for number in numbers {
            match number {
                PortNumber::Any => {}
                PortNumber::Range { first, last } => _ = ranges.insert((*first, *last)),
                PortNumber::Named(name) => _ = names.insert(name),
            }
        }
        if !ranges.is_empty() {
            matches.push(PortMatch::Ports(protocol, ranges));
        }
        matches.extend(
            names
                .into_iter()
                .cloned()
                .map(|name| PortMatch::Named(SetKey::NamedPort { name, protocol, direction })),
        );
    }
    matches
}

//! What a plan says of a packet: the rules, as the kernel will go through them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use ruleset::networks::around;

use super::{AllowRule, ChainKey, Endpoint, Member, PeerMatch, PolicyChain, PortMatch, SetKey};
use crate::evaluate::{Packet, Transport};
use crate::model::Direction;

/// A plan, or what has one.
pub trait Lookup {
    /// The endpoint with this address.
    fn endpoint_at(&self, address: IpAddr) -> Option<&Endpoint>;
    /// The chain of that key.
    fn chain(&self, key: &ChainKey) -> Option<&PolicyChain>;
    /// Whether a set of pods' addresses or ports has this member.
    fn has_member(&self, set: &SetKey, member: &Member) -> bool;
}

/// Whether this node lets the first packet of a connection pass: out of the endpoint that sends it
/// and in to the endpoint that it is for, where these are endpoints of this node.
pub fn allows(plan: &impl Lookup, packet: &Packet) -> bool {
    let is_exempt = packet.source == packet.destination || packet.from_node.is_some();
    is_exempt
        || [(Direction::Egress, packet.source), (Direction::Ingress, packet.destination)]
            .iter()
            .all(|(direction, address)| {
                let endpoint = plan.endpoint_at(*address);
                let chains = endpoint.and_then(|endpoint| endpoint.isolation(*direction));
                chains.is_none_or(|chains| {
                    let chains = chains.iter().filter_map(|key| plan.chain(key));
                    chains.flat_map(|chain| &chain.rules).any(|rule| {
                        allows_peer(plan, rule, packet, *direction)
                            && allows_port(plan, rule, packet)
                    })
                })
            })
}

fn allows_peer(
    plan: &impl Lookup,
    rule: &AllowRule,
    packet: &Packet,
    direction: Direction,
) -> bool {
    let peer = match direction {
        Direction::Ingress => packet.source,
        Direction::Egress => packet.destination,
    };
    match &rule.peer {
        PeerMatch::Any => true,
        PeerMatch::Network(network) => network.contains(peer),
        PeerMatch::Set(SetKey::Networks(networks)) => is_in_any(networks, peer),
        PeerMatch::Set(set) => plan.has_member(set, &Member::Address(peer)),
    }
}

/// There may be very many: it looks for those that it could be in.
fn is_in_any(networks: &BTreeSet<IpNetwork>, address: IpAddr) -> bool {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (0..=longest).any(|prefix| around(address, prefix).is_some_and(|it| networks.contains(&it)))
}

fn allows_port(plan: &impl Lookup, rule: &AllowRule, packet: &Packet) -> bool {
    let Transport::Port { protocol, destination_port: port } = packet.transport else {
        return rule.port == PortMatch::Any;
    };
    match &rule.port {
        PortMatch::Any => true,
        PortMatch::Protocol(only) => protocol == *only,
        PortMatch::Ports(only, ranges) => {
            protocol == *only && ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
        }
        PortMatch::Named(set) => {
            plan.has_member(set, &Member::AddressPort(packet.destination, protocol, port))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_is_in_networks_if_it_is_in_one_of_them(
            networks in proptest::collection::btree_set((any::<u8>(), 0..=8_u8, any::<bool>()), 0..6),
            last: u8,
            is_ipv4: bool,
        ) {
            let network = |(last, bits, is_ipv4): (u8, u8, bool)| {
                let prefix = if is_ipv4 { 24 } else { 120 } + bits;
                let network = IpNetwork::new(address(last, is_ipv4), prefix).unwrap();
                IpNetwork::new(network.network(), prefix).unwrap()
            };
            let networks: BTreeSet<_> = networks.into_iter().map(network).collect();
            let address = address(last, is_ipv4);
            let expected = networks.iter().any(|it| it.contains(address));
            prop_assert_eq!(is_in_any(&networks, address), expected);
        }
    }

    fn address(last: u8, is_ipv4: bool) -> IpAddr {
        if is_ipv4 {
            [10, 0, 0, last].into()
        } else {
            [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into()
        }
    }
}

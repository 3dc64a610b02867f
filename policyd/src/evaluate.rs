//! Whether a packet is allowed, and why: written from the semantics of NetworkPolicy, without any
//! index, so that it can be read beside them. What is put into the kernel is tested against it.
//!
//! # Where the specification leaves a choice
//!
//! - A pod always reaches itself (Kubernetes' documentation says so; its e2e tests leave it out).
//!   Such a packet is seen only when it comes back from a Service.
//! - The node on which a pod runs always reaches it. In the other direction the node is a
//!   destination like any other: the pod's egress policies hold.
//! - Protocols without ports, ICMP among them, match only rules without `ports`.
//! - Neighbour discovery and multicast listener discovery are not asked about: without them IPv6 is
//!   not there. Echo requests are no part of them, and neither is what a router has forwarded.
//! - A named port is looked up on the destination pod whatever the peer is, so also for an
//!   egress rule with an `ipBlock` or without `to` (for the latter, e2e: "should allow egress
//!   access on one named port"). A destination that is not a pod has no names.
//! - The ports of init containers count when these are sidecars (`restartPolicy: Always`).
//! - Pods of the node's network are no peers of selectors, and no destination for named ports.
//! - A namespace that is not known matches no `namespaceSelector`, not even `{}`.
//! - When two pods have one address, its policies are those of the newer one that is not being
//!   deleted, and it is a peer wherever one of the two is.
//! - A rule that is wrong allows nothing, while the policy's other rules hold. A `podSelector`
//!   that is wrong selects all that it could mean, and the policy allows nothing.
//! - In `policyTypes` what is unknown is passed over; when nothing is left, it counts as absent.

use std::iter;
use std::net::IpAddr;

use crate::model::{Direction, Peer, Peers, Pod, Policy, Port, PortNumber, Ports, Rule, World};

mod packet;
mod verdict;

pub use packet::{Packet, Transport};
pub use verdict::{Decision, Exemption, PolicyOutcome, RuleOutcome, Verdict};

/// Whether `packet` is allowed out of the pod that sends it and in to the pod that it is for.
#[must_use]
pub fn evaluate(world: &World, packet: &Packet) -> Verdict {
    Verdict {
        egress: decide(world, packet, Direction::Egress),
        ingress: decide(world, packet, Direction::Ingress),
    }
}

fn decide(world: &World, packet: &Packet, direction: Direction) -> Decision {
    let Some(subject) = subject(world, packet, direction) else {
        return Decision::Exempt(Exemption::NoPod);
    };
    if packet.source == packet.destination {
        return Decision::Exempt(Exemption::Itself);
    }
    if direction == Direction::Ingress
        && packet.from_node.is_some()
        && packet.from_node == subject.node
    {
        return Decision::Exempt(Exemption::OwnNode);
    }
    let policies = isolating(world, subject, direction)
        .into_iter()
        .map(|(policy, rules)| {
            let rules = rules.iter();
            let rules =
                rules.map(|rule| apply(world, packet, direction, subject, policy, rule)).collect();
            PolicyOutcome { policy: policy.name.clone(), rules }
        })
        .collect::<Vec<_>>();
    let subject = subject.name.clone();
    if policies.is_empty() {
        return Decision::NotIsolated { subject };
    }
    Decision::Isolated { subject, policies }
}

/// The pod whose policies are asked.
fn subject<'a>(world: &'a World, packet: &Packet, direction: Direction) -> Option<&'a Pod> {
    match direction {
        Direction::Ingress => world.subject_at(packet.destination),
        // What a node sends, no pod sends.
        Direction::Egress if packet.from_node.is_some() => None,
        Direction::Egress => world.subject_at(packet.source),
    }
}

/// The policies that isolate `subject` in this direction, by name, with their rules for it.
pub(crate) fn isolating<'a>(
    world: &'a World,
    subject: &Pod,
    direction: Direction,
) -> Vec<(&'a Policy, &'a [Rule])> {
    let mut policies: Vec<_> = world
        .policies
        .iter()
        .filter(|policy| policy.selects(subject))
        .filter_map(|policy| Some((policy, policy.rules(direction)?)))
        .collect();
    policies.sort_by_key(|(policy, _)| (&policy.name, &policy.uid));
    policies
}

/// What `rule` says of the packet. The other end is an address, and whichever pods have it.
fn apply(
    world: &World,
    packet: &Packet,
    direction: Direction,
    subject: &Pod,
    policy: &Policy,
    rule: &Rule,
) -> RuleOutcome {
    let Rule::Allow { peers, ports } = rule else { return RuleOutcome::Unusable };
    let other_address = match direction {
        Direction::Ingress => packet.source,
        Direction::Egress => packet.destination,
    };
    let mut outcome = RuleOutcome::NoPeer;
    for other in iter::once(None).chain(world.endpoints_at(other_address).map(Some)) {
        let Entry::Of(peer) = find_peer(world, policy, peers, other_address, other) else {
            continue;
        };
        let destination = match direction {
            Direction::Ingress => Some(subject),
            Direction::Egress => other,
        };
        if let Entry::Of(port) = find_port(ports, packet.transport, destination) {
            return RuleOutcome::Matched { peer, port };
        }
        outcome = RuleOutcome::NoPort { peer };
    }
    outcome
}

/// Which entry of a list matches.
enum Entry {
    /// The one at this index; `None`: there is no list, and everything matches.
    Of(Option<usize>),
    Missing,
}

impl From<Option<usize>> for Entry {
    fn from(found: Option<usize>) -> Self {
        found.map_or(Self::Missing, |index| Self::Of(Some(index)))
    }
}

fn find_peer(
    world: &World,
    policy: &Policy,
    peers: &Peers,
    address: IpAddr,
    pod: Option<&Pod>,
) -> Entry {
    let Peers::AnyOf(peers) = peers else { return Entry::Of(None) };
    let matches = |peer: &Peer| match (peer, pod) {
        (Peer::IpBlock(block), _) => block.contains(address),
        (Peer::Pods { namespaces, pods }, Some(pod)) => {
            let namespace = &pod.name.namespace;
            let namespace_selected = match namespaces {
                None => *namespace == policy.name.namespace,
                Some(selector) => {
                    world.namespace(namespace).is_some_and(|it| selector.matches(&it.labels))
                }
            };
            namespace_selected && pods.matches(&pod.labels)
        }
        (Peer::Pods { .. }, None) => false,
    };
    peers.iter().position(matches).into()
}

fn find_port(ports: &Ports, transport: Transport, destination: Option<&Pod>) -> Entry {
    let Ports::AnyOf(ports) = ports else { return Entry::Of(None) };
    let Transport::Port { protocol, destination_port } = transport else { return Entry::Missing };
    let matches = |port: &Port| match &port.number {
        PortNumber::Any => true,
        PortNumber::Range { first, last } => (*first..=*last).contains(&destination_port),
        PortNumber::Named(name) => {
            destination.is_some_and(|pod| pod.names_port(name, protocol, destination_port))
        }
    };
    ports.iter().position(|port| port.protocol == protocol && matches(port)).into()
}

//! On which ports two ends may talk, where not everything is allowed.

use std::collections::BTreeSet;

use crate::evaluate::isolating;
use crate::model::{Direction, Pod, Port, PortNumber, Ports, Protocol, Rule};
use crate::words;
use crate::{Packet, Transport, World, evaluate};

/// The ports that are allowed for what is else as `packet`, in words.
///
/// Between two numbers that rules name nothing changes: one port of each such span is asked about.
pub(super) fn list(world: &World, packet: &Packet) -> Vec<String> {
    let mut open = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let bounds: Vec<u16> = bounds(world, packet, protocol).into_iter().collect();
        let mut spans = Vec::<(u16, u16)>::new();
        for (index, first) in bounds.iter().enumerate() {
            let last = bounds.get(index + 1).map_or(u16::MAX, |next| next - 1);
            let transport = Transport::Port { protocol, destination_port: *first };
            if !evaluate(world, &Packet { transport, ..packet.clone() }).is_allowed() {
                continue;
            }
            match spans.last_mut() {
                Some((_, end)) if end.checked_add(1) == Some(*first) => *end = last,
                _ => spans.push((*first, last)),
            }
        }
        open.extend(spans.into_iter().map(|(first, last)| words::ports(first, last, protocol)));
    }
    open
}

/// The first ports of the spans within which all rules say the same.
fn bounds(world: &World, packet: &Packet, protocol: Protocol) -> BTreeSet<u16> {
    let mut bounds = BTreeSet::from([1]);
    let mut add = |first: u16, last: u16| {
        bounds.insert(first);
        bounds.extend(last.checked_add(1));
    };
    for pod in world.endpoints_at(packet.destination) {
        pod.ports.iter().for_each(|port| add(port.number, port.number));
    }
    let ends = [
        (Direction::Ingress, world.subject_at(packet.destination)),
        (Direction::Egress, world.subject_at(packet.source)),
    ];
    for (direction, subject) in ends {
        for port in subject.iter().flat_map(|pod| named_ports(world, pod, direction)) {
            if let PortNumber::Range { first, last } = port.number
                && port.protocol == protocol
            {
                add(first, last);
            }
        }
    }
    bounds
}

/// All ports in the rules for a pod.
fn named_ports<'a>(
    world: &'a World,
    subject: &Pod,
    direction: Direction,
) -> impl Iterator<Item = &'a Port> {
    let rules = isolating(world, subject, direction).into_iter().flat_map(|(_, rules)| rules);
    rules.flat_map(|rule| match rule {
        Rule::Allow { ports: Ports::AnyOf(ports), .. } => ports.as_slice(),
        _ => &[],
    })
}

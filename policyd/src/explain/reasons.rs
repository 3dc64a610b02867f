//! Which entry of a rule matched, or why none did.

use std::net::IpAddr;

use super::Traffic;
use crate::evaluate::RuleOutcome;
use crate::model::{
    Direction, IpBlock, Labels, Peer, Peers, Pod, Policy, Port, PortNumber, Ports, Rule, Selector,
};
use crate::words;
use crate::{Packet, Transport, World};

/// What is asked of one direction's policies.
pub(super) struct Question<'a> {
    pub(super) world: &'a World,
    pub(super) packet: &'a Packet,
    pub(super) traffic: Traffic,
    pub(super) direction: Direction,
}

impl Question<'_> {
    /// The address that is not the subject's.
    const fn other(&self) -> IpAddr {
        match self.direction {
            Direction::Ingress => self.packet.source,
            Direction::Egress => self.packet.destination,
        }
    }
}

/// What one rule, which is at `path` of its policy, has to say for itself.
pub(super) fn of_rule(
    question: &Question<'_>,
    policy: &Policy,
    rule: &Rule,
    outcome: RuleOutcome,
    path: &str,
) -> Vec<String> {
    let Rule::Allow { peers, ports } = rule else { return unusable(policy, path) };
    match outcome {
        RuleOutcome::Matched { peer, port } => {
            vec![matched_peer(question, peers, peer), matched_port(ports, port)]
        }
        RuleOutcome::NoPort { peer } => {
            vec![matched_peer(question, peers, peer), no_port(question, ports)]
        }
        RuleOutcome::NoPeer => no_peer(question, policy, peers),
        RuleOutcome::Unusable => unusable(policy, path),
    }
}

fn unusable(policy: &Policy, path: &str) -> Vec<String> {
    let of_rule =
        |at: &str| at.strip_prefix(path).is_some_and(|rest| !rest.starts_with(char::is_numeric));
    let of_selector = |at: &str| at.starts_with("spec.podSelector");
    let problems = policy.problems.iter().filter(|it| of_rule(&it.path) || of_selector(&it.path));
    problems.map(|it| format!("unusable: {}: {}", it.path, it.problem)).collect()
}

fn matched_peer(question: &Question<'_>, peers: &Peers, index: Option<usize>) -> String {
    let field = words::peers_field(question.direction);
    match (peers, index) {
        (Peers::AnyOf(peers), Some(index)) => {
            let peer = peers.get(index).map(entry).unwrap_or_default();
            format!("{field}[{index}] matches: {peer}")
        }
        _ => format!("no {field}: everybody matches"),
    }
}

fn matched_port(ports: &Ports, index: Option<usize>) -> String {
    match (ports, index) {
        (Ports::AnyOf(ports), Some(index)) => {
            let port = ports.get(index).map(words::port).unwrap_or_default();
            format!("ports[{index}] matches: {port}")
        }
        _ => "no ports: all match".to_owned(),
    }
}

/// An entry of `from` or `to` in words.
fn entry(peer: &Peer) -> String {
    match peer {
        Peer::IpBlock(block) => format!("ipBlock {}", words::ip_block(block)),
        Peer::Pods { namespaces: None, pods } => format!("podSelector {}", words::selector(pods)),
        Peer::Pods { namespaces: Some(namespaces), pods } => format!(
            "namespaceSelector {} and podSelector {}",
            words::selector(namespaces),
            words::selector(pods)
        ),
    }
}

fn no_peer(question: &Question<'_>, policy: &Policy, peers: &Peers) -> Vec<String> {
    let Peers::AnyOf(peers) = peers else { return Vec::new() };
    let field = words::peers_field(question.direction);
    let line = |(index, peer): (usize, &Peer)| {
        let why = why_not(question.world, policy, peer, question.other());
        format!("{field}[{index}] ({}): {why}", entry(peer))
    };
    peers.iter().enumerate().map(line).collect()
}

/// Why a peer is not the one who has this address.
fn why_not(world: &World, policy: &Policy, peer: &Peer, address: IpAddr) -> String {
    let (namespaces, selector) = match peer {
        Peer::IpBlock(block) => return outside(block, address),
        Peer::Pods { namespaces, pods } => (namespaces.as_ref(), pods),
    };
    let owners = world.endpoints_at(address);
    let whys: Vec<_> =
        owners.map(|pod| not_selected(world, policy, namespaces, selector, pod)).collect();
    match whys.as_slice() {
        [] => format!("{address} is no pod's address, and selectors match pods alone"),
        whys => whys.join("; "),
    }
}

fn outside(block: &IpBlock, address: IpAddr) -> String {
    if block.cidr.is_ipv4() != address.is_ipv4() {
        return format!("{address} is of the other family");
    }
    match block.except.iter().find(|except| except.contains(address)) {
        Some(except) => format!("{address} is in {except}, which is left out"),
        None => format!("{address} is not in it"),
    }
}

fn not_selected(
    world: &World,
    policy: &Policy,
    namespaces: Option<&Selector>,
    selector: &Selector,
    pod: &Pod,
) -> String {
    let namespace = &pod.name.namespace;
    match (namespaces, world.namespace(namespace)) {
        (None, _) if *namespace != policy.name.namespace => {
            let own = &policy.name.namespace;
            return format!("{} is not in namespace {own}, which the policy is of", pod.name);
        }
        (Some(_), None) => return format!("namespace {namespace} is not known"),
        (Some(selector), Some(object)) if !selector.matches(&object.labels) => {
            return format!("namespace {namespace} {}", lacks(selector, &object.labels));
        }
        _ => {}
    }
    format!("{} {}", pod.name, lacks(selector, &pod.labels))
}

/// Which labels are not as the selector wants them.
fn lacks(selector: &Selector, labels: &Labels) -> String {
    use crate::model::Requirement::{DoesNotExist, Exists, In, NotIn};
    let failing = selector.requirements().filter(|requirement| !requirement.holds(labels));
    let texts: Vec<_> = failing
        .map(|requirement| {
            let (In { key, .. } | NotIn { key, .. } | Exists { key } | DoesNotExist { key }) =
                requirement;
            match labels.get(key) {
                Some(value) => format!("has {key}={value}"),
                None => format!("has no label {key}"),
            }
        })
        .collect();
    words::all_of(&texts)
}

fn no_port(question: &Question<'_>, ports: &Ports) -> String {
    let Ports::AnyOf(ports) = ports else { return String::new() };
    let list = ports.iter().map(words::port).collect::<Vec<_>>().join(", ");
    let names = names(question, ports);
    match (question.traffic, question.packet.transport) {
        (Traffic::Any, _) => format!("allows {list} alone{names}"),
        (_, Transport::Port { protocol, destination_port }) => {
            let asked = words::ports(destination_port, destination_port, protocol);
            format!("ports: {asked} is none of {list}{names}")
        }
        _ => format!("ports: {list} alone; what has no ports passes only rules without ports"),
    }
}

/// What the names among a rule's ports mean at the destination.
fn names(question: &Question<'_>, ports: &[Port]) -> String {
    let pods: Vec<_> = question.world.endpoints_at(question.packet.destination).collect();
    let meaning = |port: &Port| {
        let PortNumber::Named(name) = &port.number else { return None };
        let entry = words::port(port);
        let Some(pod) = pods.first() else {
            return Some(format!("{entry} is a name, and names are those of pods"));
        };
        let same = |it: &&crate::model::NamedPort| it.name == *name && it.protocol == port.protocol;
        let numbers: Vec<_> = pods
            .iter()
            .flat_map(|pod| &pod.ports)
            .filter(same)
            .map(|it| it.number.to_string())
            .collect();
        Some(match numbers.as_slice() {
            [] => format!("{} has no port {entry}", pod.name),
            numbers => format!("{entry} of {} is {}", pod.name, numbers.join(" and ")),
        })
    };
    let meanings: Vec<_> = ports.iter().filter_map(meaning).collect();
    match meanings.as_slice() {
        [] => String::new(),
        meanings => format!(" ({})", meanings.join("; ")),
    }
}

//! What selectors select among the pods that are given.

use super::{Finding, Subject, WrittenRule};
use crate::model::{Direction, Peer, Peers, Pod, PortNumber, Ports, Rule, Selector};
use crate::words;

/// Whether the policy is for any pod.
pub(super) fn of_policy(subject: &Subject<'_>) -> Option<Finding> {
    let namespace = &subject.policy.name.namespace;
    let given = subject.world.pods.iter().filter(|pod| pod.name.namespace == *namespace).count();
    if subject.world.pods.is_empty() {
        return None;
    }
    let selected = selected(subject);
    let selector = words::selector(&subject.policy.pod_selector);
    let text = match selected.as_slice() {
        [] if given == 0 => format!("no given pod is of namespace {namespace}"),
        [] => {
            format!("{selector} selects none of the given pods of namespace {namespace} ({given})")
        }
        pods if pods.iter().all(|pod| pod.host_network) => format!(
            "{selector} selects pods of the node's network alone, for which no policy holds"
        ),
        _ => return None,
    };
    Some(subject.warning("spec.podSelector", text))
}

/// Whether its peers are anybody, and its named ports any port.
pub(super) fn of_rule(subject: &Subject<'_>, rule: &WrittenRule<'_>) -> Vec<Finding> {
    let Rule::Allow { peers, ports } = rule.rule else { return Vec::new() };
    if subject.world.pods.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if let Peers::AnyOf(peers) = peers {
        for (index, peer) in peers.iter().enumerate() {
            let path = format!("{}[{index}]", rule.peers_path());
            findings.extend(nobody(subject, peer).map(|text| subject.warning(&path, text)));
        }
    }
    if let Ports::AnyOf(ports) = ports {
        let destinations = match rule.direction {
            Direction::Ingress => selected(subject),
            Direction::Egress => subject.world.pods.iter().collect(),
        };
        for (index, port) in ports.iter().enumerate() {
            let PortNumber::Named(name) = &port.number else { continue };
            let has = |pod: &&Pod| {
                pod.ports.iter().any(|it| it.name == *name && it.protocol == port.protocol)
            };
            if !destinations.is_empty() && !destinations.iter().any(has) {
                let text = format!(
                    "no given pod that this can lead to has a port {}: it allows nothing",
                    words::port(port)
                );
                findings.push(subject.warning(&format!("{}.ports[{index}]", rule.path), text));
            }
        }
    }
    findings
}

fn selected<'a>(subject: &Subject<'a>) -> Vec<&'a Pod> {
    subject.world.pods.iter().filter(|pod| subject.policy.selects(pod)).collect()
}

/// Why a peer is none of the given pods.
fn nobody(subject: &Subject<'_>, peer: &Peer) -> Option<String> {
    let Peer::Pods { namespaces, pods } = peer else { return None };
    let own = &subject.policy.name.namespace;
    let in_namespaces = |pod: &&Pod| match namespaces {
        None => pod.name.namespace == *own,
        Some(selector) => is_in(subject, selector, &pod.name.namespace),
    };
    let candidates: Vec<_> = subject.world.pods.iter().filter(in_namespaces).collect();
    let where_from = match namespaces {
        None => format!("namespace {own}"),
        Some(selector) => format!("the namespaces {}", words::selector(selector)),
    };
    if candidates.is_empty() {
        return Some(format!("no given pod is of {where_from}"));
    }
    if candidates.iter().any(|pod| pods.matches(&pod.labels)) {
        return None;
    }
    let (selector, count) = (words::selector(pods), candidates.len());
    Some(format!("{selector} selects none of the given pods of {where_from} ({count})"))
}

/// Whether a namespace is selected. One that is not given may have any labels.
fn is_in(subject: &Subject<'_>, selector: &Selector, name: &str) -> bool {
    subject.world.namespace(name).is_none_or(|namespace| selector.matches(&namespace.labels))
}

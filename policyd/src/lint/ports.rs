//! Ports and their protocols.

use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Finding, Severity, Subject, WrittenRule};
use crate::model::{Direction, Port, PortNumber, Ports, Protocol, Rule, Selector};

/// The port of DNS.
const DNS: u16 = 53;

pub(super) fn of_rule(subject: &Subject<'_>, rule: &WrittenRule<'_>) -> Vec<Finding> {
    let path = format!("{}.ports", rule.path);
    let Some(written) = rule.ports else { return Vec::new() };
    if written.is_empty() {
        let text = "allows every port and protocol, as if it were absent";
        return vec![subject.warning(&path, text.to_owned())];
    }
    let Rule::Allow { ports: Ports::AnyOf(ports), .. } = rule.rule else { return Vec::new() };
    let mut findings = Vec::new();
    if let Some(at) = ports.iter().position(|port| is_dns(port, Protocol::Tcp))
        && !allows_dns(subject, rule.direction)
    {
        let text = "allows DNS by TCP alone: names are asked for by UDP first (add protocol: UDP)";
        findings.push(subject.warning(&format!("{path}[{at}]"), text.to_owned()));
    } else if written.iter().any(lacks_protocol) {
        let which: Vec<_> = written.iter().filter(|port| lacks_protocol(port)).map(name).collect();
        let text = format!("{} without protocol means TCP alone", which.join(", "));
        findings.push(subject.finding(&path, Severity::Info, text));
    }
    findings
}

/// Whether the policy lets names be resolved: where it allows something else, that something is
/// mostly looked up first.
pub(super) fn names_unresolved(subject: &Subject<'_>) -> Option<Finding> {
    let egress = subject.policy.egress.as_deref().filter(|rules| !rules.is_empty())?;
    // A block of addresses needs no names, and what is wrong is told elsewhere.
    if egress.contains(&Rule::Unusable) || subject.rules_are_of_blocks() {
        return None;
    }
    let allows = |rules: &[Rule]| rules.iter().any(allows_dns_by_udp);
    let others = subject.world.policies.iter().filter(|other| {
        other.name.namespace == subject.policy.name.namespace
            && (other.pod_selector == subject.policy.pod_selector
                || other.pod_selector == Selector::default())
    });
    let mut all = others.filter_map(|other| other.egress.as_deref()).chain([egress]);
    let text = "allows no DNS (53/UDP): names cannot be resolved, unless another policy for these pods allows it";
    (!all.any(allows)).then(|| subject.warning("spec.egress", text.to_owned()))
}

impl Subject<'_> {
    fn rules_are_of_blocks(&self) -> bool {
        self.rules().filter(|rule| rule.direction == Direction::Egress).all(|rule| {
            let peers = rule.peers.unwrap_or_default();
            !peers.is_empty() && peers.iter().all(|peer| peer.ip_block.is_some())
        })
    }
}

/// Whether one of the policy's rules of this direction allows DNS by UDP.
fn allows_dns(subject: &Subject<'_>, direction: Direction) -> bool {
    subject.policy.rules(direction).unwrap_or_default().iter().any(allows_dns_by_udp)
}

fn allows_dns_by_udp(rule: &Rule) -> bool {
    match rule {
        Rule::Allow { ports: Ports::Any, .. } => true,
        Rule::Allow { ports: Ports::AnyOf(ports), .. } => {
            ports.iter().any(|port| is_dns(port, Protocol::Udp))
        }
        Rule::Unusable => false,
    }
}

/// Whether the port is that of DNS, or may be: names are the pods'.
fn is_dns(port: &Port, protocol: Protocol) -> bool {
    port.protocol == protocol
        && match &port.number {
            PortNumber::Any => protocol == Protocol::Udp,
            PortNumber::Range { first, last } if protocol == Protocol::Udp => {
                (*first..=*last).contains(&DNS)
            }
            PortNumber::Range { first, last } => (*first, *last) == (DNS, DNS),
            PortNumber::Named(name) => protocol == Protocol::Udp || name.starts_with("dns"),
        }
}

fn lacks_protocol(port: &NetworkPolicyPort) -> bool {
    port.protocol.is_none()
}

fn name(port: &NetworkPolicyPort) -> String {
    match &port.port {
        None => "an entry".to_owned(),
        Some(IntOrString::Int(number)) => format!("port {number}"),
        Some(IntOrString::String(name)) => format!("port {name}"),
    }
}

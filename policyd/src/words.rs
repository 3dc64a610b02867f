//! Parts of policies in words, as kubectl writes them where it does.

use crate::model::{Direction, IpBlock, Port, PortNumber, Protocol, Requirement, Selector};

pub(crate) const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

pub(crate) const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// The field of a rule that has its peers.
pub(crate) const fn peers_field(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

pub(crate) fn ports(first: u16, last: u16, of: Protocol) -> String {
    let of = protocol(of);
    match (first, last) {
        (1, u16::MAX) => format!("every port of {of}"),
        (first, last) if first == last => format!("{first}/{of}"),
        (first, last) => format!("{first}-{last}/{of}"),
    }
}

pub(crate) fn port(port: &Port) -> String {
    match &port.number {
        PortNumber::Any => ports(1, u16::MAX, port.protocol),
        PortNumber::Range { first, last } => ports(*first, *last, port.protocol),
        PortNumber::Named(name) => format!("{name}/{}", protocol(port.protocol)),
    }
}

pub(crate) fn requirement(requirement: &Requirement) -> String {
    let list = |values: &std::collections::BTreeSet<String>| {
        values.iter().map(String::as_str).collect::<Vec<_>>().join(",")
    };
    match requirement {
        Requirement::In { key, values } if values.len() == 1 => format!("{key}={}", list(values)),
        Requirement::In { key, values } => format!("{key} in ({})", list(values)),
        Requirement::NotIn { key, values } => format!("{key} notin ({})", list(values)),
        Requirement::Exists { key } => key.clone(),
        Requirement::DoesNotExist { key } => format!("!{key}"),
    }
}

pub(crate) fn selector(selector: &Selector) -> String {
    let texts: Vec<_> = selector.requirements().map(requirement).collect();
    if texts.is_empty() { "{}".to_owned() } else { texts.join(",") }
}

pub(crate) fn ip_block(block: &IpBlock) -> String {
    let except: Vec<_> = block.except.iter().map(ToString::to_string).collect();
    match except.as_slice() {
        [] => block.cidr.to_string(),
        except => format!("{} except {}", block.cidr, except.join(", ")),
    }
}

/// `one`, `one and two`, `one, two and three`.
pub(crate) fn all_of(texts: &[String]) -> String {
    match texts.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

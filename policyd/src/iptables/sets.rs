//! Sets as ipsets.

use ruleset::ipset::{self, Kind, Set};
use ruleset::long_hash;

use super::{Family, SET_PREFIX};
use crate::model::Protocol;
use crate::plan::{Member, SetKey};

/// The set of this family for a key; `None` when it can never have a member.
#[must_use]
pub fn set(family: Family, key: &SetKey) -> Option<Set> {
    let kind = match key {
        SetKey::Pods { .. } => Kind::Addresses,
        SetKey::NamedPort { .. } => Kind::AddressPorts,
        SetKey::Networks(networks) if networks.iter().any(|it| family.has_network(it)) => {
            Kind::Networks
        }
        SetKey::Networks(_) => return None,
    };
    // Labels and networks are their authors' choice. Sets of two kinds never have one name, which would
    // keep one of them from being made.
    let letter = match kind {
        Kind::Addresses => 'a',
        Kind::AddressPorts => 'p',
        Kind::Networks => 'n',
    };
    Some(named(family, kind, &format!("{letter}{}", long_hash(&key.canonical()))))
}

/// The addresses of this family that have their rules: the gate lets them pass.
#[must_use]
pub fn programmed_set(family: Family) -> Set {
    named(family, Kind::Addresses, "programmed")
}

/// The addresses of this family that must come through an interface that is known.
#[must_use]
pub fn bound_set(family: Family) -> Set {
    named(family, Kind::Addresses, "bound")
}

fn named(family: Family, kind: Kind, name: &str) -> Set {
    Set { name: format!("{}{name}", prefix(family)), kind, is_ipv4: family.is_ipv4() }
}

/// Whether a set of this name is for [`SetKey`]s, and of this family.
pub(crate) fn is_of_plan(family: Family, name: &str) -> bool {
    let of_node = [programmed_set(family).name, bound_set(family).name];
    name.starts_with(&prefix(family)) && of_node.iter().all(|it| it != name)
}

fn prefix(family: Family) -> String {
    let number = if family.is_ipv4() { 4 } else { 6 };
    format!("{SET_PREFIX}{number}-")
}

/// A member of a set as those of the ipset of this family.
#[must_use]
pub fn members(family: Family, member: &Member) -> Vec<ipset::Member> {
    match member {
        Member::Address(address) if family.has(address) => vec![ipset::Member::Address(*address)],
        Member::Network(network) if family.has_network(network) => {
            ipset::halves(*network).into_iter().map(ipset::Member::Network).collect()
        }
        Member::AddressPort(address, protocol, port) if family.has(address) => {
            let protocol = protocol_name(*protocol);
            vec![ipset::Member::AddressPort { address: *address, protocol, port: *port }]
        }
        Member::Address(_) | Member::Network(_) | Member::AddressPort(..) => Vec::new(),
    }
}

pub(super) const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

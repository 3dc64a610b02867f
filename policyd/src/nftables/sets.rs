//! The sets of selectors, address blocks and named ports.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use ruleset::iptables::PortRange;
use ruleset::nft::{Element, Encoded, Key, Set, Value};

use super::dispatch::key;
use super::policy::number;
use crate::iptables::{self, Family};
use crate::plan::{Member, SetKey};

/// The set of this family for a key, which is called as that of iptables would be; `None` when it can never
/// have a member.
#[must_use]
pub fn set(family: Family, it: &SetKey) -> Option<Set> {
    let name = iptables::set(family, it)?.name;
    let address = key(family);
    Some(match it {
        SetKey::Pods { .. } => Set::new(name, [address]),
        SetKey::Networks(_) => Set::new(name, [address]).of_intervals(),
        SetKey::NamedPort { .. } => Set::new(name, [address, Key::Protocol, Key::Port]),
    })
}

/// Members of a set as elements of that of this family.
#[must_use]
pub fn members<'a>(
    family: Family,
    set: &Set,
    members: impl IntoIterator<Item = &'a Member>,
) -> BTreeSet<Encoded> {
    if set.is_interval {
        let networks = members.into_iter().filter_map(|it| match it {
            Member::Network(network) if family.has_network(network) => Some(*network),
            _ => None,
        });
        let ranges = merged(networks.collect()).into_iter();
        let elements = ranges.map(|(first, last)| Element::new([Value::Addresses(first, last)]));
        return elements.flat_map(|it| set.encode(&it)).collect();
    }
    members
        .into_iter()
        .filter_map(|it| element(family, it))
        .flat_map(|it| set.encode(&it))
        .collect()
}

fn element(family: Family, member: &Member) -> Option<Element> {
    let address = |it: &IpAddr| family.has(it).then_some(Value::Address(*it));
    Some(match member {
        Member::Address(it) => Element::new([address(it)?]),
        Member::Network(_) => return None,
        Member::AddressPort(it, protocol, port) => {
            let port = Value::Ports(PortRange { first: *port, last: *port });
            Element::new([address(it)?, Value::Protocol(number(*protocol)), port])
        }
    })
}

/// Networks that overlap or follow each other, as one range: the kernel takes no intervals that do.
fn merged(networks: BTreeSet<IpNetwork>) -> Vec<(IpAddr, IpAddr)> {
    let mut merged = Vec::<(IpAddr, IpAddr)>::new();
    // Sorted by their first addresses.
    for network in networks {
        let (first, last) = (network.network(), network.broadcast());
        match merged.last_mut() {
            Some((_, end)) if first <= *end || after(*end) == Some(first) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(it) => it.to_bits().checked_add(1).map(|it| Ipv4Addr::from_bits(it).into()),
        IpAddr::V6(it) => it.to_bits().checked_add(1).map(|it| Ipv6Addr::from_bits(it).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_become_ranges_with_something_between_them() {
        let ranges = |networks: &[&str]| {
            let networks = networks.iter().map(|it| it.parse().unwrap()).collect();
            let text = |(first, last)| format!("{first}-{last}");
            merged(networks).into_iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(
            ranges(&["10.0.0.0/25", "10.0.0.128/26", "10.0.1.0/24", "10.0.1.7/32"]),
            ["10.0.0.0-10.0.0.191", "10.0.1.0-10.0.1.255"]
        );
        assert_eq!(ranges(&["0.0.0.0/1", "128.0.0.0/1"]), ["0.0.0.0-255.255.255.255"]);
        assert_eq!(
            ranges(&["fd00::/17", "fd00:8000::/17", "::/128"]),
            ["::-::", "fd00::-fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
        );
        assert_eq!(ranges(&["255.255.255.255/32"]), ["255.255.255.255-255.255.255.255"]);
    }
}

//! From an address, or an interface, to its rules: in one step, however many there are.

use std::collections::{BTreeMap, BTreeSet};

use ruleset::iptables::Side;
use ruleset::nft::{Element, Encoded, Field, Key, Set, Value, Verdict};

use super::{Families, Layer};
use crate::iptables::{Family, endpoint_chain_name};
use crate::model::Direction;
use crate::plan::Endpoint;

/// Maps of addresses: from whom, and to whom. Who is in them has his rules.
pub(super) const FROM: &str = "from";
pub(super) const TO: &str = "to";
/// Interfaces, each with an address that comes by it.
pub(super) const SOURCES: &str = "sources";
/// The addresses of endpoints whose interface is known.
pub(super) const BOUND: &str = "bound";
/// The addresses that are isolated in a direction.
pub(super) const IN_INGRESS: &str = "ingress";
pub(super) const IN_EGRESS: &str = "egress";
/// The interfaces of endpoints.
pub(super) const LINKS: &str = "links";
/// Those of them that are ports of bridges.
pub(super) const PORTS: &str = "ports";
/// A map of ports: what of groups each may receive.
pub(super) const GROUPS: &str = "groups";

/// The elements of each set.
pub type Elements = BTreeMap<String, BTreeSet<Encoded>>;

/// The name of the set of a family.
pub(super) fn named(name: &str, family: Family) -> String {
    if family.is_ipv4() { format!("{name}-4") } else { format!("{name}-6") }
}

/// The names of the maps whose elements are the addresses that have their rules.
#[must_use]
pub fn programmed(family: Family) -> [String; 2] {
    [FROM, TO].map(|it| named(it, family))
}

/// The sets whose elements depend on the interfaces of endpoints.
pub(crate) const BY_INTERFACE: [&str; 5] = [SOURCES, BOUND, LINKS, PORTS, GROUPS];

/// Whether it is one of them, or that of a family.
pub(crate) fn is_by_interface(set: &str) -> bool {
    BY_INTERFACE
        .into_iter()
        .any(|name| set == name || Family::ALL.into_iter().any(|family| set == named(name, family)))
}

pub(super) const fn key(family: Family) -> Key {
    if family.is_ipv4() { Key::Ipv4 } else { Key::Ipv6 }
}

/// The sets of a table that belong to no selector.
#[must_use]
pub fn dispatch_sets(layer: Layer, families: &Families) -> Vec<Set> {
    let of_family = families.iter().flat_map(|family| {
        let set = |name, key: &[Key]| Set::new(named(name, *family), key);
        let key = key(*family);
        let sources = set(SOURCES, &[Key::Interface, key]);
        let common = [sources, set(BOUND, &[key])].into_iter();
        let others = match layer {
            Layer::Routed => vec![
                set(FROM, &[key]).to_verdicts(),
                set(TO, &[key]).to_verdicts(),
                set(IN_INGRESS, &[key]),
                set(IN_EGRESS, &[key]),
            ],
            Layer::Bridged => Vec::new(),
        };
        common.chain(others)
    });
    let of_interfaces = match layer {
        Layer::Routed => vec![Set::new(LINKS, [Key::Interface])],
        Layer::Bridged => vec![
            Set::new(PORTS, [Key::Interface]),
            Set::new(GROUPS, [Key::Interface]).to_verdicts(),
        ],
    };
    of_family.chain(of_interfaces).collect()
}

/// What these sets hold.
#[must_use]
pub fn elements(
    layer: Layer,
    families: &Families,
    endpoints: &BTreeMap<String, Endpoint>,
) -> Elements {
    let sets = dispatch_sets(layer, families);
    let mut held = Held { elements: BTreeMap::new(), sets };
    for (key, endpoint) in endpoints {
        match layer {
            Layer::Routed => held.routed(key, endpoint),
            Layer::Bridged => held.bridged(endpoint),
        }
    }
    if layer == Layer::Bridged {
        held.groups(endpoints);
    }
    held.elements
}

struct Held {
    elements: Elements,
    sets: Vec<Set>,
}

impl Held {
    /// Of a family that nobody has an address of there are no sets.
    fn add(&mut self, set: &str, element: &Element) {
        let Some(set) = self.sets.iter().find(|it| it.name == set) else { return };
        let held = self.elements.entry(set.name.clone()).or_default();
        held.extend(set.encode(element));
    }

    fn routed(&mut self, key: &str, endpoint: &Endpoint) {
        for address in &endpoint.addresses {
            let family = Family::of(address);
            // Whether it is isolated, the chain says: an element that is replaced may not be found for a moment. And a jump comes
            // back, to what the gate drops: who came to the base chain ahead of a commit finds its elements nevertheless, and the
            // new chains empty (`nft_do_chain` reads the generation once, and each look-up in a set reads it again).
            let [from, to] = [Direction::Egress, Direction::Ingress].map(|direction| {
                let verdict = Verdict::Jump(endpoint_chain_name(key, direction));
                Element::new([Value::Address(*address)]).leading_to(verdict)
            });
            self.add(&named(FROM, family), &from);
            self.add(&named(TO, family), &to);
            for (direction, set) in
                [(Direction::Ingress, IN_INGRESS), (Direction::Egress, IN_EGRESS)]
            {
                if endpoint.isolation(direction).is_some() {
                    self.add(&named(set, family), &Element::new([Value::Address(*address)]));
                }
            }
        }
        self.bound(endpoint);
        if let Some(interface) = &endpoint.interface {
            // A bridge hands frames to its own groups (01:80:c2:00:00:00 and those after it) on as the port's.
            self.add(LINKS, &Element::new([Value::Interface(interface.name.clone())]));
            self.sources(interface.routed_by(), endpoint);
        }
    }

    fn bridged(&mut self, endpoint: &Endpoint) {
        self.bound(endpoint);
        if let Some(port) = endpoint.port() {
            self.add(PORTS, &Element::new([Value::Interface(port.to_owned())]));
            self.sources(port, endpoint);
        }
    }

    fn bound(&mut self, endpoint: &Endpoint) {
        if endpoint.interface.is_some() {
            for address in &endpoint.addresses {
                let element = Element::new([Value::Address(*address)]);
                self.add(&named(BOUND, Family::of(address)), &element);
            }
        }
    }

    fn sources(&mut self, interface: &str, endpoint: &Endpoint) {
        for address in &endpoint.addresses {
            let key = [Value::Interface(interface.to_owned()), Value::Address(*address)];
            self.add(&named(SOURCES, Family::of(address)), &Element::new(key));
        }
    }

    /// What is for several is for each pod, and meets the policies of that.
    fn groups(&mut self, endpoints: &BTreeMap<String, Endpoint>) {
        let mut ports = BTreeMap::<_, Vec<_>>::new();
        for (key, endpoint) in endpoints {
            if let Some(port) = endpoint.port() {
                ports.entry(port).or_default().push((key, endpoint));
            }
        }
        for (port, behind) in ports {
            let verdict = match behind.as_slice() {
                [(key, _)] => Verdict::Jump(endpoint_chain_name(key, Direction::Ingress)),
                _ if behind.iter().all(|(_, it)| it.ingress.is_none()) => Verdict::Accept,
                // Of several at one port nobody knows whom it is for.
                _ => Verdict::Drop,
            };
            let element = Element::new([Value::Interface(port.to_owned())]).leading_to(verdict);
            self.add(GROUPS, &element);
        }
    }
}

/// The fields that an address of a packet, and what it is looked up with, are.
#[must_use]
pub(super) const fn peer(family: Family, direction: Direction) -> Field {
    let side = match direction {
        Direction::Ingress => Side::Source,
        Direction::Egress => Side::Destination,
    };
    Field::address(side, family.is_ipv4())
}
